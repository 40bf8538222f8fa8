// Dense layers in training, AVX-512.
//
// A product of real numbers with signs needs no multiplication: the 16 values of +-v0 +-v1 +-v2 +-v3 are a
// register, and one permutation looks up, for 16 columns at once, the one that each column's four bits ask
// for (it takes the low four bits of each 32-bit lane, so a word of 32 signs is shifted down by four after
// each use). That is 64 multiply-adds in two operations. Tables of a tile of rows and a block of steps (32
// KB) stay in the first-level cache; all rows of the tile share the shifts.
#include <immintrin.h>

#include <cstring>

#include "kernels.h"
#include "kernels/avx512_masks.h"

namespace binarynet::training {
namespace {

constexpr int64_t kBlockGroups = kBlockSteps / kGroupSteps;
constexpr int kWordGroups = static_cast<int>(kWordRows / kGroupSteps);
constexpr int64_t kTableFloats = 16;

int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }

// ---- Packing

__mmask16 first_lanes(int64_t count) {
  return count >= kLanes ? static_cast<__mmask16>(0xffff) : static_cast<__mmask16>((1u << count) - 1);
}

// What is besides +1 and -1; only asked where there is something.
uint32_t classify(const float* values, int64_t count) {
  const __m512i magnitude = _mm512_set1_epi32(0x7fffffff);
  __mmask16 zero = 0;
  __mmask16 byte = 0;
  __mmask16 other = 0;
  for (int64_t at = 0; at < count; at += kLanes) {
    const __mmask16 there = first_lanes(count - at);
    const __m512 x = _mm512_maskz_loadu_ps(there, values + at);
    const __m512 size = _mm512_castsi512_ps(_mm512_and_si512(_mm512_castps_si512(x), magnitude));
    const __m512i integer = _mm512_maskz_cvttps_epi32(there, size);  // NaN and large ones: 0x80000000
    const __mmask16 null = _mm512_mask_cmp_ps_mask(there, size, _mm512_setzero_ps(), _CMP_EQ_OQ);
    const __mmask16 one = _mm512_mask_cmp_ps_mask(there, size, _mm512_set1_ps(1.0f), _CMP_EQ_OQ);
    __mmask16 odd = _mm512_mask_test_epi32_mask(there, integer, _mm512_set1_epi32(1));
    odd = _mm512_mask_cmp_ps_mask(odd, size, _mm512_set1_ps(255.0f), _CMP_LE_OQ);
    odd = _mm512_mask_cmp_ps_mask(odd, size, _mm512_maskz_cvtepi32_ps(there, integer), _CMP_EQ_OQ);
    zero |= null;
    byte |= static_cast<__mmask16>(odd & ~one);
    other |= static_cast<__mmask16>(there & ~(null | odd));
  }
  return (zero != 0 ? kFoundZero : 0u) | (byte != 0 ? kFoundByte : 0u) | (other != 0 ? kFoundOther : 0u);
}

void to_bytes(const float* values, int64_t count, uint8_t* bytes) {
  const __m512i offset = _mm512_set1_epi32(255);
  for (int64_t at = 0; at < count; at += kLanes) {
    const __mmask16 there = first_lanes(count - at);
    const __m512 x = _mm512_maskz_loadu_ps(there, values + at);
    const __mmask16 given = _mm512_cmp_ps_mask(x, _mm512_setzero_ps(), _CMP_NEQ_UQ);
    const __m512i doubled = _mm512_maskz_add_epi32(given, _mm512_maskz_cvttps_epi32(given, x), offset);
    _mm512_mask_cvtepi32_storeu_epi8(bytes + at, there, _mm512_maskz_srli_epi32(given, doubled, 1));
  }
}

constexpr int64_t kChunk = 4096;  // columns whose column bits of one word (16 KB) are filled together

// Part of one row of a matrix.
template <bool kStrict>
struct RowPart {
  const float* values;
  uint32_t* columns;  // words of the columns, or null
  __m512i bit;        // of the row in a word
  __m512i odd;        // not 0 where a value was neither +1 nor -1

