// Convolution and dense layers on packed bits, AVX-512 VPOPCNTDQ.
//
// A vector holds one 64-bit word of K for 8 output channels, so there is no horizontal sum. A step XORs it
// with the same word of an output pixel (broadcast), counts the ones of each lane and adds: 3 operations for
// 512 bits. A strip of 3 pixels x 64 channels keeps its 24 counts in registers through all of K, so weights
// are loaded once per strip (512 bytes per 72 operations, which the second-level cache sustains) and nothing
// is stored but the result. Lanes are 64 bits wide: counts cannot overflow.
//
// Vectors come in pairs (avx512_bits_layout.h), so that even | odd << 32 has the counts of 16 channels in
// their order, as 32-bit numbers (K < 2^31).
#include <immintrin.h>

#include <cstring>

#include "avx512_bits_layout.h"
#include "avx512_masks.h"
#include "avx512_vpopcntdq.h"
#include "simd_classes.h"
#include "simd_output.h"
#include "simd_source.h"
#include "simd_tiles.h"

namespace binarynet::avx512_vpopcntdq {
namespace {

constexpr int32_t kStrip = 3;  // pixels

void prepare_weights(const Block& b, uint64_t* to) {
  const int64_t words = words_of_k(b);
  for (int32_t group = 0; group < channel_groups(b); ++group) {
    const int32_t lanes = 16 * group_pairs(b, group);
    memset(to, 0, static_cast<size_t>(words * lanes) * sizeof(uint64_t));
    for (int32_t k = 0; k < lanes && group * kWordChannels + k < b.out_c; ++k) {
      const uint64_t* from = b.weights + (group * kWordChannels + k) * words;
      uint64_t* lane = to + k / 16 * 16 + k % 2 * 8 + k % 16 / 2;
      for (int64_t word = 0; word < words; ++word) lane[word * lanes] = from[word];
    }
    to += words * lanes;
  }
}

struct Workspace {
  uint8_t* source;
  Pixel* pixels;  // of the tile
  OutputScratch output;
  size_t bytes;
};

Workspace carve_workspace(const Block& b, const Tiling& tiling, void* memory) {
  const int64_t pixels = most_pixels(b, tiling);
  Carver carver = {static_cast<uint8_t*>(memory), 0};
  Workspace w = {};
  w.source = carver.take<uint8_t>(source_bytes(b, tiling, 8 * int64_t{b.in_words}, 1));
  w.pixels = carver.take<Pixel>(pixels);
  w.output = carve_output(b, pixels, false, &carver);
  w.bytes = carver.used;
  return w;
}

// Counts of 16 channels each, for kPixels pixels.
template <int kPixels, int kPairs>
struct Strip {
  __m512i counts[kPixels][kPairs];
};

template <int kPixels, int kPairs>
inline __attribute__((always_inline)) void count_strip(const Source& source, const Pixel* pixels,
                                                       const uint64_t* weights,
                                                       Strip<kPixels, kPairs>* strip) {
  __m512i sums[kPixels][2 * kPairs];
#pragma GCC unroll 8
  for (int v = 0; v < 2 * kPairs; ++v) {
#pragma GCC unroll 3
    for (int i = 0; i < kPixels; ++i) sums[i][v] = _mm512_setzero_si512();
  }
  for (int32_t run = 0; run < source.runs; ++run) {
    const int64_t begin = run * source.run_stride;
    for (int64_t at = begin; at < begin + source.run_bytes; at += 8, weights += 16 * kPairs) {
      __m512i activations[kPixels];
#pragma GCC unroll 3
      for (int i = 0; i < kPixels; ++i) {
        int64_t word;
        memcpy(&word, pixels[i].taps + at, sizeof(word));
        activations[i] = _mm512_set1_epi64(word);
      }
#pragma GCC unroll 8
      for (int v = 0; v < 2 * kPairs; ++v) {
        const __m512i w = _mm512_load_si512(weights + 8 * v);
#pragma GCC unroll 3
        for (int i = 0; i < kPixels; ++i) {
          const __m512i ones = _mm512_popcnt_epi64(_mm512_xor_si512(w, activations[i]));
          sums[i][v] = _mm512_add_epi64(sums[i][v], ones);
        }
      }
    }
  }
#pragma GCC unroll 3
  for (int i = 0; i < kPixels; ++i) {
#pragma GCC unroll 4
    for (int p = 0; p < kPairs; ++p) {
      strip->counts[i][p] =
          _mm512_or_si512(sums[i][2 * p], _mm512_maskz_slli_epi64(0xff, sums[i][2 * p + 1], 32));
    }
  }
}

// One channel group of one tile.
struct Call {
  Source source;
  const Pixel* pixels;
  int64_t num_pixels;
  const uint64_t* weights;
  WordOutput output;
  int32_t* counts;
};

template <int kPixels, int kPairs>
void run_strip(const Call& call, int64_t first) {
  const Pixel* pixels = call.pixels + first;
  Strip<kPixels, kPairs> strip;
  count_strip<kPixels, kPairs>(call.source, pixels, call.weights, &strip);
#pragma GCC unroll 3
  for (int i = 0; i < kPixels; ++i) {
    if (call.output.bits == nullptr) {
      int32_t* to = call.counts + (first + i) * kWordChannels;
#pragma GCC unroll 4
      for (int p = 0; p < kPairs; ++p) _mm512_store_si512(to + 16 * p, strip.counts[i][p]);
      continue;
    }
    const int32_t* bounds = call.output.bounds + pixels[i].class_offset;
    uint64_t bits = 0;
#pragma GCC unroll 4
    for (int p = 0; p < kPairs; ++p) {
      const __mmask16 below = _mm512_cmplt_epi32_mask(strip.counts[i][p], _mm512_load_si512(bounds + 16 * p));
      bits |= widened(below) << (16 * p);
    }
    call.output.put(first + i, bits);
  }
}

template <int kPairs>
void run_pixels(const Call& call) {
  const int64_t pixels = call.num_pixels;
  int64_t pixel = 0;
  for (; pixel + kStrip <= pixels; pixel += kStrip) run_strip<kStrip, kPairs>(call, pixel);
  if (pixels - pixel == 2) run_strip<2, kPairs>(call, pixel);
  if (pixels - pixel == 1) run_strip<1, kPairs>(call, pixel);
}

// What the channel groups of one tile share.
struct Job {
  const Block& b;
  const BitsPrepared& p;
  const Workspace& w;
  const Tile& tile;
  bool flat;
  Source source;
  void* out;
};

void run_channel_group(const Job& job, int32_t group) {
  const Block& b = job.b;
  const OutputScratch& scratch = job.w.output;
  const WordOutput output = aim_output(b, job.p.classes, job.tile, group, scratch, job.out);
  const Call call = {job.source, job.w.pixels,  tile_pixels(job.tile), group_weights(b, job.p, group),
                     output,     scratch.counts};
  switch (group_pairs(b, group)) {
    case 1:
      run_pixels<1>(call);
      break;
    case 2:
      run_pixels<2>(call);
      break;
    case 3:
      run_pixels<3>(call);
      break;
    default:
      run_pixels<4>(call);
      break;
  }
  finish_output(b, job.flat, job.p.classes, job.tile, group, scratch, job.out);
}

size_t prepared_bytes(const Block& block) { return carve_bits_prepared(block, nullptr).bytes; }

void prepare(const Block& block, void* prepared) {
  const BitsPrepared p = carve_bits_prepared(block, prepared);
  prepare_weights(block, p.weights);
  prepare_classes(block, is_flat(block), p.classes);
}

int64_t unit_count(const Block& block, int64_t batch) {
  const int32_t groups = channel_groups(block);
  return make_tiling(block, batch, groups).tiles * groups;
}

size_t workspace_bytes(const Block& block, int64_t batch) {
  return carve_workspace(block, make_tiling(block, batch, channel_groups(block)), nullptr).bytes;
}

void run(const Block& block, const void* prepared, const void* in, void* out, int64_t batch,
         int64_t unit_begin, int64_t unit_end, void* workspace) {
  const int32_t groups = channel_groups(block);
  const Tiling tiling = make_tiling(block, batch, groups);
  const BitsPrepared p = carve_bits_prepared(block, const_cast<void*>(prepared));
  const Workspace w = carve_workspace(block, tiling, workspace);
  const auto run_groups = [&](const Tile& tile, int32_t first, int32_t last) {
    Job job = {block, p, w, tile, tiling.flat, {}, out};
    job.source = load_source(block, tile, tiling.flat, in, 8 * int64_t{block.in_words}, 1, w.source);
    list_pixels(job.source, p.classes, tile, w.pixels);
    for (int32_t group = first; group < last; ++group) run_channel_group(job, group);
  };
  for_each_tile(block, tiling, groups, unit_begin, unit_end, run_groups);
}

const Method kMethod = {"vector popcount", unit_count, workspace_bytes, run};

const Method& method(const Block& /*block*/, int64_t /*batch*/) { return kMethod; }

}  // namespace

const Engine kBits = {prepared_bytes, prepare, method};

}  // namespace binarynet::avx512_vpopcntdq
