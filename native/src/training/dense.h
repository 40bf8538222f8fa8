// The products of dense layers while training. Layouts and the order of sums: kernels.h. Matrices are
// row-major and contiguous; `num_threads` counts the caller. Sizes may be 0. Anything can throw
// std::bad_alloc, and what choose_kernels() throws.
#pragma once

#include <cstdint>

#include "training/kernels.h"

namespace binarynet::training {

// Packs a matrix in one pass; returns which of Found it holds, if that is asked.
uint32_t pack_signs(const Signs& signs, int32_t num_threads);

// out[b][n] = sum over k of a[b][k] * w[n][k], exact integers, by the inference kernels. w is row bits of
// [out_features, in_features]; in_features * 255 <= 2^24 with bytes, in_features <= 2^24 with bits.
struct WeightBits {
  const uint64_t* words;
  int64_t out_features, in_features;
};

// a is row bits of [batch, in_features]. With `strict` (the bits of a > 0, where those of a are a >= 0) the
// operands are -1, 0 and +1: half the sum of both products.
struct BitOperands {
  const uint64_t* words;
  const uint64_t* strict;  // or null
  int64_t batch;
};
void multiply_bits(const BitOperands& a, const WeightBits& w, float* out, int32_t num_threads);

// The same product of +-1 (without `strict`), as int32.
void multiply_bits(const BitOperands& a, const WeightBits& w, int32_t* out, int32_t num_threads);

// a is 2u - 255, or 0 where `masked` (row bits of [batch, in_features], may be null) has a bit, and u is 0.
struct ByteOperands {
  const uint8_t* bytes;
  const uint64_t* masked;  // or null
  int64_t batch;
};
void multiply_bytes(const ByteOperands& a, const WeightBits& w, float* out, int32_t num_threads);

// The bytes of a matrix of 2u - 255 and 0 (which gives u = 0), and the row bits of its zeros, unless null.
void to_bytes(const float* values, int64_t rows, int64_t cols, uint8_t* bytes, uint64_t* zeros,
              int32_t num_threads);

// Real numbers times signs.
void multiply_signs(const SignedProduct& product, int32_t num_threads);

// Real numbers times real numbers.
void multiply_real(const RealProduct& product, int32_t num_threads);

}  // namespace binarynet::training
