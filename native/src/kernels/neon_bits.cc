// Convolution and dense layers on packed bits, NEON.
//
// Lanes are output channels: a vector holds one byte of K for 16 channels, so there is no horizontal sum and
// bits come out in order. Two engines read this layout:
//
//   pairs of pixels: a nibble of weights per lane picks, from a row of a constant table, its disagreements
//     with a nibble of two pixels at once (two counts of 4 bits, kPairCounts). Three look-ups are added
//     without carry, x; then T += x (modulo 256) and H += x >> 4 (exact: the second pixel's count), and in
//     the end T - 16 * H is the first pixel's. 7 operations for 384 bits; the table's row is a plain load.
//   few pixels: XOR with a byte of the pixel, count, add. 3 operations for 128 bits, straight from the packed
//     weights.
//
// Both count a block of three words of K in bytes (at most 192) and widen to 16 bits behind it. Counts become
// bits or sums as simd_classes.h derives.
#include <arm_neon.h>

#include <cstring>

#include "neon.h"
#include "simd_classes.h"
#include "simd_output.h"
#include "simd_source.h"
#include "simd_tiles.h"

namespace binarynet::neon {
namespace {

constexpr int32_t kBlockWords = 3;
constexpr int32_t kBlockNibbles = 48;
constexpr int64_t kSpanWords = 1023;  // words of K whose count fits into 16 bits; whole blocks
constexpr int32_t kStrip = 4;         // pixels that share the loads of weights
constexpr int64_t kFewPixels = 3;     // so few do not pay for unpacking the weights

// Row n1 | n2 << 4: for every nibble a, its number of disagreements with n1, and with n2 << 4.
struct PairCounts {
  alignas(64) uint8_t rows[256][16];
};

constexpr PairCounts make_pair_counts() {
  PairCounts counts{};
  for (int row = 0; row < 256; ++row) {
    for (int a = 0; a < 16; ++a) {
      const int first = __builtin_popcount(static_cast<unsigned>(a ^ (row & 15)));
      const int second = __builtin_popcount(static_cast<unsigned>(a ^ (row >> 4)));
      counts.rows[row][a] = static_cast<uint8_t>(first | second << 4);
    }
  }
  return counts;
}

constexpr PairCounts kPairCounts = make_pair_counts();

int32_t channel_groups(const Block& b) { return static_cast<int32_t>(divide_up(b.out_c, kWordChannels)); }

// Vectors of 16 channels that a channel group needs.
int32_t group_vectors(const Block& b, int32_t group) {
  return static_cast<int32_t>(smaller(4, divide_up(b.out_c - group * kWordChannels, 16)));
}

int64_t words_of_k(const Block& b) { return static_cast<int64_t>(b.kernel_h) * b.kernel_w * b.in_words; }

// Whether counts go straight to bits, as 16-bit numbers. (They do not exceed 64 * kSpanWords then, nor does a
// bound exceed one more.)
bool is_narrow(const Block& b) { return b.output == BlockOutput::bits && words_of_k(b) <= kSpanWords; }

struct Prepared {
  uint8_t* weights;  // [channel group][byte of K][vectors of the group][16]
  Classes classes;
  uint16_t* bounds;  // [class][channel], as in classes; empty unless narrow
  size_t bytes;
};

Prepared carve_prepared(const Block& b, void* memory) {
  const int32_t groups = channel_groups(b);
  const int64_t channels = (groups - 1) * int64_t{kWordChannels} + 16 * group_vectors(b, groups - 1);
  Carver carver = {static_cast<uint8_t*>(memory), 0};
  Prepared p = {};
  p.weights = carver.take<uint8_t>(words_of_k(b) * 8 * channels);
  p.classes = carve_classes(b, is_flat(b), groups * int64_t{kWordChannels}, &carver);
  p.bounds = carver.take<uint16_t>(is_narrow(b) ? p.classes.count() * p.classes.width : 0);
  p.bytes = carver.used;
  return p;
}

void prepare_weights(const Block& b, uint8_t* to) {
  const int64_t bytes = words_of_k(b) * 8;
  for (int32_t group = 0; group < channel_groups(b); ++group) {
    const int32_t lanes = 16 * group_vectors(b, group);
    memset(to, 0, static_cast<size_t>(bytes * lanes));
    for (int32_t lane = 0; lane < lanes && group * kWordChannels + lane < b.out_c; ++lane) {
      const uint8_t* from =
          reinterpret_cast<const uint8_t*>(b.weights) + (group * kWordChannels + lane) * bytes;
      for (int64_t byte = 0; byte < bytes; ++byte) to[byte * lanes + lane] = from[byte];
    }
    to += bytes * lanes;
  }
}

struct Workspace {
  uint8_t* source;
  Pixel* pixels;     // of the tile
  uint8_t* weights;  // one block of K, unpacked: [nibble][vector][16]
  uint16_t* sums;    // [pixel of the tile, up to a whole strip][kWordChannels]
  int32_t* counts;   // [pixel of the tile][kWordChannels] unless narrow
  int32_t* final_sums;
  uint64_t* bits;  // [pixel of the tile] if pooled
  size_t bytes;
};

Workspace carve_workspace(const Block& b, const Tiling& tiling, void* memory) {
  const int64_t pixels = most_pixels(b, tiling);
  Carver carver = {static_cast<uint8_t*>(memory), 0};
  Workspace w = {};
  w.source = carver.take<uint8_t>(source_bytes(b, tiling, 8 * int64_t{b.in_words}, 1));
  w.pixels = carver.take<Pixel>(pixels);
  w.weights = carver.take<uint8_t>(kBlockNibbles * kWordChannels);
  w.sums = carver.take<uint16_t>(round_up(pixels, kStrip) * kWordChannels);
  w.counts = carver.take<int32_t>(is_narrow(b) ? 0 : pixels * kWordChannels);
  w.final_sums = carver.take<int32_t>(kWordChannels);
  w.bits = carver.take<uint64_t>(has_pool(b) ? pixels : 0);
  w.bytes = carver.used;
  return w;
}

// Up to three words of K.
struct Words {
  int64_t at[kBlockWords];  // bytes from the pixel
  int32_t count;

