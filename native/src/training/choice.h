// The choice of training kernels follows that of the inference kernels (../dispatch.h, BINARYNET_FORCE_ISA).
#pragma once

namespace binarynet::training {

// Whether that set is the chosen one or avx512_vbmi, which has no training kernels of its own.
bool avx512_vpopcntdq_chosen();

// Name of the instruction set whose training kernels are used now, "portable" where the chosen one has none.
// Throws where choose_kernels() does.
const char* instruction_set();

// The table of that instruction set; `avx512_vpopcntdq` is null in builds without it.
template <class Kernels>
const Kernels& choose(const Kernels* avx512_vpopcntdq, const Kernels& portable) {
  return avx512_vpopcntdq_chosen() && avx512_vpopcntdq != nullptr ? *avx512_vpopcntdq : portable;
}

}  // namespace binarynet::training
