#include "training/choice.h"

#include "dispatch.h"

namespace binarynet::training {

bool avx512_vpopcntdq_chosen() {
#if defined(BINARYNET_HAVE_AVX512_VPOPCNTDQ)
  return &choose_kernels(nullptr) == &kAvx512VpopcntdqKernels;
#else
  choose_kernels(nullptr);  // for its refusals
  return false;
#endif
}

const char* instruction_set() { return avx512_vpopcntdq_chosen() ? "avx512_vpopcntdq" : "portable"; }

}  // namespace binarynet::training
