// Convolution and dense layers on 8-bit pixels (the first layer), AVX-512 with VNNI: few output channels.
//
// D, the sum of u * w with w = +-1 (simd_classes.h), comes from dot products of 4 bytes (a quad of taps): a
// vector holds a quad of weights for 16 channels, the activations are one quad broadcast, sums are 32 bits
// wide. Each run of taps is filled up to whole quads with weights 0, so activations are read where they lie.
#include <immintrin.h>

#include <cstring>

#include "avx512_masks.h"
#include "avx512_vpopcntdq.h"
#include "simd_classes.h"
#include "simd_output.h"
#include "simd_source.h"
#include "simd_tiles.h"

namespace binarynet::avx512_vpopcntdq {
namespace {

constexpr int32_t kStrip = 6;  // pixels that share the loads of weights

struct Layout {
  int64_t run_taps, run_quads, quads;
  int32_t channel_groups;
};

Layout make_layout(const Block& b) {
  const Source source = describe_source(b, is_flat(b), 1, b.in_c, 4);
  Layout l = {};
  l.run_taps = source.run_bytes;
  l.run_quads = divide_up(l.run_taps, 4);
  l.quads = source.runs * l.run_quads;
  l.channel_groups = static_cast<int32_t>(divide_up(b.out_c, kWordChannels));
  return l;
}

int32_t group_vectors(const Block& b, int32_t group) {
  return static_cast<int32_t>(smaller(4, divide_up(b.out_c - group * kWordChannels, 16)));
}

struct Prepared {
  uint64_t* weights;  // [channel group][quad][vector]: bit i is tap i % 4 of channel i / 4
  Classes classes;
  size_t bytes;
};

Prepared carve_prepared(const Block& b, const Layout& l, void* memory) {
  const int32_t last = l.channel_groups - 1;
  Carver carver = {static_cast<uint8_t*>(memory), 0};
  Prepared p = {};
  p.weights = carver.take<uint64_t>(l.quads * (4 * int64_t{last} + group_vectors(b, last)));
  p.classes = carve_classes(b, is_flat(b), l.channel_groups * int64_t{kWordChannels}, &carver);
  p.bytes = carver.used;
  return p;
}

void prepare_weights(const Block& b, const Layout& l, uint64_t* to) {
  const int64_t pixels = static_cast<int64_t>(b.kernel_h) * b.kernel_w;
  const int64_t pixel_words = divide_up(b.in_c, 64);
  for (int32_t group = 0; group < l.channel_groups; ++group) {
    const int32_t vectors = group_vectors(b, group);
    memset(to, 0, static_cast<size_t>(l.quads * vectors) * sizeof(uint64_t));
    for (int32_t k = 0; k < 16 * vectors && group * kWordChannels + k < b.out_c; ++k) {
      const uint64_t* from = b.weights + (group * kWordChannels + k) * pixels * pixel_words;
      if (pixels == 1) {  // a dense layer: quads are nibbles; training prepares its weights in every step
        for (int64_t quad = 0; quad < l.quads; ++quad) {
          to[quad * vectors + k / 16] |= (from[quad / 16] >> (quad % 16 * 4) & 15) << (k % 16 * 4);
        }
        continue;
      }
      for (int64_t tap = 0; tap < pixels * b.in_c; ++tap) {
        const uint64_t bit = from[tap / b.in_c * pixel_words + tap % b.in_c / 64] >> (tap % b.in_c % 64) & 1;
        const int64_t quad = tap / l.run_taps * l.run_quads + tap % l.run_taps / 4;
        to[quad * vectors + k / 16] |= bit << (k % 16 * 4 + tap % l.run_taps % 4);
      }
    }
    to += l.quads * vectors;
  }
}

struct Workspace {
  uint8_t* source;
  Pixel* pixels;     // of the tile
  uint8_t* weights;  // of one channel group, unpacked: [quad][vector][64]
  OutputScratch output;
  size_t bytes;
};

Workspace carve_workspace(const Block& b, const Layout& l, const Tiling& tiling, void* memory) {
  const int64_t pixels = most_pixels(b, tiling);
  Carver carver = {static_cast<uint8_t*>(memory), 0};
  Workspace w = {};
  w.source = carver.take<uint8_t>(source_bytes(b, tiling, b.in_c, 4));
  w.weights = carver.take<uint8_t>(tiling.flat && pixels == 1 ? 0 : l.quads * 256);
  w.pixels = carver.take<Pixel>(pixels);
  w.output = carve_output(b, pixels, false, &carver);
  w.bytes = carver.used;
  return w;
}

inline __m512i signs(uint64_t bits) {
  return _mm512_mask_blend_epi8(bits, _mm512_set1_epi8(-1), _mm512_set1_epi8(1));
}

inline __m512i broadcast_quad(const uint8_t* quad) {
  int32_t value;
  memcpy(&value, quad, sizeof(value));
  return _mm512_set1_epi32(value);
}

// From bits to bytes +1 and -1, and 0 behind the last tap of each run.
void unpack_weights(const Layout& l, const uint64_t* packed, int32_t vectors, uint8_t* to) {
  const uint64_t kEveryLane = 0x1111111111111111;
  for (int64_t quad = 0; quad < l.quads; ++quad) {
    const int64_t taps = smaller(4, l.run_taps - quad % l.run_quads * 4);
    const uint64_t valid = kEveryLane * ((uint64_t{1} << taps) - 1);
    for (int32_t v = 0; v < vectors; ++v, to += 64) {
      _mm512_store_si512(to, _mm512_maskz_mov_epi8(valid, signs(*packed++)));
    }
  }
}

template <int kPixels, int kVectors>
struct Strip {
  __m512i sums[kPixels][kVectors];
};

template <int kPixels, int kVectors>
inline __attribute__((always_inline)) void sum_strip(const Source& source, int64_t run_quads,
                                                     const Pixel* pixels, const uint8_t* weights,
                                                     Strip<kPixels, kVectors>* strip) {
  __m512i sums[kPixels][kVectors];
#pragma GCC unroll 6
  for (int i = 0; i < kPixels; ++i) {
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) sums[i][v] = _mm512_setzero_si512();
  }
  for (int32_t run = 0; run < source.runs; ++run) {
    const int64_t begin = run * source.run_stride;
    for (int64_t at = begin; at < begin + 4 * run_quads; at += 4, weights += 64 * kVectors) {
      __m512i w[kVectors];
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; ++v) w[v] = _mm512_load_si512(weights + 64 * v);
#pragma GCC unroll 6
      for (int i = 0; i < kPixels; ++i) {
        const __m512i u = broadcast_quad(pixels[i].taps + at);
#pragma GCC unroll 4
        for (int v = 0; v < kVectors; ++v) sums[i][v] = _mm512_dpbusd_epi32(sums[i][v], u, w[v]);
      }
    }
  }
#pragma GCC unroll 6
  for (int i = 0; i < kPixels; ++i) {
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) strip->sums[i][v] = sums[i][v];
  }
}

