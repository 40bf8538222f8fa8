// The contract for what works on one element after the other: signs, noise, powers of two, updates of
// weights. As in kernels.h, "portable" defines the results to the last bit: the same operations, each rounded
// once, in any division.
#pragma once

#include <cstdint>

namespace binarynet::training {

// One step of Adam, clipped if `clip`:
//   m += (1 - beta1) (g - m);   v = beta2 v + (1 - beta2) g g
//   w -= rate m / (sqrt(v) / root + eps)
// rate: lr / (1 - beta1^t); root: sqrt(1 - beta2^t).
struct AdamStep {
  float* weight;
  const float* gradient;
  float* average;                         // m
  float* average_square;                  // v
  float complement1, beta2, complement2;  // complement: 1 - beta
  float rate, root, eps;
  bool clip;
};

// One step of shift-based AdaMax, clipped if `clip`:
//   m = beta1 m + (1 - beta1) g;   v = AP2(max(beta2 v, |g|)) + eps;   w -= rate m / v
struct AdaMaxStep {
  float* weight;
  const float* gradient;
  float* average;  // m
  float* norm;     // v
  float beta1, complement1, beta2;
  float rate, eps;
  bool clip;
};

constexpr int64_t kNoiseBlock = 32;  // noise begins at multiples of it
constexpr int64_t kNoiseWords = 4;   // of a block of Philox: pixels of a group

// [image][pixel][channel]; the number of pixels is a multiple of kNoiseWords.
struct Images {
  int64_t images, pixels, channels;
};

struct ElementwiseKernels {
  // +1 where x >= 0 or x is NaN, else -1.
  void (*sign)(const float* x, float* out, int64_t count);
  // g where |x| <= 1, else g * 0.
  void (*inside_window)(const float* g, const float* x, float* out, int64_t count);
  // The nearest power of two, ties impossible; zeros, infinities and NaN stay.
  void (*round_to_ap2)(const float* x, float* out, int64_t count);
  // Elements [begin, end) of all, begin a multiple of kNoiseBlock. Element i takes word i % 4 of block i / 4
  // of Philox4x32-10; n is the odd number (word >> 8) | 1. +1 where n < (x + 1) 2^23, else -1; NaN stays.
  void (*random_sign)(const float* x, float* out, int64_t begin, int64_t end, uint64_t key);
  // x where n >= threshold, else 0.
  void (*drop)(const float* x, float* out, int64_t begin, int64_t end, uint64_t key, uint32_t threshold);
  // The same for images whose channels lie side by side, element i being that of [image][channel][pixel]
  // order: for groups [begin, end) of four pixels.
  void (*random_sign_images)(const float* x, float* out, const Images& images, int64_t begin, int64_t end,
                             uint64_t key);
  void (*drop_images)(const float* x, float* out, const Images& images, int64_t begin, int64_t end,
                      uint64_t key, uint32_t threshold);
  void (*adam)(const AdamStep& step, int64_t begin, int64_t end);
  void (*ada_max)(const AdaMaxStep& step, int64_t begin, int64_t end);
};

extern const ElementwiseKernels kPortableElementwise;
#if defined(BINARYNET_HAVE_AVX512_VPOPCNTDQ)
extern const ElementwiseKernels kAvx512VpopcntdqElementwise;
#endif

}  // namespace binarynet::training
