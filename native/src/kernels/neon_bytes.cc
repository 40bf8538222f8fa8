// Convolution and dense layers on 8-bit pixels (the first layer), NEON.
//
// With P the sum of u over the taps whose weight is +1 and U the sum of all u, D = 2P - U is the sum of u * w
// (simd_classes.h). Four taps (a quad) have 16 possible sums of at most 1020, computed once per pixel as two
// rows of a table, low and high bytes. Lanes are output channels: a nibble of weights per lane looks up both
// bytes; low bytes add up in 16 bits, high bytes in 8. That is 5 operations for 64 taps, where a widening
// multiply-add does 8 taps, and weights stay packed: two quads per byte.
#include <arm_neon.h>

#include <cstring>

#include "neon.h"
#include "simd_classes.h"
#include "simd_output.h"
#include "simd_source.h"
#include "simd_tiles.h"

namespace binarynet::neon {
namespace {

constexpr int64_t kTableBytes = 64;       // of 8 taps: low and high bytes of one quad, then of the next
constexpr int64_t kBlockBytes = 32;       // of weights, 64 quads: 64 * 1020 fits into 16 bits
constexpr int32_t kStrip = 4;             // pixels that share the loads of weights
constexpr int64_t kTileTables = 1 << 17;  // bytes of tables that a tile should have at most

struct Layout {
  int64_t taps;
  int64_t bytes;  // of weights, per channel
  int32_t channel_groups;
};

Layout make_layout(const Block& b) {
  Layout l = {};
  l.taps = static_cast<int64_t>(b.kernel_h) * b.kernel_w * b.in_c;
  l.bytes = divide_up(l.taps, 8);
  l.channel_groups = static_cast<int32_t>(divide_up(b.out_c, kWordChannels));
  return l;
}

// Tiles as others have them, but no larger than their tables permit.
Tiling make_table_tiling(const Block& b, const Layout& l, int64_t batch) {
  const Tiling tiling = make_tiling(b, batch, l.channel_groups);
  const int64_t most = larger(kStrip, kTileTables / (l.bytes * kTableBytes));
  return most_pixels(b, tiling) <= most ? tiling : tiles_of(b, batch, most);
}

int32_t group_vectors(const Block& b, int32_t group) {
  return static_cast<int32_t>(smaller(4, divide_up(b.out_c - group * kWordChannels, 16)));
}

struct Prepared {
  uint8_t* weights;  // [channel group][8 taps][vectors of the group][16]: bit i is tap i
  Classes classes;
  size_t bytes;
};

Prepared carve_prepared(const Block& b, const Layout& l, void* memory) {
  const int32_t last = l.channel_groups - 1;
  Carver carver = {static_cast<uint8_t*>(memory), 0};
  Prepared p = {};
  p.weights = carver.take<uint8_t>(l.bytes * (last * int64_t{kWordChannels} + 16 * group_vectors(b, last)));
  p.classes = carve_classes(b, is_flat(b), l.channel_groups * int64_t{kWordChannels}, &carver);
  p.bytes = carver.used;
  return p;
}

void prepare_weights(const Block& b, const Layout& l, uint8_t* to) {
  const int64_t pixel_words = divide_up(b.in_c, 64);
  const int64_t channel_words = static_cast<int64_t>(b.kernel_h) * b.kernel_w * pixel_words;
  for (int32_t group = 0; group < l.channel_groups; ++group) {
    const int32_t lanes = 16 * group_vectors(b, group);
    memset(to, 0, static_cast<size_t>(l.bytes * lanes));
    for (int32_t lane = 0; lane < lanes && group * kWordChannels + lane < b.out_c; ++lane) {
      const uint64_t* from = b.weights + (group * kWordChannels + lane) * channel_words;
      if (channel_words == pixel_words) {  // a dense layer; training prepares its weights in every step
        const uint8_t* bytes = reinterpret_cast<const uint8_t*>(from);
        for (int64_t i = 0; i < l.bytes; ++i) to[i * lanes + lane] = bytes[i];
        continue;
      }
      for (int64_t tap = 0; tap < l.taps; ++tap) {
        const uint64_t bit = from[tap / b.in_c * pixel_words + tap % b.in_c / 64] >> (tap % b.in_c % 64) & 1;
        uint8_t* byte = to + tap / 8 * lanes + lane;
        *byte = static_cast<uint8_t>(*byte | bit << (tap % 8));
      }
    }
    to += l.bytes * lanes;
  }
}

struct Workspace {
  uint8_t* source;
  Pixel* pixels;    // of the tile
  uint8_t* taps;    // of one pixel, filled up with 0 to whole bytes of weights
  uint8_t* tables;  // [pixel of the tile][byte of weights][kTableBytes]
  int32_t* totals;  // [pixel of the tile]: U
  OutputScratch output;
  size_t bytes;
};

Workspace carve_workspace(const Block& b, const Layout& l, const Tiling& tiling, void* memory) {
  const int64_t pixels = most_pixels(b, tiling);
  Carver carver = {static_cast<uint8_t*>(memory), 0};
  Workspace w = {};
  w.source = carver.take<uint8_t>(source_bytes(b, tiling, b.in_c, 1));
  w.pixels = carver.take<Pixel>(pixels);
  w.taps = carver.take<uint8_t>(8 * l.bytes);
  w.tables = carver.take<uint8_t>(pixels * l.bytes * kTableBytes);
  w.totals = carver.take<int32_t>(pixels);
  w.output = carve_output(b, pixels, true, &carver);
  w.bytes = carver.used;
  return w;
}

// ---- Tables

// For both quads of 8 taps: which tap each entry of a table looks up; 255 looks up 0.
struct Patterns {
  alignas(16) uint8_t first_and_third[2][16];  // the first tap of entries 0-7, the third of the same entries
  alignas(16) uint8_t second[2][8];            // of entries 0-7
};

constexpr Patterns make_patterns() {
  Patterns patterns{};
  for (int quad = 0; quad < 2; ++quad) {
    for (int entry = 0; entry < 8; ++entry) {
      const auto tap = [quad, entry](int bit) {
        return static_cast<uint8_t>(entry >> bit & 1 ? 4 * quad + bit : 255);
      };
      patterns.first_and_third[quad][entry] = tap(0);
      patterns.first_and_third[quad][8 + entry] = tap(2);
      patterns.second[quad][entry] = tap(1);
    }
  }
  return patterns;
}

constexpr Patterns kPatterns = make_patterns();

// Entry n of the table of a quad is the sum of the taps that are bits of n.
template <int kQuad>
inline __attribute__((always_inline)) void make_table(uint8x8_t taps, uint8_t* table) {
  const uint8x16_t source = vcombine_u8(taps, vdup_n_u8(0));
  const uint8x16_t first_and_third = vqtbl1q_u8(source, vld1q_u8(kPatterns.first_and_third[kQuad]));
  const uint8x8_t second = vqtbl1_u8(source, vld1_u8(kPatterns.second[kQuad]));
  const uint16x8_t two = vaddl_u8(vget_low_u8(first_and_third), second);
  const uint16x8_t three = vaddw_high_u8(two, first_and_third);                // entries 0-7
  const uint16x8_t four = vaddw_u8(three, vdup_lane_u8(taps, 4 * kQuad + 3));  // entries 8-15
  vst1q_u8(table, vuzp1q_u8(vreinterpretq_u8_u16(three), vreinterpretq_u8_u16(four)));
  vst1q_u8(table + 16, vuzp2q_u8(vreinterpretq_u8_u16(three), vreinterpretq_u8_u16(four)));
}

// Tables and sum of all taps of every pixel. Behind the last tap of w.taps stand zeros.
void make_tables(const Layout& l, const Source& source, int64_t pixels, const Workspace& w) {
  uint8_t* table = w.tables;
  for (int64_t pixel = 0; pixel < pixels; ++pixel) {
    uint8_t* to = w.taps;
    for (int32_t run = 0; run < source.runs; ++run, to += source.run_bytes) {
      memcpy(to, w.pixels[pixel].taps + run * source.run_stride, static_cast<size_t>(source.run_bytes));
    }
    int32_t total = 0;
    for (int64_t byte = 0; byte < l.bytes; ++byte, table += kTableBytes) {
      const uint8x8_t taps = vld1_u8(w.taps + 8 * byte);
      make_table<0>(taps, table);
      make_table<1>(taps, table + kTableBytes / 2);
      total += vaddlv_u8(taps);
    }
    w.totals[pixel] = total;
  }
}

// ---- Sums

// What one channel group of one tile needs.
struct Call {
  int64_t bytes;  // of weights, per channel
  int64_t lanes;  // of the group
  const uint8_t* weights;
  const uint8_t* tables;
  const int32_t* totals;
  int32_t* counts;
};

inline __attribute__((always_inline)) void look_up(const uint8_t* table, uint8x16_t quad, uint16x8_t* low,
                                                   uint8x16_t* high) {
  const uint8x16_t bytes = vqtbl1q_u8(vld1q_u8(table), quad);
  low[0] = vaddw_u8(low[0], vget_low_u8(bytes));
  low[1] = vaddw_high_u8(low[1], bytes);
  *high = vaddq_u8(*high, vqtbl1q_u8(vld1q_u8(table + 16), quad));
}

// counts (of 8 channels) become 2P - U, or grow by 2P.
inline void add_twice(uint16x8_t sums, bool first, int32_t total, int32_t* counts) {
  const int32x4_t start = vdupq_n_s32(-total);
  const int32x4_t low = vreinterpretq_s32_u32(vshll_n_u16(vget_low_u16(sums), 1));
  const int32x4_t high = vreinterpretq_s32_u32(vshll_high_n_u16(sums, 1));
  vst1q_s32(counts, vaddq_s32(low, first ? start : vld1q_s32(counts)));
  vst1q_s32(counts + 4, vaddq_s32(high, first ? start : vld1q_s32(counts + 4)));
}

// D of some pixels, from `pixel`, and vectors, from `vector`.
template <int kPixels, int kVectors>
void sum_strip(const Call& call, int64_t pixel, int64_t vector) {
  const int64_t pixel_bytes = call.bytes * kTableBytes;
  for (int64_t begin = 0; begin < call.bytes; begin += kBlockBytes) {
    const int64_t end = smaller(call.bytes, begin + kBlockBytes);
    uint16x8_t low[kPixels][kVectors][2];
    uint8x16_t high[kPixels][kVectors];
#pragma GCC unroll 4
    for (int i = 0; i < kPixels; ++i) {
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; ++v) {
        low[i][v][0] = low[i][v][1] = vdupq_n_u16(0);
        high[i][v] = vdupq_n_u8(0);
      }
    }
    const uint8_t* weights = call.weights + begin * call.lanes + 16 * vector;
    const uint8_t* tables = call.tables + pixel * pixel_bytes + begin * kTableBytes;
    for (int64_t byte = begin; byte < end; ++byte, weights += call.lanes, tables += kTableBytes) {
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; ++v) {
        const uint8x16_t both = vld1q_u8(weights + 16 * v);
        const uint8x16_t first = vandq_u8(both, vdupq_n_u8(15));
        const uint8x16_t second = vshrq_n_u8(both, 4);
#pragma GCC unroll 4
        for (int i = 0; i < kPixels; ++i) {
          const uint8_t* table = tables + i * pixel_bytes;
          look_up(table, first, low[i][v], &high[i][v]);
          look_up(table + kTableBytes / 2, second, low[i][v], &high[i][v]);
        }
      }
    }
#pragma GCC unroll 4
    for (int i = 0; i < kPixels; ++i) {
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; ++v) {
        int32_t* to = call.counts + (pixel + i) * kWordChannels + 16 * (vector + v);
        const int32_t total = call.totals[pixel + i];
        const uint16x8_t upper[2] = {vshll_n_u8(vget_low_u8(high[i][v]), 8), vshll_high_n_u8(high[i][v], 8)};
        add_twice(vaddq_u16(low[i][v][0], upper[0]), begin == 0, total, to);
        add_twice(vaddq_u16(low[i][v][1], upper[1]), begin == 0, total, to + 8);
      }
    }
  }
}

