// What the kernels of all methods share: sizes of a block, what becomes of its sums, copies to shared memory.
//
// Exactness with AND: over the valid taps of a window (those inside of the image), with Kv their number, pa
// and pb the ones among the activations and the weights there,
//     sum of (+-1)(+-1) = Kv - 2 pa - 2 pb + 4 popc(a AND w).
// For 8-bit inputs u, each standing for 2u - 255, and weights w of +-1,
//     sum of (2u - 255) w = 2 sum(u w) + 255 (Kv - 2 pb).
// The part that does not depend on the activations, Kv - 2 pb (times 255), is a table made on the host: one
// row per border class (which rows and columns of the window are inside), one column per channel:
// `corrections`. The row of an output pixel is found with `offsets`. methods/_common.py makes both, and
// passes the parameters in this order.
#pragma once

typedef unsigned char u8;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef long long i64;

constexpr u32 ALL_LANES = 0xffffffffu;

// Kinds of output, as methods/_common.py numbers them.
constexpr int SUMS = 0;    // int32 [rows, out_channels]
constexpr int BITS = 1;    // 64-bit words [rows, words of out_channels], padding bits 0
constexpr int SCORES = 2;  // float32 [rows, out_channels]

// `first` and `second` are constants per channel, padded to the channels of the method's tile: thresholds
// int32 (the padding INT32_MAX, never reached) and falling channels as bits of 64-bit words (the padding 0),
// or scale and shift float32; null where the output is sums. A row is an output pixel; rows are fewer than
// 2^31.
#define BLOCK_PARAMETERS                                                                                    \
  const void *__restrict__ source, void *__restrict__ result, const void *__restrict__ weights,             \
      const int *__restrict__ corrections, const int *__restrict__ offsets, const void *__restrict__ first, \
      const void *__restrict__ second, int rows, int height, int width, int channels, int kernel_height,    \
      int kernel_width, int stride_height, int stride_width, int padding_height, int padding_width,         \
      int out_height, int out_width, int out_channels, int output

// The same names as arguments, for device functions with the same parameters.
#define BLOCK_ARGUMENTS                                                                                    \
  source, result, weights, corrections, offsets, first, second, rows, height, width, channels,             \
      kernel_height, kernel_width, stride_height, stride_width, padding_height, padding_width, out_height, \
      out_width, out_channels, output

// Position of the first tap of a row's window: image, and input row and column, negative in the padding.
struct Corner {
  int image, y, x;
};

__device__ __forceinline__ Corner corner_of(int row, int out_height, int out_width, int stride_height,
                                            int stride_width, int padding_height, int padding_width) {
  const int line = row / out_width;
  const int image = line / out_height;
  return {image, (line - image * out_height) * stride_height - padding_height,
          (row - line * out_width) * stride_width - padding_width};
}

// Input row of a window beyond the rows, and row of a tap beyond a window: added to any row of the other kind
// they are outside of every image (windows begin at -65535 or later, images have at most 2^28 rows).
constexpr int NOWHERE = -(1 << 30);
constexpr int OUTSIDE = 1 << 29;

// Taps of one dimension of a window that are inside of the image.
__device__ __forceinline__ int valid_taps(int corner, int size, int kernel) {
  return min(size - corner, kernel) - max(-corner, 0);
}

// Offset into `corrections` of the border class of a row: add the channel.
__device__ __forceinline__ int class_of(const int* offsets, int row, int out_height, int out_width) {
  const int line = row / out_width;
  return offsets[line % out_height] + offsets[out_height + row - line * out_width];
}

__device__ __forceinline__ int words_of(int channels) { return (channels + 63) >> 6; }

// A sum as a score: two roundings, never contracted to one.
__device__ __forceinline__ float score_of(int sum, float scale, float shift) {
  return __fadd_rn(__fmul_rn(__int2float_rn(sum), scale), shift);
}

// Stores a sum, or what it scores, at `index`.
__device__ __forceinline__ void store_number(void* result, i64 index, int sum, int channel, const void* first,
                                             const void* second, int output) {
  if (output == SCORES) {
    const float scale = __ldg(static_cast<const float*>(first) + channel);
    static_cast<float*>(result)[index] =
        score_of(sum, scale, __ldg(static_cast<const float*>(second) + channel));
  } else {
    static_cast<int*>(result)[index] = sum;
  }
}

// OR over the four lanes that hold one row of a tensor core's accumulators.
__device__ __forceinline__ u64 or_over_quad(u64 bits) {
  bits |= __shfl_xor_sync(ALL_LANES, bits, 1);
  return bits | __shfl_xor_sync(ALL_LANES, bits, 2);
}

