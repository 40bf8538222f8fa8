#include "training/shift_norm.h"

#include "dispatch.h"
#include "training/choice.h"
#include "training/parallel.h"

namespace binarynet::training {
namespace {

const ShiftNormKernels& kernels() {
#if defined(BINARYNET_HAVE_AVX512_VPOPCNTDQ)
  return choose(&kAvx512VpopcntdqShiftNorm, kPortableShiftNorm);
#else
  return choose<ShiftNormKernels>(nullptr, kPortableShiftNorm);
#endif
}

int64_t num_tiles(const NormShape& shape) {
  return shape.inner == 1 ? (shape.channels + kNormTile - 1) / kNormTile : shape.channels;
}

}  // namespace

void shift_norm(const ShiftNorm& norm, int32_t num_threads) {
  const ShiftNormKernels& chosen = kernels();
  parallel(num_threads, num_tiles(norm.shape), 0, [&](int64_t tile, void*) { chosen.forward(norm, tile); });
}

void shift_norm_gradient(const ShiftNormGradient& norm, int32_t num_threads) {
  const ShiftNormKernels& chosen = kernels();
  parallel(num_threads, num_tiles(norm.shape), 0, [&](int64_t tile, void*) { chosen.backward(norm, tile); });
}

}  // namespace binarynet::training
