// What becomes of the accumulators of a warpgroup: int32 sums, bits after thresholds, or float32 scores.
#pragma once

#include "wgmma.cuh"

// What follows the products. `table` holds int32 constants per channel, for a border class of the row: where
// the output is bits, the smallest 2 popc(a AND w) - pa whose bit is set (before falling channels are
// inverted), else the correction. first and second: falling channels as words, or scale and shift. All are
// padded to whole tiles of channels; the bits of padding channels are 0.
struct Output {
  void* result;
  const int* table;
  const void* first;
  const void* second;
  int channels;
  int kind;
};

// Accumulators belong to two rows per thread; this is one of them.
struct OutputRow {
  i64 index;   // output pixel
  int ones;    // pa, the ones among its activations
  int offset;  // of its border class in the table
  bool valid;
};

// Words of 32 channels, of which each lane of a quad holds 8 bits, in the end lie in one lane each: lane t
// has words t * WORDS / 4 and following, at the beginning of `words`.
template <int WORDS>
__device__ __forceinline__ void gather_words(u32 (&words)[WORDS], int lane) {
#pragma unroll
  for (int step = 2, count = WORDS / 2; step > 0; step >>= 1, count >>= 1) {
    const bool upper = lane & step;
#pragma unroll
    for (int i = 0; i < count; i++) {
      const u32 received = __shfl_xor_sync(ALL_LANES, upper ? words[i] : words[count + i], step);
      words[i] = (upper ? words[count + i] : words[i]) | received;
    }
  }
}

template <int HALF, int CHANNELS>
__device__ __forceinline__ void write_bits(const int (&sums)[CHANNELS / 2], const Output& output,
                                           const OutputRow& row, int column, int lane) {
  constexpr int WORDS = CHANNELS / 32;
  const int* limits = output.table + row.offset + column + 2 * (lane & 3);
  u32 words[WORDS];
#pragma unroll
  for (int word = 0; word < WORDS; word++) {
    words[word] = 0;
#pragma unroll
    for (int j = 0; j < 4; j++) {
      const int at = word * 4 + j;
      const int2 limit = __ldg(reinterpret_cast<const int2*>(limits + 8 * at));
      if (2 * sums[4 * at + 2 * HALF] - row.ones >= limit.x) words[word] |= 1u << (8 * j);
      if (2 * sums[4 * at + 2 * HALF + 1] - row.ones >= limit.y) words[word] |= 2u << (8 * j);
    }
    words[word] <<= 2 * (lane & 3);
  }
  gather_words(words, lane);
  const i64 first = row.index * words_of(output.channels);  // 64-bit words
  const int at = (column >> 5) + (lane & 3) * (WORDS / 4);  // 32-bit words
  if (!row.valid || at >= 2 * words_of(output.channels)) return;
  const u32* falling = static_cast<const u32*>(output.first) + at;
  u32* result = static_cast<u32*>(output.result) + 2 * first + at;
  if constexpr (WORDS == 8) {
    const uint2 inverted = __ldg(reinterpret_cast<const uint2*>(falling));
    *reinterpret_cast<uint2*>(result) = make_uint2(words[0] ^ inverted.x, words[1] ^ inverted.y);
  } else {
    *result = words[0] ^ __ldg(falling);
  }
}

// Two neighbouring numbers of a row, 32 bits each.
__device__ __forceinline__ void write_pair(const Output& output, const OutputRow& row, int column,
                                           int2 value) {
  if (!row.valid || column >= output.channels) return;
  int* result = static_cast<int*>(output.result) + row.index * output.channels + column;
  if (output.channels % 2 == 0) {
    *reinterpret_cast<int2*>(result) = value;
  } else {
    result[0] = value.x;
    if (column + 1 < output.channels) result[1] = value.y;
  }
}

// Sums or scores. Constants are loaded for several columns at a time, as they are slow to come.
template <bool SCORED, int CHANNELS>
__device__ __forceinline__ void write_numbers(const int (&sums)[CHANNELS / 2], const Output& output,
                                              const OutputRow& low, const OutputRow& high, int column,
                                              int lane) {
  constexpr int AT_ONCE = CHANNELS / (SCORED ? 64 : 32);
  column += 2 * (lane & 3);
  const int* low_table = output.table + low.offset + column;
  const int* high_table = output.table + high.offset + column;
  const float* scales = static_cast<const float*>(output.first) + column;
  const float* shifts = static_cast<const float*>(output.second) + column;
#pragma unroll
  for (int first = 0; first < CHANNELS / 8; first += AT_ONCE) {
    int2 low_part[AT_ONCE], high_part[AT_ONCE];
    float2 scale[AT_ONCE], shift[AT_ONCE];
#pragma unroll
    for (int i = 0; i < AT_ONCE; i++) {
      const int at = 8 * (first + i);
      low_part[i] = __ldg(reinterpret_cast<const int2*>(low_table + at));
      high_part[i] = __ldg(reinterpret_cast<const int2*>(high_table + at));
      if (SCORED) {
        scale[i] = __ldg(reinterpret_cast<const float2*>(scales + at));
        shift[i] = __ldg(reinterpret_cast<const float2*>(shifts + at));
      }
    }
#pragma unroll
    for (int i = 0; i < AT_ONCE; i++) {
      const int* four = sums + 4 * (first + i);
      int2 below =
          make_int2(low_part[i].x - 2 * low.ones + 4 * four[0], low_part[i].y - 2 * low.ones + 4 * four[1]);
      int2 above = make_int2(high_part[i].x - 2 * high.ones + 4 * four[2],
                             high_part[i].y - 2 * high.ones + 4 * four[3]);
      if (SCORED) {
        below.x = __float_as_int(score_of(below.x, scale[i].x, shift[i].x));
        below.y = __float_as_int(score_of(below.y, scale[i].y, shift[i].y));
        above.x = __float_as_int(score_of(above.x, scale[i].x, shift[i].x));
        above.y = __float_as_int(score_of(above.y, scale[i].y, shift[i].y));
      }
      write_pair(output, low, column + 8 * (first + i), below);
      write_pair(output, high, column + 8 * (first + i), above);
    }
  }
}

// Writes the sums of a warpgroup's 64 rows and CHANNELS channels, from `column` on.
template <int CHANNELS>
__device__ __forceinline__ void write_output(const int (&sums)[CHANNELS / 2], const Output& output,
                                             const OutputRow& low, const OutputRow& high, int column,
                                             int lane) {
  if (output.kind == BITS) {
    write_bits<0, CHANNELS>(sums, output, low, column, lane);
    write_bits<1, CHANNELS>(sums, output, high, column, lane);
  } else if (output.kind == SUMS) {
    write_numbers<false, CHANNELS>(sums, output, low, high, column, lane);
  } else {
    write_numbers<true, CHANNELS>(sums, output, low, high, column, lane);
  }
}
