// The AVX-512 VPOPCNTDQ kernel set: which engine serves a block.
#include "avx512_vpopcntdq.h"

namespace binarynet {
namespace {

size_t prepared_bytes(const Block& block) {
  return block.input == BlockInput::bytes ? avx512_vpopcntdq::bytes_prepared_bytes(block)
                                          : avx512_vpopcntdq::bits_prepared_bytes(block);
}

void prepare(const Block& block, void* prepared) {
  block.input == BlockInput::bytes ? avx512_vpopcntdq::bytes_prepare(block, prepared)
                                   : avx512_vpopcntdq::bits_prepare(block, prepared);
}

int64_t unit_count(const Block& block, int64_t batch) {
  return block.input == BlockInput::bytes ? avx512_vpopcntdq::bytes_unit_count(block, batch)
                                          : avx512_vpopcntdq::bits_unit_count(block, batch);
}

// Scratch serves one unit after another, so it does not grow with their number.
size_t workspace_bytes(const Block& block, int64_t batch, int64_t /*units*/) {
  return block.input == BlockInput::bytes ? avx512_vpopcntdq::bytes_workspace_bytes(block, batch)
                                          : avx512_vpopcntdq::bits_workspace_bytes(block, batch);
}

void run(const Block& block, const void* prepared, const void* in, void* out, int64_t batch,
         int64_t unit_begin, int64_t unit_end, void* workspace) {
  if (block.input == BlockInput::bytes) {
    avx512_vpopcntdq::bytes_run(block, prepared, static_cast<const uint8_t*>(in), out, batch, unit_begin,
                                unit_end, workspace);
  } else {
    avx512_vpopcntdq::bits_run(block, prepared, static_cast<const uint8_t*>(in), out, batch, unit_begin,
                               unit_end, workspace);
  }
}

const char* method(const Block& block, int64_t batch) {
  return block.input == BlockInput::bytes ? avx512_vpopcntdq::bytes_method(block, batch)
                                          : avx512_vpopcntdq::bits_method(block, batch);
}

}  // namespace

const KernelSet kAvx512VpopcntdqKernels = {
    "avx512_vpopcntdq", prepared_bytes, prepare, unit_count, workspace_bytes, run, method};

}  // namespace binarynet
