// Convolution and dense layers on 8-bit pixels (the first layer), AVX2.
//
// A pixel u stands for 2u - 255 and a weight for 2w - 1 (w its bit), so with P the sum of u over the taps
// whose bit is 1, U the sum of all u and W the sum of the weights over the taps inside of the image,
//
//     sum = 2 * (2P - U) - 255 * W
//     sum >= t  <=>  2P - U > floor((t + 255 * W - 1) / 2)
//
// A tap outside of the image has u = 0 and is left out of W: one W, and one bound, per channel and border
// class.
//
// P comes from multiply-adds of bytes: a vector holds 8 channels x 4 taps (a quad) of weights 0 / 1, the
// activations are one quad broadcast. vpmaddubsw leaves two 16-bit sums of two taps per channel, each at most
// 510, and 64 quads (a block of K) add up to at most 32640 < 32768 before they must be widened. |2P - U| <=
// 255 * K, and 255 * K stays below 2^30 for every K that the graph admits.
#include <immintrin.h>

#include <cstring>

#include "avx2.h"
#include "simd_plan.h"

namespace binarynet::avx2 {
namespace {

constexpr int32_t kTilePixels = 128;
constexpr int32_t kGroupChannels = 64;  // 8 vectors: the bits of one byte of packed weights
constexpr int32_t kVectors = 8;
constexpr int32_t kBlockQuads = 64;
constexpr int32_t kStrip = 4;  // pixels that share the loads of weights
constexpr int32_t kSlack = 32;

inline __m256i load(const void* from) { return _mm256_loadu_si256(static_cast<const __m256i*>(from)); }
inline void store(void* to, __m256i value) { _mm256_storeu_si256(static_cast<__m256i*>(to), value); }

inline __m256i broadcast_quad(const uint8_t* quad) {
  int32_t value;
  memcpy(&value, quad, sizeof(value));
  return _mm256_set1_epi32(value);
}

struct Layout {
  bool flat;
  int32_t taps;          // bytes of K: kernel_h * kernel_w * in_c
  int32_t quads, bytes;  // bytes: 4 * quads
  int32_t channel_groups;
  int32_t row_classes, col_classes;
};

Layout make_layout(const Block& b) {
  Layout l = {};
  l.flat = is_flat(b);
  l.taps = b.kernel_h * b.kernel_w * b.in_c;
  l.quads = static_cast<int32_t>(divide_up(l.taps, 4));
  l.bytes = 4 * l.quads;
  l.channel_groups = static_cast<int32_t>(divide_up(b.out_c, kGroupChannels));
  l.row_classes = l.flat ? 1 : row_axis(b).classes(nullptr, nullptr);
  l.col_classes = l.flat ? 1 : col_axis(b).classes(nullptr, nullptr);
  return l;
}

struct Prepared {
  uint8_t* weights;    // [channel group][quad][32]: bit v of byte i is tap i % 4 of channel 8 * v + i / 4
  int32_t* constants;  // [class][channel_groups * kGroupChannels]: -255 * W
  int32_t* bounds;     // the same shape: bit = 2P - U > bound
  int32_t* row_class;  // [conv_h]; empty if flat
  int32_t* col_class;  // [conv_w]; empty if flat
  TapRange* ranges;    // [row_classes + col_classes]; empty if flat
  size_t size;
};

Prepared carve_prepared(const Block& b, const Layout& l, void* memory) {
  Carver carver = {static_cast<uint8_t*>(memory), 0};
  const int64_t constants =
      static_cast<int64_t>(l.row_classes) * l.col_classes * l.channel_groups * kGroupChannels;
  Prepared p = {};
  p.weights = carver.take<uint8_t>(static_cast<int64_t>(l.channel_groups) * l.quads * 32);
  p.constants = carver.take<int32_t>(constants);
  p.bounds = carver.take<int32_t>(b.output == BlockOutput::bits ? constants : 0);
  p.row_class = carver.take<int32_t>(l.flat ? 0 : b.conv_h);
  p.col_class = carver.take<int32_t>(l.flat ? 0 : b.conv_w);
  p.ranges = carver.take<TapRange>(l.flat ? 0 : l.row_classes + l.col_classes);
  p.size = carver.used;
  return p;
}

// Bits of one channel in order of K, [kernel_h][kernel_w][in_c]: the source has each pixel start a new word.
bool weight_bit(const Block& b, int64_t channel, int64_t tap) {
  const int64_t words = divide_up(b.in_c, 64);
  const int64_t pixel = tap / b.in_c;
  const int64_t bit = tap % b.in_c;
  return b.weights[(channel * b.kernel_h * b.kernel_w + pixel) * words + bit / 64] >> (bit % 64) & 1;
}

void prepare_weights(const Block& b, const Layout& l, uint8_t* packed) {
  memset(packed, 0, static_cast<size_t>(l.channel_groups) * static_cast<size_t>(l.quads) * 32);
  for (int32_t channel = 0; channel < b.out_c; ++channel) {
    const int32_t lane = channel % kGroupChannels;
    uint8_t* group = packed + static_cast<int64_t>(channel / kGroupChannels) * l.quads * 32;
    for (int32_t tap = 0; tap < l.taps; ++tap) {
      if (!weight_bit(b, channel, tap)) continue;
      uint8_t* byte = group + static_cast<int64_t>(tap / 4) * 32 + lane % 8 * 4 + tap % 4;
      *byte = static_cast<uint8_t>(*byte | 1u << (lane / 8));
    }
  }
}

void prepare_constants(const Block& b, const Layout& l, const Prepared& p) {
  const int64_t width = static_cast<int64_t>(l.channel_groups) * kGroupChannels;
  memset(p.constants, 0, sizeof(int32_t) * static_cast<size_t>(l.row_classes * l.col_classes * width));
  const int32_t words = static_cast<int32_t>(divide_up(b.in_c, 64));
  const uint64_t* from = b.weights;
  for (int32_t channel = 0; channel < b.out_c; ++channel) {
    for (int32_t ky = 0; ky < b.kernel_h; ++ky) {
      for (int32_t kx = 0; kx < b.kernel_w; ++kx) {
        int32_t ones = 0;
        for (int32_t word = 0; word < words; ++word) ones += __builtin_popcountll(*from++);
        int32_t* constant = p.constants + channel;
        for (int32_t r = 0; r < l.row_classes; ++r) {
          const bool row_inside = l.flat || (ky >= p.ranges[r].begin && ky < p.ranges[r].end);
          for (int32_t c = 0; c < l.col_classes; ++c, constant += width) {
            const TapRange* cols = p.ranges + l.row_classes;
            const bool inside = row_inside && (l.flat || (kx >= cols[c].begin && kx < cols[c].end));
            if (inside) *constant -= 255 * (2 * ones - b.in_c);
          }
        }
      }
    }
  }
}

void prepare_bounds(const Block& b, const Layout& l, const Prepared& p) {
  const int64_t width = static_cast<int64_t>(l.channel_groups) * kGroupChannels;
  for (int64_t k = 0; k < static_cast<int64_t>(l.row_classes) * l.col_classes; ++k) {
    for (int64_t channel = 0; channel < width; ++channel) {
      int64_t bound = INT32_MAX;  // padding channels: never 1
      if (channel < b.out_c) {
        const int64_t twice =
            static_cast<int64_t>(b.thresholds[channel]) - p.constants[k * width + channel] - 1;
        bound = twice >= 0 ? twice / 2 : -((1 - twice) / 2);
        bound = smaller(larger(bound, -(int64_t{1} << 30)), int64_t{1} << 30);
      }
      p.bounds[k * width + channel] = static_cast<int32_t>(bound);
    }
  }
}

// ---- Pixels
// --------------------------------------------------------------------------------------------------

struct Workspace {
  uint8_t* rows;        // not flat: input rows of the tile with their borders
  uint8_t* patches;     // [pixel of the tile][bytes]: the taps in order of K
  int32_t* totals;      // [pixel of the tile]: U
  uint8_t* weights;     // one block, unpacked: [quad][kVectors][32]
  int32_t* sums;        // [pixel of the tile][kGroupChannels]: P, then 2P - U
  int32_t* final_sums;  // [kGroupChannels]
  uint64_t* bits;       // [pixel of the tile] if pooled
  size_t size;
};

int64_t padded_row_bytes(const Block& b) {
  return (static_cast<int64_t>(b.conv_w - 1) * b.stride_w + b.kernel_w) * b.in_c;
}

int64_t padded_rows(const Block& b, int32_t conv_rows) {
  return static_cast<int64_t>(conv_rows - 1) * b.stride_h + b.kernel_h;
}

Workspace carve_workspace(const Block& b, const Layout& l, const Tiling& tiling, void* memory) {
  const int32_t images = tiling.flat ? 1 : tiling.images_per_tile;
  const int32_t rows = most_conv_rows(b, tiling);
  const int64_t cols = tiling.flat ? smaller(tiling.cols_per_tile, tiling.columns) : b.conv_w;
  const int64_t pixels = images * rows * cols;
  Carver carver = {static_cast<uint8_t*>(memory), 0};
  Workspace w = {};
  w.rows = carver.take<uint8_t>(tiling.flat ? 0 : padded_rows(b, rows) * padded_row_bytes(b) + kSlack);
  w.patches = carver.take<uint8_t>(pixels * l.bytes + kSlack);
  w.totals = carver.take<int32_t>(pixels);
  w.weights = carver.take<uint8_t>(kBlockQuads * kVectors * 32);
  w.sums = carver.take<int32_t>(pixels * kGroupChannels);
  w.final_sums = carver.take<int32_t>(kGroupChannels);
  w.bits = carver.take<uint64_t>(has_pool(b) ? pixels : 0);
  w.size = carver.used;
  return w;
}

// Copies runs of a few bytes: 16 at a time, so up to 15 too many are read and written (both ends have slack).
inline void copy_run(uint8_t* to, const uint8_t* from, int64_t count) {
  for (int64_t i = 0; i < count; i += 16) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(to + i),
                     _mm_loadu_si128(reinterpret_cast<const __m128i*>(from + i)));
  }
}