void sum_pixel(const Call& call, int64_t pixel) {
  switch (call.lanes / 16) {
    case 1:
      sum_strip<1, 1>(call, pixel, 0);
      break;
    case 2:
      sum_strip<1, 2>(call, pixel, 0);
      break;
    case 3:
      sum_strip<1, 3>(call, pixel, 0);
      break;
    default:
      sum_strip<1, 4>(call, pixel, 0);
      break;
  }
}

// 64 comparisons, one bit each.
uint64_t bits_above(const int32_t* counts, const int32_t* bounds) {
  const uint8x16_t place = vreinterpretq_u8_u64(vdupq_n_u64(0x8040201008040201));
  uint8x16_t bits[4];
#pragma GCC unroll 4
  for (int v = 0; v < 4; ++v) {
    uint16x8_t above[2];
#pragma GCC unroll 2
    for (int half = 0; half < 2; ++half, counts += 8, bounds += 8) {
      const uint32x4_t low = vcgtq_s32(vld1q_s32(counts), vld1q_s32(bounds));
      const uint32x4_t high = vcgtq_s32(vld1q_s32(counts + 4), vld1q_s32(bounds + 4));
      above[half] = vuzp1q_u16(vreinterpretq_u16_u32(low), vreinterpretq_u16_u32(high));
    }
    bits[v] = vandq_u8(vuzp1q_u8(vreinterpretq_u8_u16(above[0]), vreinterpretq_u8_u16(above[1])), place);
  }
  const uint8x16_t quarters = vpaddq_u8(vpaddq_u8(bits[0], bits[1]), vpaddq_u8(bits[2], bits[3]));
  return vgetq_lane_u64(vreinterpretq_u64_u8(vpaddq_u8(quarters, quarters)), 0);
}

