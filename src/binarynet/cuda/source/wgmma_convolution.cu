// Convolutions of stride 1 with wgmma: the weights of COLUMNS output channels stay in shared memory, patches
// of the input stream by.
//
// A patch is what 8 x 8 output pixels of one image see, halo included, copied once: for every 128 channels a
// plane [rows][columns][16 bytes], zeros outside of the image. Eight neighbours in a row are 128 contiguous
// bytes, a core matrix of wgmma, wherever they begin: so every tap of the window is the same patch seen from
// another first address, and nothing is copied or counted once per tap. Each consumer warpgroup has patches
// of its own, so that one writes its output while another multiplies.
#include "wgmma_output.cuh"

#ifndef COLUMNS
#define COLUMNS 256
#endif
#ifndef CONSUMERS
#define CONSUMERS 2
#endif

constexpr int THREADS = WARPGROUP * (CONSUMERS + 1);
constexpr int SIDE = 8;                          // output pixels of a patch, in rows and columns
constexpr int PIECE = 16;                        // bytes: 128 channels of a pixel
constexpr int STEP_BYTES = COLUMNS * 2 * PIECE;  // weights of 256 taps
constexpr int GROUP = 4;                         // steps whose weights arrive together
constexpr int MAX_GROUPS = 16;
constexpr int MAX_STAGES = 8;

// A block's shared memory, addresses in bytes; methods/wgmma.py computes its size.
struct Layout {
  u32 weights, patches, ones, steps, full, empty, weights_full;
};

// Sizes of the layer as the kernel sees it.
struct Layer {
  int pieces;                     // of a pixel: channels / 128
  int patch_height, patch_width;  // pixels, halo included
  int plane_bytes, patch_bytes;   // one piece of all pixels, a multiple of 128; all pieces
  int out_height, out_width;
  int rows, columns;  // patches of an image
  int patches;        // of the batch
  int padding_height, padding_width;
  int kernel_height, kernel_width;
  int stages, steps;
};

struct Patch {
  int image, y, x;  // of its first output pixel
};

__device__ __forceinline__ Patch patch_of(int index, const Layer& layer) {
  const int line = index / layer.columns;
  const int image = line / layer.rows;
  return {image, (line - image * layer.rows) * SIDE, (index - line * layer.columns) * SIDE};
}

// Orders the copies of the weights, then those of patch after patch.
__device__ __forceinline__ void produce(const TensorMap& source, const unsigned char* weights,
                                        const Layout& at, const Layer& layer, int begin, int stride) {
#pragma unroll 1
  for (int step = 0; step < layer.steps; step += GROUP) {
    const u32 barrier = at.weights_full + step / GROUP * 8;
    const u32 bytes = min(GROUP, layer.steps - step) * STEP_BYTES;
    barrier_arrive_expecting(barrier, bytes);
    copy_bytes(at.weights + step * STEP_BYTES, weights + step * STEP_BYTES, bytes, barrier);
  }
  const int bytes = layer.patch_height * layer.patch_width * PIECE;  // of one piece of all pixels
  Ring ring;
  for (int index = begin; index < layer.patches; index += stride) {
    const Patch patch = patch_of(index, layer);
    const int y = patch.y - layer.padding_height, x = patch.x - layer.padding_width;
    const u32 barrier = at.full + 8 * ring.stage;
    const u32 stage = at.patches + ring.stage * layer.patch_bytes;
    barrier_wait(at.empty + 8 * ring.stage, ring.parity ^ 1);
    barrier_arrive_expecting(barrier, layer.pieces * bytes);
    if (layer.pieces == 1) {
      copy_box(stage, source, barrier, x * PIECE, 0, y, patch.image);
    } else {
#pragma unroll 1
      for (int piece = 0; piece < layer.pieces; piece++) {
        copy_box(stage + piece * layer.plane_bytes, source, barrier, piece * PIECE, x, y, patch.image);
      }
    }
    ring.advance(layer.stages);
  }
}

