// Dense layers with wgmma: rows of activations times output channels, streamed through a ring in shared
// memory.
//
// A tile is 64 rows per consumer by COLUMNS channels, a stage 1024 bits of them: one thread of the producer
// warpgroup orders the copies, CONSUMERS warpgroups multiply and, while the tensor cores work, count the ones
// of their rows. Blocks of threads go on from tile to tile, so that copies for the next one run during the
// output of the last. Where the weights of COLUMNS channels fit, they stay (resident): a block has
// tiles of these channels alone, and only rows go through the ring.
#include "wgmma_output.cuh"

#ifndef COLUMNS
#define COLUMNS 256
#endif
#ifndef CONSUMERS
#define CONSUMERS 2
#endif

constexpr int ROWS = 64 * CONSUMERS;
constexpr int THREADS = WARPGROUP * (CONSUMERS + 1);
constexpr int WIDTH = 128;  // bytes of a row in a stage
constexpr int ROWS_BYTES = ROWS * WIDTH;
constexpr int COLUMNS_BYTES = COLUMNS * WIDTH;
constexpr int PATTERN = 1024;  // bytes in which a 128-byte swizzle repeats
constexpr int ROW_GROUP = 8 * WIDTH;
constexpr int AHEAD = 2;  // stages by which a consumer is ahead of the next

// A block's shared memory: addresses, and its stages. Weights are in the stages, or, resident, apart.
struct Memory {
  u32 stages, stage_bytes, weights, full, empty;
  int count;  // of stages
  bool resident;

  __device__ __forceinline__ u32 rows_of(int stage) const { return stages + stage * stage_bytes; }

  __device__ __forceinline__ u32 columns_of(int stage, int step) const {
    return resident ? weights + step * COLUMNS_BYTES : rows_of(stage) + ROWS_BYTES;
  }
};

// The tiles of a block of threads: numbers from `begin` on in steps of `stride`. Tiles are numbered so that
// blocks at work at the same time share rows and channels: bands of some rows of tiles, and in a band column
// after column. A band's height that divides the number of blocks lets a block keep its rows from tile to
// tile. With resident weights, blocks are shared out evenly among the columns, and numbers are rows.
struct Order {
  int begin, stride, end, row_tiles, column_tiles, height;

  __device__ __forceinline__ Order(int row_tiles, int column_tiles, bool resident)
      : begin(blockIdx.x),
        stride(gridDim.x),
        end(row_tiles * column_tiles),
        row_tiles(row_tiles),
        column_tiles(column_tiles),
        height(16) {
    while (height > 4 && gridDim.x % height) height--;
    if (resident) {
      height = 0;
      begin = blockIdx.x / column_tiles;
      stride = gridDim.x / column_tiles;
      end = begin < stride ? row_tiles : 0;
    }
  }

