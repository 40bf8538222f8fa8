// The NEON kernel set: which engine serves a block.
#include "neon.h"

namespace binarynet {
namespace {

const Engine& engine(const Block& block) {
  return block.input == BlockInput::bytes ? neon::kBytes : neon::kBits;
}

}  // namespace

const KernelSet kNeonKernels = {"neon", engine};

}  // namespace binarynet
