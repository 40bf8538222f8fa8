// The methods of the AVX2 engine for packed bits. All start from the same prepared weights (avx2_layout.h).
#pragma once

#include <cstdint>

#include "kernels.h"

namespace binarynet::avx2 {

// Constant tables, looked up for one column, or for two at once; a unit is a tile x 128 channels.
extern const Method kColumn;
extern const Method kPairs;

// Tables of weights, made at run time; a unit is a tile x 64 channels.
extern const Method kTables;
double tables_tile_sums(const Block& block, int64_t batch);  // mean number of sums per channel and tile

}  // namespace binarynet::avx2
