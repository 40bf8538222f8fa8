// Shift-based batch normalization, shared among threads by channels.
#pragma once

#include <cstdint>

#include "training/shift_norm_kernels.h"

namespace binarynet::training {

void shift_norm(const ShiftNorm& norm, int32_t num_threads);
void shift_norm_gradient(const ShiftNormGradient& norm, int32_t num_threads);

}  // namespace binarynet::training
