// AP2, the nearest power of two, in a form that compilers turn into vectors. Each instruction set compiles it
// with its own flags, hence the anonymous namespace.
#pragma once

#include <cstdint>

namespace binarynet::training {
namespace {

constexpr uint32_t kSignBit = 0x80000000u;
constexpr uint32_t kInfinityBits = 0x7f800000u;
constexpr uint32_t kSmallestNormalBits = 0x00800000u;
// Added to a float's bits, it overflows into the exponent exactly where the mantissa is above sqrt(2).
constexpr uint32_t kCarry = kSmallestNormalBits - 0x3504f4u;

inline uint32_t bits_of(float x) {
  uint32_t bits;
  __builtin_memcpy(&bits, &x, sizeof(bits));
  return bits;
}

inline float float_of(uint32_t bits) {
  float x;
  __builtin_memcpy(&x, &bits, sizeof(x));
  return x;
}

// Choices without branches: with them, compilers make no vectors.
inline uint32_t ones_if(bool condition) { return 0u - static_cast<uint32_t>(condition); }

inline uint32_t select(uint32_t ones, uint32_t a, uint32_t b) { return (a & ones) | (b & ~ones); }

inline float ap2(float x) {
  const uint32_t bits = bits_of(x);
  const uint32_t sign = bits & kSignBit;
  const uint32_t magnitude = bits ^ sign;
  const uint32_t finite = magnitude < kInfinityBits ? magnitude : kInfinityBits;
  const uint32_t normal = (finite + kCarry) & kInfinityBits;
  // A subnormal is an integer times the smallest one: as a float of its own, the integer has an exponent,
  // too.
  const uint32_t counted = bits_of(static_cast<float>(static_cast<int32_t>(magnitude))) + kCarry;
  const int32_t exponent = static_cast<int32_t>(counted >> 23) - 127;
  const uint32_t subnormal = (1u << (exponent & 31)) & ones_if(magnitude != 0);
  const uint32_t rounded = select(ones_if(magnitude < kSmallestNormalBits), subnormal, normal) | sign;
  return float_of(select(ones_if(magnitude > kInfinityBits), bits, rounded));
}

}  // namespace
}  // namespace binarynet::training
