// Convolution and dense layers on 8-bit pixels (the first layer), AVX2: many output channels.
//
// A tap counts u where its weight is +1 and 255 - u where it is -1 (simd_classes.h). Four taps (a quad) have
// 16 possible sums of at most 1020, computed once per pixel and kept as two rows of bytes, the low five bits
// and the high five. Lanes are 32 output channels: a nibble of weights per lane looks up both rows, and
// either adds up over 8 quads without leaving its byte. That is 4 instructions for 128 multiply-adds, where
// vpmaddubsw takes 2 for 32. Then low + 32 * high is added to 16-bit sums, which hold 64 quads (a block of
// K).
//
// Weights stay at one bit each, 8 taps of a channel per byte, and are unpacked to nibbles once per block and
// tile. The taps of a convolution's pixel are copied together, so that a quad may span rows of the window.
#include <immintrin.h>

#include <cstring>

#include "avx2.h"
#include "simd_classes.h"
#include "simd_output.h"
#include "simd_source.h"
#include "simd_tiles.h"

namespace binarynet::avx2 {
namespace {

constexpr int32_t kVectors = 2;  // of 32 channels: one word of output bits
constexpr int32_t kByteQuads = 8;
constexpr int32_t kBlockQuads = 64;
constexpr int32_t kNarrowQuads = 32;  // so many fit into a signed 16-bit sum
constexpr int32_t kQuadBytes = 32;    // of a table
constexpr int32_t kStrip = 2;         // pixels that share the loads of weights
constexpr int64_t kTableBytes = 24 * 1024;

inline __m256i load(const void* from) { return _mm256_loadu_si256(static_cast<const __m256i*>(from)); }
inline void store(void* to, __m256i value) { _mm256_storeu_si256(static_cast<__m256i*>(to), value); }

inline __m256i load_row(const uint8_t* row) {
  return _mm256_broadcastsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(row)));
}

// Adds in place; gcc otherwise copies the running sums of a loop in every turn.
inline __attribute__((always_inline)) void add_bytes(__m256i& sum, __m256i value) {
  asm("vpaddb %1, %0, %0" : "+x"(sum) : "x"(value));
}

struct Layout {
  bool flat;
  int64_t taps, quads, blocks, block_quads;
  int32_t words;
};

Layout make_layout(const Block& b) {
  Layout l = {};
  l.flat = is_flat(b);
  l.taps = static_cast<int64_t>(b.kernel_h) * b.kernel_w * b.in_c;
  l.quads = divide_up(l.taps, 4);
  l.blocks = divide_up(l.quads, kBlockQuads);
  l.block_quads = smaller(l.quads, round_up(divide_up(l.quads, l.blocks), kByteQuads));
  l.words = static_cast<int32_t>(divide_up(b.out_c, kWordChannels));
  return l;
}

// The 16-bit sums are the result.
bool is_narrow(const Block& b, const Layout& l) {
  return l.quads <= kNarrowQuads && b.output == BlockOutput::bits;
}

// Where the instructions that join low and high bytes leave a channel's 16-bit sum, and where those that
// widen it leave the 32-bit one.
int32_t narrow_place(int32_t channel) {
  return channel / 32 * 32 + channel / 8 % 2 * 16 + channel / 16 % 2 * 8 + channel % 8;
}
int32_t wide_place(int32_t channel) {
  return channel / 32 * 32 + channel / 8 % 2 * 16 + channel / 4 % 2 * 8 + channel / 16 % 2 * 4 + channel % 4;
}

struct Prepared {
  uint8_t* weights;  // [word][pair of quads][channel]: bit i is tap i; 1 behind the last tap
  Classes classes;   // bounds in the order of wide_place()
  int16_t* bounds;   // [class][word][narrow_place()] if narrow
  size_t bytes;
};

