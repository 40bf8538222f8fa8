// Elementwise operations of the training step, shared among threads. Arrays may not overlap but where they
// are the same.
#pragma once

#include <cstdint>

#include "training/elementwise_kernels.h"

namespace binarynet::training {

void sign(const float* x, float* out, int64_t count, int32_t num_threads);
void inside_window(const float* g, const float* x, float* out, int64_t count, int32_t num_threads);
void round_to_ap2(const float* x, float* out, int64_t count, int32_t num_threads);
void random_sign(const float* x, float* out, int64_t count, uint64_t key, int32_t num_threads);
void drop(const float* x, float* out, int64_t count, uint64_t key, uint32_t threshold, int32_t num_threads);
void random_sign_images(const float* x, float* out, const Images& images, uint64_t key, int32_t num_threads);
void drop_images(const float* x, float* out, const Images& images, uint64_t key, uint32_t threshold,
                 int32_t num_threads);
void adam(const AdamStep& step, int64_t count, int32_t num_threads);
void ada_max(const AdaMaxStep& step, int64_t count, int32_t num_threads);

}  // namespace binarynet::training
