// Limits of the portable kernels: XOR, bits counted per byte by shifts and masks, added per byte.
#include "limits/limits.h"

namespace binarynet::limits {
namespace {

#include "limits/read_loop.h"

typedef uint64_t Words __attribute__((vector_size(16)));

int64_t count_bytes(int64_t steps) {
  const Words k55 = {0x5555555555555555, 0x5555555555555555};
  const Words k33 = {0x3333333333333333, 0x3333333333333333};
  const Words k0f = {0x0f0f0f0f0f0f0f0f, 0x0f0f0f0f0f0f0f0f};
  alignas(64) uint64_t weights[8];
  for (uint64_t& word : weights) word = ~uint64_t{0};
  alignas(16) uint64_t activations[2] = {0, 0};
  const uint64_t* operand = weights;
  const uint64_t* other = activations;
  Words sums[4] = {};
  for (int64_t step = 0; step < steps; ++step) {
    asm volatile("" : "+r"(operand), "+r"(other) : : "memory");  // the compiler does not know what it reads
    const Words activation = *reinterpret_cast<const Words*>(other);
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
      Words x = *reinterpret_cast<const Words*>(operand + 2 * i) ^ activation;
      x = x - ((x >> 1) & k55);
      x = (x & k33) + ((x >> 2) & k33);
      sums[i] += (x + (x >> 4)) & k0f;
    }
  }
  int64_t found = 0;
#pragma GCC unroll 4
  for (const Words& sum : sums) {
    for (int i = 0; i < 2; ++i) {
      for (int shift = 0; shift < 64; shift += 8) found += static_cast<int64_t>(sum[i] >> shift & 255);
    }
  }
  return found;
}

const Mix kMixes[] = {{"popcount by byte counters", 512, count_bytes}};

}  // namespace

const Limits kPortableLimits = {"portable", kMixes, 1, read_words};

}  // namespace binarynet::limits
