// What the AVX-512 training kernels share: products of real numbers with signs as table look-ups.
//
// The 16 values of +-v0 +-v1 +-v2 +-v3 fit a register, and one permutation looks up, for 16 lanes at once,
// the one that four bits of each lane ask for (it takes the low four bits of a 32-bit lane; a word of 32
// signs is shifted down by four after each use). That is 64 multiply-adds in two operations.
//
// Everything is in an anonymous namespace, as in ../kernels/simd_tiles.h.
#pragma once

#include <immintrin.h>

#include <cstdint>

namespace binarynet::training {
namespace {

constexpr int64_t kTableFloats = 16;

// Lane j of table_signs(i): +1 if bit i of j is set, else -1.
inline __m512 table_signs(int step) {
  const __m512i lane = _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
  const __mmask16 up = _mm512_test_epi32_mask(lane, _mm512_set1_epi32(1 << step));
  return _mm512_mask_blend_ps(up, _mm512_set1_ps(-1.0f), _mm512_set1_ps(1.0f));
}

struct TableSigns {
  __m512 signs[4] = {table_signs(0), table_signs(1), table_signs(2), table_signs(3)};

  // The table of four values. A product with +-1 is exact: a fused multiply-add rounds as an addition does.
  __m512 table(const float* v, int64_t stride) const {
    __m512 sums = _mm512_mul_ps(signs[0], _mm512_set1_ps(v[0]));
    sums = _mm512_fmadd_ps(signs[1], _mm512_set1_ps(v[stride]), sums);
    sums = _mm512_fmadd_ps(signs[2], _mm512_set1_ps(v[2 * stride]), sums);
    return _mm512_fmadd_ps(signs[3], _mm512_set1_ps(v[3 * stride]), sums);
  }

  // The same with 0 for the values that are not in `mask`, which are not read.
  __m512 table_of(const float* v, int64_t stride, int mask) const {
    __m512 sums = _mm512_setzero_ps();
    for (int i = 0; i < 4; ++i) {
      if (mask >> i & 1) sums = _mm512_fmadd_ps(signs[i], _mm512_set1_ps(v[i * stride]), sums);
    }
    return sums;
  }
};

// sums[r][v] += table r looked up by index v; then the indices move on. Tables follow one another.
//
// Every other addition is made as a multiply-add with 1, which rounds alike but is done by other units of the
// processor (1.3 times as fast on Zen 5). The empty assembler statements keep the compiler from loading a
// table twice, and from delaying additions, for which there are no registers.
template <int kRows, int kVectors>
inline __attribute__((always_inline)) void look_up(const float* tables, __m512 one,
                                                   __m512i (&index)[kVectors],
                                                   __m512 (&sums)[kRows][kVectors]) {
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r) {
    __m512 table = _mm512_load_ps(tables + r * kTableFloats);
    __asm__("" : "+v"(table));
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) {
      const __m512 entry = _mm512_maskz_permutexvar_ps(0xffff, index[v], table);
      sums[r][v] = (r * kVectors + v) % 2 == 0 ? _mm512_fmadd_ps(entry, one, sums[r][v])
                                               : _mm512_add_ps(sums[r][v], entry);
      __asm__ volatile("" : "+v"(sums[r][v]));
    }
  }
#pragma GCC unroll 4
  for (int v = 0; v < kVectors; ++v) index[v] = _mm512_maskz_srli_epi32(0xffff, index[v], 4);
}

// 1.0, of which the compiler does not know that it is.
inline __m512 opaque_one() {
  __m512 one = _mm512_set1_ps(1.0f);
  __asm__("" : "+v"(one));
  return one;
}

template <int kRows, int kVectors>
inline __attribute__((always_inline)) void clear(__m512 (&sums)[kRows][kVectors]) {
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) sums[r][v] = _mm512_setzero_ps();
  }
}

inline __mmask16 first_lanes(int64_t count) {
  return count >= 16 ? 0xffff : static_cast<__mmask16>((1u << count) - 1);
}

inline int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
inline int64_t larger(int64_t a, int64_t b) { return a > b ? a : b; }
inline int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }

}  // namespace
}  // namespace binarynet::training
