// The inner loops of first layers by look-up (avx512_vpopcntdq_bytes_lookup.cc): a strip of pixels whose
// entries are added up for some words of output channels, and what is made of the sums.
#pragma once

#include <immintrin.h>

#include "avx512_masks.h"
#include "avx512_vpopcntdq_bytes_tables.h"
#include "simd_output.h"
#include "simd_source.h"

namespace binarynet::avx512_vpopcntdq {
namespace {

constexpr int32_t kStrip = 4;       // pixels that share the loads of weights
constexpr int32_t kGroupWords = 2;  // words of output bits that share the loads of tables

// Consecutive chunks of one run within one block.
struct Segment {
  int64_t tables;  // bytes from the pixel's first table
  int64_t full;    // chunks
  int32_t tail;    // tables of the chunk behind them, or 0
  bool ends_block;
};

// A part of K for one channel group of one tile.
struct Call {
  const Pixel* pixels;
  int64_t num_pixels;
  const Segment* segments;
  const Segment* segments_end;
  const uint16_t* weights;
  bool first, last;  // part
  bool narrow;
  int32_t* counts;      // of the group's first word
  int64_t word_counts;  // from one word's counts to the next
  const int16_t* narrow_bounds;
  WordOutput output[kGroupWords];
};

// Looks up one table per pixel, 32 or 64 entries; the empty assembly ties a running sum to one register (gcc
// otherwise copies them).
template <bool kSix, int kPixels, int kVectors>
inline __attribute__((always_inline)) void add_entries(const uint8_t* const* tables, int64_t offset,
                                                       const __m512i* index, __m512i (*sums)[kVectors]) {
#pragma GCC unroll 4
  for (int i = 0; i < kPixels; ++i) {
    const __m512i table = _mm512_load_si512(tables[i] + offset);
    const __m512i more = kSix ? _mm512_load_si512(tables[i] + offset + 64) : table;
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) {
      const __m512i entries =
          kSix ? _mm512_permutex2var_epi16(table, index[v], more) : _mm512_permutexvar_epi16(index[v], table);
      sums[i][v] = _mm512_add_epi16(sums[i][v], entries);
      asm("" : "+v"(sums[i][v]));
    }
  }
}

template <int kVectors>
inline __attribute__((always_inline)) void shift_index(__m512i* index) {
#pragma GCC unroll 4
  for (int v = 0; v < kVectors; ++v) index[v] = _mm512_srli_epi16(index[v], 5);
}

// Sums of one block; moves segment and weights on to the next one.
template <int kPixels, int kVectors>
inline __attribute__((always_inline)) void sum_block(const uint8_t* const* tables, const Segment** segment,
                                                     const uint16_t** weights, __m512i (*sums)[kVectors]) {
  const uint16_t* w = *weights;
#pragma GCC unroll 4
  for (int i = 0; i < kPixels; ++i) {
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) sums[i][v] = _mm512_setzero_si512();
  }
  for (bool more = true; more; ++*segment) {
    const Segment& s = **segment;
    more = !s.ends_block;
    int64_t offset = s.tables;
    __m512i index[kVectors];
    for (const int64_t end = offset + s.full * kChunkBytes; offset < end; offset += kChunkBytes) {
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; ++v, w += 32) index[v] = _mm512_load_si512(w);
      add_entries<false, kPixels, kVectors>(tables, offset, index, sums);
      shift_index<kVectors>(index);
      add_entries<false, kPixels, kVectors>(tables, offset + 64, index, sums);
      shift_index<kVectors>(index);
      add_entries<true, kPixels, kVectors>(tables, offset + 128, index, sums);
    }
    if (s.tail == 0) continue;
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v, w += 32) index[v] = _mm512_load_si512(w);
    add_entries<false, kPixels, kVectors>(tables, offset, index, sums);
    if (s.tail == 1) continue;
    shift_index<kVectors>(index);
    add_entries<false, kPixels, kVectors>(tables, offset + 64, index, sums);
    if (s.tail == 2) continue;
    shift_index<kVectors>(index);
    add_entries<true, kPixels, kVectors>(tables, offset + 128, index, sums);
  }
  *weights = w;
}