int32_t sum_of_quads(const uint8_t* patch, int32_t quads) {
  __m128i sum = _mm_setzero_si128();
  for (int32_t quad = 0; quad < quads; ++quad) {
    int32_t value;
    memcpy(&value, patch + 4 * static_cast<int64_t>(quad), sizeof(value));
    sum = _mm_add_epi32(sum, _mm_sad_epu8(_mm_cvtsi32_si128(value), _mm_setzero_si128()));
  }
  return _mm_cvtsi128_si32(sum);
}

void gather_columns(const Layout& l, const Tile& tile, const uint8_t* in, const Workspace& w) {
  uint8_t* patch = w.patches;
  for (int64_t col = 0; col < tile.cols; ++col, patch += l.bytes) {
    memcpy(patch, in + (tile.col + col) * l.taps, static_cast<size_t>(l.taps));
    memset(patch + l.taps, 0, static_cast<size_t>(l.bytes - l.taps));
    w.totals[col] = sum_of_quads(patch, l.quads);
  }
}

// The input rows that one image of the tile looks at, with zeros around the image.
void copy_rows(const Block& b, const Tile& tile, const uint8_t* image, uint8_t* rows) {
  const int64_t row_bytes = padded_row_bytes(b);
  const int64_t left = smaller(row_bytes, static_cast<int64_t>(b.pad_w) * b.in_c);
  const int64_t inside = smaller(row_bytes - left, static_cast<int64_t>(b.in_w) * b.in_c);
  const int64_t count = padded_rows(b, tile.conv_rows);
  const int64_t first = static_cast<int64_t>(tile.conv_row) * b.stride_h - b.pad_h;
  for (int64_t y = first; y < first + count; ++y, rows += row_bytes) {
    memset(rows, 0, static_cast<size_t>(row_bytes));
    if (y < 0 || y >= b.in_h) continue;
    memcpy(rows + left, image + y * b.in_w * b.in_c, static_cast<size_t>(inside));
  }
}

