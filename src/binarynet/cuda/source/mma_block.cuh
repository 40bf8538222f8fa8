// A block of a network on tensor cores by mma.sync: the loop over stages, and what becomes of the sums.
//
// A source file defines, before it includes this one, `multiply(sums, input, weights)`, one tensor core
// instruction, FACTOR, what its products count in a sum, and COUNT_ONES, whether sums fall by twice the ones
// of their window. BLOCK_KERNEL(name) is the kernel.
#pragma once

#include "mma_tile.cuh"

// What a warp adds up: products [row fragment][channel fragment][element], where elements 0 and 1 are two
// neighbouring channels (2 (lane % 4)) of row lane / 4 of the fragment, 2 and 3 those of row lane / 4 + 8;
// and its share of the ones of these rows.
struct Sums {
  int products[ROW_FRAGMENTS][CHANNEL_FRAGMENTS][4] = {};
  int ones[ROW_FRAGMENTS][2] = {};
};

// Operands of one step.
struct Fragments {
  u32 input[ROW_FRAGMENTS][4];
  u32 weights[CHANNEL_FRAGMENTS / 2][4];
};

// Addresses in stage 0 of what this lane names for ldmatrix, in the first step of the warp's panel. The
// second step's chunks are the other two of the four: 32 bytes away, exclusive or.
struct Reader {
  u32 input, weights;

  __device__ __forceinline__ Reader(int lane, int warp_row, int warp_channel, int warp_panel) {
    const u32 ring = shared_address(shared_bytes);
    // Input: rows 0-7 and 8-15 of the first chunk, then of the second.
    input = ring + chunk_at<TILE_ROWS>(warp_row * WARP_ROWS + (lane & 15), warp_panel * 4 + (lane >> 4));
    // Weights: both chunks of channels 0-7, then of 8-15.
    weights = ring + INPUT_BYTES +
              chunk_at<TILE_CHANNELS>(warp_channel * WARP_CHANNELS + (lane >> 4 << 3) + (lane & 7),
                                      warp_panel * 4 + (lane >> 3 & 1));
  }

  __device__ __forceinline__ void read(Fragments& to, u32 stage_offset, int step) const {
    const u32 from = (input + stage_offset) ^ (step * 32);
    const u32 weights_from = (weights + stage_offset) ^ (step * 32);
#pragma unroll
    for (int i = 0; i < ROW_FRAGMENTS; ++i) load_matrices(to.input[i], from + i * (16 * PANEL_BYTES));
#pragma unroll
    for (int i = 0; i < CHANNEL_FRAGMENTS / 2; ++i)
      load_matrices(to.weights[i], weights_from + i * (16 * PANEL_BYTES));
  }
};

// One row fragment times all channel fragments.
__device__ __forceinline__ void add_row(Sums& sums, const Fragments& fragments, int i, int warp_channel) {
  static_assert(WARPS_CHANNELS <= 2, "a step has two columns of registers");
  const u32(&input)[4] = fragments.input[i];
#pragma unroll
  for (int j = 0; j < CHANNEL_FRAGMENTS; ++j) {
    const u32(&weights)[4] = fragments.weights[j / 2];
    multiply(sums.products[i][j], input, weights[j % 2 * 2], weights[j % 2 * 2 + 1]);
  }
  if constexpr (COUNT_ONES) {
    // Warps beside each other hold the same rows: each counts its part of the columns.
    if constexpr (WARPS_CHANNELS == 1) {
      sums.ones[i][0] += __popc(input[0]) + __popc(input[2]);
      sums.ones[i][1] += __popc(input[1]) + __popc(input[3]);
    } else {
      sums.ones[i][0] += __popc(warp_channel ? input[2] : input[0]);
      sums.ones[i][1] += __popc(warp_channel ? input[3] : input[1]);
    }
  }
}

// The outputs of a warp's rows and channels, from sums = FACTOR products + part[row] + correction.
struct Outputs {
  void* result;
  const int* corrections;
  const void* first;
  const void* second;
  int out_channels;
  int row, channel;                // of the lane's first element
  int left;                        // rows of the output from `row` on
  int part[ROW_FRAGMENTS * 2];     // -2 (ones of the row's window)
  int classes[ROW_FRAGMENTS * 2];  // offset of the row's border class in `corrections`

  __device__ __forceinline__ static int below(int r) { return r / 2 * 16 + r % 2 * 8; }

  __device__ __forceinline__ int2 corrections_at(int r, int j) const {
    return __ldg(reinterpret_cast<const int2*>(corrections + classes[r] + channel + j * 8));
  }

