// The two gradients of the AVX-512 kernel set; each function serves the field of ConvKernels of the same
// name.
#pragma once

#include "training/conv_kernels.h"

namespace binarynet::training::avx512_vpopcntdq {

size_t input_prepared_bytes(const ConvShape& shape);
void input_prepare(const InputGradient& gradient, void* prepared);
size_t input_workspace_bytes(const ConvShape& shape);
void input_run(const InputGradient& gradient, const void* prepared, int64_t image, int64_t row_begin,
               int64_t row_end, void* workspace);

size_t weight_prepared_bytes(const ConvShape& shape);
void weight_prepare(const WeightGradient& gradient, void* prepared, int64_t row_begin, int64_t row_end);
size_t weight_workspace_bytes(const WeightGradient& gradient);
void weight_run(const WeightGradient& gradient, const void* prepared, int64_t out_begin, void* workspace);

}  // namespace binarynet::training::avx512_vpopcntdq