void gather_rows(const Block& b, const Layout& l, const Tile& tile, const uint8_t* in, const Workspace& w) {
  const int64_t run = static_cast<int64_t>(b.kernel_w) * b.in_c;
  const int64_t row_bytes = padded_row_bytes(b);
  uint8_t* patch = w.patches;
  int32_t* total = w.totals;
  for (int64_t image = tile.image; image < tile.image + tile.images; ++image) {
    copy_rows(b, tile, in + image * b.in_h * b.in_w * b.in_c, w.rows);
    for (int64_t y = 0; y < tile.conv_rows; ++y) {
      for (int64_t x = 0; x < tile.cols; ++x, patch += l.bytes) {
        const uint8_t* from = w.rows + y * b.stride_h * row_bytes + x * b.stride_w * b.in_c;
        for (int64_t ky = 0; ky < b.kernel_h; ++ky) copy_run(patch + ky * run, from + ky * row_bytes, run);
        memset(patch + l.taps, 0, 4);  // the rest of the last quad, and slack
        *total++ = sum_of_quads(patch, l.quads);
      }
    }
  }
}

// ---- Sums
// ----------------------------------------------------------------------------------------------------

void unpack_quads(const uint8_t* packed, int32_t quads, uint8_t* weights) {
  const __m256i one = _mm256_set1_epi8(1);
  for (int32_t quad = 0; quad < quads; ++quad) {
    const __m256i all = load(packed + 32 * static_cast<int64_t>(quad));
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v)
      store(weights + 32 * v, _mm256_and_si256(_mm256_srli_epi16(all, v), one));
    weights += 32 * kVectors;
  }
}

