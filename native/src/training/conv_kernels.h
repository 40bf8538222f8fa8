// The contract between the gradients of convolutions and the kernels of one instruction set; see kernels.h.
//
// Images are [batch][rows][columns][channels] (torch's channels_last); a pixel's signs are row bits, so that
// bits are uint64 [batch][rows][columns][row_words(channels)] and weights uint64
// [out_c][kernel_h][kernel_w][row_words(in_c)]. Strides are 1, a padding is smaller than its kernel, and a
// tap outside of the image adds nothing.
//
// The order of the sums is fixed: results depend neither on the division of the work nor on the instruction
// set. Terms are added in groups of four, (((a + b) + c) + d), and the groups one by one to 0.
#pragma once

#include <cstddef>
#include <cstdint>

#include "training/kernels.h"

namespace binarynet::training {

struct ConvShape {
  int64_t batch, in_h, in_w, in_c, out_h, out_w, out_c;
  int64_t kernel_h, kernel_w, pad_h, pad_w;
};

// out[n][y][x][i] = sum over o, ky, kx of g[n][y + pad_h - ky][x + pad_w - kx][o] * weights(o, ky, kx, i).
// Groups: four output channels, the last of which may be missing. Their order: blocks of kBlockChannels
// output channels slowest, then ky, kx, and the groups of the block.
constexpr int64_t kBlockChannels = 64;

struct InputGradient {
  ConvShape shape;
  const float* g;
  const uint64_t* weights;
  float* out;
};

// out[o][i][ky][kx] = sum over n, y, x of g[n][y][x][o] * sign(n, y + ky - pad_h, x + kx - pad_w, i).
// Groups: four columns of g, aligned. Those of which no column sees a pixel add nothing. g is taken in blocks
// of block_rows rows (of the whole batch) and kBlockColumns columns, row after row; each is summed up by
// itself, and added to the result, which starts at 0. Their order: rows slowest.
constexpr int64_t kBlockColumns = 32;

struct WeightGradient {
  ConvShape shape;
  const float* g;
  const uint64_t* signs;
  float* out;
  int64_t block_rows;  // at most kMostBlockRows
  // Which of a group's columns see a pixel depends on kx, near the borders, and each case is a slot. Those of
  // the columns from 32 w on are [slot_begin[w], slot_begin[w + 1]); cases[slot] is group << 4 | mask of the
  // columns that see a pixel, and slot_of[kx][group] counts from slot_begin. slots: the most of any 32
  // columns.
  int64_t slots;
  const int32_t* slot_begin;
  const int32_t* cases;
  const int32_t* slot_of;
};

constexpr int64_t kMostBlockRows = 64;
constexpr int64_t column_groups(const ConvShape& shape) {
  return (shape.out_w + kGroupSteps - 1) / kGroupSteps;
}

// Output channels of a unit of work.
constexpr int64_t kUnitChannels = 16;

struct ConvKernels {
  // Signs of latent weights [out_c][in_c][taps] as bits, [out_c][taps][row_words(in_c)], for some out_c.
  void (*pack_weights)(const float* weights, int64_t in_c, int64_t taps, int64_t out_begin, int64_t out_end,
                       uint64_t* bits);

  // Bytes of the kernel's own layout of the signs, the layout itself, the scratch bytes of one call, and rows
  // [row_begin, row_end) of one image. All memory is 64-byte aligned.
  size_t (*input_prepared_bytes)(const ConvShape& shape);
  void (*input_prepare)(const InputGradient& gradient, void* prepared);
  size_t (*input_workspace_bytes)(const ConvShape& shape);
  void (*input_run)(const InputGradient& gradient, const void* prepared, int64_t image, int64_t row_begin,
                    int64_t row_end, void* workspace);

  // The same; prepared for rows [row_begin, row_end) of batch * in_h, and run for the kUnitChannels output
  // channels from out_begin on.
  size_t (*weight_prepared_bytes)(const ConvShape& shape);
  void (*weight_prepare)(const WeightGradient& gradient, void* prepared, int64_t row_begin, int64_t row_end);
  size_t (*weight_workspace_bytes)(const WeightGradient& gradient);
  void (*weight_run)(const WeightGradient& gradient, const void* prepared, int64_t out_begin,
                     void* workspace);
};

extern const ConvKernels kPortableConv;
#if defined(BINARYNET_HAVE_AVX512_VPOPCNTDQ)
extern const ConvKernels kAvx512VpopcntdqConv;
#endif

}  // namespace binarynet::training
