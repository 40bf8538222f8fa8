// From raw counts to sums and bits, exactly, also at borders. Shared by the SIMD kernel sets; see
// simd_tiles.h for why everything is in an anonymous namespace.
//
// Kernels count one integer per output. Its sum is constant + scale * count, where
//
//   packed bits: the count is the number of taps at which activation and weight disagree. A tap outside of
//   the
//     image must contribute 0 but is seen as bits 0, so it adds popcount(w) disagreements. With `outside` the
//     popcount of the weights over those taps, and `inside` the number of channels of all other taps,
//       sum = inside - 2 * (count - outside) = (inside + 2 * outside) - 2 * count
//       sum >= t  <=>  count < floor((constant - t) / 2) + 1
//   8-bit pixels: the count is D, the sum of u * w with w = +-1, and an outside tap has u = 0. With W the sum
//   of the
//     weights over the taps inside of the image,
//       sum = sum of (2u - 255) * w = 2 * D - 255 * W
//       sum >= t  <=>  D > floor((t - constant - 1) / 2)
//   The count may also be smaller, the sum of (u - 128) * w over the taps inside of the image; then
//       sum = 2 * count + W
//   or never negative, the sum of u where w = 1 and of 255 - u where w = -1. Taps outside of the image add
//   255 to it for each w = -1, let there be M of these, and with I taps inside of the image
//       sum = 2 * (count - 255 * M) - 255 * I
//
// Output positions whose windows lose the same rows and columns to the border share one class, and so one
// constant and one bound per channel.
#pragma once

#include <cstring>

#include "simd_tiles.h"

namespace binarynet {
namespace {

struct TapRange {
  int32_t begin, end;  // taps inside of the image: [begin, end)
};

inline TapRange taps_inside(int64_t position, int32_t stride, int32_t pad, int32_t kernel, int32_t size) {
  const int64_t origin = position * stride - pad;
  const int64_t begin = larger(0, -origin);
  const int64_t end = smaller(kernel, size - origin);
  if (begin >= end) return {0, 0};
  return {static_cast<int32_t>(begin), static_cast<int32_t>(end)};
}

// One axis of a convolution.
struct Axis {
  int32_t in, out, kernel, stride, pad;

  // Number of classes; fills class_of[out] and ranges[classes] unless they are null.
  int32_t classes(int32_t* class_of, TapRange* ranges) const {
    int32_t count = 0;
    TapRange last = {-1, -1};
    for (int32_t position = 0; position < out; ++position) {
      const TapRange range = taps_inside(position, stride, pad, kernel, in);
      if (range.begin != last.begin || range.end != last.end) {
        if (ranges != nullptr) ranges[count] = range;
        ++count;
        last = range;
      }
      if (class_of != nullptr) class_of[position] = count - 1;
    }
    return count;
  }
};

inline Axis row_axis(const Block& b) { return {b.in_h, b.conv_h, b.kernel_h, b.stride_h, b.pad_h}; }
inline Axis col_axis(const Block& b) { return {b.in_w, b.conv_w, b.kernel_w, b.stride_w, b.pad_w}; }

// The part of a prepared layer that holds constants and bounds.
struct Classes {
  int32_t rows, cols;  // number of classes along each axis
  int64_t width;       // channels, padding included
  int32_t* constants;  // [rows][cols][width]
  int32_t* bounds;     // the same; padding channels never give a bit 1. Empty if the output is int32
  int32_t* row_class;  // [conv_h]; empty if flat
  int32_t* col_class;  // [conv_w]; empty if flat
  TapRange* ranges;    // [rows + cols]; empty if flat

