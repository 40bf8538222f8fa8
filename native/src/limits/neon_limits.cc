// Limits of the NEON kernels, see kernels/neon_bits.cc: look-ups for two pairs of pixels, and XOR, count,
// add.
#include <arm_neon.h>

#include "limits/limits.h"

namespace binarynet::limits {
namespace {

#include "limits/read_loop.h"

// The row of the pair table for activations 0: popcounts of the weights' nibbles.
alignas(16) const uint8_t kPairRow[16] = {0x00, 0x11, 0x11, 0x22, 0x11, 0x22, 0x22, 0x33,
                                          0x11, 0x22, 0x22, 0x33, 0x22, 0x33, 0x33, 0x44};

constexpr int kTriples = 16;  // as the kernels: 192 bits of K, whose weights lie in L1
constexpr int kPairs = 2;
constexpr int kVectors = 4;

// Unknown to the compiler, which else would leave the sums out.
inline __attribute__((always_inline)) void keep(uint8x16_t& sum) { asm volatile("" : "+w"(sum)); }

int64_t look_up_pairs(int64_t steps) {
  alignas(64) uint8_t weights[kTriples * 3 * kVectors * 16];
  uint8_t rows[kPairs * kTriples * 3];
  for (uint8_t& nibble : weights) nibble = 15;
  for (uint8_t& row : rows) row = 0;
  uint8x16_t total[kPairs][kVectors], upper[kPairs][kVectors];
#pragma GCC unroll 2
  for (int p = 0; p < kPairs; ++p) {
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) total[p][v] = upper[p][v] = vdupq_n_u8(0);
  }
  for (; steps > 0; steps -= kTriples) {
    const uint8_t* w = weights;
    const uint8_t* index = rows;
    asm volatile("" : "+r"(w), "+r"(index) : : "memory");
    const uint8_t* const end = index + 3 * (steps < kTriples ? steps : kTriples);
    for (; index != end; index += 3, w += 48 * kVectors) {
      uint8x16_t tables[kPairs][3];
#pragma GCC unroll 2
      for (int p = 0; p < kPairs; ++p) {
#pragma GCC unroll 3
        for (int i = 0; i < 3; ++i) tables[p][i] = vld1q_u8(kPairRow + 16 * index[3 * kTriples * p + i]);
      }
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; ++v) {
        const uint8x16_t w0 = vld1q_u8(w + 16 * v);
        const uint8x16_t w1 = vld1q_u8(w + 16 * (kVectors + v));
        const uint8x16_t w2 = vld1q_u8(w + 16 * (2 * kVectors + v));
#pragma GCC unroll 2
        for (int p = 0; p < kPairs; ++p) {
          const uint8x16_t two = vaddq_u8(vqtbl1q_u8(tables[p][0], w0), vqtbl1q_u8(tables[p][1], w1));
          const uint8x16_t both = vaddq_u8(two, vqtbl1q_u8(tables[p][2], w2));
          total[p][v] = vaddq_u8(total[p][v], both);
          upper[p][v] = vsraq_n_u8(upper[p][v], both, 4);
        }
        asm volatile(""
                     : "+w"(total[0][v]), "+w"(upper[0][v]), "+w"(total[1][v]), "+w"(upper[1][v]), "+r"(w));
      }
    }
  }
  int64_t found = 0;
#pragma GCC unroll 2
  for (int p = 0; p < kPairs; ++p) {
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) {
      found += vaddlvq_u8(upper[p][v]) + vaddlvq_u8(vsubq_u8(total[p][v], vshlq_n_u8(upper[p][v], 4)));
    }
  }
  return found;
}

// A step is a byte of one pixel.
int64_t count_bytes(int64_t steps) {
  alignas(64) uint8_t weights[16 * kVectors];
  for (uint8_t& bits : weights) bits = 255;
  const uint8_t activation = 0;
  uint8x16_t ones[kVectors];
#pragma GCC unroll 4
  for (uint8x16_t& sum : ones) sum = vdupq_n_u8(0);
  for (int64_t step = 0; step < steps; ++step) {
    const uint8_t* w = weights;
    const uint8_t* pixel = &activation;
    asm volatile("" : "+r"(w), "+r"(pixel) : : "memory");
    const uint8x16_t broadcast = vld1q_dup_u8(pixel);
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) {
      ones[v] = vaddq_u8(ones[v], vcntq_u8(veorq_u8(vld1q_u8(w + 16 * v), broadcast)));
      keep(ones[v]);
    }
  }
  int64_t found = 0;
#pragma GCC unroll 4
  for (const uint8x16_t sum : ones) found += vaddlvq_u8(sum);
  return found;
}

const Mix kMixes[] = {{"table look-ups, pairs of pixels", 3 * 4 * 2 * kPairs * 16 * kVectors, look_up_pairs},
                      {"popcount of bytes", 8 * 16 * kVectors, count_bytes}};

}  // namespace

const Limits kNeonLimits = {"neon", kMixes, 2, read_words};

}  // namespace binarynet::limits
