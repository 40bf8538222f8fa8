// The contract between the training operations and the kernels of one instruction set.
//
// As for the kernels of inference: a kernel file is compiled with its own instruction-set flags, so that
// everything here is plain data and plain functions, and kernel files share no inline code with the rest.
// All functions are thread-safe. Calls on different parts of one result may run at the same time.
//
// A group of kernels (dense layers, convolutions, ...) is a table of functions; each instruction set that is
// worth it has one, and "portable" always: plain C++ that computes the same numbers to the last bit.
#pragma once

#include <cstddef>
#include <cstdint>

namespace binarynet::training {

constexpr int64_t kLanes = 16;        // columns of a panel
constexpr int64_t kWordRows = 32;     // rows of a word of column bits
constexpr int64_t kRowBits = 64;      // columns of a word of row bits
constexpr int64_t kGroupSteps = 4;    // terms that one table look-up adds
constexpr int64_t kBlockSteps = 128;  // terms whose tables fit into the first-level cache, for kTileRows rows
constexpr int64_t kBlockWords = kBlockSteps / kWordRows;
constexpr int64_t kTileRows = 16;
constexpr int64_t kTilePanels = 128;
constexpr int64_t kRealRows = 256;

// Two packed forms of the signs of a float matrix [rows, cols], bit 1 for +1:
//   row bits     uint64 [rows][row_words]: along a row, as everywhere in the package
//   column bits  uint32 [blocks][panels][kBlockWords][kLanes]: bit i of word w of lane k is element
//                (128 block + 32 w + i, 16 panel + k)
// Bits beyond the matrix are 0. NaN gets the bit 1, as ops.sign makes +1 of it.
constexpr int64_t row_words(int64_t cols) { return (cols + kRowBits - 1) / kRowBits; }
constexpr int64_t panels(int64_t cols) { return (cols + kLanes - 1) / kLanes; }
constexpr int64_t blocks(int64_t rows) { return (rows + kBlockSteps - 1) / kBlockSteps; }
// Index of a panel's first lane in a word, counted from the matrix's first row.
constexpr int64_t column_offset(int64_t cols, int64_t word, int64_t panel) {
  return ((word / kBlockWords * panels(cols) + panel) * kBlockWords + word % kBlockWords) * kLanes;
}

// What a matrix holds besides +1 and -1. Bytes are what 8-bit inputs u stand for: the odd integers 2u - 255.
enum Found : uint32_t { kFoundZero = 1, kFoundByte = 2, kFoundOther = 4 };

struct Signs {
  const float* values;  // [rows][cols]
  int64_t rows, cols;
  bool strict;          // bit = value > 0; else not value < 0
  bool find;            // look for other values than +1 and -1
  uint64_t* by_row;     // row bits, or null
  uint32_t* by_column;  // column bits, or null
};

// out[r][c] = sum over steps i of values(r, i) * sign(i, c), in float32, always summed in this order: four
// steps (((i + i+1) + i+2) + i+3) make a group, the groups of a block of kBlockSteps are added one by one to
// 0, and the blocks one by one to the first of them. So results depend neither on the division of the work
// nor on the instruction set. Steps beyond the last count as 0.
struct SignedProduct {
  const float* values;  // values(r, i) at r * row_stride + i * step_stride
  int64_t row_stride, step_stride;
  int64_t rows, steps, cols;
  const uint32_t* signs;  // column bits of the matrix [steps, cols]
  float* out;             // [rows][cols]
};

// out[r][c] = sum over steps i of left(i, r) * right(i, c), in float32: in blocks of kBlockSteps, each a
// chain of fused multiply-adds from 0, the blocks added one by one to the first.
struct RealProduct {
  const float* left;   // [steps][rows]
  const float* right;  // [steps][cols]
  int64_t steps, rows, cols;
  float* out;  // [rows][cols]
};

struct DenseKernels {
  // Packs the rows of blocks [block_begin, block_end); returns what was found there, if that is asked.
  uint32_t (*pack)(const Signs& signs, int64_t block_begin, int64_t block_end);
  // Rows [row_begin, row_end), at most kTileRows of them, of the columns of panels [panel_begin, panel_end),
  // at most kTilePanels.
  void (*multiply)(const SignedProduct& product, int64_t row_begin, int64_t row_end, int64_t panel_begin,
                   int64_t panel_end, void* workspace);
  // Scratch bytes (64-byte aligned) of one call of multiply().
  size_t multiply_workspace;
  // bytes[i] = u where values[i] is 2u - 255, and 0 where it is 0; nothing else may be there.
  void (*to_bytes)(const float* values, int64_t count, uint8_t* bytes);
  // Rows [row_begin, row_end), at most kRealRows of them.
  void (*multiply_real)(const RealProduct& product, int64_t row_begin, int64_t row_end, void* workspace);
  size_t multiply_real_workspace;
};

extern const DenseKernels kPortableDense;
#if defined(BINARYNET_HAVE_AVX512_VPOPCNTDQ)
extern const DenseKernels kAvx512VpopcntdqDense;
#endif

}  // namespace binarynet::training
