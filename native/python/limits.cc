// binarynet._native.limits: loops at the speed of the hardware, for benchmarks.
#include "limits/limits.h"

#include <nanobind/nanobind.h>
#include <nanobind/stl/string.h>

#include <string>

#include "arrays.h"
#include "error.h"
#include "training.h"

namespace binarynet_python {
namespace {

namespace limits = binarynet::limits;
using binarynet::Error;

nb::list mixes() {
  nb::list rows;
  for (const limits::Limits* found : limits::usable_limits()) {
    for (int32_t i = 0; i < found->num_mixes; ++i) {
      const limits::Mix& mix = found->mixes[i];
      rows.append(nb::make_tuple(found->isa, mix.method, mix.macs));
    }
  }
  return rows;
}

int64_t run_mix(const std::string& isa, const std::string& method, int64_t steps) {
  return call([&] { return limits::find_mix(isa, method).run(steps); });
}

uint64_t read(nb::handle words, int64_t times, bool cold) {
  const Array array(words, "words", 'Q', {-1});
  return call([&] {
    const uint64_t* from = array.data<uint64_t>();
    if (array.length(0) % limits::kReadWords != 0 || reinterpret_cast<uintptr_t>(from) % 64 != 0) {
      throw Error(BINARYNET_INVALID_ARGUMENT,
                  "words: expected a multiple of 32 at an address that 64 divides");
    }
    return limits::usable_limits().front()->read(from, array.length(0), times, cold);
  });
}

uint64_t count_cycles(int64_t additions) {
  return call([&] { return limits::count_cycles(additions); });
}

}  // namespace

void add_limits(nb::module_& m) {
  nb::module_ group = m.def_submodule("limits", "Loops at the speed of the hardware, to be timed.");
  group.def("mixes", &mixes, "(instruction set, method, MACs per step) of each mix.");
  group.def("run_mix", &run_mix, nb::arg("isa"), nb::arg("method"), nb::arg("steps"));
  group.def("read", &read, nb::arg("words"), nb::arg("times"), nb::arg("cold"),
            "XOR of uint64 [n], read so many times; 64-byte aligned, n a multiple of 32.");
  group.def("count_cycles", &count_cycles, nb::arg("additions"),
            "So many additions, each needing the one before: one cycle each.");
}

}  // namespace binarynet_python
