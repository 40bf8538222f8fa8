// Binary blocks on 8-bit inputs with dp4a (PTX ISA, dp4a.u32.s32): any GPU from sm_75 on. Rows may begin at
// any byte.
//
// Weights: bytes of +-1 [out_channels rounded up to 64][taps rounded up to 16], zeros where there are none.
// The last parameter, `taps`, says where each tap of a window lies: {bytes from the first tap of the window,
// row, column, 0}, rounded up to 64 of them, the row of those beyond being OUTSIDE.
#include "tiles.cuh"

constexpr int STAGE = 16;           // 32-bit words of a row that are staged at a time
constexpr int PITCH = STAGE + 4;    // an odd number of 16-byte pieces, so that rows differ in banks
constexpr int STREAM_STAGE = 2048;  // bytes of a row that a stream keeps in shared memory

__device__ __forceinline__ int dot4(u32 inputs, u32 weights, int sum) {
  int result;
  asm("dp4a.u32.s32 %0, %1, %2, %3;" : "=r"(result) : "r"(inputs), "r"(weights), "r"(sum));
  return result;
}

__device__ __forceinline__ int dot16(const uint4& inputs, const uint4& weights, int sum) {
  sum = dot4(inputs.x, weights.x, sum);
  sum = dot4(inputs.y, weights.y, sum);
  sum = dot4(inputs.z, weights.z, sum);
  return dot4(inputs.w, weights.w, sum);
}

// Per 64 multiply-adds with 128 rows: 16 dp4a (64 lanes a cycle and multiprocessor, which bounds it) and 1.5
// LDS.
template <int ROWS>
__device__ __forceinline__ void tile(const int4* __restrict__ taps, BLOCK_PARAMETERS) {
  constexpr int TILE_ROWS = 16 * ROWS;
  __shared__ __align__(16) u32 staged[2][TILE_ROWS + TILE_CHANNELS][PITCH];
  __shared__ __align__(16) Window windows[TILE_ROWS];
  __shared__ int classes[TILE_ROWS];

  const int thread = threadIdx.x, tx = thread & 15, ty = thread >> 4;
  const int depth = (kernel_height * kernel_width * channels + 15) >> 4;  // in pieces of 16 bytes
  const int stages = (depth + STAGE / 4 - 1) / (STAGE / 4);
  const bool whole = (channels & 3) == 0;  // four taps in a row are then one aligned 32-bit word
  const Tile tile = this_tile<TILE_ROWS>(out_channels);
  find_windows<TILE_ROWS>(windows, classes, tile.first_row, channels, BLOCK_ARGUMENTS);
  __syncthreads();

  u32 held[ROWS];
  uint4 held_weights;

  // Each thread moves the same four taps of ROWS rows, and one 16-byte piece of weights.
  auto fetch = [&](int stage) {
    const int4* own_taps = taps + (stage * STAGE + tx) * 4;
    if (whole) {
      const int4 tap = __ldg(own_taps);
#pragma unroll
      for (int i = 0; i < ROWS; ++i) {
        const Window window = windows[ty + 16 * i];
        held[i] = load_u32(static_cast<const u8*>(source) + (window.corner + tap.x),
                           is_inside(window, tap.y, tap.z, height, width));
      }
    } else {
#pragma unroll
      for (int i = 0; i < ROWS; ++i) held[i] = 0;
#pragma unroll
      for (int byte = 0; byte < 4; ++byte) {
        const int4 tap = __ldg(own_taps + byte);
#pragma unroll
        for (int i = 0; i < ROWS; ++i) {
          const Window window = windows[ty + 16 * i];
          held[i] |= load_u8(static_cast<const u8*>(source) + (window.corner + tap.x),
                             is_inside(window, tap.y, tap.z, height, width))
                     << (8 * byte);
        }
      }
    }
    const i64 channel = tile.first_channel + (thread >> 2);
    const int piece = stage * (STAGE / 4) + (thread & 3);
    held_weights =
        load_16_bytes(static_cast<const uint4*>(weights) + (channel * depth + piece), piece < depth);
  };
  auto put = [&](int buffer) {
#pragma unroll
    for (int i = 0; i < ROWS; ++i) staged[buffer][ty + 16 * i][tx] = held[i];
    *reinterpret_cast<uint4*>(&staged[buffer][TILE_ROWS + (thread >> 2)][4 * (thread & 3)]) = held_weights;
  };

  int sums[ROWS][4] = {};
  fetch(0);
  put(0);
  __syncthreads();
  for (int stage = 0; stage < stages; ++stage) {
    if (stage + 1 < stages) fetch(stage + 1);
    const u32(*now)[PITCH] = staged[stage & 1];
    const int steps = min(STAGE / 4, depth - stage * (STAGE / 4));
#pragma unroll 1
    for (int step = 0; step < steps; ++step) {
      uint4 a[ROWS];
#pragma unroll
      for (int i = 0; i < ROWS; ++i) a[i] = *reinterpret_cast<const uint4*>(&now[ty + 16 * i][4 * step]);
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        const uint4 w = *reinterpret_cast<const uint4*>(&now[TILE_ROWS + tx + 16 * j][4 * step]);
#pragma unroll
        for (int i = 0; i < ROWS; ++i) sums[i][j] = dot16(a[i], w, sums[i][j]);
      }
    }
    if (stage + 1 < stages) put((stage + 1) & 1);
    __syncthreads();
  }

