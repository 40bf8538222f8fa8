// What is no block: pooling, thresholds, affine maps, flattening, packing and unpacking. All are bound by
// memory.
#include "common.cuh"

constexpr int WORDS_PER_WARP = 8;  // sixteen loads under way per lane, and one store of 64 bytes per warp

// Bits into words along the last axis of [rows, length], padding bits 0: ballots over two times 32 elements
// make a word, and lane i keeps the warp's word i. `bit_at(index, position)` is the bit of an element,
// `finish(bits, word)` a word's last touch; position and word are counted within the row.
template <typename BitAt, typename Finish>
__device__ __forceinline__ void make_words(i64 rows, int length, void* result, BitAt bit_at, Finish finish) {
  const int lane = threadIdx.x & 31, row_words = words_of(length);
  const i64 total = rows * row_words;
  const i64 warps = (i64)gridDim.x * (blockDim.x / 32);
  const i64 own = (i64)blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32;
  for (i64 start = own * WORDS_PER_WARP; start < total; start += warps * WORDS_PER_WARP) {
    const i64 first_row = start / row_words;
    const int first_word = start - first_row * row_words;
    bool low[WORDS_PER_WARP], high[WORDS_PER_WARP];
    int words[WORDS_PER_WARP];
    i64 row = first_row;
    int word = first_word;
#pragma unroll
    for (int i = 0; i < WORDS_PER_WARP; ++i) {
      const int position = word * 64 + lane;
      const i64 index = row * length + position;
      low[i] = row < rows && position < length && bit_at(index, position);
      high[i] = row < rows && position + 32 < length && bit_at(index + 32, position + 32);
      words[i] = word;
      if (++word == row_words) {
        word = 0;
        ++row;
      }
    }
    u64 kept = 0;
    int kept_word = 0;
#pragma unroll
    for (int i = 0; i < WORDS_PER_WARP; ++i) {
      const u64 bits = (u64)__ballot_sync(ALL_LANES, high[i]) << 32 | __ballot_sync(ALL_LANES, low[i]);
      kept = lane == i ? bits : kept;
      kept_word = lane == i ? words[i] : kept_word;
    }
    if (lane < WORDS_PER_WARP && start + lane < total)
      static_cast<u64*>(result)[start + lane] = finish(kept, kept_word);
  }
}

// Sign bits of `source`: 1 where the number is at least 0 (so for -0.0), 0 for NaN, which has no sign.
template <typename Element, typename IsPositive>
__device__ __forceinline__ void pack(const void* source, void* result, i64 rows, int length,
                                     IsPositive is_positive) {
  const Element* elements = static_cast<const Element*>(source);
  make_words(
      rows, length, result, [&](i64 index, int) { return is_positive(__ldg(elements + index)); },
      [](u64 bits, int) { return bits; });
}

// A 16-bit float is below zero, or no number, where its sign is set and the rest not 0, or where the rest
// exceeds infinity.
__device__ __forceinline__ bool is_positive_16(unsigned short bits, unsigned short infinity) {
  const unsigned short magnitude = bits & 0x7fff;
  return magnitude <= infinity && (bits == magnitude || magnitude == 0);
}

#define PACK_PARAMETERS const void *__restrict__ source, void *__restrict__ result, i64 rows, int length

extern "C" __global__ void pack_float32(PACK_PARAMETERS) {
  pack<float>(source, result, rows, length, [](float value) { return value >= 0.0f; });
}

extern "C" __global__ void pack_float16(PACK_PARAMETERS) {
  pack<unsigned short>(source, result, rows, length,
                       [](unsigned short bits) { return is_positive_16(bits, 0x7c00); });
}

extern "C" __global__ void pack_bfloat16(PACK_PARAMETERS) {
  pack<unsigned short>(source, result, rows, length,
                       [](unsigned short bits) { return is_positive_16(bits, 0x7f80); });
}

