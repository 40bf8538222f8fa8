// The two engines of the AVX-512 VPOPCNTDQ kernel set; each function serves the field of KernelSet of the
// same name.
#pragma once

#include "kernels.h"

namespace binarynet::avx512_vpopcntdq {

// Packed bits in: XOR, population count of 64-bit lanes, add.
size_t bits_prepared_bytes(const Block& block);
void bits_prepare(const Block& block, void* prepared);
int64_t bits_unit_count(const Block& block, int64_t batch);
size_t bits_workspace_bytes(const Block& block, int64_t batch);
void bits_run(const Block& block, const void* prepared, const uint8_t* in, void* out, int64_t batch,
              int64_t unit_begin, int64_t unit_end, void* workspace);
const char* bits_method(const Block& block, int64_t batch);

// 8-bit pixels in: dot products of bytes (VNNI).
size_t bytes_prepared_bytes(const Block& block);
void bytes_prepare(const Block& block, void* prepared);
int64_t bytes_unit_count(const Block& block, int64_t batch);
size_t bytes_workspace_bytes(const Block& block, int64_t batch);
void bytes_run(const Block& block, const void* prepared, const uint8_t* in, void* out, int64_t batch,
               int64_t unit_begin, int64_t unit_end, void* workspace);
const char* bytes_method(const Block& block, int64_t batch);

}  // namespace binarynet::avx512_vpopcntdq
