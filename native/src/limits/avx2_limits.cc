// Limits of the AVX2 kernels: counting by table look-up, see kernels/avx2_lut.h.
#include <immintrin.h>

#include "limits/limits.h"

namespace binarynet::limits {
namespace {

#include "limits/read_loop.h"

// Entries of the two-column and the one-column table for activations 0: popcounts of the weights' nibbles.
alignas(16) const uint8_t kPairRow[16] = {0x00, 0x11, 0x11, 0x22, 0x11, 0x22, 0x22, 0x33,
                                          0x11, 0x22, 0x22, 0x33, 0x22, 0x33, 0x33, 0x44};
alignas(16) const uint8_t kSingleRow[16] = {0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4};

constexpr int kTriples = 21;  // as the kernels: 252 bits of K, whose weights lie in L1
constexpr int kVectors = 4;

inline __m256i load(const void* from) { return _mm256_load_si256(static_cast<const __m256i*>(from)); }

inline __m256i row_at(const uint8_t* table, uint16_t offset) {
  return _mm256_broadcastsi128_si256(_mm_load_si128(reinterpret_cast<const __m128i*>(table + offset)));
}

// In place, and unknown to the compiler, which else would copy the sums of a loop or leave it out.
inline __attribute__((always_inline)) void add(__m256i& sum, __m256i value) {
  sum = _mm256_add_epi8(sum, value);
  asm volatile("" : "+x"(sum));
}

int64_t sum_of_bytes(__m256i bytes) {
  alignas(32) int64_t lanes[4];
  _mm256_store_si256(reinterpret_cast<__m256i*>(lanes), _mm256_sad_epu8(bytes, _mm256_setzero_si256()));
  return lanes[0] + lanes[1] + lanes[2] + lanes[3];
}

int64_t look_up_pairs(int64_t steps) {
  alignas(64) uint8_t weights[kTriples * 3 * kVectors * 32];
  uint16_t offsets[kTriples * 3];
  for (uint8_t& nibble : weights) nibble = 15;
  for (uint16_t& offset : offsets) offset = 0;
  const __m256i nibble = _mm256_set1_epi8(15);
  __m256i total[kVectors], high[kVectors];
#pragma GCC unroll 4
  for (int v = 0; v < kVectors; ++v) total[v] = high[v] = _mm256_setzero_si256();
  while (steps > 0) {
    const uint8_t* w = weights;
    const uint16_t* index = offsets;
    asm volatile("" : "+r"(w), "+r"(index) : : "memory");
    const uint16_t* const end = index + 3 * (steps < kTriples ? steps : kTriples);
    do {
      const __m256i row0 = row_at(kPairRow, index[0]);
      const __m256i row1 = row_at(kPairRow, index[1]);
      const __m256i row2 = row_at(kPairRow, index[2]);
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; ++v) {
        __m256i x = _mm256_shuffle_epi8(row0, load(w + 32 * v));
        x = _mm256_add_epi8(x, _mm256_shuffle_epi8(row1, load(w + 32 * (kVectors + v))));
        x = _mm256_add_epi8(x, _mm256_shuffle_epi8(row2, load(w + 32 * (2 * kVectors + v))));
        add(total[v], x);
        add(high[v], _mm256_and_si256(_mm256_srli_epi16(x, 4), nibble));
      }
      index += 3;
      w += 3 * 32 * kVectors;
    } while (index != end);
    steps -= kTriples;
  }
  int64_t found = 0;
#pragma GCC unroll 4
  for (int v = 0; v < kVectors; ++v) {
    const __m256i sixteen_high = _mm256_slli_epi16(_mm256_and_si256(high[v], nibble), 4);
    found += sum_of_bytes(high[v]) + sum_of_bytes(_mm256_sub_epi8(total[v], sixteen_high));
  }
  return found;
}

// One group of one column: weights are used once, so they come packed.
inline __attribute__((always_inline)) void look_up_single(const uint8_t* packed, uint16_t offset,
                                                          __m256i nibble, __m256i* sums) {
  const __m256i row = row_at(kSingleRow, offset);
#pragma GCC unroll 2
  for (int v = 0; v < 2; ++v) {
    const __m256i both = load(packed + 32 * v);
    add(sums[2 * v], _mm256_shuffle_epi8(row, _mm256_and_si256(both, nibble)));
    add(sums[2 * v + 1], _mm256_shuffle_epi8(row, _mm256_and_si256(_mm256_srli_epi16(both, 4), nibble)));
  }
}

int64_t look_up_singles(int64_t steps) {
  constexpr int kBlock = 63;
  alignas(64) uint8_t weights[kBlock * 64];
  uint16_t offsets[kBlock];
  for (uint8_t& both : weights) both = 255;
  for (uint16_t& offset : offsets) offset = 0;
  const __m256i nibble = _mm256_set1_epi8(15);
  __m256i sums[4];
#pragma GCC unroll 4
  for (__m256i& sum : sums) sum = _mm256_setzero_si256();
  while (steps > 0) {
    const uint8_t* w = weights;
    const uint16_t* index = offsets;
    asm volatile("" : "+r"(w), "+r"(index) : : "memory");
    const uint16_t* const end = index + (steps < kBlock ? steps : kBlock);
    for (; end - index >= 3; index += 3, w += 3 * 64) {  // as the kernel: a group alone is mostly loop
#pragma GCC unroll 3
      for (int g = 0; g < 3; ++g) look_up_single(w + 64 * g, index[g], nibble, sums);
    }
    for (; index != end; ++index, w += 64) look_up_single(w, *index, nibble, sums);
    steps -= kBlock;
  }
  int64_t found = 0;
#pragma GCC unroll 4
  for (const __m256i& sum : sums) found += sum_of_bytes(sum);
  return found;
}

// Tables of weights (kernels/avx2_tables.h): ten loads count a word of K for 64 channels, two per byte. A
// step is a word of four pixels, whose sums do not wait for one another.
int64_t look_up_weights(int64_t steps) {
  constexpr int kFields = 10;
  constexpr int kPixels = 4;
  constexpr uint8_t kBits[kFields] = {7, 6, 7, 6, 7, 6, 7, 6, 6, 6};
  alignas(64) uint8_t tables[kFields * 32];  // of each field the entry for activations 0
  for (int i = 0; i < kFields * 32; ++i) tables[i] = static_cast<uint8_t>(kBits[i / 32] * 0x11);
  uint16_t offsets[kPixels * kFields];
  for (int i = 0; i < kPixels * kFields; ++i) offsets[i] = static_cast<uint16_t>(i % kFields * 32);
  const __m256i nibble = _mm256_set1_epi8(15);
  const uint16_t* index = offsets;
  const uint8_t* base = tables;
  __m256i total[kPixels], high[kPixels];
#pragma GCC unroll 4
  for (int i = 0; i < kPixels; ++i) total[i] = high[i] = _mm256_setzero_si256();
  for (int64_t step = 0; step < steps; ++step) {
    asm volatile("" : "+r"(index), "+r"(base) : : "memory");
#pragma GCC unroll 4
    for (int i = 0; i < kPixels; ++i) {
#pragma GCC unroll 5
      for (int field = 0; field < kFields; field += 2) {
        uint32_t two;
        __builtin_memcpy(&two, index + i * kFields + field, sizeof(two));
        asm("" : "+r"(two));  // one load, not two
        const __m256i x = _mm256_add_epi8(load(base + (two & 0xffff)), load(base + (two >> 16)));
        add(total[i], x);
        add(high[i], _mm256_and_si256(_mm256_srli_epi16(x, 4), nibble));
      }
    }
  }
  int64_t found = 0;
#pragma GCC unroll 4
  for (int i = 0; i < kPixels; ++i) {
    const __m256i sixteen_high = _mm256_slli_epi16(_mm256_and_si256(high[i], nibble), 4);
    found += sum_of_bytes(high[i]) + sum_of_bytes(_mm256_sub_epi8(total[i], sixteen_high));
  }
  return found;
}

const Mix kMixes[] = {{"table look-ups, pairs of columns", 3 * 4 * 2 * 32 * kVectors, look_up_pairs},
                      {"table look-ups, one column", 4 * 128, look_up_singles},
                      {"tables of weights, made at run time", 4 * 64 * 64, look_up_weights}};

}  // namespace

const Limits kAvx2Limits = {"avx2", kMixes, 3, read_words};

}  // namespace binarynet::limits
