// Dense layers with wgmma: rows of activations times output channels, both streamed through a ring in shared
// memory.
//
// A tile is 64 rows per consumer by COLUMNS channels, a stage 1024 bits of them: one thread of the producer
// warpgroup orders the copies, CONSUMERS warpgroups multiply and, while the tensor cores work, count the ones
// of their rows. Blocks of threads go on from tile to tile, so that copies for the next one run during the
// output of the last.
#include "wgmma_output.cuh"

#ifndef COLUMNS
#define COLUMNS 256
#endif
#ifndef CONSUMERS
#define CONSUMERS 2
#endif

constexpr int ROWS = 64 * CONSUMERS;
constexpr int THREADS = WARPGROUP * (CONSUMERS + 1);
constexpr int STAGES = 4;
constexpr int WIDTH = 128;  // bytes of a row in a stage
constexpr int STAGE_BYTES = (ROWS + COLUMNS) * WIDTH;
constexpr int PATTERN = 1024;  // bytes in which a 128-byte swizzle repeats
constexpr int AHEAD = 2;       // stages by which a consumer is ahead of the next
constexpr int ROW_GROUP = 8 * WIDTH;

// Tiles are numbered so that blocks at work at the same time share rows and channels: bands of some rows of
// tiles, and in a band column after column. A band's height that divides the number of blocks lets a block
// keep its rows from tile to tile.
struct Order {
  int row_tiles, column_tiles, height;

  __device__ __forceinline__ Order(int row_tiles, int column_tiles)
      : row_tiles(row_tiles), column_tiles(column_tiles), height(16) {
    while (height > 4 && gridDim.x % height) height--;
  }

  __device__ __forceinline__ int count() const { return row_tiles * column_tiles; }

  __device__ __forceinline__ void place(int index, int* row_tile, int* column_tile) const {
    const int band = index / (height * column_tiles);
    const int first = band * height;
    const int rest = index - first * column_tiles;
    const int here = min(height, row_tiles - first);
    *column_tile = rest / here;
    *row_tile = first + rest % here;
  }
};

// Half of the ones of a row of a stage; which half does not matter, as lanes 16 apart take one each.
// Swizzling changes nothing but the order, and the order used here has no bank conflicts.
__device__ __forceinline__ int count_half_row(const unsigned char* row, int lane) {
  int ones = 0;
#pragma unroll
  for (int i = 0; i < 4; i++) {
    const int piece = ((lane >> 4) * 4 + i) ^ (lane & 7);
    const uint4 bits = *reinterpret_cast<const uint4*>(row + piece * 16);
    ones += __popc(bits.x) + __popc(bits.y) + __popc(bits.z) + __popc(bits.w);
  }
  return ones;
}

__device__ __forceinline__ void produce(const TensorMap& source, const TensorMap& weights, u32 stages,
                                        u32 full, u32 empty, const Order& order, int steps) {
  Ring ring;
  for (int index = blockIdx.x; index < order.count(); index += gridDim.x) {
    int row_tile, column_tile;
    order.place(index, &row_tile, &column_tile);
    for (int step = 0; step < steps; step++) {
      const u32 barrier = full + 8 * ring.stage;
      const u32 stage = stages + ring.stage * STAGE_BYTES;
      barrier_wait(empty + 8 * ring.stage, ring.parity ^ 1);
      barrier_arrive_expecting(barrier, STAGE_BYTES);
      copy_box(stage, source, barrier, step * WIDTH, row_tile * ROWS);
      copy_box(stage + ROWS * WIDTH, weights, barrier, step * WIDTH, column_tile * COLUMNS);
      ring.advance(STAGES);
    }
  }
}

