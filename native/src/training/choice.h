// The choice of training kernels follows that of the inference kernels (../dispatch.h, BINARYNET_FORCE_ISA).
#pragma once

namespace binarynet::training {

bool avx512_vpopcntdq_chosen();

// Name of the instruction set whose training kernels are used now: the chosen one, or "portable" where that
// one has no training kernels. Throws where choose_kernels() does.
const char* instruction_set();

// The table of that instruction set; `avx512_vpopcntdq` is null in builds without it.
template <class Kernels>
const Kernels& choose(const Kernels* avx512_vpopcntdq, const Kernels& portable) {
  return avx512_vpopcntdq_chosen() && avx512_vpopcntdq != nullptr ? *avx512_vpopcntdq : portable;
}

}  // namespace binarynet::training
