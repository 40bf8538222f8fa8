// The AVX2 kernel set: which engine serves a block.
#include "avx2.h"

namespace binarynet {
namespace {

size_t prepared_bytes(const Block& block) {
  return block.input == BlockInput::bytes ? avx2::bytes_prepared_bytes(block)
                                          : avx2::bits_prepared_bytes(block);
}

void prepare(const Block& block, void* prepared) {
  block.input == BlockInput::bytes ? avx2::bytes_prepare(block, prepared)
                                   : avx2::bits_prepare(block, prepared);
}

int64_t unit_count(const Block& block, int64_t batch) {
  return block.input == BlockInput::bytes ? avx2::bytes_unit_count(block, batch)
                                          : avx2::bits_unit_count(block, batch);
}

// Scratch serves one unit after another, so it does not grow with their number.
size_t workspace_bytes(const Block& block, int64_t batch, int64_t /*units*/) {
  return block.input == BlockInput::bytes ? avx2::bytes_workspace_bytes(block, batch)
                                          : avx2::bits_workspace_bytes(block, batch);
}

void run(const Block& block, const void* prepared, const void* in, void* out, int64_t batch,
         int64_t unit_begin, int64_t unit_end, void* workspace) {
  if (block.input == BlockInput::bytes) {
    avx2::bytes_run(block, prepared, static_cast<const uint8_t*>(in), out, batch, unit_begin, unit_end,
                    workspace);
  } else {
    avx2::bits_run(block, prepared, static_cast<const uint64_t*>(in), out, batch, unit_begin, unit_end,
                   workspace);
  }
}

const char* method(const Block& block, int64_t batch) {
  return block.input == BlockInput::bytes ? avx2::bytes_method(block, batch)
                                          : avx2::bits_method(block, batch);
}

}  // namespace

const KernelSet kAvx2Kernels = {"avx2", prepared_bytes, prepare, unit_count, workspace_bytes, run, method};

}  // namespace binarynet