  int32_t triples() const { return (16 * count + 2) / 3; }
};

Words find_words(const Source& source, int64_t begin, int64_t end) {
  const int64_t run_words = source.run_bytes / 8;
  Words words = {};
  words.count = static_cast<int32_t>(smaller(kBlockWords, end - begin));
  for (int32_t i = 0; i < words.count; ++i) {
    const int64_t word = begin + i;
    words.at[i] = word / run_words * source.run_stride + word % run_words * 8;
  }
  return words;
}

// ---- Pairs of pixels

// From bytes to nibbles; nibbles beyond the last word, to whole triples, are 0.
template <int kVectors>
void unpack_weights(const Words& words, const uint8_t* packed, uint8_t* to) {
  const uint8x16_t low = vdupq_n_u8(15);
  for (int32_t byte = 0; byte < 8 * words.count; ++byte, to += 32 * kVectors) {
    for (int v = 0; v < kVectors; ++v, packed += 16) {
      const uint8x16_t both = vld1q_u8(packed);
      vst1q_u8(to + 16 * v, vandq_u8(both, low));
      vst1q_u8(to + 16 * (kVectors + v), vshrq_n_u8(both, 4));
    }
  }
  memset(to, 0, static_cast<size_t>(3 * words.triples() - 16 * words.count) * 16 * kVectors);
}

// The table's rows for two pixels, [nibble]; rows of words that are not there are the first.
inline __attribute__((always_inline)) void pair_rows(const Words& words, const uint8_t* first,
                                                     const uint8_t* second, uint8_t* rows) {
  uint64_t a[kBlockWords + 1] = {};
  uint64_t b[kBlockWords + 1] = {};
#pragma GCC unroll 3
  for (int i = 0; i < kBlockWords; ++i) {
    if (i >= words.count) break;
    memcpy(&a[i], first + words.at[i], 8);
    memcpy(&b[i], second + words.at[i], 8);
  }
#pragma GCC unroll 2
  for (int i = 0; i < kBlockWords; i += 2) {
    const uint8x16_t x = vreinterpretq_u8_u64(vld1q_u64(a + i));
    const uint8x16_t y = vreinterpretq_u8_u64(vld1q_u64(b + i));
    const uint8x16_t low = vsliq_n_u8(x, y, 4);   // low nibble of x, of y above it
    const uint8x16_t high = vsriq_n_u8(y, x, 4);  // high nibble of y, of x below it
    vst1q_u8(rows + 16 * i, vzip1q_u8(low, high));
    if (i + 1 < kBlockWords) vst1q_u8(rows + 16 * i + 16, vzip2q_u8(low, high));
  }
}

inline void add_bytes(uint8x16_t bytes, uint16_t* sums) {
  vst1q_u16(sums, vaddw_u8(vld1q_u16(sums), vget_low_u8(bytes)));
  vst1q_u16(sums + 8, vaddw_high_u8(vld1q_u16(sums + 8), bytes));
}

// Four pixels, one block of K, added to sums ([pixel][kWordChannels]).
template <int kVectors>
inline __attribute__((always_inline)) void count_strip(const uint8_t* weights, const uint8_t* rows,
                                                       int32_t triples, uint16_t* sums) {
  constexpr int kPairs = kStrip / 2;
  uint8x16_t total[kPairs][kVectors];  // T
  uint8x16_t upper[kPairs][kVectors];  // H
#pragma GCC unroll 2
  for (int p = 0; p < kPairs; ++p) {
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) total[p][v] = upper[p][v] = vdupq_n_u8(0);
  }
  for (int32_t triple = 0; triple < triples; ++triple, rows += 3, weights += 48 * kVectors) {
    uint8x16_t tables[kPairs][3];
#pragma GCC unroll 2
    for (int p = 0; p < kPairs; ++p) {
#pragma GCC unroll 3
      for (int i = 0; i < 3; ++i) tables[p][i] = vld1q_u8(kPairCounts.rows[rows[kBlockNibbles * p + i]]);
    }
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) {
      const uint8x16_t w0 = vld1q_u8(weights + 16 * v);
      const uint8x16_t w1 = vld1q_u8(weights + 16 * (kVectors + v));
      const uint8x16_t w2 = vld1q_u8(weights + 16 * (2 * kVectors + v));
#pragma GCC unroll 2
      for (int p = 0; p < kPairs; ++p) {
        const uint8x16_t both = vaddq_u8(vaddq_u8(vqtbl1q_u8(tables[p][0], w0), vqtbl1q_u8(tables[p][1], w1)),
                                         vqtbl1q_u8(tables[p][2], w2));
        total[p][v] = vaddq_u8(total[p][v], both);
        upper[p][v] = vsraq_n_u8(upper[p][v], both, 4);
      }
      // 28 of the 32 registers are in use: the weights of the next vector must not be loaded any earlier.
      if (kVectors == 4) {
        asm volatile(""
                     : "+w"(total[0][v]), "+w"(upper[0][v]), "+w"(total[1][v]), "+w"(upper[1][v]),
                       "+r"(weights));
      }
    }
  }
#pragma GCC unroll 2
  for (int p = 0; p < kPairs; ++p) {
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) {
      uint16_t* to = sums + 2 * p * kWordChannels + 16 * v;
      add_bytes(vsubq_u8(total[p][v], vshlq_n_u8(upper[p][v], 4)), to);
      add_bytes(upper[p][v], to + kWordChannels);
    }
  }
}

