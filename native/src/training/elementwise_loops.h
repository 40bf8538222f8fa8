// Loops that compilers turn into vectors by themselves. Each instruction set compiles them with its own
// flags, hence the anonymous namespace; results are the same, because every operation is rounded once (no
// contraction, no reordering).
#pragma once

#include <cstdint>

#include "ap2.h"
#include "elementwise_kernels.h"

namespace binarynet::training {
namespace {

// To [-1, 1]; NaN stays.
inline float clipped(float x) {
  const float above = x < -1.0f ? -1.0f : x;
  return above > 1.0f ? 1.0f : above;
}

void sign_loop(const float* __restrict x, float* __restrict out, int64_t count) {
  for (int64_t i = 0; i < count; ++i) out[i] = x[i] < 0.0f ? -1.0f : 1.0f;
}

void inside_window_loop(const float* __restrict g, const float* __restrict x, float* __restrict out,
                        int64_t count) {
  for (int64_t i = 0; i < count; ++i) {
    const float inside = float_of(bits_of(x[i]) & ~kSignBit) <= 1.0f ? 1.0f : 0.0f;
    out[i] = g[i] * inside;
  }
}

void round_to_ap2_loop(const float* __restrict x, float* __restrict out, int64_t count) {
  for (int64_t i = 0; i < count; ++i) out[i] = ap2(x[i]);
}

template <bool kClip>
void adam_range(const AdamStep& s, int64_t begin, int64_t end) {
  float* __restrict weight = s.weight;
  const float* __restrict gradient = s.gradient;
  float* __restrict average = s.average;
  float* __restrict average_square = s.average_square;
  const float complement1 = s.complement1;
  const float complement2 = s.complement2;
  const float beta2 = s.beta2;
  const float rate = s.rate;
  const float root = s.root;
  const float eps = s.eps;
  for (int64_t i = begin; i < end; ++i) {
    const float g = gradient[i];
    const float m = average[i] + complement1 * (g - average[i]);
    const float v = beta2 * average_square[i] + complement2 * g * g;
    average[i] = m;
    average_square[i] = v;
    const float w = weight[i] - rate * m / (__builtin_sqrtf(v) / root + eps);
    weight[i] = kClip ? clipped(w) : w;
  }
}

void adam_loop(const AdamStep& s, int64_t begin, int64_t end) {
  s.clip ? adam_range<true>(s, begin, end) : adam_range<false>(s, begin, end);
}

template <bool kClip>
void ada_max_range(const AdaMaxStep& s, int64_t begin, int64_t end) {
  float* __restrict weight = s.weight;
  const float* __restrict gradient = s.gradient;
  float* __restrict average = s.average;
  float* __restrict norm = s.norm;
  const float beta1 = s.beta1;
  const float complement1 = s.complement1;
  const float beta2 = s.beta2;
  const float rate = s.rate;
  const float eps = s.eps;
  for (int64_t i = begin; i < end; ++i) {
    const float g = gradient[i];
    const float m = beta1 * average[i] + complement1 * g;
    const float decayed = beta2 * norm[i];
    const float magnitude = float_of(bits_of(g) & ~kSignBit);
    const float larger = magnitude <= decayed || decayed != decayed ? decayed : magnitude;  // NaN of either
    const float v = ap2(larger) + eps;
    average[i] = m;
    norm[i] = v;
    const float w = weight[i] - rate * m / v;
    weight[i] = kClip ? clipped(w) : w;
  }
}

void ada_max_loop(const AdaMaxStep& s, int64_t begin, int64_t end) {
  s.clip ? ada_max_range<true>(s, begin, end) : ada_max_range<false>(s, begin, end);
}

}  // namespace
}  // namespace binarynet::training
