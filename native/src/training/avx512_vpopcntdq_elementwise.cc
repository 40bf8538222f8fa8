// Elementwise operations, AVX-512: the compiler's vectors, and noise 32 elements at a time.
#include <immintrin.h>

#include "elementwise_loops.h"

namespace binarynet::training {
namespace {

// Philox4x32-10 for eight blocks: each word in the lower half of a 64-bit lane, where the multiplication
// takes it; upper halves are whatever products leave there.
struct Words {
  __m512i w0, w1, w2, w3;
};

inline Words philox(__m512i block, uint64_t key) {
  const __m512i m0 = _mm512_set1_epi64(0xD2511F53);
  const __m512i m1 = _mm512_set1_epi64(0xCD9E8D57);
  Words c = {block, _mm512_maskz_srli_epi64(0xff, block, 32), _mm512_setzero_si512(), _mm512_setzero_si512()};
  uint32_t k0 = static_cast<uint32_t>(key);
  uint32_t k1 = static_cast<uint32_t>(key >> 32);
#pragma GCC unroll 10
  for (int round = 0; round < 10; ++round) {
    const __m512i p0 = _mm512_maskz_mul_epu32(0xff, c.w0, m0);
    const __m512i p1 = _mm512_maskz_mul_epu32(0xff, c.w2, m1);
    const __m512i high0 = _mm512_maskz_srli_epi64(0xff, p0, 32);
    const __m512i high1 = _mm512_maskz_srli_epi64(0xff, p1, 32);
    // 0x96: exclusive or of three
    c.w0 = _mm512_ternarylogic_epi64(high1, c.w1, _mm512_set1_epi64(k0), 0x96);
    c.w1 = p1;
    c.w2 = _mm512_ternarylogic_epi64(high0, c.w3, _mm512_set1_epi64(k1), 0x96);
    c.w3 = p0;
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  return c;
}

// body(at, there, n): 16 elements from `at` on, those of the mask, with their odd numbers.
template <class Body>
inline void with_noise(int64_t begin, int64_t end, uint64_t key, const Body& body) {
  // Blocks in this order make the interleaved words of lanes 0, 2, .. those of blocks 0 to 3.
  const __m512i order = _mm512_set_epi64(7, 3, 6, 2, 5, 1, 4, 0);
  const __m512i low = _mm512_set1_epi64(0xffffffff);
  const __m512i one = _mm512_set1_epi32(1);
  for (int64_t i = begin; i < end; i += kNoiseBlock) {
    const Words w = philox(_mm512_add_epi64(_mm512_set1_epi64(i / 4), order), key);
    const __m512i w01 = _mm512_or_si512(_mm512_and_si512(w.w0, low), _mm512_maskz_slli_epi64(0xff, w.w1, 32));
    const __m512i w23 = _mm512_or_si512(_mm512_and_si512(w.w2, low), _mm512_maskz_slli_epi64(0xff, w.w3, 32));
    const __m512i first = _mm512_maskz_unpacklo_epi64(0xff, w01, w23);
    const __m512i second = _mm512_maskz_unpackhi_epi64(0xff, w01, w23);
    const int64_t left = end - i;
    const uint32_t there = left >= kNoiseBlock ? 0xffffffffu : (1u << left) - 1;
    body(i, static_cast<__mmask16>(there), _mm512_or_si512(_mm512_maskz_srli_epi32(0xffff, first, 8), one));
    body(i + 16, static_cast<__mmask16>(there >> 16),
         _mm512_or_si512(_mm512_maskz_srli_epi32(0xffff, second, 8), one));
  }
}

// The same for images; 16 channels at once, one pixel of a group after the other.
template <class Body>
inline void with_noise_of_images(const Images& images, int64_t begin, int64_t end, uint64_t key,
                                 const Body& body) {
  const int64_t groups = images.pixels / kNoiseWords;
  const __m512i steps =
      _mm512_mullo_epi64(_mm512_set_epi64(7, 6, 5, 4, 3, 2, 1, 0), _mm512_set1_epi64(groups));
  const __m512i lower_halves = _mm512_set_epi32(30, 28, 26, 24, 22, 20, 18, 16, 14, 12, 10, 8, 6, 4, 2, 0);
  const __m512i one = _mm512_set1_epi32(1);
  const auto number = [&](__m512i low, __m512i high) {
    const __m512i word = _mm512_maskz_permutex2var_epi32(0xffff, low, lower_halves, high);
    return _mm512_or_si512(_mm512_maskz_srli_epi32(0xffff, word, 8), one);
  };
  for (int64_t group = begin; group < end; ++group) {
    const int64_t first = group / groups * images.channels * groups + group % groups;
    for (int64_t channel = 0; channel < images.channels; channel += 16) {
      const int64_t block = first + channel * groups;
      const Words low = philox(_mm512_add_epi64(_mm512_set1_epi64(block), steps), key);
      const Words high = philox(_mm512_add_epi64(_mm512_set1_epi64(block + 8 * groups), steps), key);
      const int64_t left = images.channels - channel;
      const __mmask16 there = left >= 16 ? 0xffff : static_cast<__mmask16>((1u << left) - 1);
      const int64_t at = group * kNoiseWords * images.channels + channel;
      body(at, there, number(low.w0, high.w0));
      body(at + images.channels, there, number(low.w1, high.w1));
      body(at + 2 * images.channels, there, number(low.w2, high.w2));
      body(at + 3 * images.channels, there, number(low.w3, high.w3));
    }
  }
}

struct DrawSign {
  const float* x;
  float* out;

  void operator()(int64_t at, __mmask16 there, __m512i n) const {
    const __m512 one = _mm512_set1_ps(1.0f);
    const __m512 value = _mm512_maskz_loadu_ps(there, x + at);
    const __m512 bound = _mm512_mul_ps(_mm512_add_ps(value, one), _mm512_set1_ps(8388608.0f));
    const __mmask16 up = _mm512_cmp_ps_mask(_mm512_maskz_cvtepi32_ps(0xffff, n), bound, _CMP_LT_OQ);
    const __mmask16 nan = _mm512_cmp_ps_mask(value, value, _CMP_UNORD_Q);
    const __m512 drawn = _mm512_mask_blend_ps(up, _mm512_set1_ps(-1.0f), one);
    _mm512_mask_storeu_ps(out + at, there, _mm512_mask_blend_ps(nan, drawn, value));
  }
};

struct Drop {
  const float* x;
  float* out;
  uint32_t threshold;

  void operator()(int64_t at, __mmask16 there, __m512i n) const {
    const __m512i bound = _mm512_set1_epi32(static_cast<int32_t>(threshold));
    const __mmask16 kept = _mm512_mask_cmpge_epu32_mask(there, n, bound);
    _mm512_mask_storeu_ps(out + at, there, _mm512_maskz_loadu_ps(kept, x + at));
  }
};

void random_sign(const float* x, float* out, int64_t begin, int64_t end, uint64_t key) {
  with_noise(begin, end, key, DrawSign{x, out});
}

void drop(const float* x, float* out, int64_t begin, int64_t end, uint64_t key, uint32_t threshold) {
  with_noise(begin, end, key, Drop{x, out, threshold});
}

void random_sign_images(const float* x, float* out, const Images& images, int64_t begin, int64_t end,
                        uint64_t key) {
  with_noise_of_images(images, begin, end, key, DrawSign{x, out});
}

void drop_images(const float* x, float* out, const Images& images, int64_t begin, int64_t end, uint64_t key,
                 uint32_t threshold) {
  with_noise_of_images(images, begin, end, key, Drop{x, out, threshold});
}

}  // namespace

const ElementwiseKernels kAvx512VpopcntdqElementwise = {
    sign_loop,          inside_window_loop, round_to_ap2_loop, random_sign, drop,
    random_sign_images, drop_images,        adam_loop,         ada_max_loop};

}  // namespace binarynet::training
