// The AVX-512 VBMI kernel set: that of VPOPCNTDQ, and bit slices where they are faster.
#include "avx512_vbmi.h"

namespace binarynet {
namespace {

const Engine& engine(const Block& block) {
  return avx512_vbmi::slices_possible(block) ? avx512_vbmi::kWideBits : kAvx512VpopcntdqKernels.engine(block);
}

}  // namespace

const KernelSet kAvx512VbmiKernels = {"avx512_vbmi", engine};

}  // namespace binarynet