// The 64 counts of one word and pixel, in the order of wide_place().
struct Wide {
  __m512i at[4];
};

inline __attribute__((always_inline)) Wide widen(const __m512i* sums, const int32_t* before) {
  const __m512i even = _mm512_set1_epi32(1);
  const __m512i odd = _mm512_set1_epi32(1 << 16);
  Wide wide;
#pragma GCC unroll 4
  for (int k = 0; k < 4; ++k) {
    const __m512i start = before == nullptr ? _mm512_setzero_si512() : _mm512_load_si512(before + 16 * k);
    wide.at[k] = _mm512_dpwssd_epi32(start, sums[k / 2], k % 2 == 0 ? even : odd);
  }
  return wide;
}

inline uint64_t wide_bits(const Wide& sums, const int32_t* bounds) {
  uint64_t above[4];
#pragma GCC unroll 4
  for (int k = 0; k < 4; ++k) {
    above[k] = widened(_mm512_cmpgt_epi32_mask(sums.at[k], _mm512_load_si512(bounds + 16 * k)));
  }
  return _pdep_u64(above[0] | above[2] << 16, 0x5555555555555555) |
         _pdep_u64(above[1] | above[3] << 16, 0xaaaaaaaaaaaaaaaa);
}

inline uint64_t narrow_bits(const __m512i* sums, const int16_t* bounds) {
  const __mmask32 low = _mm512_cmpgt_epi16_mask(sums[0], _mm512_load_si512(bounds));
  const __mmask32 high = _mm512_cmpgt_epi16_mask(sums[1], _mm512_load_si512(bounds + 32));
  return widened(low) | widened(high) << 32;
}

template <int kPixels, int kVectors>
void run_strip(const Call& call, int64_t first) {
  constexpr int kWords = kVectors / 2;
  const Pixel* pixels = call.pixels + first;
  const uint8_t* tables[kPixels];
#pragma GCC unroll 4
  for (int i = 0; i < kPixels; ++i) tables[i] = pixels[i].taps;
  const Segment* segment = call.segments;
  const uint16_t* weights = call.weights;
  bool begun = !call.first;
  do {
    __m512i sums[kPixels][kVectors];
    sum_block<kPixels, kVectors>(tables, &segment, &weights, sums);
    const bool whole = call.last && segment == call.segments_end;
#pragma GCC unroll 2
    for (int word = 0; word < kWords; ++word) {
      const WordOutput output = call.output[word];
      uint64_t* to = output.bits + first * output.stride;
      int32_t* counts = call.counts + word * call.word_counts + first * kWordChannels;
#pragma GCC unroll 4
      for (int i = 0; i < kPixels; ++i) {
        const int64_t bound = pixels[i].class_offset;
        if (call.narrow) {
          const int16_t* bounds = call.narrow_bounds + word * kWordChannels + bound;
          to[i * output.stride] = narrow_bits(sums[i] + 2 * word, bounds) ^ output.falling;
          continue;
        }
        int32_t* sum = counts + i * kWordChannels;
        const Wide wide = widen(sums[i] + 2 * word, begun ? sum : nullptr);
        if (whole && output.bits != nullptr) {
          to[i * output.stride] = wide_bits(wide, output.bounds + bound) ^ output.falling;
          continue;
        }
#pragma GCC unroll 4
        for (int k = 0; k < 4; ++k) _mm512_store_si512(sum + 16 * k, wide.at[k]);
      }
    }
    begun = true;
  } while (segment != call.segments_end);
}

template <int kVectors>
void run_pixels(const Call& call) {
  int64_t pixel = 0;
  for (; pixel + kStrip <= call.num_pixels; pixel += kStrip) run_strip<kStrip, kVectors>(call, pixel);
  for (; pixel + 2 <= call.num_pixels; pixel += 2) run_strip<2, kVectors>(call, pixel);
  if (pixel < call.num_pixels) run_strip<1, kVectors>(call, pixel);
}

}  // namespace
}  // namespace binarynet::avx512_vpopcntdq