// What the channel groups of one tile share.
struct Job {
  const Block& b;
  const Layout& l;
  const Prepared& p;
  const Workspace& w;
  const Tile& tile;
  bool flat;
  void* out;
};

void run_channel_group(const Job& job, int32_t group) {
  const Block& b = job.b;
  const Workspace& w = job.w;
  const OutputScratch& scratch = w.output;
  const int64_t lanes = 16 * int64_t{group_vectors(b, group)};
  const uint8_t* weights = job.p.weights + group * job.l.bytes * kWordChannels;  // all groups before are full
  const Call call = {job.l.bytes, lanes, weights, w.tables, w.totals, scratch.counts};
  const WordOutput output = aim_output(b, job.p.classes, job.tile, group, scratch, job.out);
  const int64_t pixels = tile_pixels(job.tile);
  for (int64_t pixel = 0; pixel < pixels;) {
    const int64_t first = pixel;
    if (pixel + kStrip <= pixels) {
      for (int64_t vector = 0; vector < lanes / 16; ++vector) sum_strip<kStrip, 1>(call, pixel, vector);
      pixel += kStrip;
    } else {
      sum_pixel(call, pixel++);
    }
    if (output.bits == nullptr) continue;
    for (int64_t i = first; i < pixel; ++i) {
      const int32_t* bounds = output.bounds + w.pixels[i].class_offset;
      output.put(i, bits_above(scratch.counts + i * kWordChannels, bounds));
    }
  }
  finish_output(b, job.flat, job.p.classes, job.tile, group, scratch, job.out);
}

