// Limits of the AVX-512 VBMI kernels: counts of 512 channels in bit slices, see
// kernels/avx512_vbmi_slices.cc.
#include <immintrin.h>

#include "limits/limits.h"

namespace binarynet::limits {
namespace {

#include "limits/read_loop.h"

constexpr int kRowBytes = 64;
constexpr int kAdders = 32;  // per word of K
constexpr int kTableBytes = 8 * kRowBytes;
constexpr int kPlanes = 8;  // of weight 2 to 256

// One word of K for 512 channels: 32 looked-up carries of weight 2, most of them added three at a time, then
// all to the planes by full adders of two operations. The three bits of each index are a rotation and a mask.
struct Slices {
  const uint8_t* tables;
  uint64_t parities;
  __m512i planes[kPlanes];

  template <int kAdder>
  inline __attribute__((always_inline)) const __m512i* carry() const {
    uint64_t row = parities;
    constexpr int kTurn = (2 * kAdder + 57) & 63;
    row = (row >> kTurn | row << (64 - kTurn)) & 0x1c0;
    asm volatile("" : "+r"(row));  // each index is computed
    return reinterpret_cast<const __m512i*>(tables + kAdder * kTableBytes + row);
  }
  inline __attribute__((always_inline)) __m512i full_add(int plane, __m512i a, __m512i b) {
    const __m512i carried = _mm512_ternarylogic_epi64(planes[plane], a, b, 0xe8);
    planes[plane] = _mm512_ternarylogic_epi64(planes[plane], a, b, 0x96);
    return carried;
  }
  struct Added {
    __m512i sum, carried;
  };
  template <int kAdder>
  inline __attribute__((always_inline)) Added add3() const {
    const __m512i a = _mm512_load_si512(carry<kAdder>());
    const __m512i differ = _mm512_xor_si512(a, _mm512_load_si512(carry<kAdder + 1>()));
    const __m512i sum = _mm512_xor_si512(differ, _mm512_load_si512(carry<kAdder + 2>()));
    return {sum, _mm512_ternarylogic_epi64(a, differ, sum, 0x74)};  // differ ? third : first
  }
  // Adds the carries of adders [kAdder, kAdder + 16), returns one of weight 32.
  template <int kAdder>
  inline __attribute__((always_inline)) __m512i add16() {
    const Added a = add3<kAdder>();
    const Added b = add3<kAdder + 3>();
    const __m512i ab = full_add(0, a.sum, b.sum);
    const __m512i fours1 = full_add(1, a.carried, b.carried);
    const Added c = add3<kAdder + 6>();
    const __m512i eights1 = full_add(2, fours1, full_add(1, ab, c.carried));
    const Added d = add3<kAdder + 9>();
    const __m512i fours3 = full_add(1, full_add(0, c.sum, d.sum), d.carried);
    const Added e = add3<kAdder + 12>();
    const __m512i last = full_add(0, e.sum, _mm512_load_si512(carry<kAdder + 15>()));
    return full_add(3, eights1, full_add(2, fours3, full_add(1, last, e.carried)));
  }
};

// A word of K of two pixels, whose planes do not wait for one another.
int64_t add_slices(int64_t steps) {
  constexpr int kPixels = 2;
  alignas(64) uint8_t tables[kAdders * kTableBytes];
  for (uint8_t& byte : tables) byte = 255;  // two disagreements more always carry
  Slices slices[kPixels];
#pragma GCC unroll 2
  for (Slices& pixel : slices) {
    pixel.tables = tables;
    pixel.parities = 0x123456789abcdef0;
#pragma GCC unroll 8
    for (__m512i& plane : pixel.planes) plane = _mm512_setzero_si512();
  }
  for (int64_t step = 0; step < steps; ++step) {
#pragma GCC unroll 2
    for (Slices& pixel : slices) {
      asm volatile("" : "+r"(pixel.tables), "+r"(pixel.parities) : : "memory");
      const __m512i first = pixel.add16<0>();
      __m512i carried = pixel.full_add(4, first, pixel.add16<16>());
#pragma GCC unroll 3
      for (int i = 5; i < kPlanes; ++i) {
        const __m512i next = _mm512_and_si512(pixel.planes[i], carried);
        pixel.planes[i] = _mm512_xor_si512(pixel.planes[i], carried);
        carried = next;
      }
    }
  }
  int64_t found = 0;
#pragma GCC unroll 2
  for (const Slices& pixel : slices) {
#pragma GCC unroll 8
    for (int i = 0; i < kPlanes; ++i) {
      alignas(64) uint64_t lanes[8];
      _mm512_store_si512(lanes, pixel.planes[i]);
      for (const uint64_t lane : lanes) found += int64_t{2} * __builtin_popcountll(lane) << i;
    }
  }
  return found;
}

const Mix kMixes[] = {{"bit slices", 2 * 64 * 512, add_slices}};

}  // namespace

const Limits kAvx512VbmiLimits = {"avx512_vbmi", kMixes, 1, read_words};

}  // namespace binarynet::limits
