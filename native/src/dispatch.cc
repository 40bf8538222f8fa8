#include "dispatch.h"

#include <cstdlib>

#include "cpu_features.h"
#include "error.h"

namespace binarynet {
namespace {

#if defined(BINARYNET_HAVE_AVX2)
std::string why_not_avx2() {
  const CpuFeatures& cpu = cpu_features();
  if (cpu.avx_state_disabled) return "the operating system does not save AVX registers";
  std::string missing;
  const auto need = [&missing](bool present, const char* name) {
    if (!present) missing += (missing.empty() ? "" : ", ") + std::string(name);
  };
  need(cpu.avx2, "AVX2");
  need(cpu.bmi1, "BMI1");
  need(cpu.bmi2, "BMI2");
  need(cpu.popcnt, "POPCNT");
  return missing.empty() ? "" : "this processor lacks " + missing;
}
#endif

std::vector<InstructionSet> make_table() {
  std::vector<InstructionSet> table;
#if defined(BINARYNET_HAVE_AVX2)
  table.push_back({&kAvx2Kernels, why_not_avx2()});
#endif
  table.push_back({&kPortableKernels, ""});
  return table;
}

std::string usable_names() {
  std::string names;
  for (const InstructionSet& row : instruction_sets()) {
    if (row.why_not.empty()) names += (names.empty() ? "" : ", ") + std::string(row.kernels->name);
  }
  return names;
}

}  // namespace

const std::vector<InstructionSet>& instruction_sets() {
  static const std::vector<InstructionSet> table = make_table();
  return table;
}

const KernelSet& choose_kernels(const char* requested) {
  const char* asked_by = "instruction set";
  if (requested == nullptr) {
    const char* forced = std::getenv("BINARYNET_FORCE_ISA");
    if (forced != nullptr && forced[0] != '\0') {
      requested = forced;
      asked_by = "BINARYNET_FORCE_ISA";
    }
  }
  for (const InstructionSet& row : instruction_sets()) {
    if (requested == nullptr) {
      if (row.why_not.empty()) return *row.kernels;
    } else if (std::string(requested) == row.kernels->name) {
      if (row.why_not.empty()) return *row.kernels;
      throw Error(BINARYNET_UNAVAILABLE, text(asked_by, " '", requested, "' is not usable here: ",
                                              row.why_not, "; usable: ", usable_names()));
    }
  }
  throw Error(BINARYNET_UNAVAILABLE,
              text(asked_by, " '", requested, "' is unknown to this build; usable: ", usable_names()));
}

}  // namespace binarynet
