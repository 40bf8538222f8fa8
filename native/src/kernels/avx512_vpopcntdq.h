// The engines of the AVX-512 VPOPCNTDQ kernel set.
#pragma once

#include "kernels.h"

namespace binarynet::avx512_vpopcntdq {

// Packed bits in: XOR, population count of 64-bit lanes, add.
extern const Engine kBits;
// 8-bit pixels in: dot products of four bytes (VNNI), or sums of five or six pixels looked up by as many
// weights. A block has one of them, for all batches, so its weights are kept in one layout only.
extern const Engine kByteProducts;
extern const Engine kByteLookups;

}  // namespace binarynet::avx512_vpopcntdq
