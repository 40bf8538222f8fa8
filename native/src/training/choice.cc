#include "training/choice.h"

#include "dispatch.h"

namespace binarynet::training {

bool avx512_vpopcntdq_chosen() {
  [[maybe_unused]] const KernelSet* chosen = &choose_kernels(nullptr);  // which also refuses unknown names
#if defined(BINARYNET_HAVE_AVX512_VBMI)
  if (chosen == &kAvx512VbmiKernels) return true;
#endif
#if defined(BINARYNET_HAVE_AVX512_VPOPCNTDQ)
  return chosen == &kAvx512VpopcntdqKernels;
#else
  return false;
#endif
}

const char* instruction_set() { return avx512_vpopcntdq_chosen() ? "avx512_vpopcntdq" : "portable"; }

}  // namespace binarynet::training