// P of kPixels pixels over one block of K, added to sums unless it is the first.
template <int kPixels>
inline __attribute__((always_inline)) void strip_sums(const uint8_t* patches, int64_t patch_stride,
                                                      int32_t quads, const uint8_t* weights, bool first,
                                                      int32_t* sums) {
  const __m256i ones = _mm256_set1_epi16(1);
  for (int v = 0; v < kVectors; v += 2) {
    __m256i even[kPixels], odd[kPixels];
#pragma GCC unroll 4
    for (int i = 0; i < kPixels; ++i) even[i] = odd[i] = _mm256_setzero_si256();
    const uint8_t* w = weights + 32 * v;
    const uint8_t* patch = patches;
    for (int32_t quad = 0; quad < quads; ++quad, w += 32 * kVectors, patch += 4) {
      const __m256i even_weights = load(w);
      const __m256i odd_weights = load(w + 32);
#pragma GCC unroll 4
      for (int i = 0; i < kPixels; ++i) {
        const __m256i u = broadcast_quad(patch + i * patch_stride);
        even[i] = _mm256_add_epi16(even[i], _mm256_maddubs_epi16(u, even_weights));
        odd[i] = _mm256_add_epi16(odd[i], _mm256_maddubs_epi16(u, odd_weights));
      }
    }
#pragma GCC unroll 4
    for (int i = 0; i < kPixels; ++i) {
      int32_t* to = sums + i * kGroupChannels + 8 * v;
      __m256i low = _mm256_madd_epi16(even[i], ones);
      __m256i high = _mm256_madd_epi16(odd[i], ones);
      if (!first) {
        low = _mm256_add_epi32(low, load(to));
        high = _mm256_add_epi32(high, load(to + 8));
      }
      store(to, low);
      store(to + 8, high);
    }
  }
}

// P of a single pixel over all of K, straight from the packed weights.
void column_sums(const uint8_t* patch, int32_t quads, const uint8_t* packed, int32_t* sums) {
  const __m256i ones = _mm256_set1_epi16(1);
  const __m256i one = _mm256_set1_epi8(1);
  for (int v = 0; v < kVectors; ++v) store(sums + 8 * v, _mm256_setzero_si256());
  while (quads > 0) {
    const int32_t block = quads < kBlockQuads ? quads : kBlockQuads;
    __m256i sum[kVectors];
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v) sum[v] = _mm256_setzero_si256();
    for (int32_t quad = 0; quad < block; ++quad, patch += 4, packed += 32) {
      const __m256i u = broadcast_quad(patch);
      const __m256i all = load(packed);
#pragma GCC unroll 8
      for (int v = 0; v < kVectors; ++v) {
        const __m256i weights = _mm256_and_si256(_mm256_srli_epi16(all, v), one);
        sum[v] = _mm256_add_epi16(sum[v], _mm256_maddubs_epi16(u, weights));
      }
    }
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v) {
      store(sums + 8 * v, _mm256_add_epi32(load(sums + 8 * v), _mm256_madd_epi16(sum[v], ones)));
    }
    quads -= block;
  }
}

