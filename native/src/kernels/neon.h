// The engines of the NEON kernel set.
#pragma once

#include "kernels.h"

namespace binarynet::neon {

// Packed bits in: look-ups in tables of partial popcounts, or XOR and count where pixels are few.
extern const Engine kBits;
// 8-bit pixels in: look-ups in tables of the sums of four pixels.
extern const Engine kBytes;

}  // namespace binarynet::neon
