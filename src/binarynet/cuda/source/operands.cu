// Weights that lie in device memory as plain packed bits, as of a product of two run-time operands: laid out
// for a method, and the corrections of their border classes (common.cuh).
#include "common.cuh"

// result[i] = words[index[i] - 1], or 0 where index[i] is 0.
extern "C" __global__ void lay_out(const u32* __restrict__ words, const u32* __restrict__ index,
                                   u32* __restrict__ result, i64 count) {
  const i64 step = static_cast<i64>(gridDim.x) * blockDim.x;
  for (i64 i = static_cast<i64>(blockIdx.x) * blockDim.x + threadIdx.x; i < count; i += step) {
    const u32 from = index[i];
    result[i] = from == 0 ? 0 : words[from - 1];
  }
}

// corrections[class][channel] = Kv - 2 pb, 0 beyond out_channels; a warp each. `parts`: first and one past
// last window row of each class of rows, then first and one past last window column of each class of columns.
extern "C" __global__ void correct(const u64* __restrict__ weights, const int* __restrict__ parts,
                                   int* __restrict__ corrections, int row_classes, int column_classes,
                                   int table_channels, int out_channels, int channels, int kernel_height,
                                   int kernel_width) {
  const i64 item = (static_cast<i64>(blockIdx.x) * blockDim.x + threadIdx.x) >> 5;
  if (item >= static_cast<i64>(row_classes) * column_classes * table_channels) return;
  const int lane = threadIdx.x & 31;
  const int border = static_cast<int>(item / table_channels);
  const int channel = static_cast<int>(item - static_cast<i64>(border) * table_channels);
  const int* rows = parts + 2 * (border / column_classes);
  const int* columns = parts + 2 * (row_classes + border % column_classes);
  int ones = 0;
  if (channel < out_channels) {
    const int words = words_of(channels);
    const int run = (columns[1] - columns[0]) * words;  // taps of a row lie together
    for (int y = rows[0]; y < rows[1]; ++y) {
      const i64 tap = (static_cast<i64>(channel) * kernel_height + y) * kernel_width + columns[0];
      for (int i = lane; i < run; i += 32) ones += __popcll(weights[tap * words + i]);
    }
  }
  ones = add_over_warp(ones);
  if (lane != 0) return;
  const int taps = (rows[1] - rows[0]) * (columns[1] - columns[0]) * channels;
  corrections[item] = channel < out_channels ? taps - 2 * ones : 0;
}