// From P to 2P - U, in place, for one pixel.
void finish_sums(int32_t total, int32_t* sums) {
  const __m256i u = _mm256_set1_epi32(total);
  for (int v = 0; v < kVectors; ++v) {
    store(sums + 8 * v, _mm256_sub_epi32(_mm256_slli_epi32(load(sums + 8 * v), 1), u));
  }
}

uint64_t threshold_bits(int32_t total, const int32_t* sums, const int32_t* bounds) {
  const __m256i u = _mm256_set1_epi32(total);
  uint64_t bits = 0;
  for (int v = 0; v < kVectors; ++v) {
    const __m256i x = _mm256_sub_epi32(_mm256_slli_epi32(load(sums + 8 * v), 1), u);
    const __m256i above = _mm256_cmpgt_epi32(x, load(bounds + 8 * v));
    bits |= static_cast<uint64_t>(static_cast<uint32_t>(_mm256_movemask_ps(_mm256_castsi256_ps(above))))
            << (8 * v);
  }
  return bits;
}

// ---- Running
// -------------------------------------------------------------------------------------------------

// Takes the finished P of one pixel of the tile on: to bits, or to 2P - U.
class PixelSink {
 public:
  PixelSink(const Block& b, const Layout& l, const Prepared& p, const Workspace& w, const Tile& tile,
            int32_t channel_group, void* out)
      : b_(b), l_(l), p_(p), w_(w), tile_(tile), group_(channel_group), out_(out), pool_(has_pool(b)) {}

  // Pixels are taken in order.
  void take(int64_t pixel) {
    int32_t* sums = w_.sums + pixel * kGroupChannels;
    if (b_.output == BlockOutput::int32) {
      finish_sums(w_.totals[pixel], sums);
      return;
    }
    const int64_t row_class = l_.flat ? 0 : p_.row_class[tile_.conv_row + row_];
    const int64_t col_class = l_.flat ? 0 : p_.col_class[col_];
    const int64_t k = row_class * l_.col_classes + col_class;
    const int32_t* bounds = p_.bounds + (k * l_.channel_groups + group_) * kGroupChannels;
    const uint64_t bits = threshold_bits(w_.totals[pixel], sums, bounds);
    if (pool_) {
      w_.bits[pixel] = bits;
    } else {
      const int64_t first = (tile_.image * b_.out_h + tile_.out_row) * b_.out_w + tile_.col;
      // A tile of several images has whole images, so its pixels are consecutive in the output.
      static_cast<uint64_t*>(out_)[(first + pixel) * b_.out_words + group_] = bits ^ b_.falling[group_];
    }
    if (++col_ == tile_.cols) {
      col_ = 0;
      if (++row_ == tile_.conv_rows) row_ = 0;
    }
  }

  void finish() {
    if (b_.output == BlockOutput::int32) {
      Counts c = {};
      c.counts = w_.sums;
      c.width = kGroupChannels;
      c.channel = group_ * kGroupChannels;
      c.channels = static_cast<int32_t>(smaller(kGroupChannels, b_.out_c - c.channel));
      c.scale = 2;
      c.constants = p_.constants;
      c.constants_width = static_cast<int64_t>(l_.channel_groups) * kGroupChannels;
      c.row_class = l_.flat ? nullptr : p_.row_class;
      c.col_class = l_.flat ? nullptr : p_.col_class;
      c.col_classes = l_.col_classes;
      finish_counts(b_, tile_, l_.flat, c, w_.final_sums, out_);
    } else if (pool_) {
      pool_bits(b_, tile_, w_.bits, 1, group_, static_cast<uint64_t*>(out_));
    }
  }

 private:
  const Block& b_;
  const Layout& l_;
  const Prepared& p_;
  const Workspace& w_;
  const Tile& tile_;
  int32_t group_;
  void* out_;
  bool pool_;
  int32_t row_ = 0, col_ = 0;
};