  int64_t count() const { return static_cast<int64_t>(rows) * cols; }
  // Offset of the channels of a sum's class. A flat block has one class.
  int64_t at(int32_t conv_row, int32_t conv_col) const {
    if (count() == 1) return 0;
    return (static_cast<int64_t>(row_class[conv_row]) * cols + col_class[conv_col]) * width;
  }
};

inline Classes carve_classes(const Block& b, bool flat, int64_t width, Carver* carver) {
  Classes c = {};
  c.rows = flat ? 1 : row_axis(b).classes(nullptr, nullptr);
  c.cols = flat ? 1 : col_axis(b).classes(nullptr, nullptr);
  c.width = width;
  c.constants = carver->take<int32_t>(c.count() * width);
  c.bounds = carver->take<int32_t>(b.output == BlockOutput::bits ? c.count() * width : 0);
  c.row_class = carver->take<int32_t>(flat ? 0 : b.conv_h);
  c.col_class = carver->take<int32_t>(flat ? 0 : b.conv_w);
  c.ranges = carver->take<TapRange>(flat ? 0 : c.rows + c.cols);
  return c;
}

inline int64_t floor_half(int64_t value) { return value >= 0 ? value / 2 : -((1 - value) / 2); }

// What kernels count of 8-bit pixels, see above.
enum class PixelCount { plain, centred, positive };

inline void prepare_constants(const Block& b, bool flat, PixelCount count, const Classes& c) {
  memset(c.constants, 0, sizeof(int32_t) * static_cast<size_t>(c.count() * c.width));
  const bool bytes = b.input == BlockInput::bytes;
  const int64_t words = divide_up(b.in_c, 64);
  const uint64_t* weights = b.weights;
  for (int32_t channel = 0; channel < b.out_c; ++channel) {
    for (int32_t ky = 0; ky < b.kernel_h; ++ky) {
      for (int32_t kx = 0; kx < b.kernel_w; ++kx, weights += words) {
        int32_t ones = 0;
        for (int64_t word = 0; word < words; ++word) ones += __builtin_popcountll(weights[word]);
        int32_t inside = b.in_c;
        int32_t outside = 2 * ones;
        if (bytes) {
          const int32_t weights_sum = 2 * ones - b.in_c;
          inside = count == PixelCount::plain     ? -255 * weights_sum
                   : count == PixelCount::centred ? weights_sum
                                                  : -255 * b.in_c;
          outside = count == PixelCount::positive ? -510 * (b.in_c - ones) : 0;
        }
        int32_t* constant = c.constants + channel;
        for (int32_t r = 0; r < c.rows; ++r) {
          for (int32_t k = 0; k < c.cols; ++k, constant += c.width) {
            bool is_inside = true;
            if (!flat) {
              const TapRange row = c.ranges[r];
              const TapRange col = c.ranges[c.rows + k];
              is_inside = ky >= row.begin && ky < row.end && kx >= col.begin && kx < col.end;
            }
            *constant += is_inside ? inside : outside;
          }
        }
      }
    }
  }
}

inline void prepare_bounds(const Block& b, const Classes& c) {
  const bool bytes = b.input == BlockInput::bytes;
  for (int64_t k = 0; k < c.count(); ++k) {
    for (int64_t channel = 0; channel < c.width; ++channel) {
      int64_t bound = bytes ? INT32_MAX : 0;
      if (channel < b.out_c) {
        const int64_t above =
            static_cast<int64_t>(b.thresholds[channel]) - c.constants[k * c.width + channel];
        bound = bytes ? floor_half(above - 1) : floor_half(-above) + 1;
        bound = smaller(larger(bound, INT32_MIN), INT32_MAX);
      }
      c.bounds[k * c.width + channel] = static_cast<int32_t>(bound);
    }
  }
}

inline void prepare_classes(const Block& b, bool flat, const Classes& c,
                            PixelCount count = PixelCount::plain) {
  if (!flat) {
    row_axis(b).classes(c.row_class, c.ranges);
    col_axis(b).classes(c.col_class, c.ranges + c.rows);
  }
  prepare_constants(b, flat, count, c);
  if (b.output == BlockOutput::bits) prepare_bounds(b, c);
}

}  // namespace
}  // namespace binarynet
