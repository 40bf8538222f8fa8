// What popcount.cu and bytes_dp4a.cu share: how their blocks of threads find windows, and what becomes of
// their sums.
//
// `tile`: 16, 32, .. rows x 64 channels, thread (x, y) of 16 x 16 has rows y, y + 16, .. and channels x, x +
// 16, .. `stream`: few rows x 32 channels, four channels per warp, whose lanes share the terms of each sum.
#pragma once

#include "common.cuh"

constexpr int THREADS = 256;
constexpr int TILE_CHANNELS = 64;
constexpr int STREAM_CHANNELS = 32;

// The window of a row: index of its first tap, in elements of the input, and its place in the image. The
// index may lie outside of the input; only taps inside of the image are read.
struct Window {
  i64 corner;
  int y, x;
};

// A block of threads' place in the grid of tiles, channels fastest so that neighbours share inputs.
struct Tile {
  int first_row, first_channel;
};

template <int TILE_ROWS>
__device__ __forceinline__ Tile this_tile(int out_channels) {
  const int channel_tiles = words_of(out_channels);
  const int row_tile = blockIdx.x / channel_tiles;
  return {row_tile * TILE_ROWS, (int)(blockIdx.x - row_tile * channel_tiles) * TILE_CHANNELS};
}

// Of a row; of one beyond the last (`exists` is false), a window that sees nothing.
__device__ __forceinline__ Window window_of(int row, bool exists, int pixel_elements, BLOCK_PARAMETERS) {
  if (!exists) return {0, NOWHERE, 0};
  const Corner corner =
      corner_of(row, out_height, out_width, stride_height, stride_width, padding_height, padding_width);
  return {(((i64)corner.image * height + corner.y) * width + corner.x) * pixel_elements, corner.y, corner.x};
}

// True where the tap is inside of the image.
__device__ __forceinline__ bool is_inside(const Window& window, int tap_y, int tap_x, int height, int width) {
  return (u32)(window.y + tap_y) < (u32)height && (u32)(window.x + tap_x) < (u32)width;
}

// Windows and border classes of a tile's rows, into shared memory.
template <int TILE_ROWS>
__device__ __forceinline__ void find_windows(Window* windows, int* classes, int first_row, int pixel_elements,
                                             BLOCK_PARAMETERS) {
  if (threadIdx.x >= TILE_ROWS) return;
  const bool exists = (int)threadIdx.x < rows - first_row;
  const int row = first_row + threadIdx.x;
  windows[threadIdx.x] = window_of(row, exists, pixel_elements, BLOCK_ARGUMENTS);
  classes[threadIdx.x] = exists ? class_of(offsets, row, out_height, out_width) : 0;
}

// The end of a tile: sums without their corrections become output. Words of bits are put together from
// ballots, sixteen channels of two rows each, and written once.
template <int ROWS>
__device__ __forceinline__ void finish_tile(int (&sums)[ROWS][4], const int* classes, Tile tile,
                                            BLOCK_PARAMETERS) {
  const int tx = threadIdx.x & 15, ty = threadIdx.x >> 4, channel = tile.first_channel + tx;
#pragma unroll
  for (int i = 0; i < ROWS; ++i) {
    const i64 row = tile.first_row + (i64)(ty + 16 * i);
    const int* correction = corrections + classes[ty + 16 * i] + channel;
#pragma unroll
    for (int j = 0; j < 4; ++j) sums[i][j] += __ldg(correction + 16 * j);
    if (output == BITS) {
      u64 word = __ldg(static_cast<const u64*>(second) + tile.first_channel / 64);
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        const int threshold = __ldg(static_cast<const int*>(first) + channel + 16 * j);
        const u32 reached = __ballot_sync(ALL_LANES, sums[i][j] >= threshold);
        word ^= (u64)((reached >> (threadIdx.x & 16)) & 0xffffu) << (16 * j);
      }
      if (row < rows && tx == 0)
        static_cast<u64*>(result)[row * words_of(out_channels) + tile.first_channel / 64] = word;
    } else if (row < rows) {
#pragma unroll
      for (int j = 0; j < 4; ++j)
        if (channel + 16 * j < out_channels)
          store_number(result, row * out_channels + channel + 16 * j, sums[i][j], channel + 16 * j, first,
                       second, output);
    }
  }
}

// The end of a stream: every lane's parts of ROWS x 4 sums are added up, `sum_of(total, row, channel)` makes
// the sum.
template <int ROWS, typename SumOf>
__device__ __forceinline__ void finish_stream(int (&parts)[ROWS * 4], int first_row, int group, SumOf sum_of,
                                              BLOCK_PARAMETERS) {
  __shared__ u8 reached[ROWS][STREAM_CHANNELS];
  constexpr int SHARE = 8 / ROWS;  // lanes that hold the same total
  const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
  const int total = add_many_over_warp<ROWS * 4>(parts);
  const int i = lane / SHARE / 4, local = warp * 4 + lane / SHARE % 4;
  const int channel = group * STREAM_CHANNELS + local;
  if (i < rows - first_row && lane % SHARE == 0) {
    const int sum = sum_of(total, first_row + i, channel);
    if (output == BITS)
      reached[i][local] = sum >= __ldg(static_cast<const int*>(first) + channel);
    else if (channel < out_channels)
      store_number(result, (i64)(first_row + i) * out_channels + channel, sum, channel, first, second,
                   output);
  }
  if (output != BITS) return;
  __syncthreads();
  // Warp r makes the bits of row r: half a word.
  if (warp >= ROWS || warp >= rows - first_row) return;
  const u32 bits = __ballot_sync(ALL_LANES, reached[warp][lane]);
  if (lane == 0)
    static_cast<u32*>(result)[(i64)(first_row + warp) * 2 * words_of(out_channels) + group] =
        bits ^ __ldg(static_cast<const u32*>(second) + group);
}

// Blocks of threads that a multiprocessor should hold; sm_75 has not the shared memory for two of the largest
// tiles.
constexpr int AT_A_TIME = 2;
#if __CUDA_ARCH__ >= 800
constexpr int WIDE_AT_A_TIME = 2;
#else
constexpr int WIDE_AT_A_TIME = 1;
#endif
