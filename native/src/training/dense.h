// The products of dense layers while training. Layouts and the order of sums: kernels.h. Matrices are
// row-major and contiguous; `num_threads` counts the caller. Sizes may be 0. Anything can throw
// std::bad_alloc, and what choose_kernels() throws.
#pragma once

#include <cstdint>

#include "training/kernels.h"

namespace binarynet::training {

// Packs a matrix in one pass; returns which of Found it holds, if that is asked.
uint32_t pack_signs(const Signs& signs, int32_t num_threads);

// out[b][n] = sum over k of a[b][k] * w[n][k], exact integers, by the inference kernels. a and w are row bits
// of [batch, in_features] and [out_features, in_features]. With a_strict (the bits of a > 0, where those of
// a are a >= 0) the operands are -1, 0 and +1: half the sum of both products. in_features <= 2^24.
struct BitProduct {
  const uint64_t* a;
  const uint64_t* a_strict;  // or null
  const uint64_t* w;
  int64_t batch, out_features, in_features;
  float* out;
};
void multiply_bits(const BitProduct& product, int32_t num_threads);

// Real numbers times signs.
void multiply_signs(const SignedProduct& product, int32_t num_threads);

}  // namespace binarynet::training