// The ones of every pixel of a patch.
__device__ __forceinline__ void count_pixels(const unsigned char* patch, int* ones, const Layer& layer) {
  const int pixels = layer.patch_height * layer.patch_width;
  for (int pixel = threadIdx.x % WARPGROUP; pixel < pixels; pixel += WARPGROUP) {
    int sum = 0;
    for (int piece = 0; piece < layer.pieces; piece++) {
      const uint4 bits = *reinterpret_cast<const uint4*>(patch + piece * layer.plane_bytes + pixel * PIECE);
      sum += __popc(bits.x) + __popc(bits.y) + __popc(bits.z) + __popc(bits.w);
    }
    ones[pixel] = sum;
  }
}

// The ones under the windows of output pixels (y, x) and (y + 1, x) of a patch.
__device__ __forceinline__ int2 count_windows(const int* ones, int y, int x, const Layer& layer) {
  int2 sum = make_int2(0, 0);
  const int* corner = ones + y * layer.patch_width + x;
  for (int i = 0; i <= layer.kernel_height; i++, corner += layer.patch_width) {
    int line = 0;
    for (int j = 0; j < layer.kernel_width; j++) line += corner[j];
    if (i < layer.kernel_height) sum.x += line;
    if (i > 0) sum.y += line;
  }
  return sum;
}

__device__ __forceinline__ void consume(unsigned char* shared, const Layout& at, const Layer& layer,
                                        int begin, int stride, const int* offsets, const Output& output,
                                        int column, int consumer) {
  const int lane = threadIdx.x % 32;
  const int pixels = layer.patch_height * layer.patch_width;
  const int in_y = threadIdx.x % WARPGROUP / 32 * 2, in_x = lane / 4;  // of this thread's rows, y and y + 1
  const u64* steps = reinterpret_cast<const u64*>(shared + at.steps);
  int* ones = reinterpret_cast<int*>(shared + at.ones) + consumer * 2 * pixels;
  const u64 b = operand(shared_address(shared) + at.weights, COLUMNS * PIECE, SIDE * PIECE, 0);
  int sums[COLUMNS / 2];
  Ring ring;
  int turn = 0;
  bool arrived = false;  // all weights
#pragma unroll
  for (int i = 0; i < CONSUMERS; i++) {
    if (i < consumer) ring.advance(layer.stages);
  }
  const int begin_here = begin + consumer * stride;
  if (begin_here < layer.patches) wait_to_begin(consumer);
  for (int index = begin_here; index < layer.patches; index += CONSUMERS * stride) {
    const u32 stage = at.patches + ring.stage * layer.patch_bytes;
    const u64 a = (shared_address(shared) + stage) >> 4;
    barrier_wait(shared_address(shared) + at.full + 8 * ring.stage, ring.parity);
    begin_products();
    for (int step = 0; step < layer.steps; step++) {
      if (!arrived && step % GROUP == 0)
        barrier_wait(shared_address(shared) + at.weights_full + step / GROUP * 8, 0);
      multiply_add(sums, a + steps[step], b + static_cast<u64>(step) * (STEP_BYTES >> 4), step > 0);
      commit_products();  // here rather than once behind the loop: then it is part of the instruction
    }
    if (!arrived && index + stride < layer.patches) let_next_begin(consumer, CONSUMERS);
    arrived = true;
    int* mine = ones + turn * pixels;
    turn ^= 1;
    count_pixels(shared + stage, mine, layer);
    synchronize_warpgroup(consumer);
    const int2 windows = count_windows(mine, in_y, in_x, layer);
    const Patch patch = patch_of(index, layer);
    const int y = patch.y + in_y, x = patch.x + in_x;
    const i64 pixel = (static_cast<i64>(patch.image) * layer.out_height + y) * layer.out_width + x;
    const bool low = y < layer.out_height && x < layer.out_width;
    const bool high = y + 1 < layer.out_height && x < layer.out_width;
    const int x_class = low ? __ldg(offsets + layer.out_height + x) : 0;
    const OutputRow low_row = {pixel, windows.x, low ? x_class + __ldg(offsets + y) : 0, low};
    const OutputRow high_row = {pixel + layer.out_width, windows.y,
                                high ? x_class + __ldg(offsets + y + 1) : 0, high};
    wait_for_products<0>();
    settle(sums);
    __syncwarp();
    if (lane == 0) barrier_arrive(shared_address(shared) + at.empty + 8 * ring.stage);
#pragma unroll
    for (int i = 0; i < CONSUMERS; i++) ring.advance(layer.stages);
    write_output<COLUMNS>(sums, output, low_row, high_row, column, lane);
  }
}