extern "C" __global__ void pack_int8(PACK_PARAMETERS) {
  pack<signed char>(source, result, rows, length, [](signed char value) { return value >= 0; });
}

extern "C" __global__ void pack_bool(PACK_PARAMETERS) {
  pack<u8>(source, result, rows, length, [](u8 value) { return value != 0; });
}

// int32 sums [rows, length] to bits; thresholds and falling channels padded to whole words.
extern "C" __global__ void threshold(PACK_PARAMETERS, const int* __restrict__ thresholds,
                                     const u64* __restrict__ falling) {
  const int* sums = static_cast<const int*>(source);
  make_words(
      rows, length, result,
      [&](i64 index, int channel) { return __ldg(sums + index) >= __ldg(thresholds + channel); },
      [&](u64 bits, int word) { return bits ^ __ldg(falling + word); });
}

// Words [rows, words of length] to +1 / -1 [rows, length]: a thread makes four elements of a row.
template <typename Element, typename Four>
__device__ __forceinline__ void unpack(const void* source, void* result, i64 rows, int length) {
  const int row_words = words_of(length), row_quads = (length + 3) / 4;
  const i64 total = rows * row_quads, threads = (i64)gridDim.x * blockDim.x;
  for (i64 quad = (i64)blockIdx.x * blockDim.x + threadIdx.x; quad < total; quad += threads) {
    const i64 row = quad / row_quads;
    const int position = (int)(quad - row * row_quads) * 4;
    const u64 word = __ldg(static_cast<const u64*>(source) + (row * row_words + position / 64));
    const u32 bits = word >> position % 64;
    Element values[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) values[i] = bits >> i & 1 ? 1 : -1;
    Element* out = static_cast<Element*>(result) + (row * length + position);
    if (length % 4 == 0) {
      *reinterpret_cast<Four*>(out) = {values[0], values[1], values[2], values[3]};
    } else {
#pragma unroll
      for (int i = 0; i < 4; ++i)
        if (position + i < length) out[i] = values[i];
    }
  }
}

extern "C" __global__ void unpack_float32(PACK_PARAMETERS) {
  unpack<float, float4>(source, result, rows, length);
}

extern "C" __global__ void unpack_int8(PACK_PARAMETERS) {
  unpack<signed char, char4>(source, result, rows, length);
}

// Bits [images, pixels, words of channels] to [images, words of pixels * channels], where channels do not
// fill words: a thread collects one word of the result.
extern "C" __global__ void flatten_bits(const u64* __restrict__ source, u64* __restrict__ result, i64 images,
                                        int pixels, int channels) {
  const int words = words_of(channels), length = pixels * channels, row_words = words_of(length);
  const i64 total = images * row_words, threads = (i64)gridDim.x * blockDim.x;
  for (i64 index = (i64)blockIdx.x * blockDim.x + threadIdx.x; index < total; index += threads) {
    const i64 image = index / row_words;
    const int start = (int)(index - image * row_words) * 64, count = min(64, length - start);
    int pixel = start / channels, channel = start - pixel * channels;
    const u64* from = source + (image * pixels + pixel) * words;
    u64 bits = 0;
    for (int filled = 0; filled < count;) {
      // Padding bits are 0, so that the rest of a word can be taken whole.
      bits |= __ldg(from + channel / 64) >> channel % 64 << filled;
      const int taken = min(64 - channel % 64, channels - channel);
      filled += taken;
      channel += taken;
      if (channel == channels) {
        channel = 0;
        from += words;
      }
    }
    result[index] = bits;
  }
}

#define POOL_SIZES                                                                                     \
  i64 lines, int height, int width, int units, int kernel_height, int kernel_width, int stride_height, \
      int stride_width, int padding_height, int padding_width, int out_height, int out_width
#define POOL_ARGUMENTS                                                                                   \
  source, result, lines, height, width, units, kernel_height, kernel_width, stride_height, stride_width, \
      padding_height, padding_width, out_height, out_width

