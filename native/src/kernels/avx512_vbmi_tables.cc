// The look-up tables of avx512_vbmi_slices.cc: from weights as popcount wants them (a word of K per lane) to
// planes (one bit of K for 512 channels), and from two planes to the 8 possible carries of a full adder.
#include <immintrin.h>

#include "avx512_vbmi.h"

namespace binarynet::avx512_vbmi {
namespace {

// vpermi2b indices for channels [8 * octet, 8 * octet + 8) of a pair of vectors: byte 8 * j + 7 - c is byte j
// of channel c's word.
struct alignas(64) OctetIndex {
  uint8_t bytes[2][64];

  constexpr OctetIndex() : bytes() {
    for (int octet = 0; octet < 2; ++octet) {
      for (int j = 0; j < 8; ++j) {
        for (int c = 0; c < 8; ++c) {
          bytes[octet][8 * j + 7 - c] = static_cast<uint8_t>(64 * (c % 2) + 8 * (4 * octet + c / 2) + j);
        }
      }
    }
  }
};
constexpr OctetIndex kOctetIndex;

// Masks of all lanes: gcc 12 believes that the forms without a mask use a value that is uninitialized.
constexpr __mmask8 kAll8 = 0xff;
constexpr __mmask16 kAll16 = 0xffff;

// One channel group: to[r], qword 2 * lane + e: byte s is bit 16 * lane + 2 * r + e of K for the 8 channels
// of octet s.
void slice_group(const uint64_t* vectors, int32_t pairs, __m512i* to) {
  const __m512i identity = _mm512_set1_epi64(static_cast<int64_t>(0x8040201008040201));
  __m512i octets[8];
#pragma GCC unroll 8
  for (int s = 0; s < 8; ++s) {
    octets[s] = _mm512_setzero_si512();
    if (s / 2 < pairs) {
      const __m512i even = _mm512_load_si512(vectors + s / 2 * 16);
      const __m512i odd = _mm512_load_si512(vectors + s / 2 * 16 + 8);
      const __m512i index = _mm512_load_si512(kOctetIndex.bytes[s % 2]);
      // Each lane is an 8 x 8 matrix of bits, its rows in reverse; the product with the identity turns it.
      octets[s] = _mm512_gf2p8affine_epi64_epi8(identity, _mm512_permutex2var_epi8(even, index, odd), 0);
    }
  }
  __m512i twos[8];
#pragma GCC unroll 4
  for (int s = 0; s < 4; ++s) {
    twos[s] = _mm512_unpacklo_epi8(octets[2 * s], octets[2 * s + 1]);
    twos[s + 4] = _mm512_unpackhi_epi8(octets[2 * s], octets[2 * s + 1]);
  }
#pragma GCC unroll 2
  for (int high = 0; high < 2; ++high) {
    const __m512i* from = twos + 4 * high;
    const __m512i fours[4] = {
        _mm512_unpacklo_epi16(from[0], from[1]), _mm512_unpackhi_epi16(from[0], from[1]),
        _mm512_unpacklo_epi16(from[2], from[3]), _mm512_unpackhi_epi16(from[2], from[3])};
    _mm512_store_si512(to + 4 * high, _mm512_maskz_unpacklo_epi32(kAll16, fours[0], fours[2]));
    _mm512_store_si512(to + 4 * high + 1, _mm512_maskz_unpackhi_epi32(kAll16, fours[0], fours[2]));
    _mm512_store_si512(to + 4 * high + 2, _mm512_maskz_unpacklo_epi32(kAll16, fours[1], fours[3]));
    _mm512_store_si512(to + 4 * high + 3, _mm512_maskz_unpackhi_epi32(kAll16, fours[1], fours[3]));
  }
}

// groups: [8 groups][8], as slice_group() leaves them; planes: [64 bits of K].
void join_groups(const __m512i* groups, __m512i* planes) {
  for (int r = 0; r < 8; ++r) {
    __m512i pairs[2][4];  // [parity of the bit][groups 2 * i and 2 * i + 1], a 128-bit lane per 16 bits of K
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
      const __m512i a = _mm512_load_si512(groups + 16 * i + r);
      const __m512i b = _mm512_load_si512(groups + 16 * i + 8 + r);
      pairs[0][i] = _mm512_maskz_unpacklo_epi64(kAll8, a, b);
      pairs[1][i] = _mm512_maskz_unpackhi_epi64(kAll8, a, b);
    }
#pragma GCC unroll 2
    for (int e = 0; e < 2; ++e) {
      const __m512i even_low = _mm512_maskz_shuffle_i64x2(kAll8, pairs[e][0], pairs[e][1], 0x88);
      const __m512i odd_low = _mm512_maskz_shuffle_i64x2(kAll8, pairs[e][0], pairs[e][1], 0xdd);
      const __m512i even_high = _mm512_maskz_shuffle_i64x2(kAll8, pairs[e][2], pairs[e][3], 0x88);
      const __m512i odd_high = _mm512_maskz_shuffle_i64x2(kAll8, pairs[e][2], pairs[e][3], 0xdd);
      __m512i* to = planes + 2 * r + e;
      _mm512_store_si512(to, _mm512_maskz_shuffle_i64x2(kAll8, even_low, even_high, 0x88));
      _mm512_store_si512(to + 16, _mm512_maskz_shuffle_i64x2(kAll8, odd_low, odd_high, 0x88));
      _mm512_store_si512(to + 32, _mm512_maskz_shuffle_i64x2(kAll8, even_low, even_high, 0xdd));
      _mm512_store_si512(to + 48, _mm512_maskz_shuffle_i64x2(kAll8, odd_low, odd_high, 0xdd));
    }
  }
}

// vpternlog's table of: majority(before ^ x, a ^ x ^ y, b ^ y ^ z), with row = x + 2 * y + 4 * z.
constexpr int carry_function(int row) {
  const int x = row & 1;
  const int y = row >> 1 & 1;
  const int z = row >> 2 & 1;
  int function = 0;
  for (int in = 0; in < 8; ++in) {
    const int ones = ((in >> 2 & 1) ^ x) + ((in >> 1 & 1) ^ x ^ y) + ((in & 1) ^ y ^ z);
    function |= (ones >= 2 ? 1 : 0) << in;
  }
  return function;
}

}  // namespace