  __device__ __forceinline__ void place(int index, int* row_tile, int* column_tile) const {
    if (height == 0) {
      *row_tile = index;
      *column_tile = blockIdx.x % column_tiles;
      return;
    }
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

__device__ __forceinline__ void produce(const TensorMap& source, const TensorMap& weights,
                                        const Memory& memory, const Order& order, int steps) {
  Ring ring;
  for (int index = order.begin; index < order.end; index += order.stride) {
    int row_tile, column_tile;
    order.place(index, &row_tile, &column_tile);
    // Resident weights come with the rows of the first tile.
    const bool with_weights = !memory.resident || index == order.begin;
    for (int step = 0; step < steps; step++) {
      const u32 barrier = memory.full + 8 * ring.stage;
      barrier_wait(memory.empty + 8 * ring.stage, ring.parity ^ 1);
      barrier_arrive_expecting(barrier, ROWS_BYTES + (with_weights ? COLUMNS_BYTES : 0));
      copy_box(memory.rows_of(ring.stage), source, barrier, step * WIDTH, row_tile * ROWS);
      if (with_weights) {
        copy_box(memory.columns_of(ring.stage, step), weights, barrier, step * WIDTH, column_tile * COLUMNS);
      }
      ring.advance(memory.count);
    }
  }
}

// shared: where memory.stages is.
__device__ __forceinline__ void consume(const unsigned char* shared, const Memory& memory, const Order& order,
                                        int steps, int rows, const Output& output, int consumer) {
  const int lane = threadIdx.x % 32;
  const int first = consumer * 64 + threadIdx.x % WARPGROUP / 32 * 16;  // row of the warp within the tile
  const auto release = [&](int stage) {
    __syncwarp();
    if (lane == 0) barrier_arrive(memory.empty + 8 * stage);
  };
  Ring ring;
  int counted = -1;  // row tile that `ones` belongs to
  int ones = 0;
  int sums[COLUMNS / 2];
  bool begun = false;
  if (order.begin < order.end) wait_to_begin(consumer);
  for (int index = order.begin; index < order.end; index += order.stride) {
    int row_tile, column_tile;
    order.place(index, &row_tile, &column_tile);
    const bool counting = row_tile != counted;
    if (counting) ones = 0;
    counted = row_tile;
    for (int step = 0; step < steps; step++) {
      const u32 a = memory.rows_of(ring.stage) + consumer * (64 * WIDTH);
      const u32 b = memory.columns_of(ring.stage, step);
      barrier_wait(memory.full + 8 * ring.stage, ring.parity);
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
        ones += count_half_row(shared + ring.stage * memory.stage_bytes + (first + lane % 16) * WIDTH, lane);
      }
      if (step > 0) {
        wait_for_products<1>();
        release(ring.stage == 0 ? memory.count - 1 : ring.stage - 1);
      }
      if (step < steps - 1) ring.advance(memory.count);
    }
    wait_for_products<0>();
    settle(sums);
    release(ring.stage);
    ring.advance(memory.count);

    const int of_row = ones + __shfl_xor_sync(ALL_LANES, ones, 16);  // of row lane % 16
    const i64 row = static_cast<i64>(row_tile) * ROWS + first + lane / 4;
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
                int out_channels, int output, int stages, int resident) {
  extern __shared__ unsigned char dynamic_shared[];
  const int steps = (words * 8 + WIDTH - 1) / WIDTH;
  const u32 before = shared_address(dynamic_shared);
  Memory memory;
  memory.stages = (before + PATTERN - 1) / PATTERN * PATTERN;
  memory.stage_bytes = ROWS_BYTES + (resident ? 0 : COLUMNS_BYTES);
  memory.weights = memory.stages + stages * memory.stage_bytes;
  memory.full = memory.weights + (resident ? steps * COLUMNS_BYTES : 0);
  memory.empty = memory.full + 8 * stages;
  memory.count = stages;
  memory.resident = resident;
  if (threadIdx.x == 0) {
    for (int i = 0; i < stages; i++) {
      barrier_init(memory.full + 8 * i, 1);
      barrier_init(memory.empty + 8 * i, CONSUMERS * (WARPGROUP / 32));
    }
    publish_barriers();
  }
  __syncthreads();
  const Order order((rows - 1) / ROWS + 1, (out_channels - 1) / COLUMNS + 1, resident);
  const int warpgroup = __shfl_sync(ALL_LANES, threadIdx.x / WARPGROUP, 0);
  if (warpgroup == CONSUMERS) {
    fewer_registers<CONSUMERS == 2 ? 40 : 24>();
    if (threadIdx.x == THREADS - WARPGROUP) {
      prefetch_map(source);
      prefetch_map(weights);
      produce(source, weights, memory, order, steps);
    }
  } else {
    more_registers<CONSUMERS == 2 ? 232 : 160>();
    consume(dynamic_shared + (memory.stages - before), memory, order, steps, rows,
            {result, table, first, second, out_channels, output}, warpgroup);
  }
}