__device__ __forceinline__ void consume(const unsigned char* shared, u32 stages, u32 full, u32 empty,
                                        const Order& order, int steps, int rows, const Output& output,
                                        int consumer) {
  const int lane = threadIdx.x % 32;
  const int first = consumer * 64 + threadIdx.x % WARPGROUP / 32 * 16;  // row of the warp within the tile
  const auto release = [&](int stage) {
    __syncwarp();
    if (lane == 0) barrier_arrive(empty + 8 * stage);
  };
  Ring ring;
  int counted = -1;  // row tile that `ones` belongs to
  int ones = 0;
  int sums[COLUMNS / 2];
  bool begun = false;
  if (static_cast<int>(blockIdx.x) < order.count()) wait_to_begin(consumer);
  for (int index = blockIdx.x; index < order.count(); index += gridDim.x) {
    int row_tile, column_tile;
    order.place(index, &row_tile, &column_tile);
    const bool counting = row_tile != counted;
    if (counting) ones = 0;
    counted = row_tile;
    for (int step = 0; step < steps; step++) {
      const u32 a = stages + ring.stage * STAGE_BYTES + consumer * (64 * WIDTH);
      const u32 b = stages + ring.stage * STAGE_BYTES + ROWS * WIDTH;
      barrier_wait(full + 8 * ring.stage, ring.parity);
      begin_products();
#pragma unroll
      for (int k = 0; k < WIDTH / 32; k++) {
        multiply_add(sums, operand(a + 32 * k, 0, ROW_GROUP, SWIZZLED),
                     operand(b + 32 * k, 0, ROW_GROUP, SWIZZLED), step + k > 0);
      }
      commit_products();
      if (!begun && step == min(AHEAD, steps) - 1) {
        let_next_begin(consumer, CONSUMERS);
        begun = true;
      }
      if (counting) {
        ones += count_half_row(shared + ring.stage * STAGE_BYTES + (first + lane % 16) * WIDTH, lane);
      }
      if (step > 0) {
        wait_for_products<1>();
        release(ring.stage == 0 ? STAGES - 1 : ring.stage - 1);
      }
      if (step < steps - 1) ring.advance(STAGES);
    }
    wait_for_products<0>();
    settle(sums);
    release(ring.stage);
    ring.advance(STAGES);

    const int of_row = ones + __shfl_xor_sync(ALL_LANES, ones, 16);  // of row lane % 16
    const int row = row_tile * ROWS + first + lane / 4;
    const OutputRow low = {row, __shfl_sync(ALL_LANES, of_row, lane / 4), 0, row < rows};
    const OutputRow high = {row + 8, __shfl_sync(ALL_LANES, of_row, lane / 4 + 8), 0, row + 8 < rows};
    write_output<COLUMNS>(sums, output, low, high, column_tile * COLUMNS, lane);
  }
}

// source: rows of 64-bit words, box ROWS x WIDTH bytes; weights: channels, box COLUMNS x WIDTH bytes; both
// swizzled by 128 bytes. words: of a row.
extern "C" __global__ void __launch_bounds__(THREADS, 1)
    wgmma_dense(const __grid_constant__ TensorMap source, const __grid_constant__ TensorMap weights,
                void* result, const int* table, const void* first, const void* second, int rows, int words,
                int out_channels, int output) {
  extern __shared__ unsigned char dynamic_shared[];
  const u32 before = shared_address(dynamic_shared);
  const u32 stages = (before + PATTERN - 1) / PATTERN * PATTERN;
  const unsigned char* shared = dynamic_shared + (stages - before);
  const u32 full = stages + STAGES * STAGE_BYTES;
  const u32 empty = full + STAGES * 8;
  if (threadIdx.x == 0) {
    for (int i = 0; i < STAGES; i++) {
      barrier_init(full + 8 * i, 1);
      barrier_init(empty + 8 * i, CONSUMERS * (WARPGROUP / 32));
    }
    publish_barriers();
  }
  __syncthreads();
  const int steps = (words * 8 + WIDTH - 1) / WIDTH;
  const Order order((rows + ROWS - 1) / ROWS, (out_channels + COLUMNS - 1) / COLUMNS);
  const int warpgroup = __shfl_sync(ALL_LANES, threadIdx.x / WARPGROUP, 0);
  if (warpgroup == CONSUMERS) {
    fewer_registers<CONSUMERS == 2 ? 40 : 24>();
    if (threadIdx.x == THREADS - WARPGROUP) {
      prefetch_map(source);
      prefetch_map(weights);
      produce(source, weights, stages, full, empty, order, steps);
    }
  } else {
    more_registers<CONSUMERS == 2 ? 232 : 160>();
    consume(shared, stages, full, empty, order, steps, rows,
            {result, table, first, second, out_channels, output}, warpgroup);
  }
}