  __device__ __forceinline__ int2 values(const Sums& sums, int r, int j) const {
    const int (&products)[4] = sums.products[r / 2][j];
    return make_int2(products[r % 2 * 2] * FACTOR + part[r], products[r % 2 * 2 + 1] * FACTOR + part[r]);
  }

  // `corrections` holds thresholds less corrections here. A lane makes two of each eight bits of its rows;
  // then the four lanes of a row share out the rows, and each stores whole words of 32 or 64 bits.
  template <bool ALIKE>
  __device__ __forceinline__ void store_bits(const Sums& sums, int lane) const {
    constexpr int WORDS = CHANNEL_FRAGMENTS / 4;
    static_assert(WORDS == 1 || WORDS == 2, "stores are 32 or 64 bits wide");
    u32 bits[ROW_FRAGMENTS * 2][WORDS] = {};
#pragma unroll
    for (int j = 0; j < CHANNEL_FRAGMENTS; ++j) {
      int2 limits;
#pragma unroll
      for (int r = 0; r < ROW_FRAGMENTS * 2; ++r) {
        if (r == 0 || !ALIKE) limits = corrections_at(r, j);
        const int2 value = values(sums, r, j);
        if (value.x >= limits.x) bits[r][j / 4] |= 1u << (j % 4 * 8);
        if (value.y >= limits.y) bits[r][j / 4] |= 2u << (j % 4 * 8);
      }
    }
    const int out_words = words_of(out_channels) * 2;  // of 32 bits
    const int word = (channel & ~31) / 32;
    const bool odd = lane & 1, upper = lane & 2;
#pragma unroll
    for (int i = 0; i < ROW_FRAGMENTS; i += 2) {
      u32 mine[WORDS];
#pragma unroll
      for (int w = 0; w < WORDS; ++w) {
        // Lanes 1 and 3 of a quad take the lower eight rows of fragments, lanes 2 and 3 the odd fragments.
        const int shift = lane % 4 * 2;
        const u32 a[2] = {bits[i * 2][w] << shift, bits[i * 2 + 1][w] << shift};
        const u32 b[2] = {bits[i * 2 + 2][w] << shift, bits[i * 2 + 3][w] << shift};
        const u32 even = (odd ? a[1] : a[0]) | __shfl_xor_sync(ALL_LANES, odd ? a[0] : a[1], 1);
        const u32 next = (odd ? b[1] : b[0]) | __shfl_xor_sync(ALL_LANES, odd ? b[0] : b[1], 1);
        mine[w] = (upper ? next : even) | __shfl_xor_sync(ALL_LANES, upper ? even : next, 2);
        if (word + w < out_words) mine[w] ^= __ldg(static_cast<const u32*>(second) + word + w);
      }
      const int lower = (i + upper) * 16 + odd * 8;
      if (lower < left && word < out_words) {
        u32* to = static_cast<u32*>(result) + static_cast<i64>(row + lower) * out_words + word;
        if constexpr (WORDS == 2)
          *reinterpret_cast<uint2*>(to) = make_uint2(mine[0], mine[1]);
        else
          *to = mine[0];
      }
    }
  }

  // int32 sums or float32 scores: the four lanes of a row write 32 bytes at once where rows are PAIRS of
  // channels.
  template <bool SCORE, bool PAIRS>
  __device__ __forceinline__ void store_numbers(const Sums& sums) const {
#pragma unroll
    for (int j = 0; j < CHANNEL_FRAGMENTS; ++j) {
      const int at = channel + j * 8;
      float2 scale, shift;
      if constexpr (SCORE) {
        scale = __ldg(reinterpret_cast<const float2*>(static_cast<const float*>(first) + at));
        shift = __ldg(reinterpret_cast<const float2*>(static_cast<const float*>(second) + at));
      }
#pragma unroll
      for (int r = 0; r < ROW_FRAGMENTS * 2; ++r) {
        const int2 correction = corrections_at(r, j);
        int2 value = values(sums, r, j);
        value.x += correction.x;
        value.y += correction.y;
        if constexpr (SCORE) {
          value.x = __float_as_int(score_of(value.x, scale.x, shift.x));
          value.y = __float_as_int(score_of(value.y, scale.y, shift.y));
        }
        int* to = static_cast<int*>(result) + static_cast<i64>(row + below(r)) * out_channels + at;
        const bool valid = below(r) < left && at < out_channels;
        if constexpr (PAIRS) {
          if (valid) *reinterpret_cast<int2*>(to) = value;
        } else {
          if (valid) to[0] = value.x;
          if (valid && at + 1 < out_channels) to[1] = value.y;
        }
      }
    }
  }