size_t prepared_bytes(const Block& block) { return carve_prepared(block, make_layout(block), nullptr).bytes; }

void prepare(const Block& block, void* prepared) {
  const Layout layout = make_layout(block);
  const Prepared p = carve_prepared(block, layout, prepared);
  prepare_weights(block, layout, p.weights);
  prepare_classes(block, is_flat(block), p.classes);
}

int64_t unit_count(const Block& block, int64_t batch) {
  const Layout layout = make_layout(block);
  return make_table_tiling(block, layout, batch).tiles * layout.channel_groups;
}

size_t workspace_bytes(const Block& block, int64_t batch) {
  const Layout layout = make_layout(block);
  return carve_workspace(block, layout, make_table_tiling(block, layout, batch), nullptr).bytes;
}

void run(const Block& block, const void* prepared, const void* in, void* out, int64_t batch,
         int64_t unit_begin, int64_t unit_end, void* workspace) {
  const Layout layout = make_layout(block);
  const Tiling tiling = make_table_tiling(block, layout, batch);
  const Prepared p = carve_prepared(block, layout, const_cast<void*>(prepared));
  const Workspace w = carve_workspace(block, layout, tiling, workspace);
  memset(w.taps, 0, static_cast<size_t>(8 * layout.bytes));
  const auto run_groups = [&](const Tile& tile, int32_t first, int32_t last) {
    const Source source = load_source(block, tile, tiling.flat, in, block.in_c, 1, w.source);
    list_pixels(source, p.classes, tile, w.pixels);
    make_tables(layout, source, tile_pixels(tile), w);
    const Job job = {block, layout, p, w, tile, tiling.flat, out};
    for (int32_t group = first; group < last; ++group) run_channel_group(job, group);
  };
  for_each_tile(block, tiling, layout.channel_groups, unit_begin, unit_end, run_groups);
}

const Method kMethod = {"table look-ups, quads of taps", unit_count, workspace_bytes, run};

const Method& method(const Block& /*block*/, int64_t /*batch*/) { return kMethod; }

}  // namespace

const Engine kBytes = {prepared_bytes, prepare, method};

}  // namespace binarynet::neon