__device__ __forceinline__ int add_over_warp(int value) {
#pragma unroll
  for (int step = 16; step > 0; step >>= 1) value += __shfl_xor_sync(ALL_LANES, value, step);
  return value;
}

// Adds COUNT values, a power of two up to 32, over the lanes of a warp: lane l returns the total of value
// l * COUNT / 32. Each step halves the values instead of repeating all of them: fewer shuffles than one by
// one.
template <int COUNT, int STEP = 16>
__device__ __forceinline__ int add_many_over_warp(const int (&values)[COUNT]) {
  if constexpr (STEP == 0) {
    return values[0];
  } else if constexpr (COUNT == 1) {
    const int sum[1] = {values[0] + __shfl_xor_sync(ALL_LANES, values[0], STEP)};
    return add_many_over_warp<1, STEP / 2>(sum);
  } else {
    const bool upper = threadIdx.x & STEP;
    int sums[COUNT / 2];
#pragma unroll
    for (int i = 0; i < COUNT / 2; ++i) {
      const int low = values[i], high = values[i + COUNT / 2];
      sums[i] = (upper ? high : low) + __shfl_xor_sync(ALL_LANES, upper ? low : high, STEP);
    }
    return add_many_over_warp<COUNT / 2, STEP / 2>(sums);
  }
}

// Loads that are predicated, where a branch would have the lanes of a warp wait for each other: zeros where
// not wanted.
#define PREDICATED_LOAD(NAME, RESULT, CONSTRAINT, POINTED, REGISTER, LOAD)      \
  __device__ __forceinline__ RESULT NAME(const POINTED* address, bool wanted) { \
    RESULT value;                                                               \
    asm("{\n.reg .pred wanted;\nsetp.ne.u32 wanted, %2, 0;\nmov." REGISTER      \
        " %0, 0;\n"                                                             \
        "@wanted ld.global.nc." LOAD " %0, [%1];\n}"                            \
        : "=&" CONSTRAINT(value)                                                \
        : "l"(__cvta_generic_to_global(address)), "r"((u32)wanted));            \
    return value;                                                               \
  }
PREDICATED_LOAD(load_word, u64, "l", u64, "b64", "b64")
PREDICATED_LOAD(load_u32, u32, "r", void, "b32", "b32")
PREDICATED_LOAD(load_u8, u32, "r", u8, "b32", "u8")

__device__ __forceinline__ uint4 load_16_bytes(const void* address, bool wanted) {
  uint4 value;
  asm("{\n.reg .pred wanted;\nsetp.ne.u32 wanted, %5, 0;\nmov.b32 %0, 0;\nmov.b32 %1, 0;\nmov.b32 %2, 0;\n"
      "mov.b32 %3, 0;\n@wanted ld.global.nc.v4.b32 {%0, %1, %2, %3}, [%4];\n}"
      : "=&r"(value.x), "=&r"(value.y), "=&r"(value.z), "=&r"(value.w)
      : "l"(__cvta_generic_to_global(address)), "r"((u32)wanted));
  return value;
}

__device__ __forceinline__ u32 shared_address(const void* pointer) {
  return static_cast<u32>(__cvta_generic_to_shared(pointer));
}

#if __CUDA_ARCH__ >= 800
// Asynchronous copies to shared memory (PTX ISA, cp.async): 16 bytes through the second-level cache only, or
// 4 or 8 bytes. Where `valid` is false the source size is 0: nothing is read, whatever the address, and zeros
// are written.
__device__ __forceinline__ void copy_async_16(u32 shared, const void* global, bool valid) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared),
               "l"(__cvta_generic_to_global(global)), "r"(valid ? 16 : 0)
               : "memory");
}

template <int BYTES>
__device__ __forceinline__ void copy_async_small(u32 shared, const void* global, bool valid) {
  static_assert(BYTES == 4 || BYTES == 8, "cp.async.ca takes 4, 8 or 16 bytes");
  asm volatile("cp.async.ca.shared.global [%0], [%1], %2, %3;" ::"r"(shared),
               "l"(__cvta_generic_to_global(global)), "n"(BYTES), "r"(valid ? BYTES : 0)
               : "memory");
}

__device__ __forceinline__ void commit_copies() { asm volatile("cp.async.commit_group;" ::: "memory"); }

// Waits until at most PENDING of this thread's latest groups are under way.
template <int PENDING>
__device__ __forceinline__ void wait_for_copies() {
  asm volatile("cp.async.wait_group %0;" ::"n"(PENDING) : "memory");
}
#endif