// What one channel group of one tile needs.
struct Call {
  Source source;
  const Pixel* pixels;
  int64_t num_pixels;
  const uint8_t* packed;
  uint8_t* weights;
  uint16_t* sums;
};

// Pixels beyond the last, to a whole strip, are the last one again.
template <int kVectors>
void count_pairs(const Call& call, int64_t begin, int64_t end) {
  for (int64_t word = begin; word < end; word += kBlockWords) {
    const Words words = find_words(call.source, word, end);
    unpack_weights<kVectors>(words, call.packed + word * 8 * 16 * kVectors, call.weights);
    for (int64_t pixel = 0; pixel < call.num_pixels; pixel += kStrip) {
      const uint8_t* taps[kStrip];
      for (int i = 0; i < kStrip; ++i) taps[i] = call.pixels[smaller(pixel + i, call.num_pixels - 1)].taps;
      uint8_t rows[kStrip / 2 * kBlockNibbles];
      pair_rows(words, taps[0], taps[1], rows);
      pair_rows(words, taps[2], taps[3], rows + kBlockNibbles);
      count_strip<kVectors>(call.weights, rows, words.triples(), call.sums + pixel * kWordChannels);
    }
  }
}

// ---- Few pixels

template <int kVectors>
void count_pixels(const Call& call, int64_t begin, int64_t end) {
  for (int64_t pixel = 0; pixel < call.num_pixels; ++pixel) {
    const uint8_t* weights = call.packed + begin * 8 * 16 * kVectors;
    uint16_t* sums = call.sums + pixel * kWordChannels;
    for (int64_t word = begin; word < end; word += kBlockWords) {
      const Words words = find_words(call.source, word, end);
      uint8x16_t ones[kVectors];
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; ++v) ones[v] = vdupq_n_u8(0);
      for (int32_t i = 0; i < words.count; ++i) {
        const uint8_t* taps = call.pixels[pixel].taps + words.at[i];
#pragma GCC unroll 8
        for (int byte = 0; byte < 8; ++byte, weights += 16 * kVectors) {
          const uint8x16_t activation = vld1q_dup_u8(taps + byte);
#pragma GCC unroll 4
          for (int v = 0; v < kVectors; ++v) {
            const uint8x16_t differing = veorq_u8(vld1q_u8(weights + 16 * v), activation);
            ones[v] = vaddq_u8(ones[v], vcntq_u8(differing));
          }
        }
      }
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; ++v) add_bytes(ones[v], sums + 16 * v);
    }
  }
}

