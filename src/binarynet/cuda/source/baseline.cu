// Straightforward kernels for comparison, as the paper has one (Hubara et al. 2016, section 4): one thread
// per output, no shared memory, no popcount, no tensor core. The first two take operands of +-1 out of packed
// words bit by bit; they are exact for every block, and need no table. The third multiplies float32 matrices.
//
// Weights: 64-bit words [words of a window][out_channels rounded up to 64], so that neighbouring threads read
// neighbours.
#include "common.cuh"

constexpr int TILE_CHANNELS = 64;
constexpr int TILE_ROWS = 4;

__device__ __forceinline__ int sign_of(u64 bits, int position) { return (int)(bits >> position & 1) * 2 - 1; }

template <bool BYTES>
__device__ __forceinline__ void block(BLOCK_PARAMETERS) {
  const int words = words_of(channels), channel_tiles = words_of(out_channels);
  const int row_tile = blockIdx.x / channel_tiles;
  const int channel = (blockIdx.x - row_tile * channel_tiles) * TILE_CHANNELS + threadIdx.x % TILE_CHANNELS;
  const int first_row = row_tile * TILE_ROWS, own = threadIdx.x / TILE_CHANNELS;
  if (own >= rows - first_row) return;  // whole warps
  const i64 row = first_row + own;
  const Corner corner =
      corner_of(row, out_height, out_width, stride_height, stride_width, padding_height, padding_width);
  int sum = 0;
  for (int tap_y = 0; tap_y < kernel_height; ++tap_y) {
    const int y = corner.y + tap_y;
    if (y < 0 || y >= height) continue;
    for (int tap_x = 0; tap_x < kernel_width; ++tap_x) {
      const int x = corner.x + tap_x;
      if (x < 0 || x >= width) continue;
      const i64 pixel = ((i64)corner.image * height + y) * width + x;
      for (int word = 0; word < words; ++word) {
        const i64 position = (i64)(tap_y * kernel_width + tap_x) * words + word;
        const u64 w = static_cast<const u64*>(weights)[position * channel_tiles * TILE_CHANNELS + channel];
        const int count = min(64, channels - word * 64);
        if (BYTES) {
          const u8* inputs = static_cast<const u8*>(source) + (pixel * channels + word * 64);
          for (int bit = 0; bit < count; ++bit) sum += (2 * inputs[bit] - 255) * sign_of(w, bit);
        } else {
          const u64 inputs = static_cast<const u64*>(source)[pixel * words + word];
          for (int bit = 0; bit < count; ++bit) sum += sign_of(inputs, bit) * sign_of(w, bit);
        }
      }
    }
  }
  if (output == BITS) {
    const u32 bits = __ballot_sync(ALL_LANES, sum >= static_cast<const int*>(first)[channel]);
    const i64 half = row * 2 * channel_tiles + channel / 32;
    if (threadIdx.x % 32 == 0)
      static_cast<u32*>(result)[half] = bits ^ static_cast<const u32*>(second)[channel / 32];
  } else if (channel < out_channels) {
    store_number(result, row * out_channels + channel, sum, channel, first, second, output);
  }
}

extern "C" __global__ void baseline_bits(BLOCK_PARAMETERS) { block<false>(BLOCK_ARGUMENTS); }

extern "C" __global__ void baseline_bytes(BLOCK_PARAMETERS) { block<true>(BLOCK_ARGUMENTS); }

// c = a b, float32 [m, k], [k, n], [m, n]. Fused multiply-adds are asked for, since sources are compiled
// without them.
extern "C" __global__ void baseline_product(const float* __restrict__ a, const float* __restrict__ b,
                                            float* __restrict__ c, int m, int n, int k) {
  const int row = blockIdx.y * 16 + threadIdx.x / 16, column = blockIdx.x * 16 + threadIdx.x % 16;
  if (row >= m || column >= n) return;
  float sum = 0;
  for (int i = 0; i < k; ++i) sum = __fmaf_rn(a[(i64)row * k + i], b[(i64)i * n + column], sum);
  c[(i64)row * n + column] = sum;
}
