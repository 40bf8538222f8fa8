// The two ways in which the AVX-512 kernel set computes a block on 8-bit pixels. A block has one of them, for
// all batches, so its weights are kept in one layout only. Each function serves the field of KernelSet of
// that name.
#pragma once

#include "kernels.h"

namespace binarynet::avx512_vpopcntdq {

// Dot products of four bytes (VNNI).
namespace dot {
size_t prepared_bytes(const Block& block);
void prepare(const Block& block, void* prepared);
int64_t unit_count(const Block& block, int64_t batch);
size_t workspace_bytes(const Block& block, int64_t batch);
void run(const Block& block, const void* prepared, const uint8_t* in, void* out, int64_t batch,
         int64_t unit_begin, int64_t unit_end, void* workspace);
}  // namespace dot

// Sums of five or six pixels looked up by as many weights.
namespace lookup {
size_t prepared_bytes(const Block& block);
void prepare(const Block& block, void* prepared);
int64_t unit_count(const Block& block, int64_t batch);
size_t workspace_bytes(const Block& block, int64_t batch);
void run(const Block& block, const void* prepared, const uint8_t* in, void* out, int64_t batch,
         int64_t unit_begin, int64_t unit_end, void* workspace);
}  // namespace lookup

}  // namespace binarynet::avx512_vpopcntdq