  // The bits of columns [at, at + 16), as far as they are `there`.
  inline __attribute__((always_inline)) uint64_t pack(int64_t at, __m512 x, __mmask16 there) {
    constexpr int kCompare = kStrict ? _CMP_GT_OQ : _CMP_NLT_UQ;
    const __mmask16 up = _mm512_mask_cmp_ps_mask(there, x, _mm512_setzero_ps(), kCompare);
    const __m512i magnitude = _mm512_and_si512(_mm512_castps_si512(x), _mm512_set1_epi32(0x7fffffff));
    odd = _mm512_or_si512(odd, _mm512_maskz_xor_epi32(there, magnitude, _mm512_set1_epi32(0x3f800000)));
    if (columns != nullptr) {
      const __m512i before = _mm512_load_si512(columns + at);
      _mm512_store_si512(columns + at, _mm512_mask_or_epi32(before, up, before, bit));
    }
    return widened(up);
  }

  void pack(int64_t cols, uint64_t* bits) {
    constexpr int64_t kAhead = 512;  // floats
    const int64_t whole = cols / kRowBits * kRowBits;
    for (int64_t col = 0; col < whole; col += kRowBits) {
      uint64_t word = 0;
#pragma GCC unroll 4
      for (int64_t at = 0; at < kRowBits; at += kLanes) {
        _mm_prefetch(reinterpret_cast<const char*>(values + col + at + kAhead), _MM_HINT_T0);
        word |= pack(col + at, _mm512_loadu_ps(values + col + at), 0xffff) << at;
      }
      if (bits != nullptr) bits[col / kRowBits] = word;
    }
    if (whole == cols) return;
    uint64_t word = 0;
    for (int64_t at = whole; at < cols; at += kLanes) {
      const __mmask16 there = first_lanes(cols - at);
      word |= pack(at, _mm512_maskz_loadu_ps(there, values + at), there) << (at - whole);
    }
    if (bits != nullptr) bits[whole / kRowBits] = word;
  }
};

// One word of each column of a chunk, to its place in the column bits.
void store_columns(const uint32_t* columns, int64_t count, uint32_t* to) {
  for (int64_t panel = 0; panel < count; ++panel) {
    _mm512_storeu_si512(to + panel * kBlockWords * kLanes, _mm512_load_si512(columns + panel * kLanes));
  }
}

// Rows one after the other, 16 KB of each, as the memory likes it; the column bits of 32 rows stay in the
// first-level cache meanwhile.
template <bool kStrict>
uint32_t pack_blocks(const Signs& s, int64_t block_begin, int64_t block_end) {
  alignas(64) uint32_t columns[kChunk];
  uint32_t found = 0;
  for (int64_t word = block_begin * kBlockWords; word < block_end * kBlockWords; ++word) {
    for (int64_t col = 0; col < s.cols; col += kChunk) {
      const int64_t cols = smaller(kChunk, s.cols - col);
      const int64_t num_panels = panels(cols);
      if (s.by_column != nullptr) memset(columns, 0, static_cast<size_t>(num_panels) * 64);
      for (int64_t row = word * kWordRows; row < smaller((word + 1) * kWordRows, s.rows); ++row) {
        RowPart<kStrict> part = {};
        part.values = s.values + row * s.cols + col;
        part.columns = s.by_column == nullptr ? nullptr : columns;
        part.bit = _mm512_set1_epi32(static_cast<int32_t>(uint32_t{1} << (row % kWordRows)));
        part.odd = _mm512_setzero_si512();
        part.pack(cols, s.by_row == nullptr ? nullptr : s.by_row + row * row_words(s.cols) + col / kRowBits);
        if (s.find && _mm512_test_epi32_mask(part.odd, part.odd) != 0) found |= classify(part.values, cols);
      }
      if (s.by_column != nullptr) {
        store_columns(columns, num_panels, s.by_column + column_offset(s.cols, word, col / kLanes));
      }
    }
  }
  return found;
}

uint32_t pack(const Signs& signs, int64_t block_begin, int64_t block_end) {
  return signs.strict ? pack_blocks<true>(signs, block_begin, block_end)
                      : pack_blocks<false>(signs, block_begin, block_end);
}

// ---- Products

// Lane j of table_signs(i): +1 if bit i of j is set, else -1.
__m512 table_signs(int step) {
  const __m512i lane = _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
  const __mmask16 up = _mm512_test_epi32_mask(lane, _mm512_set1_epi32(1 << step));
  return _mm512_mask_blend_ps(up, _mm512_set1_ps(-1.0f), _mm512_set1_ps(1.0f));
}

// tables: [group][row of the tile][16], for the groups of one block. A product with +-1 is exact, so the
// fused multiply-adds round as plain additions do.
void build_tables(const SignedProduct& p, int64_t row_begin, int64_t row_end, int64_t step_begin,
                  int64_t groups, float* tables) {
  const int64_t rows = row_end - row_begin;
  const __m512 signs0 = table_signs(0);
  const __m512 signs1 = table_signs(1);
  const __m512 signs2 = table_signs(2);
  const __m512 signs3 = table_signs(3);
  for (int64_t group = 0; group < groups; ++group) {
    const int64_t step = step_begin + group * kGroupSteps;
    const float* values = p.values + row_begin * p.row_stride + step * p.step_stride;
    float* table = tables + group * rows * kTableFloats;
    const bool whole = step + kGroupSteps <= p.steps;
    for (int64_t row = 0; row < rows; ++row, values += p.row_stride, table += kTableFloats) {
      float v[kGroupSteps] = {};
      for (int64_t i = 0; i < kGroupSteps; ++i) {
        if (whole || step + i < p.steps) v[i] = values[i * p.step_stride];
      }
      __m512 sums = _mm512_mul_ps(signs0, _mm512_set1_ps(v[0]));
      sums = _mm512_fmadd_ps(signs1, _mm512_set1_ps(v[1]), sums);
      sums = _mm512_fmadd_ps(signs2, _mm512_set1_ps(v[2]), sums);
      sums = _mm512_fmadd_ps(signs3, _mm512_set1_ps(v[3]), sums);
      _mm512_store_ps(table, sums);
    }
  }
}

// A result larger than the caches is written past them: that saves reading it first.
bool may_stream(const float* out, int64_t rows, int64_t cols) {
  constexpr int64_t kLarge = 1 << 21;  // floats
  return rows * cols >= kLarge && cols % kLanes == 0 && reinterpret_cast<uintptr_t>(out) % 64 == 0;
}

// Where the sums of a block go: to the scratch memory [panel][row][16], or, with the last block, out.
struct Block {
  const float* tables;
  int64_t words, groups;  // groups of the last word may be fewer than 8
  bool first, last;
  bool stream;
};

template <int kRows>
void multiply_block(const SignedProduct& p, int64_t row_begin, int64_t panel_begin, int64_t panel_end,
                    int64_t first_word, const Block& block, float* scratch) {
  for (int64_t panel = panel_begin; panel < panel_end; ++panel) {
    const uint32_t* signs = p.signs + column_offset(p.cols, first_word, panel);
    __m512 sums[kRows];
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r) sums[r] = _mm512_setzero_ps();
    const float* table = block.tables;
    for (int64_t group = 0; group < block.groups; signs += kLanes) {
      __m512i index = _mm512_loadu_si512(signs);
      const int64_t stop = smaller(group + kWordGroups, block.groups);
      for (; group < stop; ++group, table += kRows * kTableFloats) {
#pragma GCC unroll 16
        for (int r = 0; r < kRows; ++r) {
          const __m512 entry = _mm512_load_ps(table + r * kTableFloats);
          sums[r] = _mm512_add_ps(sums[r], _mm512_maskz_permutexvar_ps(0xffff, index, entry));
        }
        index = _mm512_maskz_srli_epi32(0xffff, index, kGroupSteps);
      }
    }
    float* partial = scratch + (panel - panel_begin) * kTileRows * kLanes;
    if (!block.first) {
#pragma GCC unroll 16
      for (int r = 0; r < kRows; ++r) sums[r] = _mm512_add_ps(_mm512_load_ps(partial + r * kLanes), sums[r]);
    }
    if (!block.last) {
#pragma GCC unroll 16
      for (int r = 0; r < kRows; ++r) _mm512_store_ps(partial + r * kLanes, sums[r]);
      continue;
    }
    const int64_t col = panel * kLanes;
    float* out = p.out + row_begin * p.cols + col;
    if (block.stream) {
#pragma GCC unroll 16
      for (int r = 0; r < kRows; ++r) _mm512_stream_ps(out + r * p.cols, sums[r]);
      continue;
    }
    const __mmask16 there = first_lanes(p.cols - col);
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r) _mm512_mask_storeu_ps(out + r * p.cols, there, sums[r]);
  }
}

