// Convolution and dense layers on 8-bit pixels (the first layer), AVX2: few output channels.
//
// D, the sum of u * w with w = +-1 (simd_classes.h), comes from multiply-adds of bytes: a vector holds 8
// channels x 4 taps (a quad) of weights, the activations are one quad broadcast. vpmaddubsw leaves two 16-bit
// sums of two taps per channel, each within +-510, and 64 quads (a block of K) stay within +-32640, so they
// are widened to 32 bits only at the end of a block. Each run of taps is filled up to whole quads with
// weights 0, so activations are read where they lie.
//
// A single pixel (batch 1) reads the packed weights once. There it is cheaper to leave them 0 / 1: with P the
// sum of u over the taps whose bit is 1 and U the sum of all u, D = 2P - U.
#include <immintrin.h>

#include <cstring>

#include "avx2.h"
#include "simd_classes.h"
#include "simd_output.h"
#include "simd_source.h"
#include "simd_tiles.h"

namespace binarynet::avx2 {
namespace {

constexpr int32_t kWordChannels =
    64;                          // one word of output bits; 8 vectors, the bits of one byte of packed weights
constexpr int32_t kVectors = 8;  // of 8 channels: the bits of one byte of packed weights
constexpr int32_t kBlockQuads = 64;
constexpr int32_t kStrip = 4;  // pixels that share the loads of weights

inline __m256i load(const void* from) { return _mm256_loadu_si256(static_cast<const __m256i*>(from)); }
inline void store(void* to, __m256i value) { _mm256_storeu_si256(static_cast<__m256i*>(to), value); }

// Adds in place. The empty assembly ties a running sum to one register: gcc otherwise copies the accumulators
// of a loop in every turn and spills some of them.
inline __attribute__((always_inline)) void add_words(__m256i& sum, __m256i value) {
  sum = _mm256_add_epi16(sum, value);
  asm("" : "+x"(sum));
}

inline __m256i broadcast_quad(const uint8_t* quad) {
  int32_t value;
  memcpy(&value, quad, sizeof(value));
  return _mm256_set1_epi32(value);
}

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

struct Prepared {
  uint8_t* weights;  // [channel group][quad][32]: bit v of byte i is tap i % 4 of channel 8 * v + i / 4
  Classes classes;
  size_t bytes;
};

Prepared carve_prepared(const Block& b, const Layout& l, void* memory) {
  Carver carver = {static_cast<uint8_t*>(memory), 0};
  Prepared p = {};
  p.weights = carver.take<uint8_t>(l.channel_groups * l.quads * 32);
  p.classes = carve_classes(b, is_flat(b), l.channel_groups * int64_t{kWordChannels}, &carver);
  p.bytes = carver.used;
  return p;
}

void prepare_weights(const Block& b, const Layout& l, uint8_t* packed) {
  const int64_t pixels = static_cast<int64_t>(b.kernel_h) * b.kernel_w;
  const int64_t pixel_words = divide_up(b.in_c, 64);
  memset(packed, 0, static_cast<size_t>(l.channel_groups * l.quads * 32));
  for (int64_t channel = 0; channel < b.out_c; ++channel) {
    const int64_t lane = channel % kWordChannels;
    const uint64_t* from = b.weights + channel * pixels * pixel_words;
    uint8_t* group = packed + channel / kWordChannels * l.quads * 32;
    for (int64_t tap = 0; tap < pixels * b.in_c; ++tap) {
      const uint64_t bit = from[tap / b.in_c * pixel_words + tap % b.in_c / 64] >> (tap % b.in_c % 64) & 1;
      const int64_t quad = tap / l.run_taps * l.run_quads + tap % l.run_taps / 4;
      uint8_t* byte = group + quad * 32 + lane % 8 * 4 + tap % l.run_taps % 4;
      *byte = static_cast<uint8_t>(*byte | bit << (lane / 8));
    }
  }
}

struct Workspace {
  uint8_t* source;
  Pixel* pixels;     // of the tile
  uint8_t* weights;  // one block of K, unpacked: [quad][kVectors][32]
  OutputScratch output;
  size_t bytes;
};

Workspace carve_workspace(const Block& b, const Tiling& tiling, void* memory) {
  const int64_t pixels = most_pixels(b, tiling);
  Carver carver = {static_cast<uint8_t*>(memory), 0};
  Workspace w = {};
  w.source = carver.take<uint8_t>(source_bytes(b, tiling, b.in_c, 4));
  w.weights = carver.take<uint8_t>(kBlockQuads * kVectors * 32);
  w.pixels = carver.take<Pixel>(pixels);
  w.output = carve_output(b, pixels, true, &carver);
  w.bytes = carver.used;
  return w;
}

// From bits to bytes +1 and -1, and 0 behind the last tap of each run.
void unpack_quads(const Layout& l, const uint8_t* packed, int64_t quad, int64_t quads, uint8_t* weights) {
  const __m256i one = _mm256_set1_epi8(1);
  for (int64_t end = quad + quads; quad < end; ++quad, packed += 32) {
    const int64_t taps = smaller(4, l.run_taps - quad % l.run_quads * 4);
    const uint32_t valid = 0xffffffffu >> (8 * (4 - taps));
    const __m256i true_taps = _mm256_set1_epi32(static_cast<int32_t>(valid));
    const __m256i all = load(packed);
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v, weights += 32) {
      const __m256i bit = _mm256_and_si256(_mm256_srli_epi16(all, v), one);
      const __m256i sign = _mm256_sub_epi8(_mm256_add_epi8(bit, bit), one);
      store(weights, _mm256_and_si256(sign, true_taps));
    }
  }
}

// A part of a run of taps within one block of K.
struct Piece {
  int64_t at;  // bytes from the pixel
  int64_t quads;
};

// D of kPixels pixels over one block of K, added to counts unless it is the first.
template <int kPixels>
inline __attribute__((always_inline)) void sum_strip(const Pixel* pixels, const Piece* pieces,
                                                     int32_t num_pieces, const uint8_t* weights, bool first,
                                                     int32_t* counts) {
  const __m256i ones = _mm256_set1_epi16(1);
  for (int v = 0; v < kVectors; v += 2) {
    __m256i even[kPixels];
    __m256i odd[kPixels];
#pragma GCC unroll 4
    for (int i = 0; i < kPixels; ++i) even[i] = odd[i] = _mm256_setzero_si256();
    const uint8_t* w = weights + 32 * v;
    for (int32_t piece = 0; piece < num_pieces; ++piece) {
      const int64_t end = pieces[piece].at + 4 * pieces[piece].quads;
      for (int64_t at = pieces[piece].at; at < end; at += 4, w += 32 * kVectors) {
        const __m256i even_weights = load(w);
        const __m256i odd_weights = load(w + 32);
#pragma GCC unroll 4
        for (int i = 0; i < kPixels; ++i) {
          const __m256i u = broadcast_quad(pixels[i].taps + at);
          add_words(even[i], _mm256_maddubs_epi16(u, even_weights));
          add_words(odd[i], _mm256_maddubs_epi16(u, odd_weights));
        }
      }
    }
#pragma GCC unroll 4
    for (int i = 0; i < kPixels; ++i) {
      int32_t* to = counts + i * kWordChannels + 8 * v;
      __m256i low = _mm256_madd_epi16(even[i], ones);
      __m256i high = _mm256_madd_epi16(odd[i], ones);
      if (!first) {
        low = _mm256_add_epi32(low, load(to));
        high = _mm256_add_epi32(high, load(to + 8));
      }
      store(to, low);
      store(to + 8, high);
    }
  }
}

int32_t sum_of_quads(const uint8_t* pixel, int64_t quads) {
  __m128i sum = _mm_setzero_si128();
  for (int64_t quad = 0; quad < quads; ++quad) {
    int32_t value;
    memcpy(&value, pixel + 4 * quad, sizeof(value));
    sum = _mm_add_epi32(sum, _mm_sad_epu8(_mm_cvtsi32_si128(value), _mm_setzero_si128()));
  }
  return _mm_cvtsi128_si32(sum);
}

// D of a single flat pixel over all of K, straight from the packed weights. total: U.
void sum_column(const uint8_t* pixel, int32_t total, int64_t quads, const uint8_t* packed, int32_t* counts) {
  const __m256i twos = _mm256_set1_epi16(2);
  const __m256i one = _mm256_set1_epi8(1);
  const __m256i minus_total = _mm256_set1_epi32(-total);
  for (int v = 0; v < kVectors; ++v) store(counts + 8 * v, minus_total);
  while (quads > 0) {
    const int64_t block = smaller(quads, kBlockQuads);
    __m256i sum[kVectors];
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v) sum[v] = _mm256_setzero_si256();
    for (int64_t quad = 0; quad < block; ++quad, pixel += 4, packed += 32) {
      const __m256i u = broadcast_quad(pixel);
      const __m256i all = load(packed);
#pragma GCC unroll 8
      for (int v = 0; v < kVectors; ++v) {
        const __m256i weights = _mm256_and_si256(_mm256_srli_epi16(all, v), one);
        add_words(sum[v], _mm256_maddubs_epi16(u, weights));
      }
    }
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v) {
      store(counts + 8 * v, _mm256_add_epi32(load(counts + 8 * v), _mm256_madd_epi16(sum[v], twos)));
    }
    quads -= block;
  }
}

