// Binary blocks by popcount on 32-bit words: any GPU from sm_75 on.
//
// Weights: 64-bit words [out_channels rounded up to 64][words of a window rounded up to 2], zeros where there
// are none. `tile` stages operands in shared memory and gathers windows meanwhile (zeros outside of the
// image; ones counted there); `stream` takes weights through registers once, 16 bytes per lane and load.
#include "tiles.cuh"

constexpr int STAGE = 16;  // 64-bit words of a row that are staged at a time
constexpr int PITCH =
    36;  // 32-bit words of a staged row: an odd number of 16-byte pieces, so that rows differ in banks

// Inline, since the compiler otherwise merges these with the ANDs before them to more instructions.
template <int TABLE>
__device__ __forceinline__ u32 logic(u32 a, u32 b, u32 c) {
  u32 result;
  asm("lop3.b32 %0, %1, %2, %3, %4;" : "=r"(result) : "r"(a), "r"(b), "r"(c), "n"(TABLE));
  return result;
}
__device__ __forceinline__ u32 sum_bit(u32 a, u32 b, u32 c) { return logic<0x96>(a, b, c); }
__device__ __forceinline__ u32 carry_bit(u32 a, u32 b, u32 c) { return logic<0xe8>(a, b, c); }

// popc over the AND of eight words each. Seven of the eight products are added as bits first, by four pairs
// of LOP3 that leave ones, twos and fours: four POPC (a quarter of the rate of LOP3) instead of eight. The
// loop of `tile` with 64 rows then has, per 64 multiply-adds, 4 LOP3, 1 POPC, 1 IMAD that adds and 0.25 LDS
// (SASS of sm_75 to sm_90): LOP3 (64 lanes a cycle and multiprocessor) and POPC (16) bound it alike, at 1,024
// multiply-adds a cycle on paper; POPC alone would allow 512 without the additions of bits.
__device__ __forceinline__ int ones_in_common(const uint4& a, const uint4& b, const uint4& c,
                                              const uint4& d) {
  const u32 p0 = a.x & c.x, p1 = a.y & c.y, p2 = a.z & c.z, p3 = a.w & c.w;
  const u32 p4 = b.x & d.x, p5 = b.y & d.y, p6 = b.z & d.z, p7 = b.w & d.w;
  const u32 s0 = sum_bit(p0, p1, p2), c0 = carry_bit(p0, p1, p2);
  const u32 s1 = sum_bit(s0, p3, p4), c1 = carry_bit(s0, p3, p4);
  const u32 s2 = sum_bit(s1, p5, p6), c2 = carry_bit(s1, p5, p6);
  return __popc(s2) + __popc(p7) + 2 * __popc(sum_bit(c0, c1, c2)) + 4 * __popc(carry_bit(c0, c1, c2));
}

template <int ROWS>
__device__ __forceinline__ void tile(BLOCK_PARAMETERS) {
  constexpr int TILE_ROWS = 16 * ROWS;
  __shared__ __align__(16) u32 staged[2][TILE_ROWS + TILE_CHANNELS][PITCH];
  __shared__ __align__(16) Window windows[TILE_ROWS];
  __shared__ int classes[TILE_ROWS];

  const int thread = threadIdx.x, tx = thread & 15, ty = thread >> 4;
  const int words = words_of(channels);
  const int depth = kernel_height * kernel_width * words;
  const int weights_pitch = (depth + 1) & ~1;
  const int stages = (depth + STAGE - 1) / STAGE;
  const Tile tile = this_tile<TILE_ROWS>(out_channels);
  find_windows<TILE_ROWS>(windows, classes, tile.first_row, words, BLOCK_ARGUMENTS);
  __syncthreads();

  u64 held_words[ROWS];
  uint4 held_weights[2];
  int ones[ROWS] = {};

  // Each thread moves the same word of ROWS rows, and two 16-byte pieces of weights.
  auto fetch = [&](int stage) {
    const int position = stage * STAGE + tx;
    const int tap = position / words, row_of_taps = tap / kernel_width;
    const int tap_y = position < depth ? row_of_taps : OUTSIDE, tap_x = tap - row_of_taps * kernel_width;
    const i64 offset = ((i64)tap_y * width + tap_x) * words + (position - tap * words);
#pragma unroll
    for (int i = 0; i < ROWS; ++i) {
      const Window window = windows[ty + 16 * i];
      held_words[i] = load_word(static_cast<const u64*>(source) + (window.corner + offset),
                                is_inside(window, tap_y, tap_x, height, width));
    }
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const i64 channel = tile.first_channel + (thread >> 3) + 32 * i;
      const int word = stage * STAGE + 2 * (thread & 7);
      held_weights[i] = load_16_bytes(static_cast<const u64*>(weights) + (channel * weights_pitch + word),
                                      word < weights_pitch);
    }
  };
  auto put = [&](int buffer) {
#pragma unroll
    for (int i = 0; i < ROWS; ++i) {
      *reinterpret_cast<u64*>(&staged[buffer][ty + 16 * i][2 * tx]) = held_words[i];
      ones[i] += __popcll(held_words[i]);
    }
#pragma unroll
    for (int i = 0; i < 2; ++i)
      *reinterpret_cast<uint4*>(&staged[buffer][TILE_ROWS + (thread >> 3) + 32 * i][4 * (thread & 7)]) =
          held_weights[i];
  };

  int sums[ROWS][4] = {};
  fetch(0);
  put(0);
  __syncthreads();
  for (int stage = 0; stage < stages; ++stage) {
    if (stage + 1 < stages) fetch(stage + 1);
    const u32(*now)[PITCH] = staged[stage & 1];
    const int steps = min(STAGE / 4, (depth - stage * STAGE + 3) / 4);
#pragma unroll 1
    for (int step = 0; step < steps; ++step) {
      uint4 a[ROWS][2];
#pragma unroll
      for (int i = 0; i < ROWS; ++i) {
        const uint4* row = reinterpret_cast<const uint4*>(&now[ty + 16 * i][8 * step]);
        a[i][0] = row[0];
        a[i][1] = row[1];
      }
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        const uint4* column = reinterpret_cast<const uint4*>(&now[TILE_ROWS + tx + 16 * j][8 * step]);
        const uint4 w0 = column[0], w1 = column[1];
#pragma unroll
        for (int i = 0; i < ROWS; ++i) sums[i][j] += ones_in_common(a[i][0], a[i][1], w0, w1);
      }
    }
    if (stage + 1 < stages) put((stage + 1) & 1);
    __syncthreads();
  }