template <int kVectors>
void count_span(const Call& call, int64_t begin, int64_t end) {
  memset(call.sums, 0,
         static_cast<size_t>(round_up(call.num_pixels, kStrip)) * kWordChannels * sizeof(uint16_t));
  call.num_pixels <= kFewPixels ? count_pixels<kVectors>(call, begin, end)
                                : count_pairs<kVectors>(call, begin, end);
}

// ---- Output

// 64 comparisons, one bit each.
inline uint64_t bits_below(const uint16_t* sums, const uint16_t* bounds) {
  const uint8x16_t place = vreinterpretq_u8_u64(vdupq_n_u64(0x8040201008040201));
  uint8x16_t bits[4];
#pragma GCC unroll 4
  for (int v = 0; v < 4; ++v, sums += 16, bounds += 16) {
    const uint16x8_t low = vcltq_u16(vld1q_u16(sums), vld1q_u16(bounds));
    const uint16x8_t high = vcltq_u16(vld1q_u16(sums + 8), vld1q_u16(bounds + 8));
    bits[v] = vandq_u8(vuzp1q_u8(vreinterpretq_u8_u16(low), vreinterpretq_u8_u16(high)), place);
  }
  const uint8x16_t quarters = vpaddq_u8(vpaddq_u8(bits[0], bits[1]), vpaddq_u8(bits[2], bits[3]));
  return vgetq_lane_u64(vreinterpretq_u64_u8(vpaddq_u8(quarters, quarters)), 0);
}

void add_counts(const uint16_t* sums, int64_t length, bool first, int32_t* counts) {
  for (int64_t i = 0; i < length; ++i) counts[i] = (first ? 0 : counts[i]) + sums[i];
}

// What the channel groups of one tile share.
struct Job {
  const Block& b;
  const Prepared& p;
  const Workspace& w;
  const Tile& tile;
  bool flat;
  Source source;
  void* out;
};

