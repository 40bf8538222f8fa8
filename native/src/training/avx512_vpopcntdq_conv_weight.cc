// The gradient with respect to a convolution's weights, AVX-512.
//
// Tables hold four consecutive pixels of g, for one output channel, and serve all taps and input channels. A
// unit of 16 output channels goes through the whole batch in blocks whose tables, for 8 channels at a time,
// fit the first-level cache, and adds each block's sums to its own in the second-level cache. Index words
// hold the signs of 32 consecutive pixels, one copy for each kx, shifted; lanes are input channels. Near the
// left and right border there are tables of their own for each kx, in which pixels whose tap lies outside are
// 0; above and below the rows are left out.
#include <cstring>

#include "training/avx512_lookup.h"
#include "training/avx512_vpopcntdq_conv.h"

namespace binarynet::training::avx512_vpopcntdq {
namespace {

constexpr int64_t kTileChannels = 8;
constexpr int64_t kHalves = kUnitChannels / kTileChannels;
constexpr int64_t kWordGroups = kWordRows / kGroupSteps;
constexpr int64_t kSlotFloats = kTileChannels * kTableFloats;
constexpr int64_t kTileVectors = 2;  // of 16 input channels

struct Layout {
  int64_t words;    // of 32 columns
  int64_t vectors;  // of 16 input channels
  int64_t taps;
  int64_t
      row_vectors;  // of index words, per row of the input: [word][kx][pair of vectors][vector of the pair]
  int64_t table_floats;  // per row: [slot][channel][16]
  int64_t sum_floats;    // per half of a unit: [pair of vectors][tap][channel][vector of the pair][16]
};

Layout layout_of(const ConvShape& s, int64_t slots) {
  Layout l;
  l.words = divide_up(s.out_w, kBlockColumns);
  l.vectors = panels(s.in_c);
  l.taps = s.kernel_h * s.kernel_w;
  l.row_vectors = l.words * s.kernel_w * l.vectors;
  l.table_floats = slots * kSlotFloats;
  l.sum_floats = l.vectors * l.taps * kTileChannels * 16;
  return l;
}

// Tables of one row of one word's columns, for up to kTileChannels channels from `channel` on. g: the row.
void build_row(const WeightGradient& gradient, int64_t word, const float* g, int64_t channel, float* to) {
  const TableSigns signs;
  const int64_t stride = gradient.shape.out_c;
  const int64_t channels = smaller(kTileChannels, stride - channel);
  for (int64_t slot = gradient.slot_begin[word]; slot < gradient.slot_begin[word + 1];
       ++slot, to += kSlotFloats) {
    const int mask = gradient.cases[slot] & 15;
    const float* from = g + (gradient.cases[slot] >> 4) * kGroupSteps * stride + channel;
    if (mask == 15 && channels == kTileChannels) {
#pragma GCC unroll 8
      for (int64_t r = 0; r < kTileChannels; ++r) {
        _mm512_store_ps(to + r * kTableFloats, signs.table(from + r, stride));
      }
      continue;
    }
    for (int64_t r = 0; r < kTileChannels; ++r) {
      _mm512_store_ps(to + r * kTableFloats, signs.table_of(from + r, stride, r < channels ? mask : 0));
    }
  }
}

// Where a row of g has its tables, and the row of the input that a tap looks at its index words. In bytes.
struct Row {
  int64_t tables, index;
};

struct Tile {
  const char* tables;
  const char* index;
  const Row* rows;
  int64_t num_rows;
  const int32_t* slots;  // of each group of columns
  float* sums;           // [channel][vector][16]
};

// Not to be inlined: the loop needs the registers that the compiler would give to its surroundings.
template <int kGroups, int kVectors>
__attribute__((noinline)) void run_tile(const Tile& tile) {
  __m512 sums[kTileChannels][kVectors];
  const __m512 one = opaque_one();
  clear(sums);
  const char* const tables = tile.tables;
  const char* const words = tile.index;
  const int32_t* const slots = tile.slots;
  const Row* const end = tile.rows + tile.num_rows;
  for (const Row* row = tile.rows; row != end; ++row) {
    const auto* row_tables = reinterpret_cast<const float*>(tables + row->tables);
    const auto* row_words = reinterpret_cast<const __m512i*>(words + row->index);
    __m512i index[kVectors];
#pragma GCC unroll 2
    for (int v = 0; v < kVectors; ++v) index[v] = row_words[v];
#pragma GCC unroll 8
    for (int group = 0; group < kGroups; ++group) {
      const float* table = row_tables + slots[group] * kSlotFloats;
      __asm__("" : "+r"(table));  // or the compiler keeps 8 x 8 addresses
      look_up(table, one, index, sums);
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < kTileChannels; ++r) {
#pragma GCC unroll 2
    for (int v = 0; v < kVectors; ++v) {
      float* to = tile.sums + (r * kVectors + v) * 16;
      _mm512_store_ps(to, _mm512_add_ps(_mm512_load_ps(to), sums[r][v]));
    }
  }
}

using RunTile = void (*)(const Tile&);
template <int kVectors>
constexpr RunTile kRunTile[kWordGroups] = {
    run_tile<1, kVectors>, run_tile<2, kVectors>, run_tile<3, kVectors>, run_tile<4, kVectors>,
    run_tile<5, kVectors>, run_tile<6, kVectors>, run_tile<7, kVectors>, run_tile<8, kVectors>};

// Those of the rows [row, row + count) of g whose tap row ky is inside of the image.
int64_t list_rows(const ConvShape& s, const Layout& l, int64_t row, int64_t count, int64_t ky, Row* rows) {
  int64_t listed = 0;
  for (int64_t k = 0; k < count; ++k) {
    const int64_t image = (row + k) / s.out_h;
    const int64_t y = (row + k) % s.out_h + ky - s.pad_h;
    if (y < 0 || y >= s.in_h) continue;
    rows[listed++] = {k * l.table_floats * static_cast<int64_t>(sizeof(float)),
                      (image * s.in_h + y) * l.row_vectors * static_cast<int64_t>(sizeof(__m512i))};
  }
  return listed;
}

// Adds a block, whose tables are built, to the sums of half a unit. index: of the first row, for the word.
void add_block(const WeightGradient& gradient, const Layout& l, const __m512i* index, int64_t row,
               int64_t count, int64_t word, const float* tables, float* sums) {
  const ConvShape& s = gradient.shape;
  Row rows[kMostBlockRows];
  Tile tile = {};
  tile.tables = reinterpret_cast<const char*>(tables);
  tile.rows = rows;
  const int64_t groups = smaller(kWordGroups, column_groups(s) - word * kWordGroups);
  for (int64_t ky = 0; ky < s.kernel_h; ++ky) {
    tile.num_rows = list_rows(s, l, row, count, ky, rows);
    if (tile.num_rows == 0) continue;
    for (int64_t v = 0; v < l.vectors; v += kTileVectors) {
      const int64_t vectors = smaller(kTileVectors, l.vectors - v);
      for (int64_t kx = 0; kx < s.kernel_w; ++kx) {
        tile.slots = gradient.slot_of + kx * column_groups(s) + word * kWordGroups;
        tile.index = reinterpret_cast<const char*>(index + kx * l.vectors + v);
        tile.sums = sums + (v * l.taps + (ky * s.kernel_w + kx) * vectors) * kTileChannels * 16;
        (vectors == 2 ? kRunTile<2> : kRunTile<1>)[groups - 1](tile);
      }
    }
  }
}

void store(const ConvShape& s, const Layout& l, const float* sums, int64_t channel, float* out) {
  for (int64_t r = 0; r < smaller(kTileChannels, s.out_c - channel); ++r) {
    float* to = out + (channel + r) * s.in_c * l.taps;
    for (int64_t i = 0; i < s.in_c; ++i) {
      const int64_t first = i / 16 / kTileVectors * kTileVectors;
      const int64_t vectors = smaller(kTileVectors, l.vectors - first);
      const float* from =
          sums + first * l.taps * kTileChannels * 16 + (r * vectors + i / 16 - first) * 16 + i % 16;
      for (int64_t tap = 0; tap < l.taps; ++tap) *to++ = from[tap * vectors * kTileChannels * 16];
    }
  }
}

}  // namespace

size_t weight_prepared_bytes(const ConvShape& s) {
  return static_cast<size_t>(s.batch * s.in_h * layout_of(s, 0).row_vectors) * sizeof(__m512i);
}

void weight_prepare(const WeightGradient& gradient, void* prepared, int64_t row_begin, int64_t row_end) {
  const ConvShape& s = gradient.shape;
  const Layout l = layout_of(s, gradient.slots);
  const int64_t pixel_words = row_words(s.in_c);
  for (int64_t row = row_begin; row < row_end; ++row) {
    const uint64_t* pixels = gradient.signs + row * s.in_w * pixel_words;
    auto* to = static_cast<__m512i*>(prepared) + row * l.row_vectors;
    for (int64_t word = 0; word < l.words; ++word) {
      for (int64_t kx = 0; kx < s.kernel_w; ++kx) {
        // Columns of g that see a pixel.
        const int64_t begin = larger(word * kBlockColumns, s.pad_w - kx);
        const int64_t end = smaller(smaller((word + 1) * kBlockColumns, s.out_w), s.in_w + s.pad_w - kx);
        for (int64_t v = 0; v < l.vectors; ++v, ++to) {
          const uint64_t* pixel = pixels + (begin + kx - s.pad_w) * pixel_words + v / 4;
          __m512i lanes = _mm512_setzero_si512();
          __m512i bit = _mm512_set1_epi32(static_cast<int>(1u << begin % kBlockColumns));
          for (int64_t x = begin; x < end; ++x, pixel += pixel_words) {
            lanes = _mm512_mask_or_epi32(lanes, static_cast<__mmask16>(*pixel >> (v % 4 * 16)), lanes, bit);
            bit = _mm512_add_epi32(bit, bit);
          }
          _mm512_store_si512(to, lanes);
        }
      }
    }
  }
}

size_t weight_workspace_bytes(const WeightGradient& gradient) {
  const Layout l = layout_of(gradient.shape, gradient.slots);
  return static_cast<size_t>(kHalves * l.sum_floats + gradient.block_rows * l.table_floats) * sizeof(float);
}

void weight_run(const WeightGradient& gradient, const void* prepared, int64_t out_begin, void* workspace) {
  const ConvShape& s = gradient.shape;
  const Layout l = layout_of(s, gradient.slots);
  auto* sums = static_cast<float*>(workspace);
  float* tables = sums + kHalves * l.sum_floats;
  const int64_t halves = divide_up(smaller(kUnitChannels, s.out_c - out_begin), kTileChannels);
  memset(sums, 0, static_cast<size_t>(kHalves * l.sum_floats) * sizeof(float));
  const int64_t rows = s.batch * s.out_h;
  for (int64_t row = 0; row < rows; row += gradient.block_rows) {
    const int64_t count = smaller(gradient.block_rows, rows - row);
    for (int64_t word = 0; word < l.words; ++word) {
      const __m512i* index = static_cast<const __m512i*>(prepared) + word * s.kernel_w * l.vectors;
      for (int64_t half = 0; half < halves; ++half) {
        for (int64_t k = 0; k < count; ++k) {
          build_row(gradient, word, gradient.g + (row + k) * s.out_w * s.out_c,
                    out_begin + half * kTileChannels, tables + k * l.table_floats);
        }
        add_block(gradient, l, index, row, count, word, tables, sums + half * l.sum_floats);
      }
    }
  }
  for (int64_t half = 0; half < halves; ++half) {
    store(s, l, sums + half * l.sum_floats, out_begin + half * kTileChannels, gradient.out);
  }
}

}  // namespace binarynet::training::avx512_vpopcntdq
