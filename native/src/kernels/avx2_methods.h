// The methods of the AVX2 engine for packed bits. All start from the same prepared weights (avx2_layout.h).
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels.h"

namespace binarynet::avx2 {

// Constant tables, looked up for two columns at once, or one; a unit is a tile x 128 channels.
int64_t pairs_unit_count(const Block& block, int64_t batch);
size_t pairs_workspace_bytes(const Block& block, int64_t batch);
void pairs_run(const Block& block, const void* prepared, const uint64_t* in, void* out, int64_t batch,
               int64_t unit_begin, int64_t unit_end, void* workspace);

// Tables of weights, made at run time; a unit is a tile x 64 channels.
int64_t tables_unit_count(const Block& block, int64_t batch);
double tables_tile_sums(const Block& block, int64_t batch);  // mean number of sums per channel and tile
size_t tables_workspace_bytes(const Block& block, int64_t batch);
void tables_run(const Block& block, const void* prepared, const uint64_t* in, void* out, int64_t batch,
                int64_t unit_begin, int64_t unit_end, void* workspace);

}  // namespace binarynet::avx2