  __device__ __forceinline__ void store(const Sums& sums, int lane, int output) const {
    const bool pairs = out_channels % 2 == 0;
    if (output == BITS) {
      bool alike = true;
#pragma unroll
      for (int r = 1; r < ROW_FRAGMENTS * 2; ++r) alike = alike && classes[r] == classes[0];
      if (__all_sync(ALL_LANES, alike))
        store_bits<true>(sums, lane);
      else
        store_bits<false>(sums, lane);
    } else if (output == SCORES) {
      if (pairs)
        store_numbers<true, true>(sums);
      else
        store_numbers<true, false>(sums);
    } else {
      if (pairs)
        store_numbers<false, true>(sums);
      else
        store_numbers<false, false>(sums);
    }
  }
};

// Tiles in groups of up to 8 tile rows, down first, so that blocks that run at the same time share rows and
// channels in the cache.
struct Tile {
  int row, channel;

  // `channels`: as many as are written, up to whole words where the output is bits.
  __device__ __forceinline__ Tile(int rows, int channels) {
    constexpr int GROUP = 8;
    const int down = (rows - 1) / TILE_ROWS + 1;
    const int across = (channels + TILE_CHANNELS - 1) / TILE_CHANNELS;
    const int group = blockIdx.x / (GROUP * across);
    const int in_group = blockIdx.x - group * (GROUP * across);
    const int height = min(GROUP, down - group * GROUP);
    row = (group * GROUP + in_group % height) * TILE_ROWS;
    channel = in_group / height * TILE_CHANNELS;
  }
};

// Adds up what the warps hold that took other panels; true for those that go on.
__device__ __forceinline__ bool add_panels(Sums& sums, int lane, int warp_panel) {
  constexpr int NUMBERS = ROW_FRAGMENTS * CHANNEL_FRAGMENTS * 4;
  static_assert(PANELS == 1 || (WARPS_ROWS == 1 && WARPS_CHANNELS == 1), "one warp per panel");
  static_assert((PANELS - 1) * NUMBERS * 128 <= (STAGES - 1) * STAGE_BYTES,
                "the ring's first stages take all");
  if constexpr (PANELS > 1) {
    int* shared = reinterpret_cast<int*>(shared_bytes) + lane;
    if (warp_panel > 0) {
#pragma unroll
      for (int n = 0; n < NUMBERS; ++n)
        shared[((warp_panel - 1) * NUMBERS + n) * 32] =
            sums.products[n / 4 / CHANNEL_FRAGMENTS][n / 4 % CHANNEL_FRAGMENTS][n % 4];
    }
    __syncthreads();
    if (warp_panel > 0) return false;
#pragma unroll
    for (int panel = 0; panel < PANELS - 1; ++panel) {
#pragma unroll
      for (int n = 0; n < NUMBERS; ++n)
        sums.products[n / 4 / CHANNEL_FRAGMENTS][n / 4 % CHANNEL_FRAGMENTS][n % 4] +=
            shared[(panel * NUMBERS + n) * 32];
    }
  }
  return true;
}

