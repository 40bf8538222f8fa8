// The AVX-512 kernels of convolutions: packing of weights, and the table.
#include "training/avx512_vpopcntdq_conv.h"

#include <cstring>

#include "training/avx512_lookup.h"

namespace binarynet::training {
namespace {

// The taps of 64 input channels follow one another: their signs are taken as they lie, 64 to a word, and each
// tap's bits then picked from them.
void pack_weights(const float* weights, int64_t in_c, int64_t taps, int64_t out_begin, int64_t out_end,
                  uint64_t* bits) {
  constexpr int64_t kMostTaps = 121;  // 11 x 11; beyond, one sign after the other
  const int64_t words = row_words(in_c);
  uint64_t signs[kMostTaps];
  for (int64_t o = out_begin; o < out_end; ++o) {
    for (int64_t word = 0; word < words; ++word) {
      const int64_t channels = smaller(kRowBits, in_c - word * kRowBits);
      const float* from = weights + (o * in_c + word * kRowBits) * taps;
      if (taps <= kMostTaps) {
        for (int64_t at = 0; at < channels * taps; at += 16) {
          const __mmask16 there = first_lanes(channels * taps - at);
          const __m512 x = _mm512_maskz_loadu_ps(there, from + at);
          const uint64_t up = _mm512_mask_cmp_ps_mask(there, x, _mm512_setzero_ps(), _CMP_NLT_UQ);
          signs[at / 64] = at % 64 == 0 ? up : signs[at / 64] | up << (at % 64);
        }
      }
      for (int64_t tap = 0; tap < taps; ++tap) {
        uint64_t collected = 0;
        for (int64_t i = 0, at = tap; i < channels; ++i, at += taps) {
          const uint64_t up = taps <= kMostTaps ? signs[at / 64] >> (at % 64) & 1 : !(from[at] < 0);
          collected |= up << i;
        }
        bits[(o * taps + tap) * words + word] = collected;
      }
    }
  }
}

}  // namespace

namespace fast = avx512_vpopcntdq;

const ConvKernels kAvx512VpopcntdqConv = {
    pack_weights,    fast::input_prepared_bytes,  fast::input_prepare,  fast::input_workspace_bytes,
    fast::input_run, fast::weight_prepared_bytes, fast::weight_prepare, fast::weight_workspace_bytes,
    fast::weight_run};

}  // namespace binarynet::training