void run_channel_group(const Block& b, const Layout& l, const Prepared& p, const Workspace& w,
                       const Tile& tile, int32_t channel_group, void* out) {
  const int64_t pixels = static_cast<int64_t>(tile.images) * tile.conv_rows * tile.cols;
  const uint8_t* packed = p.weights + static_cast<int64_t>(channel_group) * l.quads * 32;
  PixelSink sink(b, l, p, w, tile, channel_group, out);
  if (pixels == 1) {
    column_sums(w.patches, l.quads, packed, w.sums);
    sink.take(0);
    sink.finish();
    return;
  }
  for (int32_t quad = 0; quad < l.quads; quad += kBlockQuads) {
    const int32_t quads = static_cast<int32_t>(smaller(kBlockQuads, l.quads - quad));
    unpack_quads(packed + 32 * static_cast<int64_t>(quad), quads, w.weights);
    const bool first = quad == 0;
    const bool last = quad + quads == l.quads;
    for (int64_t pixel = 0; pixel < pixels; pixel += kStrip) {
      const uint8_t* patches = w.patches + pixel * l.bytes + 4 * static_cast<int64_t>(quad);
      int32_t* sums = w.sums + pixel * kGroupChannels;
      const int64_t count = smaller(kStrip, pixels - pixel);
      switch (count) {
        case 1:
          strip_sums<1>(patches, l.bytes, quads, w.weights, first, sums);
          break;
        case 2:
          strip_sums<2>(patches, l.bytes, quads, w.weights, first, sums);
          break;
        case 3:
          strip_sums<3>(patches, l.bytes, quads, w.weights, first, sums);
          break;
        default:
          strip_sums<4>(patches, l.bytes, quads, w.weights, first, sums);
          break;
      }
      if (!last) continue;
      for (int64_t i = pixel; i < pixel + count; ++i) sink.take(i);
    }
  }
  sink.finish();
}

}  // namespace

size_t bytes_prepared_bytes(const Block& block) {
  return carve_prepared(block, make_layout(block), nullptr).size;
}

void bytes_prepare(const Block& block, void* prepared) {
  const Layout layout = make_layout(block);
  const Prepared p = carve_prepared(block, layout, prepared);
  prepare_weights(block, layout, p.weights);
  if (!layout.flat) {
    row_axis(block).classes(p.row_class, p.ranges);
    col_axis(block).classes(p.col_class, p.ranges + layout.row_classes);
  }
  prepare_constants(block, layout, p);
  if (block.output == BlockOutput::bits) prepare_bounds(block, layout, p);
}

int64_t bytes_unit_count(const Block& block, int64_t batch) {
  return make_tiling(block, batch, kTilePixels).tiles * divide_up(block.out_c, kGroupChannels);
}

size_t bytes_workspace_bytes(const Block& block, int64_t batch) {
  return carve_workspace(block, make_layout(block), make_tiling(block, batch, kTilePixels), nullptr).size;
}

void bytes_run(const Block& block, const void* prepared, const uint8_t* in, void* out, int64_t batch,
               int64_t unit_begin, int64_t unit_end, void* workspace) {
  const Layout layout = make_layout(block);
  const Tiling tiling = make_tiling(block, batch, kTilePixels);
  const Prepared p = carve_prepared(block, layout, const_cast<void*>(prepared));
  const Workspace w = carve_workspace(block, layout, tiling, workspace);
  for (int64_t unit = unit_begin; unit < unit_end;) {
    const int64_t tile_index = unit / layout.channel_groups;
    const int64_t stop = smaller(unit_end, (tile_index + 1) * layout.channel_groups);
    const Tile tile = tile_at(block, tiling, tile_index);
    if (layout.flat) {
      gather_columns(layout, tile, in, w);
    } else {
      gather_rows(block, layout, tile, in, w);
    }
    for (; unit < stop; ++unit) {
      run_channel_group(block, layout, p, w, tile, static_cast<int32_t>(unit % layout.channel_groups), out);
    }
  }
}

}  // namespace binarynet::avx2