using MultiplyBlock = void (*)(const SignedProduct&, int64_t, int64_t, int64_t, int64_t, const Block&,
                               float*);

constexpr MultiplyBlock kMultiplyBlock[kTileRows] = {
    multiply_block<1>,  multiply_block<2>,  multiply_block<3>,  multiply_block<4>,
    multiply_block<5>,  multiply_block<6>,  multiply_block<7>,  multiply_block<8>,
    multiply_block<9>,  multiply_block<10>, multiply_block<11>, multiply_block<12>,
    multiply_block<13>, multiply_block<14>, multiply_block<15>, multiply_block<16>};

void multiply(const SignedProduct& p, int64_t row_begin, int64_t row_end, int64_t panel_begin,
              int64_t panel_end, void* workspace) {
  float* tables = static_cast<float*>(workspace);
  float* scratch = tables + kBlockGroups * kTileRows * kTableFloats;
  const MultiplyBlock multiply_rows = kMultiplyBlock[row_end - row_begin - 1];
  const bool stream = may_stream(p.out, p.rows, p.cols);
  for (int64_t step = 0; step < p.steps; step += kBlockSteps) {
    Block block = {};
    block.tables = tables;
    block.groups = (smaller(kBlockSteps, p.steps - step) + kGroupSteps - 1) / kGroupSteps;
    block.first = step == 0;
    block.last = step + kBlockSteps >= p.steps;
    block.stream = stream;
    build_tables(p, row_begin, row_end, step, block.groups, tables);
    multiply_rows(p, row_begin, panel_begin, panel_end, step / kWordRows, block, scratch);
  }
  if (stream) _mm_sfence();
}

