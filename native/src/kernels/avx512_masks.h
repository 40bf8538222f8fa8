// Comparison masks as numbers; for every AVX-512 file. See simd_tiles.h for why it is in an anonymous
// namespace.
#pragma once

#include <cstdint>

namespace binarynet {
namespace {

// gcc 12, when it is short of registers, may store a mask of 16 bits as 2 bytes and load 8 of them back as
// the widened number. A mask that has been in an ordinary register has no such short form.
inline __attribute__((always_inline)) uint64_t widened(uint32_t mask) {
  asm("" : "+r"(mask));
  return mask;
}

}  // namespace
}  // namespace binarynet