Prepared carve_prepared(const Block& b, const Layout& l, void* memory) {
  Carver carver = {static_cast<uint8_t*>(memory), 0};
  Prepared p = {};
  const int64_t width = l.words * int64_t{kWordChannels};
  p.weights = carver.take<uint8_t>(divide_up(l.quads, 2) * width);
  p.classes = carve_classes(b, l.flat, width, &carver);
  p.bounds = carver.take<int16_t>(is_narrow(b, l) ? p.classes.count() * width : 0);
  p.bytes = carver.used;
  return p;
}

void prepare_weights(const Block& b, const Layout& l, uint8_t* to) {
  const int64_t pixels = static_cast<int64_t>(b.kernel_h) * b.kernel_w;
  const int64_t pixel_words = divide_up(b.in_c, 64);
  const int64_t pairs = divide_up(l.quads, 2);
  const uint8_t behind = static_cast<uint8_t>(l.taps % 8 == 0 ? 0 : 0xff << (l.taps % 8));
  memset(to, 0, static_cast<size_t>(pairs * l.words * kWordChannels));
  for (int64_t channel = 0; channel < b.out_c; ++channel) {
    const uint64_t* from = b.weights + channel * pixels * pixel_words;
    uint8_t* bytes = to + channel / kWordChannels * pairs * kWordChannels + channel % kWordChannels;
    if (pixels == 1) {  // a dense layer; training prepares its weights in every step
      for (int64_t pair = 0; pair < pairs; ++pair) {
        bytes[pair * kWordChannels] = static_cast<uint8_t>(from[pair / 8] >> (pair % 8 * 8));
      }
    } else {
      for (int64_t tap = 0; tap < l.taps; ++tap) {
        const uint64_t bit = from[tap / b.in_c * pixel_words + tap % b.in_c / 64] >> (tap % b.in_c % 64) & 1;
        uint8_t* byte = bytes + tap / 8 * kWordChannels;
        *byte = static_cast<uint8_t>(*byte | bit << (tap % 8));
      }
    }
    uint8_t* last = bytes + (pairs - 1) * kWordChannels;
    *last = static_cast<uint8_t>(*last | behind);
  }
}

void arrange_bounds(const Block& b, const Layout& l, const Prepared& p) {
  for (int64_t word = 0; word < p.classes.count() * l.words; ++word) {
    int32_t* bounds = p.classes.bounds + word * kWordChannels;
    int32_t in_order[kWordChannels];
    memcpy(in_order, bounds, sizeof(in_order));
    for (int32_t channel = 0; channel < kWordChannels; ++channel) {
      const int64_t bound = in_order[channel];
      bounds[wide_place(channel)] = in_order[channel];
      if (!is_narrow(b, l)) continue;
      p.bounds[word * kWordChannels + narrow_place(channel)] =
          static_cast<int16_t>(smaller(larger(bound, INT16_MIN), INT16_MAX));
    }
  }
}

// ---- Tiles

Tiling make_byte_tiling(const Block& b, const Layout& l, int64_t batch) {
  const int64_t fitting = kTableBytes / (l.block_quads * kQuadBytes);
  return tiles_of(b, batch, smaller(256, fitting / kStrip * kStrip));
}

struct Workspace {
  uint8_t* source;
  uint8_t* taps;     // [pixel][quads]: copies with zeros behind them
  uint8_t* tables;   // [pixel][quad of the block][kQuadBytes]
  uint8_t* nibbles;  // of one word and block: [quad][kVectors][32]
  Pixel* pixels;     // of the tile
  int32_t* counts;   // [word][pixel][kWordChannels]: of all words if there are several blocks
  int32_t* final_sums;
  uint64_t* bits;  // [pixel] if pooled
  int64_t pixel_count;
  size_t bytes;
};

