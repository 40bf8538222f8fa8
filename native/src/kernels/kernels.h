// The contract between the planner and the kernels of one instruction set.
//
// Everything here is plain data and plain functions: a kernel file is compiled with its own instruction-set
// flags and must not share inline code (standard containers included) with the rest, or the linker might keep
// its copy.
//
// A block is convolution -> optional max-pool -> optional threshold. A dense layer is a convolution with a
// 1 x 1 window; a dense layer over a batch may be seen by a kernel as one image of width `batch`.
#pragma once

#include <cstddef>
#include <cstdint>

namespace binarynet {

enum class BlockInput : int32_t { bytes, bits };  // uint8 [h, w, c] (standing for 2u - 255) or packed bits
// Thresholded and packed, or the (pooled) sums themselves; as float32 (training) they are still integers.
enum class BlockOutput : int32_t { bits, int32, float32 };

// Geometry and parameters of one block. Arrays stay owned by the planner and outlive the prepared layer.
// Every padding is smaller than its kernel, every window lies on at least one element; sums are within
// +-2^24.
struct Block {
  BlockInput input;
  BlockOutput output;
  int32_t threads;  // that may share the work: how many units are worth having. Results never depend on it
  int32_t in_h, in_w, in_c, in_words;  // in_words: words per pixel (bits input)
  int32_t kernel_h, kernel_w, stride_h, stride_w, pad_h, pad_w;
  int32_t conv_h, conv_w, out_c, out_words;  // sums before pooling; words per output pixel
  int32_t pool_h, pool_w, pool_stride_h, pool_stride_w, pool_pad_h, pool_pad_w;  // 1 x 1 stride 1: none
  int32_t out_h, out_w;                                                          // after pooling
  const uint64_t* weights;    // [out_c][kernel_h][kernel_w][words(in_c)]
  const int32_t* thresholds;  // [out_c], output == bits only: (max sum >= t) ^ falling
  const uint64_t* falling;    // [out_words]
};

// A way of computing a block, for some batches. All functions are thread-safe; `prepared` is only read.
struct Method {
  const char* name;  // a few words for people
  // Work is divided into units that threads take in contiguous ranges; the outputs of different units never
  // share a 64-bit word. unit_count may depend on the batch (a unit may be an image, some rows, a group of
  // 64 * n channels).
  int64_t (*unit_count)(const Block&, int64_t batch);
  // Scratch bytes that one run() call needs, however many units it has (64-byte aligned, contents undefined;
  // null if 0).
  size_t (*workspace_bytes)(const Block&, int64_t batch);
  // in: uint8 or uint64 [batch, in_h, in_w, ...]; out: uint64, int32 or float32 [batch, out_h, out_w, ...].
  // No byte outside of these arrays may be read or written; padding bits of out are written as 0.
  void (*run)(const Block&, const void* prepared, const void* in, void* out, int64_t batch,
              int64_t unit_begin, int64_t unit_end, void* workspace);
};

// Methods that start from the same layout of the weights: which one computes a block depends on the batch.
struct Engine {
  // Bytes of that layout, and the layout itself (64-byte aligned memory). Run when a session is created.
  size_t (*prepared_bytes)(const Block&);
  void (*prepare)(const Block&, void* prepared);
  const Method& (*method)(const Block&, int64_t batch);
};

// One row per instruction set.
struct KernelSet {
  const char* name;  // "portable", "avx2", ...: names instructions, not processors
  const Engine& (*engine)(const Block&);
};

extern const KernelSet kPortableKernels;
#if defined(BINARYNET_HAVE_AVX2)
extern const KernelSet kAvx2Kernels;
#endif
#if defined(BINARYNET_HAVE_AVX512_VPOPCNTDQ)
extern const KernelSet kAvx512VpopcntdqKernels;
#endif
#if defined(BINARYNET_HAVE_NEON)
extern const KernelSet kNeonKernels;
#endif
#if defined(BINARYNET_HAVE_AVX512_VBMI)
extern const KernelSet kAvx512VbmiKernels;
#endif

}  // namespace binarynet