// `taps`: one place per COPY_BYTES of a window, up to a whole stage; `steps`: 32-byte steps of a window.
__device__ __forceinline__ void compute_block(BLOCK_PARAMETERS, const Place* __restrict__ taps, int steps,
                                              int pixel_bytes, int padded_channels) {
  const Tile tile(rows, output == BITS ? words_of(out_channels) * 64 : out_channels);
  const int lane = threadIdx.x % 32;
  const int warp = threadIdx.x / 32;
  const int warp_panel = warp / (WARPS_ROWS * WARPS_CHANNELS);
  const int warp_row = warp / WARPS_CHANNELS % WARPS_ROWS;
  const int warp_channel = warp % WARPS_CHANNELS;

  const u8* images = locate_rows(source, tile.row, rows, height, width, pixel_bytes, stride_height,
                                 stride_width, padding_height, padding_width, out_height, out_width);
  __syncthreads();

  const u32 ring = shared_address(shared_bytes);
  Loader loader(images, taps, Bounds(height, width, padding_height, padding_width), weights, tile.channel,
                padded_channels);
  constexpr int STAGE_STEPS = 2 * PANELS;
#pragma unroll 1
  for (int stage = 0; stage < STAGES - 1; ++stage) {
    const int left = steps - stage * STAGE_STEPS;
    if (left > 0) {
#pragma unroll
      for (int piece = 0; piece < Loader::PIECES; ++piece)
        loader.copy_piece(ring + stage * STAGE_BYTES, piece, left);
      loader.advance();
    }
    commit_copies();
  }
  wait_for_copies<STAGES - 2>();
  __syncthreads();

  // Each step's operands are read while the step before it multiplies. A barrier per stage says that the next
  // stage has arrived, and that nobody reads the stage any more that the next copies overwrite.
  const Reader reader(lane, warp_row, warp_channel, warp_panel);
  Sums sums;
  Fragments even, odd;
  reader.read(even, 0, 0);
  u32 reading = 0, writing = (STAGES - 1) * STAGE_BYTES;
#pragma unroll 1
  for (int left = steps; left > 0; left -= STAGE_STEPS) {
    const int left_to_load = left - (STAGES - 1) * STAGE_STEPS;
    reader.read(odd, reading, 1);
    // Copies lie between products: the tensor cores are to have work while addresses are made.
#pragma unroll
    for (int i = 0; i < ROW_FRAGMENTS; ++i) {
      if (left_to_load > 0) {
#pragma unroll
        for (int piece = i * Loader::PIECES / ROW_FRAGMENTS; piece < (i + 1) * Loader::PIECES / ROW_FRAGMENTS;
             ++piece)
          loader.copy_piece(ring + writing, piece, left_to_load);
      }
      add_row(sums, even, i, warp_channel);
    }
    if (left_to_load > 0) loader.advance();
    commit_copies();
    writing = writing == (STAGES - 1) * STAGE_BYTES ? 0 : writing + STAGE_BYTES;
    wait_for_copies<STAGES - 2>();
    __syncthreads();
    reading = reading == (STAGES - 1) * STAGE_BYTES ? 0 : reading + STAGE_BYTES;
    if (left > STAGE_STEPS) reader.read(even, reading, 0);
    if (left > warp_panel * 2 + 1) {
#pragma unroll
      for (int i = 0; i < ROW_FRAGMENTS; ++i) add_row(sums, odd, i, warp_channel);
    }
  }

  // The ring is free now. Ones of the rows, in parts, and border classes lie behind what add_panels
  // exchanges.
  constexpr int PARTS = COUNT_ONES ? WARPS_CHANNELS * PANELS : 0;
  static_assert((PARTS + 1) * TILE_ROWS * 4 <= STAGE_BYTES, "they fit into the last stage");
  int (*parts)[TILE_ROWS] = reinterpret_cast<int (*)[TILE_ROWS]>(shared_bytes + (STAGES - 1) * STAGE_BYTES);
  if constexpr (COUNT_ONES) {
#pragma unroll
    for (int r = 0; r < ROW_FRAGMENTS * 2; ++r) {
      int ones = sums.ones[r / 2][r % 2];
      ones += __shfl_xor_sync(ALL_LANES, ones, 1);
      ones += __shfl_xor_sync(ALL_LANES, ones, 2);
      if (lane % 4 == 0)
        parts[1 + warp_channel * PANELS + warp_panel]
             [warp_row * WARP_ROWS + r / 2 * 16 + r % 2 * 8 + lane / 4] = ones;
    }
  }
  if (threadIdx.x < TILE_ROWS) {
    const int row = threadIdx.x;
    parts[0][row] = row < rows - tile.row ? class_of(offsets, tile.row + row, out_height, out_width) : 0;
  }
  if (PANELS == 1) __syncthreads();
  if (!add_panels(sums, lane, warp_panel)) return;

  const int first_row = warp_row * WARP_ROWS + lane / 4;
  Outputs outputs;
  outputs.result = result;
  outputs.corrections = corrections;
  outputs.first = first;
  outputs.second = second;
  outputs.out_channels = out_channels;
  outputs.row = tile.row + first_row;
  outputs.left = rows - tile.row - first_row;
  outputs.channel = tile.channel + warp_channel * WARP_CHANNELS + lane % 4 * 2;
#pragma unroll
  for (int r = 0; r < ROW_FRAGMENTS * 2; ++r) {
    const int row = first_row + r / 2 * 16 + r % 2 * 8;
    int ones = 0;
#pragma unroll
    for (int part = 1; part <= PARTS; ++part) ones += parts[part][row];
    outputs.part[r] = -2 * ones;
    outputs.classes[r] = parts[0][row];
  }
  // What follows has copies for each kind of output. The compiler is not to do what they share before them:
  // it would run out of registers.
#pragma unroll
  for (int n = 0; n < ROW_FRAGMENTS * CHANNEL_FRAGMENTS * 4; ++n)
    asm volatile("" : "+r"(sums.products[n / 4 / CHANNEL_FRAGMENTS][n / 4 % CHANNEL_FRAGMENTS][n % 4]));
  outputs.store(sums, lane, output);
}

#define BLOCK_KERNEL(name)                                                                                 \
  extern "C" __global__ void __launch_bounds__(THREADS, RESIDENT) name(                                    \
      BLOCK_PARAMETERS, const Place* __restrict__ taps, int steps, int pixel_bytes, int padded_channels) { \
    compute_block(BLOCK_ARGUMENTS, taps, steps, pixel_bytes, padded_channels);                             \
  }