// Pooling over [images, height, width, units], units being words or channels; taps outside of the image are
// ignored. A block of threads makes one line of the result after the other. SIDE: of a square window, whose
// taps are then all under way at the same time; 0: any window. A tap outside is replaced by the nearest one
// inside, which is of the same window (padding is less than the window): it counts twice, and changes no
// maximum.
template <int SIDE, typename Element, typename Start, typename Join, typename Finish>
__device__ __forceinline__ void pool_windows(const Element* source, Element* result, POOL_SIZES, Start start,
                                             Join join, Finish finish) {
  for (i64 line = blockIdx.x; line < lines; line += gridDim.x) {
    const i64 image = line / out_height;
    const int top = (int)(line - image * out_height) * stride_height - padding_height;
    for (int position = threadIdx.x; position < out_width * units; position += blockDim.x) {
      const int out_x = position / units, unit = position - out_x * units;
      const int left = out_x * stride_width - padding_width;
      const Element* taps = source + unit;
      auto at = [&](int y, int x) {
        return __ldg(taps +
                     ((image * height + min(max(y, 0), height - 1)) * width + min(max(x, 0), width - 1)) *
                         units);
      };
      Element value = start();
      if constexpr (SIDE > 0) {
        Element held[SIDE * SIDE];
#pragma unroll
        for (int i = 0; i < SIDE * SIDE; ++i) held[i] = at(top + i / SIDE, left + i % SIDE);
#pragma unroll
        for (int i = 0; i < SIDE * SIDE; ++i) value = join(value, held[i], unit);
      } else {
        for (int y = top; y < top + kernel_height; ++y)
          for (int x = left; x < left + kernel_width; ++x) value = join(value, at(y, x), unit);
      }
      result[line * out_width * units + position] = finish(value, unit);
    }
  }
}

template <typename Element, typename Start, typename Join, typename Finish>
__device__ __forceinline__ void pool(const Element* source, Element* result, POOL_SIZES, Start start,
                                     Join join, Finish finish) {
  if (kernel_height == 2 && kernel_width == 2)
    pool_windows<2>(POOL_ARGUMENTS, start, join, finish);
  else if (kernel_height == 3 && kernel_width == 3)
    pool_windows<3>(POOL_ARGUMENTS, start, join, finish);
  else
    pool_windows<0>(POOL_ARGUMENTS, start, join, finish);
}

extern "C" __global__ void max_pool_sums(const int* __restrict__ source, int* __restrict__ result,
                                         POOL_SIZES) {
  pool(
      POOL_ARGUMENTS, [] { return (int)0x80000000; }, [](int a, int b, int) { return max(a, b); },
      [](int value, int) { return value; });
}

// OR, or where the channel's bit in `falling` is set (its bit falls as the sum rises), AND: an OR of what is
// flipped.
extern "C" __global__ void max_pool_bits(const u64* __restrict__ source, u64* __restrict__ result, POOL_SIZES,
                                         const u64* __restrict__ falling) {
  auto flips = [&](int word) { return falling ? __ldg(falling + word) : 0; };
  pool(
      POOL_ARGUMENTS, [] { return (u64)0; }, [&](u64 a, u64 b, int word) { return a | (b ^ flips(word)); },
      [&](u64 value, int word) { return value ^ flips(word); });
}

// int32 sums [rows, channels] to float32 scores, one thread per score.
extern "C" __global__ void affine(const int* __restrict__ source, float* __restrict__ result, i64 rows,
                                  int channels, const float* __restrict__ scale,
                                  const float* __restrict__ shift) {
  const i64 total = rows * channels, threads = (i64)gridDim.x * blockDim.x;
  for (i64 index = (i64)blockIdx.x * blockDim.x + threadIdx.x; index < total; index += threads) {
    const int channel = index % channels;
    result[index] = score_of(__ldg(source + index), __ldg(scale + channel), __ldg(shift + channel));
  }
}
