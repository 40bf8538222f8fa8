// The AVX-512 VBMI kernel set: that of VPOPCNTDQ, and bit slices where they are faster.
#include "avx512_vbmi.h"

#include "avx512_vpopcntdq.h"

namespace binarynet {
namespace {

size_t prepared_bytes(const Block& block) {
  return avx512_vbmi::slices_possible(block) ? avx512_vbmi::slices_prepared_bytes(block)
                                             : kAvx512VpopcntdqKernels.prepared_bytes(block);
}

void prepare(const Block& block, void* prepared) {
  avx512_vbmi::slices_possible(block) ? avx512_vbmi::slices_prepare(block, prepared)
                                      : kAvx512VpopcntdqKernels.prepare(block, prepared);
}

int64_t unit_count(const Block& block, int64_t batch) {
  return avx512_vbmi::slices_chosen(block, batch) ? avx512_vbmi::slices_unit_count(block, batch)
                                                  : kAvx512VpopcntdqKernels.unit_count(block, batch);
}

size_t workspace_bytes(const Block& block, int64_t batch, int64_t units) {
  return avx512_vbmi::slices_chosen(block, batch)
             ? avx512_vbmi::slices_workspace_bytes(block, batch)
             : kAvx512VpopcntdqKernels.workspace_bytes(block, batch, units);
}

void run(const Block& block, const void* prepared, const void* in, void* out, int64_t batch,
         int64_t unit_begin, int64_t unit_end, void* workspace) {
  if (avx512_vbmi::slices_chosen(block, batch)) {
    avx512_vbmi::slices_run(block, prepared, static_cast<const uint8_t*>(in), out, batch, unit_begin,
                            unit_end, workspace);
  } else {
    kAvx512VpopcntdqKernels.run(block, prepared, in, out, batch, unit_begin, unit_end, workspace);
  }
}

const char* method(const Block& block, int64_t batch) {
  return avx512_vbmi::slices_chosen(block, batch) ? "bit slices"
                                                  : kAvx512VpopcntdqKernels.method(block, batch);
}

}  // namespace

const KernelSet kAvx512VbmiKernels = {"avx512_vbmi", prepared_bytes, prepare, unit_count, workspace_bytes,
                                      run,           method};

}  // namespace binarynet
