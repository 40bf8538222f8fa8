// Shift-based batch normalization in loops that compilers turn into vectors by themselves; see
// elementwise_loops.h.
#pragma once

#include <cstdint>

#include "ap2.h"
#include "shift_norm_kernels.h"

namespace binarynet::training {
namespace {

inline int64_t smaller_of(int64_t a, int64_t b) { return a < b ? a : b; }

// ---- inner == 1: a tile of channels side by side. The tile's values stay in the cache from pass to pass.

// totals[l] = sum over rows of term(row * channels + l, l).
template <class Term>
inline void sum_rows(int64_t rows, int64_t channels, int64_t width, double* totals, const Term& term) {
  for (int64_t l = 0; l < width; ++l) totals[l] = 0;
  for (int64_t block = 0; block < rows; block += kNormBlock) {
    float sums[kNormTile] = {};
    const int64_t end = smaller_of(block + kNormBlock, rows);
    for (int64_t row = block; row < end; ++row) {
      for (int64_t l = 0; l < width; ++l) sums[l] += term(row * channels + l, l);
    }
    for (int64_t l = 0; l < width; ++l) totals[l] += static_cast<double>(sums[l]);
  }
}

void forward_columns(const ShiftNorm& n, int64_t tile) {
  const int64_t first = tile * kNormTile;
  const int64_t channels = n.shape.channels;
  const int64_t width = smaller_of(kNormTile, channels - first);
  const int64_t rows = n.shape.outer;
  const double count = static_cast<double>(rows);
  const float* __restrict x = n.x + first;
  float* __restrict y = n.y + first;
  const float scale = n.scale;
  double totals[kNormTile];
  float mean[kNormTile];
  float factor[kNormTile];
  float bias[kNormTile];
  sum_rows(rows, channels, width, totals, [&](int64_t at, int64_t) { return x[at] * scale; });
  for (int64_t l = 0; l < width; ++l) mean[l] = static_cast<float>(totals[l] / count);
  sum_rows(rows, channels, width, totals, [&](int64_t at, int64_t l) {
    const float centred = x[at] * scale - mean[l];
    return centred * ap2(centred);
  });
  for (int64_t l = 0; l < width; ++l) {
    const float variance = static_cast<float>(totals[l] / count);
    const float inv_std = 1.0f / __builtin_sqrtf(variance + n.eps);
    factor[l] = ap2(n.weight[first + l]) * ap2(inv_std);
    bias[l] = n.bias[first + l];
    n.mean[first + l] = mean[l];
    n.inv_std[first + l] = inv_std;
  }
  for (int64_t row = 0; row < rows; ++row) {
    for (int64_t l = 0; l < width; ++l) {
      const int64_t at = row * channels + l;
      y[at] = (x[at] * scale - mean[l]) * factor[l] + bias[l];
    }
  }
}

void backward_columns(const ShiftNormGradient& n, int64_t tile) {
  const int64_t first = tile * kNormTile;
  const int64_t channels = n.shape.channels;
  const int64_t width = smaller_of(kNormTile, channels - first);
  const int64_t rows = n.shape.outer;
  const float* __restrict x = n.x + first;
  const float* __restrict g = n.g + first;
  float* __restrict x_gradient = n.x_gradient + first;
  const float scale = n.scale;
  double summed[kNormTile];
  double correlated[kNormTile];
  float mean[kNormTile];
  float average[kNormTile];
  float slope[kNormTile];
  float factor[kNormTile];
  for (int64_t l = 0; l < width; ++l) mean[l] = n.mean[first + l];
  sum_rows(rows, channels, width, summed, [&](int64_t at, int64_t) { return g[at]; });
  sum_rows(rows, channels, width, correlated,
           [&](int64_t at, int64_t l) { return ap2(x[at] * scale - mean[l]) * g[at]; });
  for (int64_t l = 0; l < width; ++l) {
    const float shift = ap2(n.inv_std[first + l]);
    const float count = static_cast<float>(rows);
    average[l] = static_cast<float>(summed[l]) / count;
    slope[l] = shift * shift * static_cast<float>(correlated[l]) / count;
    factor[l] = ap2(n.weight[first + l]) * shift;
    n.weight_gradient[first + l] = shift * static_cast<float>(correlated[l]);
    n.bias_gradient[first + l] = static_cast<float>(summed[l]);
  }
  for (int64_t row = 0; row < rows; ++row) {
    for (int64_t l = 0; l < width; ++l) {
      const int64_t at = row * channels + l;
      const float rounded = ap2(x[at] * scale - mean[l]);
      x_gradient[at] = (g[at] - average[l] - rounded * slope[l]) * factor[l] * scale;
    }
  }
}

// ---- inner > 1: one channel, a plane per image.

template <class Term>
inline double sum_planes(const NormShape& shape, int64_t channel, const Term& term) {
  double totals[kNormTile] = {};
  for (int64_t image = 0; image < shape.outer; ++image) {
    const int64_t plane = (image * shape.channels + channel) * shape.inner;
    for (int64_t run = 0; run < shape.inner; run += kNormRun) {
      const int64_t count = smaller_of(kNormRun, shape.inner - run);
      const int64_t base = plane + run;
      float sums[kNormTile] = {};
      int64_t at = 0;
      for (; at + kNormTile <= count; at += kNormTile) {
        for (int64_t l = 0; l < kNormTile; ++l) sums[l] += term(base + at + l);
      }
      for (int64_t l = 0; l < count - at; ++l) sums[l] += term(base + at + l);
      for (int64_t l = 0; l < kNormTile; ++l) totals[l] += static_cast<double>(sums[l]);
    }
  }
  double total = 0;
  for (int64_t l = 0; l < kNormTile; ++l) total += totals[l];
  return total;
}

template <class Body>
inline void for_planes(const NormShape& shape, int64_t channel, const Body& body) {
  for (int64_t image = 0; image < shape.outer; ++image) {
    const int64_t plane = (image * shape.channels + channel) * shape.inner;
    for (int64_t at = plane; at < plane + shape.inner; ++at) body(at);
  }
}

void forward_planes(const ShiftNorm& n, int64_t channel) {
  const double count = static_cast<double>(n.shape.outer * n.shape.inner);
  const float* __restrict x = n.x;
  float* __restrict y = n.y;
  const float scale = n.scale;
  const double sum = sum_planes(n.shape, channel, [&](int64_t at) { return x[at] * scale; });
  const float mean = static_cast<float>(sum / count);
  const double squares = sum_planes(n.shape, channel, [&](int64_t at) {
    const float centred = x[at] * scale - mean;
    return centred * ap2(centred);
  });
  const float inv_std = 1.0f / __builtin_sqrtf(static_cast<float>(squares / count) + n.eps);
  const float factor = ap2(n.weight[channel]) * ap2(inv_std);
  const float bias = n.bias[channel];
  n.mean[channel] = mean;
  n.inv_std[channel] = inv_std;
  for_planes(n.shape, channel, [&](int64_t at) { y[at] = (x[at] * scale - mean) * factor + bias; });
}

void backward_planes(const ShiftNormGradient& n, int64_t channel) {
  const float count = static_cast<float>(n.shape.outer * n.shape.inner);
  const float* __restrict x = n.x;
  const float* __restrict g = n.g;
  float* __restrict x_gradient = n.x_gradient;
  const float scale = n.scale;
  const float mean = n.mean[channel];
  const float summed = static_cast<float>(sum_planes(n.shape, channel, [&](int64_t at) { return g[at]; }));
  const float correlated = static_cast<float>(
      sum_planes(n.shape, channel, [&](int64_t at) { return ap2(x[at] * scale - mean) * g[at]; }));
  const float shift = ap2(n.inv_std[channel]);
  const float average = summed / count;
  const float slope = shift * shift * correlated / count;
  const float factor = ap2(n.weight[channel]) * shift;
  n.weight_gradient[channel] = shift * correlated;
  n.bias_gradient[channel] = summed;
  for_planes(n.shape, channel, [&](int64_t at) {
    x_gradient[at] = (g[at] - average - ap2(x[at] * scale - mean) * slope) * factor * scale;
  });
}

void shift_norm_forward(const ShiftNorm& norm, int64_t tile) {
  norm.shape.inner == 1 ? forward_columns(norm, tile) : forward_planes(norm, tile);
}

void shift_norm_backward(const ShiftNormGradient& norm, int64_t tile) {
  norm.shape.inner == 1 ? backward_columns(norm, tile) : backward_planes(norm, tile);
}

}  // namespace
}  // namespace binarynet::training