// ---- Products of real numbers: operands of a first layer, or masked ones, times gradients
//
// 8 rows x 48 columns stay in registers through a block of steps. Both operands are copied together first:
// their rows may be a power of two apart, where the caches hold only few of them.

constexpr int kRealTileRows = 8;
constexpr int kRealTilePanels = 3;
constexpr int64_t kRealTileCols = kRealTilePanels * kLanes;

// left: [row tile][step][8], zero beyond row_end.
void gather_left(const RealProduct& p, int64_t row_begin, int64_t row_end, int64_t step, int64_t steps,
                 float* to) {
  for (int64_t row = row_begin; row < row_end; row += kRealTileRows) {
    const __mmask8 there = static_cast<__mmask8>(first_lanes(smaller(kRealTileRows, row_end - row)));
    for (int64_t i = 0; i < steps; ++i, to += kRealTileRows) {
      _mm256_store_ps(to, _mm256_maskz_loadu_ps(there, p.left + (step + i) * p.rows + row));
    }
  }
}

// right: [step][48], zero beyond the last column.
void gather_right(const RealProduct& p, int64_t col, int64_t step, int64_t steps, float* to) {
  for (int64_t i = 0; i < steps; ++i) {
    for (int64_t at = 0; at < kRealTileCols; at += kLanes, to += kLanes) {
      const int64_t rest = p.cols - col - at;
      const float* from = p.right + (step + i) * p.cols + col + at;
      _mm512_store_ps(to, rest <= 0 ? _mm512_setzero_ps() : _mm512_maskz_loadu_ps(first_lanes(rest), from));
    }
  }
}

