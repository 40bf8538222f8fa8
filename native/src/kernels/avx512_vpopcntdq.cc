// The AVX-512 VPOPCNTDQ kernel set: which engine serves a block.
#include "avx512_vpopcntdq.h"

#include "simd_tiles.h"

namespace binarynet {
namespace {

// Tables are made for each pixel, and pay when enough channels look into them and when a convolution's serve
// every row of its window. Measured on Zen 5: look-ups are faster from 96 (3 x 3 windows over three colours)
// to 128 channels on (dense layers, batches), 1.5 to 4 times from 256 on.
constexpr int32_t kLeastChannels = 112;
constexpr int32_t kLeastTaps = 16;

bool by_lookup(const Block& b) {
  return b.out_c >= kLeastChannels && int64_t{b.kernel_h} * b.kernel_w * b.in_c >= kLeastTaps &&
         (b.stride_h <= 2 || is_flat(b));
}

const Engine& engine(const Block& block) {
  if (block.input == BlockInput::bits) return avx512_vpopcntdq::kBits;
  return by_lookup(block) ? avx512_vpopcntdq::kByteLookups : avx512_vpopcntdq::kByteProducts;
}

}  // namespace

const KernelSet kAvx512VpopcntdqKernels = {"avx512_vpopcntdq", engine};

}  // namespace binarynet
