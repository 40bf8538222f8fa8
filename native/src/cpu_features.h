// What this processor can do and the operating system allows. Asked once.
#pragma once

namespace binarynet {

struct CpuFeatures {
  // x86-64; true only if the operating system also saves the registers.
  bool popcnt = false;
  bool avx2 = false;
  bool bmi1 = false;
  bool bmi2 = false;
  // AVX state missing in the operating system although the processor has AVX2.
  bool avx_state_disabled = false;
};

const CpuFeatures& cpu_features();

}  // namespace binarynet
