#include "limits/limits.h"

#include "dispatch.h"
#include "error.h"

namespace binarynet::limits {
namespace {

const Limits* const kAll[] = {
#if defined(BINARYNET_HAVE_AVX2)
    &kAvx2Limits,
#endif
#if defined(BINARYNET_HAVE_AVX512_VPOPCNTDQ)
    &kAvx512VpopcntdqLimits,
#endif
#if defined(BINARYNET_HAVE_AVX512_VBMI)
    &kAvx512VbmiLimits,
#endif
#if defined(BINARYNET_HAVE_NEON)
    &kNeonLimits,
#endif
    &kPortableLimits,
};

}  // namespace

std::vector<const Limits*> usable_limits() {
  std::vector<const Limits*> found;
  for (const InstructionSet& row : instruction_sets()) {
    for (const Limits* limits : kAll) {
      if (row.why_not.empty() && std::string(row.kernels->name) == limits->isa) found.push_back(limits);
    }
  }
  return found;
}

const Mix& find_mix(const std::string& isa, const std::string& method) {
  for (const Limits* limits : usable_limits()) {
    for (int32_t i = 0; i < limits->num_mixes; ++i) {
      if (isa == limits->isa && method == limits->mixes[i].method) return limits->mixes[i];
    }
  }
  throw Error(BINARYNET_UNAVAILABLE,
              text("no instruction mix '", method, "' of '", isa, "' can be used here"));
}

uint64_t count_cycles(int64_t additions) {
  uint64_t sum = 0, step = 1;
  asm volatile("" : "+r"(step));  // not a constant: some processors add those without taking a cycle
  for (int64_t i = 0; i < additions; i += kChain) {
#pragma GCC unroll 16
    for (int64_t k = 0; k < kChain; ++k) {
      sum += step;
      asm volatile("" : "+r"(sum));
    }
  }
  return sum;
}

}  // namespace binarynet::limits
