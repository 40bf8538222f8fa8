// The gradient with respect to a convolution's input, AVX-512.
//
// Tables of a pixel of g, one for four output channels, serve all taps and all input channels. They are built
// row by row into a ring of kernel_h rows that stays in the second-level cache; those of a block of 64 output
// channels around a tile of 8 pixels (30 KB for 3 x 3) stay in the first-level cache while all input channels
// pass. Index words hold the signs of 32 output channels; lanes are input channels.
#include <cstring>

#include "training/avx512_lookup.h"
#include "training/avx512_vpopcntdq_conv.h"

namespace binarynet::training::avx512_vpopcntdq {
namespace {

constexpr int64_t kIndexGroups = kBlockChannels / kGroupSteps;
constexpr int64_t kIndexWords = kBlockChannels / kWordRows;
constexpr int64_t kWordGroups = kWordRows / kGroupSteps;
constexpr int64_t kTilePixels = 8;
constexpr int64_t kTileVectors = 2;  // of 16 input channels

struct Layout {
  int64_t blocks, vectors, taps;
  int64_t halo;          // columns of zeros on either side of a row of tables
  int64_t group_floats;  // from the tables of a group to those of the next, of a row: [group][column][16]
  int64_t block_floats;  // from one block to the next, of a row
  int64_t row_floats;
};

Layout layout_of(const ConvShape& s) {
  Layout l;
  l.blocks = divide_up(s.out_c, kBlockChannels);
  l.vectors = panels(s.in_c);
  l.taps = s.kernel_h * s.kernel_w;
  l.halo = s.kernel_w - 1 - s.pad_w;
  l.group_floats = (s.out_w + 2 * l.halo) * kTableFloats;
  l.block_floats = kIndexGroups * l.group_floats;
  l.row_floats = l.blocks * l.block_floats;
  return l;
}

// Groups of a block.
int64_t groups_of(const ConvShape& s, int64_t block) {
  return smaller(kIndexGroups, divide_up(s.out_c, kGroupSteps) - block * kIndexGroups);
}

// g: a row of g. The halo of `row` is 0 already.
void build_row(const ConvShape& s, const Layout& l, const float* g, float* row) {
  const TableSigns signs;
  const int64_t whole = s.out_c / kGroupSteps;
  for (int64_t block = 0; block < l.blocks; ++block) {
    const int64_t groups = groups_of(s, block);
    const int64_t end = smaller(groups, whole - block * kIndexGroups);
    for (int64_t x = 0; x < s.out_w; ++x) {
      const float* from = g + x * s.out_c + block * kBlockChannels;
      float* to = row + block * l.block_floats + (l.halo + x) * kTableFloats;
      for (int64_t k = 0; k < end; ++k, from += kGroupSteps, to += l.group_floats) {
        _mm512_store_ps(to, signs.table(from, 1));
      }
      if (end < groups) _mm512_store_ps(to, signs.table_of(from, 1, (1 << s.out_c % kGroupSteps) - 1));
    }
  }
}

// A tile of pixels of one row, two vectors of input channels, one block of output channels.
struct Tile {
  const float* const* rows;  // [kernel_h]: tables of the first group, for kx = 0 and the tile's first pixel
  int64_t kernel_h, kernel_w;
  int64_t groups, group_floats;
  const __m512i* index;  // [tap][word][kVectors]
  float* out;
  int64_t out_stride;
  __mmask16 last_lanes;
  bool first_block;
};

// Not to be inlined: the loop needs the registers that the compiler would give to its surroundings.
template <int kPixels, int kVectors>
__attribute__((noinline)) void run_tile(const Tile& tile) {
  __m512 sums[kPixels][kVectors];
  const __m512 one = opaque_one();
  const __mmask16 last = tile.last_lanes;
  if (tile.first_block) {
    clear(sums);
  } else {
#pragma GCC unroll 8
    for (int r = 0; r < kPixels; ++r) {
#pragma GCC unroll 2
      for (int v = 0; v < kVectors; ++v) {
        const float* from = tile.out + r * tile.out_stride + 16 * v;
        sums[r][v] = _mm512_maskz_loadu_ps(v == kVectors - 1 ? last : 0xffff, from);
      }
    }
  }
  for (int64_t ky = 0; ky < tile.kernel_h; ++ky) {
    if (tile.rows[ky] == nullptr) continue;
    const __m512i* words = tile.index + ky * tile.kernel_w * kIndexWords * kVectors;
    for (int64_t kx = 0; kx < tile.kernel_w; ++kx, words += kIndexWords * kVectors) {
      const float* tables = tile.rows[ky] - kx * kTableFloats;
      const __m512i* word = words;
      for (int64_t left = tile.groups; left > 0; left -= kWordGroups, word += kVectors) {
        __m512i index[kVectors];
#pragma GCC unroll 2
        for (int v = 0; v < kVectors; ++v) index[v] = word[v];
        for (int64_t k = left < kWordGroups ? left : kWordGroups; k > 0; --k, tables += tile.group_floats) {
          look_up(tables, one, index, sums);
        }
      }
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < kPixels; ++r) {
#pragma GCC unroll 2
    for (int v = 0; v < kVectors; ++v) {
      float* to = tile.out + r * tile.out_stride + 16 * v;
      _mm512_mask_storeu_ps(to, v == kVectors - 1 ? last : 0xffff, sums[r][v]);
    }
  }
}

using RunTile = void (*)(const Tile&);
template <int kVectors>
constexpr RunTile kRunTile[kTilePixels] = {
    run_tile<1, kVectors>, run_tile<2, kVectors>, run_tile<3, kVectors>, run_tile<4, kVectors>,
    run_tile<5, kVectors>, run_tile<6, kVectors>, run_tile<7, kVectors>, run_tile<8, kVectors>};

// One row of one block. `row`: tables of the block that tap row ky looks at, for kx = 0 and the first pixel.
void run_row(const InputGradient& gradient, const Layout& l, const __m512i* index, int64_t block,
             const float* const* rows, const float** tile_rows, float* out) {
  const ConvShape& s = gradient.shape;
  Tile tile = {};
  tile.rows = tile_rows;
  tile.kernel_h = s.kernel_h;
  tile.kernel_w = s.kernel_w;
  tile.groups = groups_of(s, block);
  tile.group_floats = l.group_floats;
  tile.out_stride = s.in_c;
  tile.first_block = block == 0;
  const int64_t width = divide_up(s.in_w, divide_up(s.in_w, kTilePixels));
  for (int64_t x = 0; x < s.in_w; x += width) {
    for (int64_t ky = 0; ky < s.kernel_h; ++ky) {
      tile_rows[ky] = rows[ky] == nullptr ? nullptr : rows[ky] + x * kTableFloats;
    }
    const int64_t pixels = smaller(width, s.in_w - x);
    for (int64_t v = 0; v < l.vectors; v += kTileVectors) {
      tile.index = index + (block * l.vectors + v) * l.taps * kIndexWords;
      tile.out = out + x * s.in_c + 16 * v;
      tile.last_lanes = first_lanes(s.in_c - 16 * (smaller(l.vectors, v + kTileVectors) - 1));
      (v + 1 < l.vectors ? kRunTile<2> : kRunTile<1>)[pixels - 1](tile);
    }
  }
}

size_t ring_bytes(const ConvShape& s) {
  return static_cast<size_t>(s.kernel_h * layout_of(s).row_floats) * sizeof(float);
}

}  // namespace

size_t input_prepared_bytes(const ConvShape& s) {
  const Layout l = layout_of(s);
  return static_cast<size_t>(l.blocks * l.vectors * l.taps * kIndexWords) * sizeof(__m512i);
}

// [block][pair of vectors][tap][word][vector of the pair]
void input_prepare(const InputGradient& gradient, void* prepared) {
  const ConvShape& s = gradient.shape;
  const Layout l = layout_of(s);
  const int64_t pixel_words = row_words(s.in_c);
  auto* to = static_cast<__m512i*>(prepared);
  for (int64_t block = 0; block < l.blocks; ++block) {
    for (int64_t first = 0; first < l.vectors; first += kTileVectors) {
      for (int64_t tap = 0; tap < l.taps; ++tap) {
        for (int64_t word = 0; word < kIndexWords; ++word) {
          const int64_t begin = block * kBlockChannels + word * kWordRows;
          const int64_t channels = larger(0, smaller(kWordRows, s.out_c - begin));
          for (int64_t v = first; v < smaller(l.vectors, first + kTileVectors); ++v, ++to) {
            const uint64_t* from = gradient.weights + (begin * l.taps + tap) * pixel_words + v / 4;
            __m512i lanes = _mm512_setzero_si512();
            for (int64_t k = 0; k < channels; ++k, from += l.taps * pixel_words) {
              const auto up = static_cast<__mmask16>(*from >> (v % 4 * 16));
              lanes = _mm512_mask_or_epi32(lanes, up, lanes, _mm512_set1_epi32(static_cast<int>(1u << k)));
            }
            _mm512_store_si512(to, lanes);
          }
        }
      }
    }
  }
}

size_t input_workspace_bytes(const ConvShape& s) {
  return ring_bytes(s) + 2 * static_cast<size_t>(s.kernel_h) * sizeof(float*);
}

void input_run(const InputGradient& gradient, const void* prepared, int64_t image, int64_t row_begin,
               int64_t row_end, void* workspace) {
  const ConvShape& s = gradient.shape;
  const Layout l = layout_of(s);
  auto* ring = static_cast<float*>(workspace);
  auto* rows = reinterpret_cast<const float**>(static_cast<char*>(workspace) + ring_bytes(s));
  memset(ring, 0, ring_bytes(s));
  const auto slot = [&](int64_t g_row) { return ring + g_row % s.kernel_h * l.row_floats; };
  int64_t built = larger(0, row_begin + s.pad_h - (s.kernel_h - 1));
  for (int64_t y = row_begin; y < row_end; ++y) {
    for (; built < smaller(s.out_h, y + s.pad_h + 1); ++built) {
      build_row(s, l, gradient.g + (image * s.out_h + built) * s.out_w * s.out_c, slot(built));
    }
    float* out = gradient.out + (image * s.in_h + y) * s.in_w * s.in_c;
    for (int64_t block = 0; block < l.blocks; ++block) {
      for (int64_t ky = 0; ky < s.kernel_h; ++ky) {
        const int64_t g_row = y + s.pad_h - ky;
        const bool inside = g_row >= 0 && g_row < s.out_h;
        // Pixel x and tap kx look at column x + pad_w - kx of g, which is entry x + kernel_w - 1 - kx of a
        // row.
        rows[ky] = !inside ? nullptr : slot(g_row) + block * l.block_floats + (s.kernel_w - 1) * kTableFloats;
      }
      run_row(gradient, l, static_cast<const __m512i*>(prepared), block, rows, rows + s.kernel_h, out);
    }
  }
}

}  // namespace binarynet::training::avx512_vpopcntdq
