// The contract for shift-based batch normalization (layers/shift_normalization.py). Values lie as
// [outer][channels][inner]; statistics are per channel. As in kernels.h, the order of additions is part of
// the contract: results depend neither on the instruction set nor on the division of the work.
//
// Sums of a channel: with inner == 1, values are added one after the other in float32, 64 to a partial sum,
// and these in float64. Else, of each run of 1024 values of a plane, value i is added to partial sum i % 64
// in float32; these to 64 totals in float64, which are added at the end.
#pragma once

#include <cstdint>

namespace binarynet::training {

constexpr int64_t kNormTile = 64;   // channels of a tile where inner == 1, and partial sums of a plane's run
constexpr int64_t kNormBlock = 64;  // values of a partial sum where inner == 1
constexpr int64_t kNormRun = 1024;

struct NormShape {
  int64_t outer, channels, inner;
};

// With z = scale x:  mean = sum(z) / n;  c = z - mean;  inv_std = 1 / sqrt(sum(c AP2(c)) / n + eps)
//   y = c (AP2(weight) AP2(inv_std)) + bias
struct ShiftNorm {
  NormShape shape;
  const float* x;
  const float* weight;  // [channels], as all that follow but y
  const float* bias;
  float scale, eps;  // scale is a power of two
  float* y;
  float* mean;
  float* inv_std;
};

// For the gradient g of y, with s = AP2(inv_std):
//   weight_gradient = s sum(AP2(c) g);  bias_gradient = sum(g)
//   x_gradient = (g - sum(g) / n - AP2(c) (s s sum(AP2(c) g) / n)) (AP2(weight) s) scale
struct ShiftNormGradient {
  NormShape shape;
  const float* x;
  const float* g;
  const float* weight;
  const float* mean;
  const float* inv_std;
  float scale;
  float* x_gradient;
  float* weight_gradient;
  float* bias_gradient;
};

struct ShiftNormKernels {
  // A tile: kNormTile channels (fewer at the end) where inner == 1, else one channel.
  void (*forward)(const ShiftNorm& norm, int64_t tile);
  void (*backward)(const ShiftNormGradient& norm, int64_t tile);
};

extern const ShiftNormKernels kPortableShiftNorm;
#if defined(BINARYNET_HAVE_AVX512_VPOPCNTDQ)
extern const ShiftNormKernels kAvx512VpopcntdqShiftNorm;
#endif

}  // namespace binarynet::training