Workspace carve_workspace(const Block& b, const Layout& l, const Tiling& tiling, void* memory) {
  Carver carver = {static_cast<uint8_t*>(memory), 0};
  Workspace w = {};
  w.pixel_count = most_pixels(b, tiling);
  w.source = carver.take<uint8_t>(l.flat ? 0 : source_bytes(b, tiling, b.in_c, 1));
  w.taps = carver.take<uint8_t>(w.pixel_count * l.quads * 4);
  w.tables = carver.take<uint8_t>(w.pixel_count * l.block_quads * kQuadBytes);
  w.nibbles = carver.take<uint8_t>(kBlockQuads * kVectors * 32);
  w.pixels = carver.take<Pixel>(w.pixel_count);
  const int64_t words = l.blocks > 1 ? l.words : 1;
  w.counts = carver.take<int32_t>(is_narrow(b, l) ? 0 : words * w.pixel_count * kWordChannels);
  w.final_sums = carver.take<int32_t>(kWordChannels);
  w.bits = carver.take<uint64_t>(has_pool(b) ? w.pixel_count : 0);
  w.bytes = carver.used;
  return w;
}

// ---- Tables

class TableMaker {
 public:
  TableMaker() {
    alignas(32) int8_t first[32];
    alignas(32) int8_t second[32];
    alignas(32) int16_t minuses[16];
    for (int32_t entry = 0; entry < 16; ++entry) {
      minuses[entry] = static_cast<int16_t>(255 * (4 - __builtin_popcount(static_cast<unsigned>(entry))));
      for (int32_t tap = 0; tap < 2; ++tap) {
        first[2 * entry + tap] = static_cast<int8_t>((entry >> tap & 1) != 0 ? 1 : -1);
        second[2 * entry + tap] = static_cast<int8_t>((entry >> (tap + 2) & 1) != 0 ? 1 : -1);
      }
    }
    first_ = load(first);
    second_ = load(second);
    minuses_ = load(minuses);
  }

  void make(const uint8_t* quad, uint8_t* to) const {
    uint16_t pairs[2];
    memcpy(pairs, quad, sizeof(pairs));
    const __m256i low = _mm256_maddubs_epi16(_mm256_set1_epi16(static_cast<int16_t>(pairs[0])), first_);
    const __m256i high = _mm256_maddubs_epi16(_mm256_set1_epi16(static_cast<int16_t>(pairs[1])), second_);
    const __m256i sums = _mm256_add_epi16(_mm256_add_epi16(low, high), minuses_);
    const __m256i five_bits = _mm256_and_si256(sums, _mm256_set1_epi16(31));
    const __m256i rows = _mm256_packus_epi16(five_bits, _mm256_srli_epi16(sums, 5));
    store(to, _mm256_permute4x64_epi64(rows, 0xd8));
  }

 private:
  __m256i first_, second_;  // signs of taps 0 and 1, 2 and 3 in all entries
  __m256i minuses_;         // 255 for each -1
};

// ---- Sums

// Sums of up to kByteQuads quads: low and high rows, per pixel and vector.
template <int kPixels>
struct ByteSums {
  __m256i low[kPixels][kVectors], high[kPixels][kVectors];
};

template <int kPixels>
inline __attribute__((always_inline)) void add_quad(const uint8_t* tables, int64_t stride,
                                                    const uint8_t* nibbles, ByteSums<kPixels>& sums) {
  const __m256i first = load(nibbles);
  const __m256i second = load(nibbles + 32);
#pragma GCC unroll 2
  for (int i = 0; i < kPixels; ++i) {
    const __m256i low_row = load_row(tables + i * stride);
    const __m256i high_row = load_row(tables + i * stride + 16);
    add_bytes(sums.low[i][0], _mm256_shuffle_epi8(low_row, first));
    add_bytes(sums.high[i][0], _mm256_shuffle_epi8(high_row, first));
    add_bytes(sums.low[i][1], _mm256_shuffle_epi8(low_row, second));
    add_bytes(sums.high[i][1], _mm256_shuffle_epi8(high_row, second));
  }
}

