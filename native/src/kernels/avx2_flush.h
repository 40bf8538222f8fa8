// Where the counts of the AVX2 kernels go: widening of byte counts, thresholds, packing of bits. Shared by
// the kernels for packed bits, which all count disagreements of 32 channels per vector, one byte each.
//
// Everything that is not plain data lives in an anonymous namespace; see simd_tiles.h.
#pragma once

#include <immintrin.h>

#include <cstdint>

namespace binarynet::avx2 {

constexpr int32_t kLanes = 128;  // channels of a full channel group: 4 vectors

enum class Flush { keep, bits, counts };  // what to do with the sums at the end of a block

// What becomes of the counts of one column, after those of earlier blocks of K were added.
struct Sink {
  int32_t rows, cols;  // of the sums of one image
  bool first;          // there are no sums of earlier blocks
  Flush flush;
  // Flush::bits. Bit = count < threshold, as the last sums are taken.
  const int16_t* thresholds;  // [class][kLanes], channels in unpack order
  const int32_t* row_class;   // [rows] or null
  const int32_t* col_class;   // [cols] or null
  int32_t col_classes;
  const uint64_t* falling;  // [words]: XOR of the bits
  uint64_t* out;            // word of this channel group in the first pixel
  int64_t out_image_stride, out_row_stride, out_col_stride;
  int32_t out_words;  // of this channel group: 1 or 2
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

template <int kVectors>
inline void emit_counts(const Sink& b, const Sums<kVectors>& sums, int32_t* counts) {
  for (int v = 0; v < kVectors; ++v) {
    // Channels 0-7 | 16-23 in the first half, 8-15 | 24-31 in the second.
    const __m128i eights[4] = {
        _mm256_castsi256_si128(sums.half[2 * v]), _mm256_castsi256_si128(sums.half[2 * v + 1]),
        _mm256_extracti128_si256(sums.half[2 * v], 1), _mm256_extracti128_si256(sums.half[2 * v + 1], 1)};
    for (int k = 0; k < 4; ++k) {
      __m256i wide = _mm256_cvtepu16_epi32(eights[k]);
      int32_t* to = counts + 32 * v + 8 * k;
      if (!b.first_counts) wide = _mm256_add_epi32(wide, load(to));
      store(to, wide);
    }
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
  } else if (b.flush == Flush::bits) {
    const int64_t row_class = b.row_class == nullptr ? 0 : b.row_class[row];
    const int64_t col_class = b.col_class == nullptr ? 0 : b.col_class[col];
    emit_bits<kVectors>(b, sums, b.thresholds + (row_class * b.col_classes + col_class) * kLanes,
                        b.out + image * b.out_image_stride + row * b.out_row_stride + col * b.out_col_stride);
  } else {
    emit_counts<kVectors>(b, sums, b.counts + ((image * b.rows + row) * b.cols + col) * b.width);
  }
}

}  // namespace
}  // namespace binarynet::avx2
