// What this processor can do and the operating system allows. Asked once.
#pragma once

namespace binarynet {

struct CpuFeatures {
  // x86-64; true only if the operating system also saves the registers.
  bool popcnt = false;
  bool avx2 = false;
  bool bmi1 = false;
  bool bmi2 = false;
  bool avx512f = false;
  bool avx512bw = false;
  bool avx512dq = false;
  bool avx512vl = false;
  bool avx512_vpopcntdq = false;
  bool avx512_vnni = false;
  bool avx512_vbmi = false;
  bool gfni = false;
  // The processor has AVX2 (AVX-512), but the operating system does not save its registers.
  bool avx_state_disabled = false;
  bool avx512_state_disabled = false;
};

const CpuFeatures& cpu_features();

}  // namespace binarynet