#pragma unroll
  for (int i = 0; i < ROWS; ++i)
#pragma unroll
    for (int j = 0; j < 4; ++j) sums[i][j] *= 2;
  finish_tile<ROWS>(sums, classes, tile, BLOCK_ARGUMENTS);
}

// ROWS rows (blockIdx.y) of 32 channels (blockIdx.x) of a dense layer: weights go through registers once, the
// next four pieces of 16 bytes under way while these are multiplied; they bound it, a byte for ROWS
// multiply-adds.
template <int ROWS>
__device__ __forceinline__ void stream(BLOCK_PARAMETERS) {
  __shared__ __align__(16) u32 inputs[ROWS][STREAM_STAGE / 4];
  const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
  const int weights_pitch = (channels + 15) & ~15;
  const int group = blockIdx.x, first_row = blockIdx.y * ROWS;
  const u8* own_weights =
      static_cast<const u8*>(weights) + (i64)(group * STREAM_CHANNELS + warp * 4) * weights_pitch;

  auto load_weights = [&](uint4(&pieces)[4], int at) {
#pragma unroll
    for (int j = 0; j < 4; ++j)
      pieces[j] = load_16_bytes(own_weights + ((i64)j * weights_pitch + at), at < weights_pitch);
  };

  int sums[ROWS * 4] = {};
  uint4 held[4];
  load_weights(held, 16 * lane);
  for (int base = 0; base < channels; base += STREAM_STAGE) {
    const int staged = min(STREAM_STAGE, weights_pitch - base);
#pragma unroll
    for (int i = 0; i < ROWS; ++i) {
      const u8* row = static_cast<const u8*>(source) + (i64)(first_row + i) * channels;
      const bool there = i < rows - first_row;
#pragma unroll 1
      for (int word = threadIdx.x; word < staged / 4; word += THREADS) {
        const int at = base + 4 * word;
        u32 value = 0;
        if ((channels & 3) == 0) {
          value = load_u32(row + at, there && at < channels);
        } else {
#pragma unroll
          for (int byte = 0; byte < 4; ++byte)
            value |= load_u8(row + at + byte, there && at + byte < channels) << (8 * byte);
        }
        inputs[i][word] = value;
      }
    }
    __syncthreads();
    for (int at = 16 * lane; at < staged; at += 512) {
      uint4 next[4];
      load_weights(next, base + at + 512);
#pragma unroll
      for (int i = 0; i < ROWS; ++i) {
        const uint4 a = *reinterpret_cast<const uint4*>(&inputs[i][at / 4]);
#pragma unroll
        for (int j = 0; j < 4; ++j) sums[i * 4 + j] = dot16(a, held[j], sums[i * 4 + j]);
      }
#pragma unroll
      for (int j = 0; j < 4; ++j) held[j] = next[j];
    }
    __syncthreads();
  }
  auto sum_of = [&](int total, int, int channel) { return 2 * total + __ldg(corrections + channel); };
  finish_stream<ROWS>(sums, first_row, group, sum_of, BLOCK_ARGUMENTS);
}

#define TILE(NAME, BLOCKS, ROWS)                                \
  extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS) \
      NAME(BLOCK_PARAMETERS, const int4* __restrict__ taps) {   \
    tile<ROWS>(taps, BLOCK_ARGUMENTS);                          \
  }
#define STREAM(NAME, ROWS)                                                                  \
  extern "C" __global__ void __launch_bounds__(THREADS, AT_A_TIME) NAME(BLOCK_PARAMETERS) { \
    stream<ROWS>(BLOCK_ARGUMENTS);                                                          \
  }
TILE(dp4a_tile_16, AT_A_TIME, 1)
TILE(dp4a_tile_64, AT_A_TIME, 4)
TILE(dp4a_tile_128, WIDE_AT_A_TIME, 8)
STREAM(dp4a_dense_1, 1)
STREAM(dp4a_dense_2, 2)
STREAM(dp4a_dense_4, 4)
