// What this machine can do at most, for `binarynet bench`: loops that run at the speed of one part of the
// hardware. They compute next to nothing; the caller times them beside the kernels, in the same run.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace binarynet::limits {

// The inner instructions of a kernel, on operands that never leave the registers and the first-level cache:
// no tiles, no flushes, no results written. A kernel cannot be faster than its mix.
struct Mix {
  const char* method;  // of which kernels: Method::name
  int64_t macs;        // multiply-accumulates of a step
  // Returns steps * macs, counted bit by bit like a kernel does (weights are ones, activations zeros), while
  // steps <= kExactSteps; beyond, counters wrap.
  int64_t (*run)(int64_t steps);
};
constexpr int64_t kExactSteps = 3;

// One row per instruction set, named like its kernels.
struct Limits {
  const char* isa;
  const Mix* mixes;
  int32_t num_mixes;
  // XOR of all words, read `times` times: as fast as memory, or the cache that they lie in, gives them.
  // 64-byte aligned, a multiple of kReadWords.
  // `cold`: in four streams side by side, of which memory gives more; caches give more to a single one.
  uint64_t (*read)(const uint64_t* words, int64_t count, int64_t times, bool cold);
};

extern const Limits kPortableLimits;
#if defined(BINARYNET_HAVE_AVX2)
extern const Limits kAvx2Limits;
#endif
#if defined(BINARYNET_HAVE_AVX512_VPOPCNTDQ)
extern const Limits kAvx512VpopcntdqLimits;
#endif
#if defined(BINARYNET_HAVE_AVX512_VBMI)
extern const Limits kAvx512VbmiLimits;
#endif
#if defined(BINARYNET_HAVE_NEON)
extern const Limits kNeonLimits;
#endif

// Of the instruction sets that can be used here, best first.
std::vector<const Limits*> usable_limits();

// Of a method of `isa`; throws where there is none that can be used here.
const Mix& find_mix(const std::string& isa, const std::string& method);

constexpr int64_t kReadWords = 32;
constexpr int64_t kChain = 16;  // count_cycles() takes multiples

// A chain of so many additions, each of which needs the one before: one cycle each on every processor there
// is.
uint64_t count_cycles(int64_t additions);

}  // namespace binarynet::limits
