// The two ways in which the AVX2 kernel set computes a block on 8-bit pixels. A block has one of them, for
// all batches, so its weights are kept in one layout only. Each function serves the field of KernelSet of
// that name.
#pragma once

#include "kernels.h"

namespace binarynet::avx2 {

// Multiply-adds of bytes.
namespace multiply {
size_t prepared_bytes(const Block& block);
void prepare(const Block& block, void* prepared);
int64_t unit_count(const Block& block, int64_t batch);
size_t workspace_bytes(const Block& block, int64_t batch);
void run(const Block& block, const void* prepared, const uint8_t* in, void* out, int64_t batch,
         int64_t unit_begin, int64_t unit_end, void* workspace);
}  // namespace multiply

// Sums of four pixels looked up by as many weights.
namespace lookup {
size_t prepared_bytes(const Block& block);
void prepare(const Block& block, void* prepared);
int64_t unit_count(const Block& block, int64_t batch);
size_t workspace_bytes(const Block& block, int64_t batch);
void run(const Block& block, const void* prepared, const uint8_t* in, void* out, int64_t batch,
         int64_t unit_begin, int64_t unit_end, void* workspace);
}  // namespace lookup

}  // namespace binarynet::avx2
