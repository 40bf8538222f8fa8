// Sizes of a tile, where its operands lie in shared memory, and how they get there.
//
// A block of threads computes TILE_ROWS output pixels times TILE_CHANNELS channels. The products' common
// axis, the window of a pixel, is cut into steps of 32 bytes (256 taps of one bit, or 32 of 8 bits: one
// tensor core instruction), panels of two steps, and stages of PANELS panels. A panel of an operand is
// [rows][64 bytes]; within a row the four 16-byte chunks are permuted, chunk c of row r at c ^ (r / 2 % 4),
// so that the eight rows that one 8x8 matrix of ldmatrix takes fall into different banks. STAGES stages make
// a ring in shared memory.
//
// Macros, all set by methods/_tiles.py: TILE_ROWS, TILE_CHANNELS, WARPS_ROWS, WARPS_CHANNELS (warps along
// each), PANELS (also warps along the common axis: each takes one panel of every stage), STAGES, RESIDENT
// (blocks per multiprocessor that registers must suffice for), COPY_BYTES (largest piece of the input that is
// contiguous and aligned in every window: 16, 8, 4 or 1).
#pragma once

#include "common.cuh"

constexpr int THREADS = 32 * WARPS_ROWS * WARPS_CHANNELS * PANELS;
constexpr int WARP_ROWS = TILE_ROWS / WARPS_ROWS;
constexpr int WARP_CHANNELS = TILE_CHANNELS / WARPS_CHANNELS;
constexpr int ROW_FRAGMENTS = WARP_ROWS / 16;
constexpr int CHANNEL_FRAGMENTS = WARP_CHANNELS / 8;

constexpr int PANEL_BYTES = 64;  // of one row
constexpr int INPUT_BYTES = TILE_ROWS * PANEL_BYTES * PANELS;
constexpr int WEIGHTS_BYTES = TILE_CHANNELS * PANEL_BYTES * PANELS;
constexpr int STAGE_BYTES = INPUT_BYTES + WEIGHTS_BYTES;

static_assert(ROW_FRAGMENTS % 2 == 0 && CHANNEL_FRAGMENTS % 4 == 0, "the epilogue packs 32 x 32 outputs");
static_assert(TILE_ROWS <= THREADS && THREADS % TILE_ROWS == 0, "one thread or more per row");

// Dynamic shared memory: the ring, then the places of the rows.
extern __shared__ __align__(128) u8 shared_bytes[];

// Where the window of a row begins, or which tap a piece of the window is. Row plus tap gives the address, in
// pieces of COPY_BYTES from the tile's first image, and the pixel, its row in the upper 16 bits, its column
// in the lower ones, both counted from the corner of the padding. FAR in the rows of one of the two puts the
// pixel outside of the image, and the address is not used.
struct __align__(8) Place {
  int offset;
  u32 pixel;
};

constexpr u32 FAR = 0x40000000;  // images with their padding have fewer than 2^14 rows and columns

// The part of an image that is not padding.
struct Bounds {
  u32 first, last;

  __device__ __forceinline__ Bounds(int height, int width, int padding_height, int padding_width)
      : first(static_cast<u32>(padding_height) << 16 | padding_width),
        last(static_cast<u32>(padding_height + height - 1) << 16 | (padding_width + width - 1)) {}

  // Both halves are subtracted at once. A borrow from the lower one comes with its sign bit, and so changes
  // nothing.
  __device__ __forceinline__ bool contain(u32 pixel) const {
    return (((pixel - first) | (last - pixel)) & 0x80008000u) == 0;
  }
};

__device__ __forceinline__ Place* places() {
  return reinterpret_cast<Place*>(shared_bytes + STAGES * STAGE_BYTES);
}

// Fills the table of places and returns the address of the tile's first image.
__device__ __forceinline__ const u8* locate_rows(const void* source, int first_row, int rows, int height,
                                                 int width, int pixel_bytes, int stride_height,
                                                 int stride_width, int padding_height, int padding_width,
                                                 int out_height, int out_width) {
  const int first_image = first_row / (out_height * out_width);
  if (threadIdx.x < TILE_ROWS) {
    Place place = {0, FAR};
    if (static_cast<int>(threadIdx.x) < rows - first_row) {
      const Corner at = corner_of(first_row + threadIdx.x, out_height, out_width, stride_height, stride_width,
                                  padding_height, padding_width);
      place.offset = (((at.image - first_image) * height + at.y) * width + at.x) * (pixel_bytes / COPY_BYTES);
      place.pixel = static_cast<u32>(at.y + padding_height) << 16 | (at.x + padding_width);
    }
    places()[threadIdx.x] = place;
  }
  return static_cast<const u8*>(source) + static_cast<i64>(first_image) * height * width * pixel_bytes;
}

// Byte of chunk `chunk` (16 bytes, counted through the panels of a stage) of a row in a stage's operand.
template <int ROWS>
__device__ __forceinline__ u32 chunk_at(int row, int chunk) {
  return (chunk >> 2) * (ROWS * PANEL_BYTES) + row * PANEL_BYTES + (((chunk & 3) ^ (row >> 1 & 3)) << 4);
}

