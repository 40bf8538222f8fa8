#include "dispatch.h"

#include <cstdlib>

#include "cpu_features.h"
#include "error.h"

namespace binarynet {
namespace {

#if defined(BINARYNET_HAVE_AVX2) || defined(BINARYNET_HAVE_AVX512_VPOPCNTDQ)
struct Need {
  bool present;
  const char* name;
};

std::string lacks(const std::vector<Need>& needs) {
  std::string missing;
  for (const Need& need : needs) {
    if (!need.present) missing += (missing.empty() ? "" : ", ") + std::string(need.name);
  }
  return missing.empty() ? "" : "this processor lacks " + missing;
}
#endif

#if defined(BINARYNET_HAVE_AVX2)
std::string why_not_avx2() {
  const CpuFeatures& cpu = cpu_features();
  if (cpu.avx_state_disabled) return "the operating system does not save AVX registers";
  return lacks({{cpu.avx2, "AVX2"}, {cpu.bmi1, "BMI1"}, {cpu.bmi2, "BMI2"}, {cpu.popcnt, "POPCNT"}});
}
#endif

#if defined(BINARYNET_HAVE_AVX512_VPOPCNTDQ)
std::string why_not_avx512(const std::vector<Need>& more) {
  const CpuFeatures& cpu = cpu_features();
  if (cpu.avx512_state_disabled) return "the operating system does not save AVX-512 registers";
  std::vector<Need> needs = {{cpu.avx512f, "AVX512F"},
                             {cpu.avx512bw, "AVX512BW"},
                             {cpu.avx512dq, "AVX512DQ"},
                             {cpu.avx512vl, "AVX512VL"},
                             {cpu.avx512_vpopcntdq, "AVX512_VPOPCNTDQ"},
                             {cpu.avx512_vnni, "AVX512_VNNI"},
                             {cpu.avx2, "AVX2"},
                             {cpu.bmi1, "BMI1"},
                             {cpu.bmi2, "BMI2"},
                             {cpu.popcnt, "POPCNT"}};
  needs.insert(needs.end(), more.begin(), more.end());
  return lacks(needs);
}
#endif

std::vector<InstructionSet> make_table() {
  std::vector<InstructionSet> table;
#if defined(BINARYNET_HAVE_AVX512_VBMI)
  const CpuFeatures& cpu = cpu_features();
  table.push_back(
      {&kAvx512VbmiKernels, why_not_avx512({{cpu.avx512_vbmi, "AVX512_VBMI"}, {cpu.gfni, "GFNI"}})});
#endif
#if defined(BINARYNET_HAVE_AVX512_VPOPCNTDQ)
  table.push_back({&kAvx512VpopcntdqKernels, why_not_avx512({})});
#endif
#if defined(BINARYNET_HAVE_AVX2)
  table.push_back({&kAvx2Kernels, why_not_avx2()});
#endif
#if defined(BINARYNET_HAVE_NEON)
  table.push_back({&kNeonKernels, ""});  // part of every 64-bit ARM processor
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