// One flat pixel, straight from the packed weights. Even and odd quads have sums of their own: a dot product
// takes longer than a quad's share of the other work.
template <int kVectors>
inline __attribute__((always_inline)) void sum_column(const uint8_t* pixel, int64_t quads,
                                                      const uint64_t* packed, Strip<1, kVectors>* strip) {
  __m512i even[kVectors];
  __m512i odd[kVectors];
#pragma GCC unroll 4
  for (int v = 0; v < kVectors; ++v) even[v] = odd[v] = _mm512_setzero_si512();
  int64_t quad = 0;
  for (; quad + 2 <= quads; quad += 2, packed += 2 * kVectors) {
    const __m512i u = broadcast_quad(pixel + 4 * quad);
    const __m512i next = broadcast_quad(pixel + 4 * quad + 4);
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) {
      even[v] = _mm512_dpbusd_epi32(even[v], u, signs(packed[v]));
      odd[v] = _mm512_dpbusd_epi32(odd[v], next, signs(packed[kVectors + v]));
    }
  }
  if (quad < quads) {
    const __m512i u = broadcast_quad(pixel + 4 * quad);
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) even[v] = _mm512_dpbusd_epi32(even[v], u, signs(packed[v]));
  }
#pragma GCC unroll 4
  for (int v = 0; v < kVectors; ++v) strip->sums[0][v] = _mm512_add_epi32(even[v], odd[v]);
}

// One channel group of one tile.
struct Call {
  Source source;
  int64_t run_quads;
  const Pixel* pixels;
  int64_t num_pixels;
  const uint64_t* packed;
  const uint8_t* weights;
  WordOutput output;
  int32_t* counts;
};

template <int kPixels, int kVectors>
inline __attribute__((always_inline)) void emit_strip(const Call& call, int64_t first,
                                                      const Strip<kPixels, kVectors>& strip) {
#pragma GCC unroll 6
  for (int i = 0; i < kPixels; ++i) {
    if (call.output.bits == nullptr) {
      int32_t* to = call.counts + (first + i) * kWordChannels;
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; ++v) _mm512_store_si512(to + 16 * v, strip.sums[i][v]);
      continue;
    }
    const int32_t* bounds = call.output.bounds + call.pixels[first + i].class_offset;
    uint64_t bits = 0;
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) {
      const __mmask16 above = _mm512_cmpgt_epi32_mask(strip.sums[i][v], _mm512_load_si512(bounds + 16 * v));
      bits |= widened(above) << (16 * v);
    }
    call.output.put(first + i, bits);
  }
}