void run_channel_group(const Job& job, int32_t group) {
  const Block& b = job.b;
  const Workspace& w = job.w;
  const int64_t words = words_of_k(b);
  const int64_t pixels = tile_pixels(job.tile);
  const uint8_t* packed = job.p.weights + group * words * 8 * kWordChannels;  // all groups before are full
  const Call call = {job.source, w.pixels, pixels, packed, w.weights, w.sums};
  for (int64_t begin = 0; begin < words; begin += kSpanWords) {
    const int64_t end = smaller(words, begin + kSpanWords);
    switch (group_vectors(b, group)) {
      case 1:
        count_span<1>(call, begin, end);
        break;
      case 2:
        count_span<2>(call, begin, end);
        break;
      case 3:
        count_span<3>(call, begin, end);
        break;
      default:
        count_span<4>(call, begin, end);
        break;
    }
    if (!is_narrow(b)) add_counts(w.sums, pixels * kWordChannels, begin == 0, w.counts);
  }
  if (!is_narrow(b)) {
    const int32_t channel = group * kWordChannels;
    const int32_t channels = static_cast<int32_t>(smaller(kWordChannels, b.out_c - channel));
    finish_counts(b, job.flat, job.p.classes, {w.counts, kWordChannels, channel, channels}, job.tile,
                  w.final_sums, job.out);
    return;
  }
  const OutputScratch scratch = {nullptr, w.final_sums, w.bits};
  const WordOutput output = aim_output(b, job.p.classes, job.tile, group, scratch, job.out);
  const uint16_t* bounds = job.p.bounds + group * kWordChannels;
  for (int64_t pixel = 0; pixel < pixels; ++pixel) {
    output.put(pixel, bits_below(w.sums + pixel * kWordChannels, bounds + w.pixels[pixel].class_offset));
  }
  finish_output(b, job.flat, job.p.classes, job.tile, group, scratch, job.out);
}

size_t prepared_bytes(const Block& block) { return carve_prepared(block, nullptr).bytes; }

void prepare(const Block& block, void* prepared) {
  const Prepared p = carve_prepared(block, prepared);
  prepare_weights(block, p.weights);
  prepare_classes(block, is_flat(block), p.classes);
  if (!is_narrow(block)) return;
  for (int64_t i = 0; i < p.classes.count() * p.classes.width; ++i) {
    p.bounds[i] = static_cast<uint16_t>(smaller(larger(p.classes.bounds[i], 0), 65535));
  }
}

int64_t unit_count(const Block& block, int64_t batch) {
  const int32_t groups = channel_groups(block);
  return make_tiling(block, batch, groups).tiles * groups;
}

size_t workspace_bytes(const Block& block, int64_t batch) {
  return carve_workspace(block, make_tiling(block, batch, channel_groups(block)), nullptr).bytes;
}

void run(const Block& block, const void* prepared, const void* in, void* out, int64_t batch,
         int64_t unit_begin, int64_t unit_end, void* workspace) {
  const int32_t groups = channel_groups(block);
  const Tiling tiling = make_tiling(block, batch, groups);
  const Prepared p = carve_prepared(block, const_cast<void*>(prepared));
  const Workspace w = carve_workspace(block, tiling, workspace);
  const auto run_groups = [&](const Tile& tile, int32_t first, int32_t last) {
    Job job = {block, p, w, tile, tiling.flat, {}, out};
    job.source = load_source(block, tile, tiling.flat, in, 8 * int64_t{block.in_words}, 1, w.source);
    list_pixels(job.source, p.classes, tile, w.pixels);
    for (int32_t group = first; group < last; ++group) run_channel_group(job, group);
  };
  for_each_tile(block, tiling, groups, unit_begin, unit_end, run_groups);
}

const Method kCounting = {"popcount of bytes", unit_count, workspace_bytes, run};
const Method kLookups = {"table look-ups, pairs of pixels", unit_count, workspace_bytes, run};

const Method& method(const Block& block, int64_t batch) {
  const Tiling tiling = make_tiling(block, batch, channel_groups(block));
  return most_pixels(block, tiling) <= kFewPixels ? kCounting : kLookups;
}

}  // namespace

const Engine kBits = {prepared_bytes, prepare, method};

}  // namespace binarynet::neon
