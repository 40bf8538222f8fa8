// What a mix of instructions is said to count, and what reading reads.
#include "limits/limits.h"

#include <string>
#include <vector>

#include "check.h"
#include "memory.h"

namespace binarynet_tests {

namespace limits = binarynet::limits;

void test_limits() {
  CHECK(limits::usable_limits().back()->isa == std::string("portable"), "works everywhere and comes last");
  for (const limits::Limits* set : limits::usable_limits()) {
    for (int32_t i = 0; i < set->num_mixes; ++i) {
      const limits::Mix& mix = set->mixes[i];
      for (const int64_t steps : {int64_t{1}, int64_t{2}, limits::kExactSteps}) {
        CHECK(mix.run(steps) == steps * mix.macs, std::string(set->isa) + ": " + mix.method);
      }
    }
    const int64_t count = 3 * limits::kReadWords;
    const binarynet::AlignedBuffer memory(static_cast<size_t>(count) * sizeof(uint64_t));
    uint64_t* words = static_cast<uint64_t*>(memory.data());
    Random random(1);
    uint64_t expected = 0;
    for (int64_t i = 0; i < count; ++i) expected ^= words[i] = random.next();
    for (const bool cold : {false, true}) {
      CHECK(set->read(words, count, 1, cold) == expected && set->read(words, count, 2, cold) == 0, set->isa);
    }
  }
}

}  // namespace binarynet_tests