template <int kPixels, int kVectors>
void run_strip(const Call& call, int64_t first) {
  const Pixel* pixels = call.pixels + first;
  Strip<kPixels, kVectors> strip;
  sum_strip<kPixels, kVectors>(call.source, call.run_quads, pixels, call.weights, &strip);
  emit_strip<kPixels, kVectors>(call, first, strip);
}

template <int kVectors>
void run_column(const Call& call) {
  Strip<1, kVectors> strip;
  sum_column<kVectors>(call.source.base, call.run_quads, call.packed, &strip);
  emit_strip<1, kVectors>(call, 0, strip);
}

template <int kVectors>
void run_pixels(const Call& call) {
  const int64_t pixels = call.num_pixels;
  int64_t pixel = 0;
  for (; pixel + kStrip <= pixels; pixel += kStrip) run_strip<kStrip, kVectors>(call, pixel);
  for (; pixel + 2 <= pixels; pixel += 2) run_strip<2, kVectors>(call, pixel);
  if (pixel < pixels) run_strip<1, kVectors>(call, pixel);
}

template <int kVectors>
void run_group(const Call& call, bool column) {
  column ? run_column<kVectors>(call) : run_pixels<kVectors>(call);
}

// What the channel groups of one tile share.
struct Job {
  const Block& b;
  const Layout& l;
  const Prepared& p;
  const Workspace& w;
  const Tile& tile;
  bool flat;
  Source source;
  void* out;
};

void run_channel_group(const Job& job, int32_t group) {
  const Block& b = job.b;
  const Layout& l = job.l;
  const OutputScratch& scratch = job.w.output;
  const WordOutput output = aim_output(b, job.p.classes, job.tile, group, scratch, job.out);
  const uint64_t* packed = job.p.weights + group * l.quads * 4;  // all groups before are full
  const Call call = {job.source, l.run_quads,   job.w.pixels, tile_pixels(job.tile),
                     packed,     job.w.weights, output,       scratch.counts};
  const bool column = job.flat && job.tile.cols == 1;
  const int32_t vectors = group_vectors(b, group);
  if (!column) unpack_weights(l, packed, vectors, job.w.weights);
  switch (vectors) {
    case 1:
      run_group<1>(call, column);
      break;
    case 2:
      run_group<2>(call, column);
      break;
    case 3:
      run_group<3>(call, column);
      break;
    default:
      run_group<4>(call, column);
      break;
  }
  finish_output(b, job.flat, job.p.classes, job.tile, group, scratch, job.out);
}

size_t prepared_bytes(const Block& block) { return carve_prepared(block, make_layout(block), nullptr).bytes; }

void prepare(const Block& block, void* prepared) {
  const Layout layout = make_layout(block);
  const Prepared p = carve_prepared(block, layout, prepared);
  prepare_weights(block, layout, p.weights);
  prepare_classes(block, is_flat(block), p.classes);
}

int64_t unit_count(const Block& block, int64_t batch) {
  const int32_t groups = make_layout(block).channel_groups;
  return make_tiling(block, batch, groups).tiles * groups;
}

size_t workspace_bytes(const Block& block, int64_t batch) {
  const Layout layout = make_layout(block);
  return carve_workspace(block, layout, make_tiling(block, batch, layout.channel_groups), nullptr).bytes;
}

void run(const Block& block, const void* prepared, const void* in, void* out, int64_t batch,
         int64_t unit_begin, int64_t unit_end, void* workspace) {
  const Layout layout = make_layout(block);
  const Tiling tiling = make_tiling(block, batch, layout.channel_groups);
  const Prepared p = carve_prepared(block, layout, const_cast<void*>(prepared));
  const Workspace w = carve_workspace(block, layout, tiling, workspace);
  const auto run_groups = [&](const Tile& tile, int32_t first, int32_t last) {
    Job job = {block, layout, p, w, tile, tiling.flat, {}, out};
    job.source = load_source(block, tile, tiling.flat, in, block.in_c, 4, w.source);
    list_pixels(job.source, p.classes, tile, w.pixels);
    for (int32_t group = first; group < last; ++group) run_channel_group(job, group);
  };
  for_each_tile(block, tiling, layout.channel_groups, unit_begin, unit_end, run_groups);
}

const Method kMethod = {"dot products of bytes", unit_count, workspace_bytes, run};

const Method& method(const Block& /*block*/, int64_t /*batch*/) { return kMethod; }

}  // namespace

const Engine kByteProducts = {prepared_bytes, prepare, method};

}  // namespace binarynet::avx512_vpopcntdq
