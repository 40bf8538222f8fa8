// The NEON kernel set: which engine serves a block.
#include "neon.h"

namespace binarynet {
namespace {

size_t prepared_bytes(const Block& block) {
  return block.input == BlockInput::bytes ? neon::bytes_prepared_bytes(block)
                                          : neon::bits_prepared_bytes(block);
}

void prepare(const Block& block, void* prepared) {
  block.input == BlockInput::bytes ? neon::bytes_prepare(block, prepared)
                                   : neon::bits_prepare(block, prepared);
}

int64_t unit_count(const Block& block, int64_t batch) {
  return block.input == BlockInput::bytes ? neon::bytes_unit_count(block, batch)
                                          : neon::bits_unit_count(block, batch);
}

// Scratch serves one unit after another, so it does not grow with their number.
size_t workspace_bytes(const Block& block, int64_t batch, int64_t /*units*/) {
  return block.input == BlockInput::bytes ? neon::bytes_workspace_bytes(block, batch)
                                          : neon::bits_workspace_bytes(block, batch);
}

void run(const Block& block, const void* prepared, const void* in, void* out, int64_t batch,
         int64_t unit_begin, int64_t unit_end, void* workspace) {
  if (block.input == BlockInput::bytes) {
    neon::bytes_run(block, prepared, static_cast<const uint8_t*>(in), out, batch, unit_begin, unit_end,
                    workspace);
  } else {
    neon::bits_run(block, prepared, static_cast<const uint8_t*>(in), out, batch, unit_begin, unit_end,
                   workspace);
  }
}

const char* method(const Block& block, int64_t batch) {
  return block.input == BlockInput::bytes ? neon::bytes_method(block, batch)
                                          : neon::bits_method(block, batch);
}

}  // namespace

const KernelSet kNeonKernels = {"neon", prepared_bytes, prepare, unit_count, workspace_bytes, run, method};

}  // namespace binarynet