void slice_word(const WordWeights& weights, uint8_t* planes, uint8_t* scratch) {
  __m512i* groups = reinterpret_cast<__m512i*>(scratch);
  for (int g = 0; g < 8; ++g) slice_group(weights.vectors[g], weights.pairs[g], groups + 8 * g);
  join_groups(groups, reinterpret_cast<__m512i*>(planes));
}

void build_tables(const uint8_t* planes, uint8_t* parity, uint8_t* tables) {
  __m512i before = _mm512_load_si512(parity);
  for (int i = 0; i < kAdders; ++i, tables += kTableBytes, planes += 128) {
    const __m512i a = _mm512_load_si512(planes);
    const __m512i b = _mm512_load_si512(planes + 64);
    // The next word but one. Beyond the end of the planes nothing happens.
    __builtin_prefetch(planes + 2 * kWordPlanesBytes);
    __builtin_prefetch(planes + 2 * kWordPlanesBytes + 64);
    _mm512_store_si512(tables, _mm512_ternarylogic_epi64(before, a, b, carry_function(0)));
    _mm512_store_si512(tables + 64, _mm512_ternarylogic_epi64(before, a, b, carry_function(1)));
    _mm512_store_si512(tables + 128, _mm512_ternarylogic_epi64(before, a, b, carry_function(2)));
    _mm512_store_si512(tables + 192, _mm512_ternarylogic_epi64(before, a, b, carry_function(3)));
    _mm512_store_si512(tables + 256, _mm512_ternarylogic_epi64(before, a, b, carry_function(4)));
    _mm512_store_si512(tables + 320, _mm512_ternarylogic_epi64(before, a, b, carry_function(5)));
    _mm512_store_si512(tables + 384, _mm512_ternarylogic_epi64(before, a, b, carry_function(6)));
    _mm512_store_si512(tables + 448, _mm512_ternarylogic_epi64(before, a, b, carry_function(7)));
    before = _mm512_ternarylogic_epi64(before, a, b, 0x96);
  }
  _mm512_store_si512(parity, before);
}

}  // namespace binarynet::avx512_vbmi