// 16-bit sums of kPixels pixels, [pixel][narrow_place() in vectors of 16], over `quads` quads. Tables of
// pixels are `stride` bytes apart.
template <int kPixels>
inline __attribute__((always_inline)) void sum_strip(const uint8_t* tables, int64_t stride,
                                                     const uint8_t* nibbles, int64_t quads,
                                                     __m256i (*sums)[2 * kVectors]) {
  const __m256i weights = _mm256_set1_epi16(1 | 32 << 8);
#pragma GCC unroll 2
  for (int i = 0; i < kPixels; ++i) {
#pragma GCC unroll 4
    for (int k = 0; k < 2 * kVectors; ++k) sums[i][k] = _mm256_setzero_si256();
  }
  while (quads > 0) {
    asm volatile("" : : "r"(sums) : "memory");  // in memory: the registers are for the bytes
    ByteSums<kPixels> bytes;
#pragma GCC unroll 2
    for (int i = 0; i < kPixels; ++i) {
#pragma GCC unroll 2
      for (int v = 0; v < kVectors; ++v) bytes.low[i][v] = bytes.high[i][v] = _mm256_setzero_si256();
    }
    if (quads >= kByteQuads) {
#pragma GCC unroll 8
      for (int quad = 0; quad < kByteQuads; ++quad) {
        add_quad<kPixels>(tables + quad * kQuadBytes, stride, nibbles + quad * 32 * kVectors, bytes);
      }
    } else {
      for (int64_t quad = 0; quad < quads; ++quad) {
        add_quad<kPixels>(tables + quad * kQuadBytes, stride, nibbles + quad * 32 * kVectors, bytes);
      }
    }
    quads -= kByteQuads;
    tables += kByteQuads * kQuadBytes;
    nibbles += kByteQuads * 32 * kVectors;
#pragma GCC unroll 2
    for (int i = 0; i < kPixels; ++i) {
#pragma GCC unroll 2
      for (int v = 0; v < kVectors; ++v) {
        const __m256i even = _mm256_unpacklo_epi8(bytes.low[i][v], bytes.high[i][v]);
        const __m256i odd = _mm256_unpackhi_epi8(bytes.low[i][v], bytes.high[i][v]);
        __m256i* sum = sums[i] + 2 * v;
        sum[0] = _mm256_add_epi16(sum[0], _mm256_maddubs_epi16(even, weights));
        sum[1] = _mm256_add_epi16(sum[1], _mm256_maddubs_epi16(odd, weights));
      }
    }
  }
}

inline uint64_t narrow_bits(const __m256i* sums, const int16_t* bounds) {
  uint64_t bits = 0;
#pragma GCC unroll 2
  for (int v = 0; v < kVectors; ++v) {
    const __m256i even = _mm256_cmpgt_epi16(sums[2 * v], load(bounds + 32 * v));
    const __m256i odd = _mm256_cmpgt_epi16(sums[2 * v + 1], load(bounds + 32 * v + 16));
    const uint32_t mask = static_cast<uint32_t>(_mm256_movemask_epi8(_mm256_packs_epi16(even, odd)));
    bits |= uint64_t{mask} << (32 * v);
  }
  return bits;
}

inline void add_counts(const __m256i* sums, bool add, int32_t* counts) {
#pragma GCC unroll 4
  for (int k = 0; k < 2 * kVectors; ++k, counts += 16) {
    __m256i low = _mm256_unpacklo_epi16(sums[k], _mm256_setzero_si256());
    __m256i high = _mm256_unpackhi_epi16(sums[k], _mm256_setzero_si256());
    if (add) {
      low = _mm256_add_epi32(low, load(counts));
      high = _mm256_add_epi32(high, load(counts + 8));
    }
    store(counts, low);
    store(counts + 8, high);
  }
}

inline uint64_t wide_bits(const int32_t* counts, const int32_t* bounds) {
  uint64_t bits = 0;
#pragma GCC unroll 2
  for (int v = 0; v < kVectors; ++v, counts += 32, bounds += 32) {
    __m256i above[4];
#pragma GCC unroll 4
    for (int k = 0; k < 4; ++k) above[k] = _mm256_cmpgt_epi32(load(counts + 8 * k), load(bounds + 8 * k));
    const __m256i bytes =
        _mm256_packs_epi16(_mm256_packs_epi32(above[0], above[1]), _mm256_packs_epi32(above[2], above[3]));
    bits |= uint64_t{static_cast<uint32_t>(_mm256_movemask_epi8(bytes))} << (32 * v);
  }
  return bits;
}