// source: (16 bytes per column, 1, rows, images) with 128 channels, else (bytes of a pixel, columns, rows,
// images), box: 16 bytes of all pixels of a patch. weights: [tiles of COLUMNS][steps][2][COLUMNS][16 bytes].
// descriptors: u64 [steps], those of operand A for a patch at address 0.
extern "C" __global__ void __launch_bounds__(THREADS, 1)
    wgmma_convolution(const __grid_constant__ TensorMap source, const unsigned char* weights,
                      const u64* descriptors, const int* offsets, void* result, const int* table,
                      const void* first, const void* second, int images, int channels, int out_height,
                      int out_width, int kernel_height, int kernel_width, int padding_height,
                      int padding_width, int steps, int stages, int out_channels, int output) {
  extern __shared__ unsigned char dynamic_shared[];
  constexpr int ALIGNMENT = 128;
  const u32 before = shared_address(dynamic_shared);
  unsigned char* shared = dynamic_shared + ((before + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT - before);
  Layer layer;
  layer.pieces = channels / (8 * PIECE);
  layer.patch_height = SIDE + kernel_height - 1;
  layer.patch_width = SIDE + kernel_width - 1;
  const int pixels = layer.patch_height * layer.patch_width;
  layer.plane_bytes = (pixels * PIECE + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
  layer.patch_bytes = layer.pieces * layer.plane_bytes;
  layer.out_height = out_height;
  layer.out_width = out_width;
  layer.rows = (out_height + SIDE - 1) / SIDE;
  layer.columns = (out_width + SIDE - 1) / SIDE;
  layer.patches = images * layer.rows * layer.columns;
  layer.padding_height = padding_height;
  layer.padding_width = padding_width;
  layer.kernel_height = kernel_height;
  layer.kernel_width = kernel_width;
  layer.stages = stages;
  layer.steps = steps;
  Layout at;
  at.full = 0;
  at.empty = at.full + 8 * MAX_STAGES;
  at.weights_full = at.empty + 8 * MAX_STAGES;
  at.weights = at.weights_full + 8 * MAX_GROUPS;
  at.patches = at.weights + steps * STEP_BYTES;
  at.steps = at.patches + stages * layer.patch_bytes;
  at.ones = at.steps + 8 * steps;
  static_assert(8 * (2 * MAX_STAGES + MAX_GROUPS) % ALIGNMENT == 0, "weights and patches are aligned");
  const u32 base = shared_address(shared);
  for (int i = threadIdx.x; i < steps; i += THREADS) {
    reinterpret_cast<u64*>(shared + at.steps)[i] = descriptors[i];
  }
  if (threadIdx.x == 0) {
    for (int i = 0; i < stages; i++) {
      barrier_init(base + at.full + 8 * i, 1);
      barrier_init(base + at.empty + 8 * i, WARPGROUP / 32);
    }
    for (int i = 0; i < MAX_GROUPS; i++) barrier_init(base + at.weights_full + 8 * i, 1);
    publish_barriers();
  }
  __syncthreads();

  // Blocks of threads share the tiles of channels evenly; those left over have nothing to do.
  const int tiles = (out_channels + COLUMNS - 1) / COLUMNS;
  const int stride = gridDim.x / tiles;
  const int tile = blockIdx.x % tiles, begin = blockIdx.x / tiles;
  if (begin >= min(stride, layer.patches)) return;
  const int warpgroup = __shfl_sync(ALL_LANES, threadIdx.x / WARPGROUP, 0);
  if (warpgroup == CONSUMERS) {
    fewer_registers<CONSUMERS == 2 ? 40 : 24>();
    if (threadIdx.x == THREADS - WARPGROUP) {
      prefetch_map(source);
      at.full += base, at.empty += base, at.weights_full += base, at.weights += base, at.patches += base;
      produce(source, weights + static_cast<i64>(tile) * steps * STEP_BYTES, at, layer, begin, stride);
    }
  } else {
    more_registers<CONSUMERS == 2 ? 232 : CONSUMERS == 3 ? 160 : 112>();
    consume(shared, at, layer, begin, stride, offsets, {result, table, first, second, out_channels, output},
            tile * COLUMNS, warpgroup);
  }
}
