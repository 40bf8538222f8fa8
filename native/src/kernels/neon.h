// The two engines of the NEON kernel set; each function serves the field of KernelSet of the same name.
#pragma once

#include "kernels.h"

namespace binarynet::neon {

// Packed bits in: look-ups in tables of partial popcounts, or XOR and count where pixels are few.
size_t bits_prepared_bytes(const Block& block);
void bits_prepare(const Block& block, void* prepared);
int64_t bits_unit_count(const Block& block, int64_t batch);
size_t bits_workspace_bytes(const Block& block, int64_t batch);
void bits_run(const Block& block, const void* prepared, const uint8_t* in, void* out, int64_t batch,
              int64_t unit_begin, int64_t unit_end, void* workspace);
const char* bits_method(const Block& block, int64_t batch);

// 8-bit pixels in: look-ups in tables of the sums of four pixels.
size_t bytes_prepared_bytes(const Block& block);
void bytes_prepare(const Block& block, void* prepared);
int64_t bytes_unit_count(const Block& block, int64_t batch);
size_t bytes_workspace_bytes(const Block& block, int64_t batch);
void bytes_run(const Block& block, const void* prepared, const uint8_t* in, void* out, int64_t batch,
               int64_t unit_begin, int64_t unit_end, void* workspace);
const char* bytes_method(const Block& block, int64_t batch);

}  // namespace binarynet::neon
