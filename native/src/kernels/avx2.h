// The engines of the AVX2 kernel set.
#pragma once

#include "kernels.h"

namespace binarynet::avx2 {

// Packed bits in: look-ups in constant tables of partial popcounts, or in tables of the weights.
extern const Engine kBits;
// 8-bit pixels in: multiply-adds of bytes, or sums of four pixels looked up by as many weights. A block has
// one of them, for all batches, so its weights are kept in one layout only.
extern const Engine kByteProducts;
extern const Engine kByteLookups;

}  // namespace binarynet::avx2
