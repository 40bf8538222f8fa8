// The products of convolutions while training. Layouts and the order of sums: conv_kernels.h; `num_threads`
// counts the caller. The batch may be empty, nothing else. Anything can throw std::bad_alloc, and what
// choose_kernels() throws.
#pragma once

#include <cstdint>

#include "kernels/kernels.h"
#include "training/conv_kernels.h"

namespace binarynet::training {

// Signs of latent weights [out_c][in_c][taps] as bits, [out_c][taps][row_words(in_c)].
void pack_conv_weights(const float* weights, int64_t out_c, int64_t in_c, int64_t taps, uint64_t* bits,
                       int32_t num_threads);

// out[n][y][x][o] = sum over ky, kx, i of signs(n, stride_h y + ky - pad_h, stride_w x + kx - pad_w, i) *
// weights(o, ky, kx, i), exact integers by the inference kernels, as float32 or int32. in_c * kernel_h *
// kernel_w <= 2^24.
struct Convolution {
  ConvShape shape;
  int64_t stride_h, stride_w;
  const uint64_t* signs;
  const uint64_t* weights;
  BlockOutput element;  // of out: float32 or int32
  void* out;
};
void convolve_bits(const Convolution& convolution, int32_t num_threads);

void input_gradient(const InputGradient& gradient, int32_t num_threads);

// out: [out_c][in_c][kernel_h][kernel_w].
void weight_gradient(const ConvShape& shape, const float* g, const uint64_t* signs, float* out,
                     int32_t num_threads);

}  // namespace binarynet::training