#pragma unroll
  for (int i = 0; i < ROWS; ++i) {
    // The sixteen threads that staged a row are those that multiply it.
#pragma unroll
    for (int step = 8; step > 0; step >>= 1) ones[i] += __shfl_xor_sync(ALL_LANES, ones[i], step);
#pragma unroll
    for (int j = 0; j < 4; ++j) sums[i][j] = 4 * sums[i][j] - 2 * ones[i];
  }
  finish_tile<ROWS>(sums, classes, tile, BLOCK_ARGUMENTS);
}

// ROWS rows (blockIdx.y) of 32 channels (blockIdx.x). DENSE: windows of one pixel side by side, where nothing
// needs a division and rows lie one after the other.
//
// Per 64 multiply-adds of a row: 2 LOP3 (a ^ w, masked by what is inside of the image), 2 POPC, 1 to 2
// additions. With one or two rows the weights bound it, 16 bytes for ROWS x 128 multiply-adds; with four,
// POPC.
template <int ROWS, bool DENSE>
__device__ __forceinline__ void stream(BLOCK_PARAMETERS) {
  const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
  const int words = words_of(channels);
  const int depth = DENSE ? words : kernel_height * kernel_width * words;
  const int weights_pitch = (depth + 1) & ~1;
  const int group = blockIdx.x, first_row = blockIdx.y * ROWS;

  Window windows[ROWS];
#pragma unroll
  for (int i = 0; i < ROWS; ++i) {
    const int row = first_row + i;
    windows[i] = DENSE ? Window{(i64)row * words, row < rows ? 0 : NOWHERE, 0}
                       : window_of(row, row < rows, words, BLOCK_ARGUMENTS);
  }

  int different[ROWS * 4] = {};
  const u64* own_weights =
      static_cast<const u64*>(weights) + (i64)(group * STREAM_CHANNELS + warp * 4) * weights_pitch;
#pragma unroll(ROWS < 4 ? 2 : 1)
  for (int position = 2 * lane; position < depth; position += 64) {
    uint4 held[4];
#pragma unroll
    for (int j = 0; j < 4; ++j)
      held[j] = load_16_bytes(own_weights + ((i64)j * weights_pitch + position), true);
    u64 value[ROWS][2];
    u32 mask[ROWS][2];
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int at = position + half;
      const int tap = DENSE ? 0 : at / words, row_of_taps = DENSE ? 0 : tap / kernel_width;
      const int tap_y = at < depth ? row_of_taps : OUTSIDE, tap_x = tap - row_of_taps * kernel_width;
      const i64 offset = DENSE ? at : ((i64)tap_y * width + tap_x) * words + (at - tap * words);
#pragma unroll
      for (int i = 0; i < ROWS; ++i) {
        const bool inside = is_inside(windows[i], tap_y, tap_x, height, width);
        mask[i][half] = DENSE || inside ? ~0u : 0u;  // dense: what is not there is zero in the weights, too
        value[i][half] = load_word(static_cast<const u64*>(source) + (windows[i].corner + offset), inside);
      }
    }
#pragma unroll
    for (int i = 0; i < ROWS; ++i) {
#pragma unroll
      for (int j = 0; j < 4; ++j)
        different[i * 4 + j] += __popc(((u32)value[i][0] ^ held[j].x) & mask[i][0]) +
                                __popc(((u32)(value[i][0] >> 32) ^ held[j].y) & mask[i][0]) +
                                __popc(((u32)value[i][1] ^ held[j].z) & mask[i][1]) +
                                __popc(((u32)(value[i][1] >> 32) ^ held[j].w) & mask[i][1]);
    }
  }

  auto sum_of = [&](int total, int row, int) {
    if (DENSE) return channels - 2 * total;
    const Window window = window_of(row, true, words, BLOCK_ARGUMENTS);
    const int taps = valid_taps(window.y, height, kernel_height) * valid_taps(window.x, width, kernel_width);
    return taps * channels - 2 * total;
  };
  finish_stream<ROWS>(different, first_row, group, sum_of, BLOCK_ARGUMENTS);
}

#define KERNEL(NAME, BLOCKS, ...)                                                        \
  extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS) NAME(BLOCK_PARAMETERS) { \
    __VA_ARGS__(BLOCK_ARGUMENTS);                                                        \
  }
KERNEL(popcount_tile_16, AT_A_TIME, tile<1>)
KERNEL(popcount_tile_32, AT_A_TIME, tile<2>)
KERNEL(popcount_tile_64, WIDE_AT_A_TIME, tile<4>)
KERNEL(popcount_dense_1, AT_A_TIME, stream<1, true>)
KERNEL(popcount_dense_2, AT_A_TIME, stream<2, true>)
KERNEL(popcount_dense_4, AT_A_TIME, stream<4, true>)
KERNEL(popcount_window_4, AT_A_TIME, stream<4, false>)