// 32 comparisons, one bit each.
inline uint32_t bits_of_32(const int32_t* counts, const int32_t* bounds) {
  __m256i above[4];
#pragma GCC unroll 4
  for (int v = 0; v < 4; ++v) above[v] = _mm256_cmpgt_epi32(load(counts + 8 * v), load(bounds + 8 * v));
  // Packing works within 128-bit halves: four bytes each of vectors 0 1 2 3, then of their upper halves.
  const __m256i bytes =
      _mm256_packs_epi16(_mm256_packs_epi32(above[0], above[1]), _mm256_packs_epi32(above[2], above[3]));
  const __m256i in_order = _mm256_permutevar8x32_epi32(bytes, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
  return static_cast<uint32_t>(_mm256_movemask_epi8(in_order));
}

uint64_t threshold_bits(const int32_t* counts, const int32_t* bounds) {
  return bits_of_32(counts, bounds) | static_cast<uint64_t>(bits_of_32(counts + 32, bounds + 32)) << 32;
}

// Cuts quads [begin, end) of K where runs end.
int32_t cut_pieces(const Layout& l, const Source& source, int64_t begin, int64_t end, Piece* pieces) {
  int32_t count = 0;
  while (begin < end) {
    const int64_t run = begin / l.run_quads;
    const int64_t stop = smaller(end, (run + 1) * l.run_quads);
    pieces[count++] = {run * source.run_stride + 4 * (begin - run * l.run_quads), stop - begin};
    begin = stop;
  }
  return count;
}

void emit_pixel(const WordOutput& output, const int32_t* counts, const Pixel* pixels, int64_t pixel) {
  if (output.bits == nullptr) return;
  const int32_t* bounds = output.bounds + pixels[pixel].class_offset;
  output.put(pixel, threshold_bits(counts + pixel * kWordChannels, bounds));
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
  int32_t total;  // U of a single flat pixel
  void* out;

  bool is_column() const { return flat && tile.cols == 1; }
};

void run_pixels(const Job& job, const uint8_t* packed, const WordOutput& output) {
  const Layout& l = job.l;
  const int64_t pixels = tile_pixels(job.tile);
  for (int64_t quad = 0; quad < l.quads; quad += kBlockQuads) {
    const int64_t quads = smaller(kBlockQuads, l.quads - quad);
    Piece pieces[kBlockQuads];
    const int32_t num_pieces = cut_pieces(l, job.source, quad, quad + quads, pieces);
    unpack_quads(l, packed + 32 * quad, quad, quads, job.w.weights);
    const bool first = quad == 0;
    const bool last = quad + quads == l.quads;
    for (int64_t pixel = 0; pixel < pixels; pixel += kStrip) {
      const int64_t count = smaller(kStrip, pixels - pixel);
      const Pixel* strip = job.w.pixels + pixel;
      int32_t* counts = job.w.output.counts + pixel * kWordChannels;
      switch (count) {
        case 1:
          sum_strip<1>(strip, pieces, num_pieces, job.w.weights, first, counts);
          break;
        case 2:
          sum_strip<2>(strip, pieces, num_pieces, job.w.weights, first, counts);
          break;
        case 3:
          sum_strip<3>(strip, pieces, num_pieces, job.w.weights, first, counts);
          break;
        default:
          sum_strip<4>(strip, pieces, num_pieces, job.w.weights, first, counts);
          break;
      }
      if (!last) continue;
      for (int64_t i = pixel; i < pixel + count; ++i) {
        emit_pixel(output, job.w.output.counts, job.w.pixels, i);
      }
    }
  }
}

void run_channel_group(const Job& job, int32_t group) {
  const OutputScratch& scratch = job.w.output;
  const WordOutput output = aim_output(job.b, job.p.classes, job.tile, group, scratch, job.out);
  const uint8_t* packed = job.p.weights + group * job.l.quads * 32;
  if (job.is_column()) {
    sum_column(job.source.base, job.total, job.l.quads, packed, scratch.counts);
    emit_pixel(output, scratch.counts, job.w.pixels, 0);
  } else {
    run_pixels(job, packed, output);
  }
  finish_output(job.b, job.flat, job.p.classes, job.tile, group, scratch, job.out);
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
  const int32_t groups = make_layout(block).channel_groups;
  return carve_workspace(block, make_tiling(block, batch, groups), nullptr).bytes;
}

void run(const Block& block, const void* prepared, const void* in, void* out, int64_t batch,
         int64_t unit_begin, int64_t unit_end, void* workspace) {
  const Layout layout = make_layout(block);
  const Tiling tiling = make_tiling(block, batch, layout.channel_groups);
  const Prepared p = carve_prepared(block, layout, const_cast<void*>(prepared));
  const Workspace w = carve_workspace(block, tiling, workspace);
  const auto run_groups = [&](const Tile& tile, int32_t first, int32_t last) {
    Job job = {block, layout, p, w, tile, tiling.flat, {}, 0, out};
    job.source = load_source(block, tile, tiling.flat, in, block.in_c, 4, w.source);
    list_pixels(job.source, p.classes, tile, w.pixels);
    if (job.is_column()) job.total = sum_of_quads(job.source.base, layout.quads);
    for (int32_t group = first; group < last; ++group) run_channel_group(job, group);
  };
  for_each_tile(block, tiling, layout.channel_groups, unit_begin, unit_end, run_groups);
}

const Method kMethod = {"multiply-add of bytes", unit_count, workspace_bytes, run};

const Method& method(const Block& /*block*/, int64_t /*batch*/) { return kMethod; }

}  // namespace

const Engine kByteProducts = {prepared_bytes, prepare, method};

}  // namespace binarynet::avx2