// From the order of wide_place() to that of channels.
void order_counts(int32_t* counts, int64_t pixels) {
  for (const int32_t* end = counts + pixels * kWordChannels; counts < end; counts += 32) {
    const __m256i even_low = load(counts);
    const __m256i even_high = load(counts + 8);
    const __m256i odd_low = load(counts + 16);
    const __m256i odd_high = load(counts + 24);
    store(counts, _mm256_permute2x128_si256(even_low, even_high, 0x20));
    store(counts + 8, _mm256_permute2x128_si256(odd_low, odd_high, 0x20));
    store(counts + 16, _mm256_permute2x128_si256(even_low, even_high, 0x31));
    store(counts + 24, _mm256_permute2x128_si256(odd_low, odd_high, 0x31));
  }
}

// What the words of one tile share.
struct Job {
  const Block& b;
  const Layout& l;
  const Prepared& p;
  const Workspace& w;
  const Tile& tile;
  void* out;
};

OutputScratch scratch_of(const Job& job, int32_t word) {
  const int64_t at = job.l.blocks > 1 ? word : 0;
  return {job.w.counts + at * job.w.pixel_count * kWordChannels, job.w.final_sums, job.w.bits};
}

// One block of K for one word.
struct Call {
  const Pixel* pixels;
  const uint8_t* tables;
  const uint8_t* nibbles;
  int64_t quads;
  bool first, last, narrow;
  const int16_t* narrow_bounds;
  int32_t* counts;
  WordOutput output;
};

template <int kPixels>
void run_strip(const Call& call, int64_t first) {
  const int64_t stride = call.quads * kQuadBytes;
  __m256i sums[kPixels][2 * kVectors];
  sum_strip<kPixels>(call.tables + first * stride, stride, call.nibbles, call.quads, sums);
#pragma GCC unroll 2
  for (int i = 0; i < kPixels; ++i) {
    const int64_t bound = call.pixels[first + i].class_offset;
    if (call.narrow) {
      call.output.put(first + i, narrow_bits(sums[i], call.narrow_bounds + bound));
      continue;
    }
    int32_t* counts = call.counts + (first + i) * kWordChannels;
    add_counts(sums[i], !call.first, counts);
    if (call.last && call.output.bits != nullptr) {
      call.output.put(first + i, wide_bits(counts, call.output.bounds + bound));
    }
  }
}

void unpack_nibbles(const uint8_t* packed, int64_t quads, uint8_t* to) {
  const __m256i nibble = _mm256_set1_epi8(15);
  for (int64_t quad = 0; quad < quads; quad += 2, packed += kWordChannels, to += 128) {
#pragma GCC unroll 2
    for (int v = 0; v < kVectors; ++v) {
      const __m256i both = load(packed + 32 * v);
      store(to + 32 * v, _mm256_and_si256(both, nibble));
      store(to + 64 + 32 * v, _mm256_and_si256(_mm256_srli_epi16(both, 4), nibble));
    }
  }
}

void run_word(const Job& job, int32_t word, int64_t quad, int64_t quads) {
  const Layout& l = job.l;
  const OutputScratch scratch = scratch_of(job, word);
  Call call = {};
  call.pixels = job.w.pixels;
  call.tables = job.w.tables;
  call.nibbles = job.w.nibbles;
  call.quads = quads;
  call.first = quad == 0;
  call.last = quad + quads == l.quads;
  call.narrow = is_narrow(job.b, l);
  call.narrow_bounds = job.p.bounds + word * kWordChannels;
  call.counts = scratch.counts;
  call.output = aim_output(job.b, job.p.classes, job.tile, word, scratch, job.out);
  const int64_t pair = word * divide_up(l.quads, 2) + quad / 2;
  unpack_nibbles(job.p.weights + pair * kWordChannels, quads, job.w.nibbles);
  const int64_t pixels = tile_pixels(job.tile);
  int64_t pixel = 0;
  for (; pixel + kStrip <= pixels; pixel += kStrip) run_strip<kStrip>(call, pixel);
  if (pixel < pixels) run_strip<1>(call, pixel);
  if (!call.last) return;
  if (job.b.output != BlockOutput::bits) order_counts(scratch.counts, pixels);
  finish_output(job.b, l.flat, job.p.classes, job.tile, word, scratch, job.out);
}

