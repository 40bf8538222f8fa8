// The AVX2 kernel set: which engine serves a block.
#include "avx2.h"

namespace binarynet {
namespace {

// Tables are made for each pixel, and pay when enough channels look into them. Measured on Zen 5: level at 96
// to 128 channels, 1.3 to 1.9 times as fast from 256 on.
constexpr int32_t kLeastChannels = 96;

bool by_lookup(const Block& b) { return b.out_c >= kLeastChannels; }

const Engine& engine(const Block& block) {
  if (block.input == BlockInput::bits) return avx2::kBits;
  return by_lookup(block) ? avx2::kByteLookups : avx2::kByteProducts;
}

}  // namespace

const KernelSet kAvx2Kernels = {"avx2", engine};

}  // namespace binarynet
