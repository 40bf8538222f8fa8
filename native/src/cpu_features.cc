#include "cpu_features.h"

#if defined(__x86_64__)
#include <cpuid.h>

#include <cstdint>
#endif

namespace binarynet {
namespace {

#if defined(__x86_64__)
// Extended control register 0: which register states the operating system saves on a context switch.
uint64_t read_xcr0() {
  uint32_t low = 0;
  uint32_t high = 0;
  __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return (static_cast<uint64_t>(high) << 32) | low;
}

CpuFeatures detect() {
  CpuFeatures features;
  uint32_t a = 0;
  uint32_t b = 0;
  uint32_t c = 0;
  uint32_t d = 0;
  if (__get_cpuid(1, &a, &b, &c, &d) == 0) return features;
  features.popcnt = (c >> 23) & 1;
  const bool os_uses_xsave = (c >> 27) & 1;
  const bool avx = (c >> 28) & 1;
  const uint64_t state = os_uses_xsave ? read_xcr0() : 0;
  const uint64_t kAvxState = 0x06;     // XMM, YMM
  const uint64_t kAvx512State = 0xe6;  // and the masks, the upper halves of ZMM 0-15, ZMM 16-31
  const bool avx_state = (state & kAvxState) == kAvxState;
  const bool avx512_state = (state & kAvx512State) == kAvx512State;
  if (__get_cpuid_count(7, 0, &a, &b, &c, &d) == 0) return features;
  features.bmi1 = (b >> 3) & 1;
  features.bmi2 = (b >> 8) & 1;
  const bool avx2 = avx && ((b >> 5) & 1);
  features.avx2 = avx2 && avx_state;
  features.avx_state_disabled = avx2 && !avx_state;
  const bool avx512f = (b >> 16) & 1;
  features.avx512_state_disabled = avx512f && !avx512_state;
  if (avx512f && avx512_state) {
    features.avx512f = true;
    features.avx512dq = (b >> 17) & 1;
    features.avx512bw = (b >> 30) & 1;
    features.avx512vl = (b >> 31) & 1;
    features.avx512_vbmi = (c >> 1) & 1;
    features.gfni = (c >> 8) & 1;
    features.avx512_vnni = (c >> 11) & 1;
    features.avx512_vpopcntdq = (c >> 14) & 1;
  }
  return features;
}
#else
CpuFeatures detect() { return {}; }
#endif

}  // namespace

const CpuFeatures& cpu_features() {
  static const CpuFeatures features = detect();
  return features;
}

}  // namespace binarynet
