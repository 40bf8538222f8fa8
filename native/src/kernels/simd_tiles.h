// Geometry that the SIMD kernel sets share: tiles of work, their pixels, pooling of packed words.
//
// Included by files that are compiled with different instruction-set flags, so everything lives in an
// anonymous namespace (each file keeps its own copy) and nothing of the standard containers is used.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels.h"

namespace binarynet {
namespace {

inline int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }
inline int64_t round_up(int64_t a, int64_t b) { return divide_up(a, b) * b; }
inline int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
inline int64_t larger(int64_t a, int64_t b) { return a > b ? a : b; }

// Hands out consecutive 64-byte aligned parts of one piece of memory: first to measure (base = nullptr), then
// to use.
struct Carver {
  uint8_t* base;
  size_t used;

  template <typename T>
  T* take(int64_t count) {
    T* part = base == nullptr ? nullptr : reinterpret_cast<T*>(base + used);
    used += static_cast<size_t>(round_up(count * static_cast<int64_t>(sizeof(T)), 64));
    return part;
  }
};

inline bool has_pool(const Block& b) {
  return b.pool_h != 1 || b.pool_w != 1 || b.pool_stride_h != 1 || b.pool_stride_w != 1 ||
         b.pool_pad_h != 0 || b.pool_pad_w != 0;
}

// A block is flat when every sum is a plain dot product of consecutive pixels: dense layers, 1 x 1
// convolutions, windows as large as the image. All its output pixels, over the whole batch, are then one row
// of columns.
inline bool is_flat(const Block& b) {
  if (has_pool(b) || b.pad_h != 0 || b.pad_w != 0) return false;
  const bool pointwise = b.kernel_h == 1 && b.kernel_w == 1 && b.stride_h == 1 && b.stride_w == 1;
  const bool whole_image = b.kernel_h == b.in_h && b.kernel_w == b.in_w;
  return pointwise || whole_image;
}

// ---- Tiles
//
// A unit of work is (tile of output pixels) x (group of channels), channel groups fastest. A tile is either
// whole images, or some output rows of one image, or (flat blocks) some columns.

struct Tile {
  int64_t image;                // first image (0 if flat)
  int32_t images;               // 1 if flat
  int32_t out_row, out_rows;    // output rows, after pooling (0 and 1 if flat)
  int32_t conv_row, conv_rows;  // the rows of sums that they need
  int64_t col;                  // first column (0 unless flat)
  int32_t cols;                 // sums per row
};

struct Tiling {
  bool flat;
  int64_t batch, columns;   // columns: of the whole batch, if flat
  int32_t images_per_tile;  // not flat
  int32_t rows_per_tile, row_tiles;
  int32_t cols_per_tile;  // flat
  int64_t tiles;
};

// The rows of sums that output rows [row, row + rows) need.
inline void pool_rows(const Block& b, int32_t row, int32_t rows, int32_t* conv_row, int32_t* conv_rows) {
  const int64_t begin = larger(0, static_cast<int64_t>(row) * b.pool_stride_h - b.pool_pad_h);
  const int64_t end =
      smaller(b.conv_h, static_cast<int64_t>(row + rows - 1) * b.pool_stride_h - b.pool_pad_h + b.pool_h);
  *conv_row = static_cast<int32_t>(begin);
  *conv_rows = static_cast<int32_t>(end - begin);
}

// `pixels`: about how many sums (per channel) a tile should have at most.
inline Tiling tiles_of(const Block& b, int64_t batch, int64_t pixels) {
  Tiling t = {};
  t.batch = batch;
  t.flat = is_flat(b);
  if (t.flat) {
    t.columns = batch * b.conv_h * b.conv_w;
    const int64_t even_share = divide_up(t.columns, larger(1, divide_up(t.columns, pixels)));
    t.cols_per_tile = static_cast<int32_t>(larger(2, round_up(even_share, 2)));
    t.tiles = divide_up(t.columns, t.cols_per_tile);
    return t;
  }
  const int64_t image_pixels = static_cast<int64_t>(b.conv_h) * b.conv_w;
  int64_t images = 1;
  int64_t out_rows = b.out_h;
  if (image_pixels <= pixels) {
    images = divide_up(batch, divide_up(larger(1, batch), pixels / image_pixels));
  } else {
    const int64_t conv_rows = larger(1, pixels / b.conv_w);
    out_rows = larger(1, smaller(b.out_h, (conv_rows - b.pool_h) / b.pool_stride_h + 1));
  }
  t.images_per_tile = static_cast<int32_t>(larger(1, images));
  t.rows_per_tile = static_cast<int32_t>(divide_up(b.out_h, divide_up(b.out_h, out_rows)));
  t.row_tiles = static_cast<int32_t>(divide_up(b.out_h, t.rows_per_tile));
  t.tiles = divide_up(batch, t.images_per_tile) * t.row_tiles;
  return t;
}

// How many units a block should have: one thread does all of them itself.
inline int64_t units_wanted(const Block& b, int64_t per_thread) {
  return b.threads == 1 ? 1 : per_thread * b.threads;
}

// A channel group's weights are made ready once per tile, so tiles are large (`most` pixels), but not so
// large that there are too few units for the threads, as long as they do not become too small (`least`).
inline Tiling shared_tiling(const Block& b, int64_t batch, int64_t channel_groups, int64_t most,
                            int64_t least, int64_t units_per_thread) {
  int64_t pixels = most;
  Tiling t = tiles_of(b, batch, pixels);
  while (pixels > least && t.tiles * channel_groups < units_wanted(b, units_per_thread)) {
    pixels /= 2;
    t = tiles_of(b, batch, pixels);
  }
  return t;
}

// Where weights are only unpacked or brought into the cache: from 64 to 256 pixels the time of a layer
// differs by a few percent only.
inline Tiling make_tiling(const Block& b, int64_t batch, int64_t channel_groups) {
  return shared_tiling(b, batch, channel_groups, 256, 64, 4);
}

inline Tile tile_at(const Block& b, const Tiling& t, int64_t index) {
  Tile tile = {};
  if (t.flat) {
    tile.images = tile.out_rows = tile.conv_rows = 1;
    tile.col = index * t.cols_per_tile;
    tile.cols = static_cast<int32_t>(smaller(t.cols_per_tile, t.columns - tile.col));
    return tile;
  }
  tile.image = index / t.row_tiles * t.images_per_tile;
  tile.images = static_cast<int32_t>(smaller(t.images_per_tile, t.batch - tile.image));
  tile.out_row = static_cast<int32_t>(index % t.row_tiles) * t.rows_per_tile;
  tile.out_rows = static_cast<int32_t>(smaller(t.rows_per_tile, b.out_h - tile.out_row));
  pool_rows(b, tile.out_row, tile.out_rows, &tile.conv_row, &tile.conv_rows);
  tile.cols = b.conv_w;
  return tile;
}

// Calls body(tile, first group, end of groups) for the units [begin, end): channel groups are fastest.
template <class Body>
inline void for_each_tile(const Block& b, const Tiling& t, int64_t groups, int64_t begin, int64_t end,
                          const Body& body) {
  for (int64_t unit = begin; unit < end;) {
    const int64_t stop = smaller(end, (unit / groups + 1) * groups);
    const int32_t first = static_cast<int32_t>(unit % groups);
    body(tile_at(b, t, unit / groups), first, first + static_cast<int32_t>(stop - unit));
    unit = stop;
  }
}

// The largest number of rows of sums that one tile can have.
inline int32_t most_conv_rows(const Block& b, const Tiling& t) {
  if (t.flat) return 1;
  const int64_t rows = static_cast<int64_t>(t.rows_per_tile - 1) * b.pool_stride_h + b.pool_h;
  return static_cast<int32_t>(smaller(b.conv_h, rows));
}

inline int64_t tile_pixels(const Tile& tile) {
  return static_cast<int64_t>(tile.images) * tile.conv_rows * tile.cols;
}

// Without pooling the sums of a tile are consecutive pixels of the output (several images are whole ones).
inline int64_t first_out_pixel(const Block& b, const Tile& tile) {
  return (tile.image * b.out_h + tile.out_row) * b.out_w + tile.col;
}

// The largest number of sums (per channel) that one tile can have.
inline int64_t most_pixels(const Block& b, const Tiling& t) {
  if (t.flat) return smaller(t.cols_per_tile, t.columns);
  return static_cast<int64_t>(t.images_per_tile) * most_conv_rows(b, t) * b.conv_w;
}

// Bounds of the sums, within a tile, that one pooled output position looks at.
struct PoolWindow {
  int32_t row_begin, row_end, col_begin, col_end;  // rows count from the tile's first row of sums
};

inline PoolWindow pool_window(const Block& b, const Tile& tile, int32_t out_row, int32_t out_col) {
  const int64_t row = static_cast<int64_t>(out_row) * b.pool_stride_h - b.pool_pad_h;
  const int64_t col = static_cast<int64_t>(out_col) * b.pool_stride_w - b.pool_pad_w;
  return {static_cast<int32_t>(larger(0, row) - tile.conv_row),
          static_cast<int32_t>(smaller(b.conv_h, row + b.pool_h) - tile.conv_row),
          static_cast<int32_t>(larger(0, col)), static_cast<int32_t>(smaller(b.conv_w, col + b.pool_w))};
}

// OR over every pooling window of packed bits, then XOR with `falling`.
// bits: [images][conv_rows][conv_w][words]; out: the layer's whole output, whose words [word, word + words)
// are set.
inline void pool_bits(const Block& b, const Tile& tile, const uint64_t* bits, int32_t words, int32_t word,
                      uint64_t* out) {
  for (int32_t image = 0; image < tile.images; ++image) {
    const uint64_t* image_bits = bits + static_cast<int64_t>(image) * tile.conv_rows * b.conv_w * words;
    for (int32_t y = tile.out_row; y < tile.out_row + tile.out_rows; ++y) {
      uint64_t* to = out + ((tile.image + image) * b.out_h + y) * b.out_w * b.out_words + word;
      for (int32_t x = 0; x < b.out_w; ++x, to += b.out_words) {
        const PoolWindow window = pool_window(b, tile, y, x);
        for (int32_t k = 0; k < words; ++k) {
          uint64_t any = 0;
          for (int32_t row = window.row_begin; row < window.row_end; ++row) {
            const uint64_t* from =
                image_bits + (static_cast<int64_t>(row) * b.conv_w + window.col_begin) * words + k;
            for (int32_t col = window.col_begin; col < window.col_end; ++col, from += words) any |= *from;
          }
          to[k] = any ^ b.falling[word + k];
        }
      }
    }
  }
}

}  // namespace
}  // namespace binarynet
