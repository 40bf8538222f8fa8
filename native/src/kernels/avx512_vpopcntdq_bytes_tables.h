// Tables of the sums of five or six pixels, for avx512_vpopcntdq_bytes_lookup.cc. Everything is in an
// anonymous namespace, see simd_tiles.h.
//
// A table of five taps is a vector of 32 words: bit b of an entry's number says whether tap b is added or
// subtracted. A table of six taps is two vectors.
#pragma once

#include <immintrin.h>

#include <cstdint>

namespace binarynet::avx512_vpopcntdq {
namespace {

constexpr int32_t kChunkTaps = 16;
constexpr int32_t kChunkBytes = 256;  // of tables: 5 taps, 5 taps, 6 taps

// Tables that the last chunk of a run needs, 0 if it is full, and their bytes.
inline int32_t tail_tables(int64_t taps) { return taps == 0 ? 0 : taps <= 5 ? 1 : taps <= 10 ? 2 : 3; }
inline int64_t tail_bytes(int32_t tables) { return tables == 3 ? kChunkBytes : 64 * tables; }

// kCentred: pixels count as u - 128, so that sums are half as large.
template <bool kCentred>
class TableMaker {
 public:
  TableMaker() {
    const uint32_t kBit[5] = {0xaaaaaaaa, 0xcccccccc, 0xf0f0f0f0, 0xff00ff00, 0xffff0000};
    first_ = signs(kBit[0], kBit[1]);
    second_ = signs(kBit[2], kBit[3]);
    minus_ = signs(kBit[4], 0);
    plus_ = signs(kBit[4], ~0u);
    single_ = _mm512_maskz_mov_epi8(0x5555555555555555, minus_);
    const __m512i middle = _mm512_set1_epi8(-128);  // 128 without a sign
    const __m512i four =
        _mm512_add_epi16(_mm512_maddubs_epi16(middle, first_), _mm512_maddubs_epi16(middle, second_));
    middle_of_five_ = _mm512_add_epi16(four, _mm512_maddubs_epi16(middle, single_));
    middle_of_six_[0] = _mm512_add_epi16(four, _mm512_maddubs_epi16(middle, minus_));
    middle_of_six_[1] = _mm512_add_epi16(four, _mm512_maddubs_epi16(middle, plus_));
  }

  // 16 taps: tables of 5, 5 and 6.
  void full_chunk(const uint8_t* taps, uint8_t* to) const {
    five(taps, to);
    five(taps + 5, to + 64);
    six(taps + 10, to + 128);
  }

  // 1 to 15 taps. No byte behind them is read; those that their tables lack are nothing.
  void tail(const uint8_t* taps, int64_t count, uint8_t* to) const {
    alignas(16) uint8_t filled[kChunkTaps];
    const __mmask16 valid = static_cast<__mmask16>((1u << count) - 1);
    const __m128i nothing = _mm_set1_epi8(kCentred ? -128 : 0);
    _mm_store_si128(reinterpret_cast<__m128i*>(filled), _mm_mask_loadu_epi8(nothing, valid, taps));
    const int32_t tables = tail_tables(count);
    five(filled, to);
    if (tables > 1) five(filled + 5, to + 64);
    if (tables > 2) six(filled + 10, to + 128);
  }

  // A run of 9 taps, as in a 3 x 3 window over three colours: tables of 5 and 4.
  void nine(const uint8_t* taps, uint8_t* to) const {
    five(taps, to);
    _mm512_store_si512(to + 64, sums_of_four(taps + 5));
  }

 private:
  // Two taps in all entries, as pairs of bytes.
  static __m512i signs(uint32_t even, uint32_t odd) {
    const uint64_t plus = _pdep_u64(even, 0x5555555555555555) | _pdep_u64(odd, 0xaaaaaaaaaaaaaaaa);
    return _mm512_mask_blend_epi8(plus, _mm512_set1_epi8(-1), _mm512_set1_epi8(1));
  }

  // The pair is broadcast by the load itself; set1 would take it through a general register.
  static __m512i sums_of_pair(const uint8_t* taps, __m512i signs) {
    __m512i pairs;
    asm("vpbroadcastw %1, %0" : "=v"(pairs) : "m"(*reinterpret_cast<const uint8_t (*)[2]>(taps)));
    return _mm512_maddubs_epi16(pairs, signs);
  }

  __m512i sums_of_four(const uint8_t* taps) const {
    return _mm512_add_epi16(sums_of_pair(taps, first_), sums_of_pair(taps + 2, second_));
  }

  static void store(uint8_t* to, __m512i sums, __m512i middle) {
    _mm512_store_si512(to, kCentred ? _mm512_sub_epi16(sums, middle) : sums);
  }

  void five(const uint8_t* taps, uint8_t* to) const {
    store(to, _mm512_add_epi16(sums_of_four(taps), sums_of_pair(taps + 4, single_)), middle_of_five_);
  }

  void six(const uint8_t* taps, uint8_t* to) const {
    const __m512i four = sums_of_four(taps);
    store(to, _mm512_add_epi16(four, sums_of_pair(taps + 4, minus_)), middle_of_six_[0]);
    store(to + 64, _mm512_add_epi16(four, sums_of_pair(taps + 4, plus_)), middle_of_six_[1]);
  }

  __m512i first_, second_;  // signs of taps 0 and 1, 2 and 3
  __m512i single_;          // of tap 4, without tap 5
  __m512i minus_, plus_;    // of tap 4, and tap 5 subtracted or added
  __m512i middle_of_five_, middle_of_six_[2];
};

}  // namespace
}  // namespace binarynet::avx512_vpopcntdq
