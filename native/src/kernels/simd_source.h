// Where a tile's activations lie: for every output pixel, its taps are `runs` contiguous runs of bytes.
// Shared by the SIMD kernel sets; see simd_tiles.h for why everything is in an anonymous namespace.
//
// Convolutions copy the input rows of a tile once, with zeros where the window leaves the image; the taps of
// one kernel row are then contiguous and the windows of neighbouring pixels overlap in place (no im2row).
// Flat blocks have one run per column and are read where they are, unless runs must be filled up to a
// multiple of `align`.
#pragma once

#include <cstring>

#include "simd_classes.h"
#include "simd_tiles.h"

namespace binarynet {
namespace {

struct Source {
  const uint8_t* base;
  int64_t image_stride, row_stride, col_stride;  // bytes, per output image, row of sums, column
  int64_t run_stride;                            // bytes from one run to the next
  int64_t run_bytes;                             // true bytes of a run, before it is filled up
  int32_t runs;
};

// pixel_bytes: of one input pixel. align: runs may be read up to the next multiple of it.
inline Source describe_source(const Block& b, bool flat, int32_t conv_rows, int64_t pixel_bytes,
                              int64_t align) {
  Source s = {};
  if (flat) {
    s.runs = 1;
    s.run_bytes = static_cast<int64_t>(b.kernel_h) * b.kernel_w * pixel_bytes;
    s.col_stride = round_up(s.run_bytes, align);
    return s;
  }
  s.runs = b.kernel_h;
  s.run_bytes = b.kernel_w * pixel_bytes;
  s.run_stride = (static_cast<int64_t>(b.conv_w - 1) * b.stride_w + b.kernel_w) * pixel_bytes;
  s.row_stride = s.run_stride * b.stride_h;
  s.col_stride = b.stride_w * pixel_bytes;
  s.image_stride = s.run_stride * (static_cast<int64_t>(conv_rows - 1) * b.stride_h + b.kernel_h);
  return s;
}

inline bool read_in_place(const Source& s) {
  return s.runs == 1 && s.run_stride == 0 && s.col_stride == s.run_bytes;
}

// Memory that load_source() needs for the largest tile.
inline int64_t source_bytes(const Block& b, const Tiling& t, int64_t pixel_bytes, int64_t align) {
  const Source s = describe_source(b, t.flat, most_conv_rows(b, t), pixel_bytes, align);
  if (t.flat) return read_in_place(s) ? 0 : s.col_stride * smaller(t.cols_per_tile, t.columns);
  return s.image_stride * t.images_per_tile + align;
}

// `memory`: source_bytes() bytes.
inline Source load_source(const Block& b, const Tile& tile, bool flat, const void* in, int64_t pixel_bytes,
                          int64_t align, uint8_t* memory) {
  Source s = describe_source(b, flat, tile.conv_rows, pixel_bytes, align);
  s.base = memory;
  if (flat) {
    const uint8_t* from = static_cast<const uint8_t*>(in) + tile.col * s.run_bytes;
    if (read_in_place(s)) {
      s.base = from;
      return s;
    }
    for (int32_t col = 0; col < tile.cols; ++col, memory += s.col_stride, from += s.run_bytes) {
      memcpy(memory, from, static_cast<size_t>(s.run_bytes));
      memset(memory + s.run_bytes, 0, static_cast<size_t>(s.col_stride - s.run_bytes));
    }
    return s;
  }
  const int64_t left = smaller(s.run_stride, b.pad_w * pixel_bytes);
  const int64_t inside = smaller(s.run_stride - left, b.in_w * pixel_bytes);
  const int64_t first = static_cast<int64_t>(tile.conv_row) * b.stride_h - b.pad_h;
  const int64_t rows = s.image_stride / s.run_stride;
  for (int64_t image = tile.image; image < tile.image + tile.images; ++image) {
    for (int64_t y = first; y < first + rows; ++y, memory += s.run_stride) {
      if (y < 0 || y >= b.in_h) {
        memset(memory, 0, static_cast<size_t>(s.run_stride));
        continue;
      }
      memset(memory, 0, static_cast<size_t>(left));
      memcpy(memory + left, static_cast<const uint8_t*>(in) + (image * b.in_h + y) * b.in_w * pixel_bytes,
             static_cast<size_t>(inside));
      memset(memory + left + inside, 0, static_cast<size_t>(s.run_stride - left - inside));
    }
  }
  memset(memory, 0, static_cast<size_t>(align));
  return s;
}

// One sum of a tile: where its taps begin, and its border class (Classes::at).
struct Pixel {
  const uint8_t* taps;
  int64_t class_offset;
};

// All pixels of a tile: images slowest, columns fastest.
inline void list_pixels(const Source& s, const Classes& classes, const Tile& tile, Pixel* pixels) {
  for (int32_t image = 0; image < tile.images; ++image) {
    for (int32_t row = 0; row < tile.conv_rows; ++row) {
      const uint8_t* taps = s.base + image * s.image_stride + row * s.row_stride;
      for (int32_t col = 0; col < tile.cols; ++col, taps += s.col_stride) {
        *pixels++ = {taps, classes.at(tile.conv_row + row, col)};
      }
    }
  }
}

}  // namespace
}  // namespace binarynet
