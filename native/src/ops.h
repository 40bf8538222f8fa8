// Operations on values that were not fused into a block: plain loops, one call per range of pixel rows.
// Rows are numbered over the batch: row r is image r / out_h, line r % out_h.
#pragma once

#include <cstdint>

#include "graph.h"

namespace binarynet {

struct OpGeometry {
  int64_t in_h, in_w, out_h, out_w, channels;
  binarynet_window window;  // max_pool only
};

void max_pool_i32(const OpGeometry& geometry, const int32_t* in, int32_t* out, int64_t row_begin,
                  int64_t row_end);
void max_pool_bits(const OpGeometry& geometry, const uint64_t* in, uint64_t* out, int64_t row_begin,
                   int64_t row_end);
// bit = (sum >= threshold) ^ falling
void threshold_rows(const OpGeometry& geometry, const Parameters& parameters, const int32_t* in,
                    uint64_t* out, int64_t row_begin, int64_t row_end);
// float(sum) * scale + shift, two roundings
void affine_rows(const OpGeometry& geometry, const Parameters& parameters, const int32_t* in, float* out,
                 int64_t row_begin, int64_t row_end);
// [pixels][words(channels)] -> one packed vector of pixels * channels bits per image, for whole images.
void flatten_bits(int64_t pixels, int64_t channels, const uint64_t* in, uint64_t* out, int64_t image_begin,
                  int64_t image_end);

}  // namespace binarynet