// What a thread copies to each stage in turn, in pieces that can be spread over other work: first its share
// of the windows of TILE_ROWS pixels, then of the weights of TILE_CHANNELS channels, which lie in global
// memory as they will in shared memory, [panels][channels][64 bytes].
class Loader {
  static constexpr int STAGE_TAPS = PANELS * PANEL_BYTES / COPY_BYTES;
  static constexpr int COPIES = STAGE_TAPS;                             // per row
  static constexpr int STEP = THREADS > COPIES ? THREADS / COPIES : 1;  // rows that are copied at once
  static_assert(COPY_BYTES == 1 || (THREADS % COPIES == 0 && TILE_ROWS % STEP == 0), "whole rows per pass");

 public:
  __device__ __forceinline__ Loader(const u8* images, const Place* taps, const Bounds& bounds,
                                    const void* weights, int first_channel, int padded_channels)
      : images_(images),
        taps_(taps + (COPY_BYTES > 1 ? threadIdx.x % COPIES : 0)),
        tap_(*taps_),
        bounds_(bounds),
        weights_(static_cast<const u8*>(weights) + first_channel * PANEL_BYTES + threadIdx.x * 16),
        stride_(padded_channels * PANEL_BYTES) {}

  static constexpr int INPUT_PIECES = COPY_BYTES > 1 ? TILE_ROWS / STEP : 1;
  static constexpr int PIECES = INPUT_PIECES + WEIGHTS_BYTES / 16 / THREADS;

  // `steps`: that are left to load.
  __device__ __forceinline__ void copy_piece(u32 stage, int piece, int steps) const {
    if (piece >= INPUT_PIECES)
      copy_weights(stage + INPUT_BYTES, piece - INPUT_PIECES, steps);
    else if constexpr (COPY_BYTES > 1)
      copy_input(stage, piece);
    else
      gather_input(stage);
  }

  // To the next stage. Its tap is asked for long before it is used; the table has one for a stage too many.
  __device__ __forceinline__ void advance() {
    taps_ += STAGE_TAPS;
    if constexpr (COPY_BYTES > 1) tap_ = *taps_;
    weights_ += static_cast<i64>(PANELS) * stride_;
  }

 private:
  __device__ __forceinline__ void copy_input(u32 stage, int piece) const {
    constexpr int SAME =
        STEP % 8 == 0 ? 0 : 1;  // rows that are multiples of 8 apart have the same permutation
    const int column = threadIdx.x % COPIES;
    const int row = threadIdx.x / COPIES;
    const Place place = places()[row + piece * STEP];
    const u8* from = images_ + static_cast<i64>(place.offset + tap_.offset) * COPY_BYTES;
    const u32 to = stage + chunk_at<TILE_ROWS>(row + piece * STEP * SAME, column * COPY_BYTES / 16) +
                   piece * STEP * (1 - SAME) * PANEL_BYTES + column * COPY_BYTES % 16;
    const bool valid = bounds_.contain(place.pixel + tap_.pixel);
    if constexpr (COPY_BYTES == 16)
      copy_async_16(to, from, valid);
    else
      copy_async_small<COPY_BYTES == 8 ? 8 : 4>(to, from, valid);
  }

  // Single bytes: a thread gathers 8 of its row in registers. All lanes look at the same tap.
  __device__ __forceinline__ void gather_input(u32 stage) const {
    constexpr int PER_ROW = THREADS / TILE_ROWS;
    const int row = threadIdx.x % TILE_ROWS;
    const Place place = places()[row];
#pragma unroll 1
    for (int half = threadIdx.x / TILE_ROWS; half < PANELS * 8; half += PER_ROW) {
      u32 words[2] = {0, 0};
      if (taps_[half * 8].pixel < FAR) {
#pragma unroll
        for (int i = 0; i < 8; ++i) {
          const Place tap = taps_[half * 8 + i];
          const bool valid = bounds_.contain(place.pixel + tap.pixel);
          words[i / 4] |= load_u8(images_ + (place.offset + tap.offset), valid) << (i % 4 * 8);
        }
      }
      u8* to = shared_bytes + (stage - shared_address(shared_bytes)) + chunk_at<TILE_ROWS>(row, half / 2) +
               half % 2 * 8;
      *reinterpret_cast<uint2*>(to) = make_uint2(words[0], words[1]);
    }
  }

  __device__ __forceinline__ void copy_weights(u32 stage, int piece, int steps) const {
    constexpr int PER_PANEL = TILE_CHANNELS * PANEL_BYTES / 16 / THREADS;
    static_assert(PER_PANEL * THREADS * 16 == TILE_CHANNELS * PANEL_BYTES, "whole panels per pass");
    const int panel = piece / PER_PANEL;
    const int at = piece % PER_PANEL * THREADS * 16;
    copy_async_16(stage + panel * (TILE_CHANNELS * PANEL_BYTES) + at + threadIdx.x * 16,
                  weights_ + panel * stride_ + at, PANELS == 1 || panel * 2 < steps);
  }

  const u8* images_;
  const Place* taps_;
  Place tap_;
  Bounds bounds_;
  const u8* weights_;
  int stride_;
};

// Four 8x8 matrices of 16-bit elements, of which lane l names row l % 8 of matrix l / 8 (PTX ISA, ldmatrix).
// For bits and bytes they are 8 rows of 16 bytes, and lane l receives bytes 4 (l % 4) .. + 3 of row l / 4:
// exactly the fragments of mma.m16n8k256 and m16n8k32.
__device__ __forceinline__ void load_matrices(u32 (&to)[4], u32 address) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
               : "r"(address)
               : "memory");
}