// Each pixel's taps, one after the other.
void copy_taps(const Job& job, const Source& source) {
  const int64_t behind = job.l.quads * 4 - job.l.taps;
  uint8_t* to = job.w.taps;
  for (int64_t pixel = 0; pixel < tile_pixels(job.tile); ++pixel) {
    const uint8_t* run = job.w.pixels[pixel].taps;
    for (int32_t k = 0; k < source.runs; ++k, run += source.run_stride, to += source.run_bytes) {
      memcpy(to, run, static_cast<size_t>(source.run_bytes));
    }
    memset(to, 0, static_cast<size_t>(behind));
    to += behind;
  }
}

void make_tables(const Job& job, int64_t quad, int64_t quads) {
  const TableMaker maker;
  uint8_t* to = job.w.tables;
  for (int64_t pixel = 0; pixel < tile_pixels(job.tile); ++pixel) {
    const uint8_t* taps = job.w.taps + 4 * (pixel * job.l.quads + quad);
    for (const uint8_t* end = taps + 4 * quads; taps < end; taps += 4, to += kQuadBytes) maker.make(taps, to);
  }
}

// Words [begin, end) of one tile, block by block.
void run_tile(const Job& job, const void* in, int32_t begin, int32_t end) {
  const Source source = load_source(job.b, job.tile, job.l.flat, in, job.b.in_c, 1, job.w.source);
  list_pixels(source, job.p.classes, job.tile, job.w.pixels);
  copy_taps(job, source);
  for (int64_t quad = 0; quad < job.l.quads; quad += job.l.block_quads) {
    const int64_t quads = smaller(job.l.block_quads, job.l.quads - quad);
    make_tables(job, quad, quads);
    for (int32_t word = begin; word < end; ++word) run_word(job, word, quad, quads);
  }
}

size_t prepared_bytes(const Block& block) { return carve_prepared(block, make_layout(block), nullptr).bytes; }

void prepare(const Block& block, void* prepared) {
  const Layout layout = make_layout(block);
  const Prepared p = carve_prepared(block, layout, prepared);
  prepare_weights(block, layout, p.weights);
  prepare_classes(block, layout.flat, p.classes, PixelCount::positive);
  if (block.output == BlockOutput::bits) arrange_bounds(block, layout, p);
}

int64_t unit_count(const Block& block, int64_t batch) {
  const Layout layout = make_layout(block);
  return make_byte_tiling(block, layout, batch).tiles * layout.words;
}

size_t workspace_bytes(const Block& block, int64_t batch) {
  const Layout layout = make_layout(block);
  return carve_workspace(block, layout, make_byte_tiling(block, layout, batch), nullptr).bytes;
}

void run(const Block& block, const void* prepared, const void* in, void* out, int64_t batch,
         int64_t unit_begin, int64_t unit_end, void* workspace) {
  const Layout layout = make_layout(block);
  const Tiling tiling = make_byte_tiling(block, layout, batch);
  const Prepared p = carve_prepared(block, layout, const_cast<void*>(prepared));
  const Workspace w = carve_workspace(block, layout, tiling, workspace);
  const auto run_groups = [&](const Tile& tile, int32_t first, int32_t last) {
    const Job job = {block, layout, p, w, tile, out};
    run_tile(job, in, first, last);
  };
  for_each_tile(block, tiling, layout.words, unit_begin, unit_end, run_groups);
}

const Method kMethod = {"table look-ups of 4 pixels", unit_count, workspace_bytes, run};

const Method& method(const Block& /*block*/, int64_t /*batch*/) { return kMethod; }

}  // namespace

const Engine kByteLookups = {prepared_bytes, prepare, method};

}  // namespace binarynet::avx2
