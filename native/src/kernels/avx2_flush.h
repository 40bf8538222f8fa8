// Where the counts of the AVX2 kernels go: widening of byte counts, thresholds, packing of bits. Shared by
// the kernels for packed bits, which all count disagreements of 32 channels per vector, one byte each.
//
// Everything that is not plain data lives in an anonymous namespace; see simd_tiles.h.
#pragma once

#include <immintrin.h>

#include <cstdint>

namespace binarynet::avx2 {

constexpr int32_t kLanes = 128;  // channels of a full channel group: 4 vectors

enum class Flush { keep, bits, sums, counts };  // what to do with the counts at the end of a block of K

// What becomes of the counts of one column, after those of earlier blocks of K were added.
struct Sink {
  int32_t rows, cols;  // of the sums of one image
  bool first;          // there are no sums of earlier blocks
  Flush flush;
  // Border classes and output pixels, of Flush::bits and Flush::sums.
  const int32_t* row_class;  // [rows] or null
  const int32_t* col_class;  // [cols] or null
  int32_t col_classes;
  int64_t image_stride, row_stride, col_stride;  // of out, in words or sums
  // Flush::bits. Bit = count < threshold.
  const int16_t* thresholds;  // [class][kLanes], channels in unpack order
  const uint64_t* falling;    // [words]: XOR of the bits
  uint64_t* out;              // word of this channel group in the first pixel
  int32_t out_words;          // of this channel group: 1 or 2
  // Flush::sums. Sum = constant - 2 * count.
  const int32_t* constants;  // [class][constant_stride], from this channel group on
  int64_t constant_stride;
  int32_t* out_sums;  // of this channel group's first channel in the first pixel
  int32_t channels;   // that exist
  bool floats;        // sums are float32
  // Flush::counts.
  int32_t* counts;  // [images][rows][cols][width]
  int32_t width;
  bool first_counts;  // do not add to counts, start them
};

namespace {

inline __m256i load(const void* from) { return _mm256_loadu_si256(static_cast<const __m256i*>(from)); }
inline void store(void* to, __m256i value) { _mm256_storeu_si256(static_cast<__m256i*>(to), value); }

// Adds in place. The empty assembly ties a running sum to one register: gcc otherwise copies the accumulators
// of a loop in every turn and spills some of them.
inline __attribute__((always_inline)) void add_bytes(__m256i& sum, __m256i value) {
  sum = _mm256_add_epi8(sum, value);
  asm("" : "+x"(sum));
}

// 16-bit counts of one column: vector v as the unpacklo half [2v] and the unpackhi half [2v + 1] of its
// bytes.
template <int kVectors>
struct Sums {
  __m256i half[2 * kVectors];
};

template <int kVectors>
inline __attribute__((always_inline)) void emit_bits(const Sink& b, const Sums<kVectors>& sums,
                                                     const int16_t* thresholds, uint64_t* out) {
  uint32_t bits[4] = {0, 0, 0, 0};
#pragma GCC unroll 4
  for (int v = 0; v < kVectors; ++v) {
    const __m256i low = _mm256_cmpgt_epi16(load(thresholds + 32 * v), sums.half[2 * v]);
    const __m256i high = _mm256_cmpgt_epi16(load(thresholds + 32 * v + 16), sums.half[2 * v + 1]);
    // packs works within 128-bit halves like unpack did, so the channels are in their natural order again.
    bits[v] = static_cast<uint32_t>(_mm256_movemask_epi8(_mm256_packs_epi16(low, high)));
  }
  out[0] = (bits[0] | static_cast<uint64_t>(bits[1]) << 32) ^ b.falling[0];
  if (b.out_words == 2) out[1] = (bits[2] | static_cast<uint64_t>(bits[3]) << 32) ^ b.falling[1];
}

// Counts of the channels [8 * eight, 8 * eight + 8) of a vector: 0-7 | 16-23 are in the first half, 8-15 |
// 24-31 in the second.
inline __attribute__((always_inline)) __m256i eight_counts(const __m256i* halves, int eight) {
  const __m256i half = halves[eight % 2];
  return _mm256_cvtepu16_epi32(eight < 2 ? _mm256_castsi256_si128(half) : _mm256_extracti128_si256(half, 1));
}

// These two stay out of line, or they spoil the code of the loops around them.
template <int kVectors>
__attribute__((noinline)) void emit_sums(const Sink& b, const Sums<kVectors>& sums, const int32_t* constants,
                                         int32_t* out) {
#pragma GCC unroll 16
  for (int eight = 0; eight < 4 * kVectors; ++eight) {
    const __m256i count = eight_counts(sums.half + 2 * (eight / 4), eight % 4);
    __m256i sum = _mm256_sub_epi32(load(constants + 8 * eight), _mm256_slli_epi32(count, 1));
    if (b.floats) sum = _mm256_castps_si256(_mm256_cvtepi32_ps(sum));
    const int32_t left = b.channels - 8 * eight;
    if (left >= 8) {
      store(out + 8 * eight, sum);
    } else {
      const __m256i lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
      _mm256_maskstore_epi32(out + 8 * eight, _mm256_cmpgt_epi32(_mm256_set1_epi32(left), lanes), sum);
    }
  }
}

template <int kVectors>
__attribute__((noinline)) void emit_counts(const Sink& b, const Sums<kVectors>& sums, int32_t* counts) {
#pragma GCC unroll 16
  for (int eight = 0; eight < 4 * kVectors; ++eight) {
    __m256i wide = eight_counts(sums.half + 2 * (eight / 4), eight % 4);
    int32_t* to = counts + 8 * eight;
    if (!b.first_counts) wide = _mm256_add_epi32(wide, load(to));
    store(to, wide);
  }
}

// Passes the counts of one column on (not Flush::keep).
template <int kVectors>
inline __attribute__((always_inline)) void emit(const Sink& b, const Sums<kVectors>& sums, int64_t image,
                                                int64_t row, int64_t col) {
  if (b.flush == Flush::counts) {
    const Sums<kVectors> copy = sums;  // what has an address is in memory
    emit_counts<kVectors>(b, copy, b.counts + ((image * b.rows + row) * b.cols + col) * b.width);
    return;
  }
  const int64_t row_class = b.row_class == nullptr ? 0 : b.row_class[row];
  const int64_t col_class = b.col_class == nullptr ? 0 : b.col_class[col];
  const int64_t border = row_class * b.col_classes + col_class;
  const int64_t pixel = image * b.image_stride + row * b.row_stride + col * b.col_stride;
  if (b.flush == Flush::bits) {
    emit_bits<kVectors>(b, sums, b.thresholds + border * kLanes, b.out + pixel);
  } else {
    const Sums<kVectors> copy = sums;
    emit_sums<kVectors>(b, copy, b.constants + border * b.constant_stride, b.out_sums + pixel);
  }
}

// Widens the byte counts of one column, adds what earlier blocks left, and passes the result on.
template <int kVectors>
inline __attribute__((always_inline)) void flush_column(const Sink& b, const __m256i* bytes, uint16_t* saved,
                                                        int64_t image, int64_t row, int64_t col) {
  const __m256i zero = _mm256_setzero_si256();
  Sums<kVectors> sums;
#pragma GCC unroll 4
  for (int v = 0; v < kVectors; ++v) {
    sums.half[2 * v] = _mm256_unpacklo_epi8(bytes[v], zero);
    sums.half[2 * v + 1] = _mm256_unpackhi_epi8(bytes[v], zero);
    if (!b.first) {
      sums.half[2 * v] = _mm256_add_epi16(sums.half[2 * v], load(saved + 32 * v));
      sums.half[2 * v + 1] = _mm256_add_epi16(sums.half[2 * v + 1], load(saved + 32 * v + 16));
    }
  }
  if (b.flush == Flush::keep) {
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) {
      store(saved + 32 * v, sums.half[2 * v]);
      store(saved + 32 * v + 16, sums.half[2 * v + 1]);
    }
  } else if (col >= b.cols) {
    // The second column of the last pair of an odd row does not exist.
  } else {
    emit<kVectors>(b, sums, image, row, col);
  }
}

}  // namespace
}  // namespace binarynet::avx2