void multiply_real_tile(const RealProduct& p, const float* left, const float* right, int64_t row,
                        int64_t row_end, int64_t col, int64_t steps, bool first, bool stream) {
  __m512 sums[kRealTileRows][kRealTilePanels];
#pragma GCC unroll 8
  for (int r = 0; r < kRealTileRows; ++r) {
#pragma GCC unroll 3
    for (int c = 0; c < kRealTilePanels; ++c) sums[r][c] = _mm512_setzero_ps();
  }
  for (int64_t i = 0; i < steps; ++i, left += kRealTileRows, right += kRealTileCols) {
    const __m512 right0 = _mm512_load_ps(right);
    const __m512 right1 = _mm512_load_ps(right + kLanes);
    const __m512 right2 = _mm512_load_ps(right + 2 * kLanes);
#pragma GCC unroll 8
    for (int r = 0; r < kRealTileRows; ++r) {
      const __m512 value = _mm512_set1_ps(left[r]);
      sums[r][0] = _mm512_fmadd_ps(value, right0, sums[r][0]);
      sums[r][1] = _mm512_fmadd_ps(value, right1, sums[r][1]);
      sums[r][2] = _mm512_fmadd_ps(value, right2, sums[r][2]);
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < kRealTileRows; ++r) {
#pragma GCC unroll 3
    for (int c = 0; c < kRealTilePanels; ++c) {
      const int64_t at = col + c * kLanes;
      if (row + r >= row_end || at >= p.cols) continue;
      float* out = p.out + (row + r) * p.cols + at;
      const __mmask16 there = first_lanes(p.cols - at);
      const __m512 sum = first ? sums[r][c] : _mm512_add_ps(_mm512_maskz_loadu_ps(there, out), sums[r][c]);
      if (stream) {
        _mm512_stream_ps(out, sum);
      } else {
        _mm512_mask_storeu_ps(out, there, sum);
      }
    }
  }
}

void multiply_real(const RealProduct& p, int64_t row_begin, int64_t row_end, void* workspace) {
  float* left = static_cast<float*>(workspace);
  float* right = left + kRealRows * kBlockSteps;
  const bool stream = p.steps <= kBlockSteps && may_stream(p.out, p.rows, p.cols);
  for (int64_t step = 0; step < p.steps; step += kBlockSteps) {
    const int64_t steps = smaller(kBlockSteps, p.steps - step);
    gather_left(p, row_begin, row_end, step, steps, left);
    for (int64_t col = 0; col < p.cols; col += kRealTileCols) {
      gather_right(p, col, step, steps, right);
      for (int64_t row = row_begin; row < row_end; row += kRealTileRows) {
        multiply_real_tile(p, left + (row - row_begin) * steps, right, row, row_end, col, steps, step == 0,
                           stream);
      }
    }
  }
  if (stream) _mm_sfence();
}

constexpr size_t floats(int64_t count) { return static_cast<size_t>(count) * sizeof(float); }

}  // namespace

const DenseKernels kAvx512VpopcntdqDense = {
    pack,
    multiply,
    floats(kBlockGroups * kTileRows * kTableFloats + kTilePanels * kTileRows * kLanes),
    to_bytes,
    multiply_real,
    floats(kBlockSteps * (kRealRows + kRealTileCols))};

}  // namespace binarynet::training
