// Limits of the AVX-512 VPOPCNTDQ kernels: XOR, vector population count, add.
#include <immintrin.h>

#include "limits/limits.h"

namespace binarynet::limits {
namespace {

#include "limits/read_loop.h"

int64_t count_words(int64_t steps) {
  constexpr int kSums = 16;
  alignas(64) uint64_t weights[8 * kSums];
  for (uint64_t& word : weights) word = ~uint64_t{0};
  const uint64_t* operand = weights;
  __m512i activation = _mm512_setzero_si512();
  __m512i sums[kSums];
#pragma GCC unroll 16
  for (__m512i& sum : sums) sum = _mm512_setzero_si512();
  for (int64_t step = 0; step < steps; ++step) {
    asm volatile("" : "+r"(operand), "+v"(activation) : : "memory");  // the compiler does not know them
#pragma GCC unroll 16
    for (int i = 0; i < kSums; ++i) {
      const __m512i x = _mm512_xor_si512(activation, _mm512_load_si512(operand + 8 * i));
      sums[i] = _mm512_add_epi64(sums[i], _mm512_popcnt_epi64(x));
    }
  }
  int64_t found = 0;
#pragma GCC unroll 16
  for (const __m512i& sum : sums) {
    alignas(64) int64_t lanes[8];
    _mm512_store_si512(lanes, sum);
    for (const int64_t lane : lanes) found += lane;
  }
  return found;
}

const Mix kMixes[] = {{"vector popcount", 16 * 512, count_words}};

}  // namespace

const Limits kAvx512VpopcntdqLimits = {"avx512_vpopcntdq", kMixes, 1, read_words};

}  // namespace binarynet::limits
