// How the AVX2 kernels for packed bits order K, weights and bounds: what all of their methods share.
//
// K runs as [kernel row][kernel column][channel nibble]. For one kernel row the taps of an output pixel are
// then one contiguous run of groups. Counts become bits or sums as simd_classes.h derives, with one bound per
// channel and border class.
#pragma once

#include "avx2_lut.h"
#include "simd_classes.h"
#include "simd_output.h"
#include "simd_tiles.h"

namespace binarynet::avx2 {
namespace {

// Everything that follows from a block alone.
struct Layout {
  bool flat;
  Flush result;           // bits or sums; or counts, which go through finish_counts()
  int32_t pixel_nibbles;  // nibbles of a pixel that hold channels
  int32_t pixel_groups;   // the same, or more to make runs divisible by 3
  int32_t runs;           // contiguous runs of K: kernel rows, or 1 if flat
  int32_t run_triples;
  int64_t triples, blocks, groups;
  int32_t channel_groups;
};

inline Layout make_layout(const Block& b) {
  Layout l = {};
  l.flat = is_flat(b);
  l.pixel_nibbles = static_cast<int32_t>(divide_up(b.in_c, 4));
  const int64_t taps = static_cast<int64_t>(b.kernel_h) * b.kernel_w;
  if (l.flat) {
    l.pixel_groups = l.pixel_nibbles;
    l.runs = 1;
    l.run_triples = static_cast<int32_t>(divide_up(taps * l.pixel_groups, 3));
  } else {
    const bool divisible = static_cast<int64_t>(b.kernel_w) * l.pixel_nibbles % 3 == 0;
    l.pixel_groups = divisible ? l.pixel_nibbles : static_cast<int32_t>(round_up(l.pixel_nibbles, 3));
    l.runs = b.kernel_h;
    l.run_triples = b.kernel_w * l.pixel_groups / 3;
  }
  l.triples = static_cast<int64_t>(l.runs) * l.run_triples;
  l.groups = 3 * l.triples;
  l.blocks = divide_up(l.triples, kBlockTriples);
  l.channel_groups = static_cast<int32_t>(divide_up(b.out_c, kLanes));
  // Bounds are compared as signed 16-bit numbers: a count, at most K, and a bound of up to K + 1 must fit.
  // Sums are made of unsigned 16-bit counts.
  const int64_t k = taps * b.in_c;
  l.result = Flush::counts;
  if (b.output == BlockOutput::bits && k <= 32766) l.result = Flush::bits;
  if (b.output != BlockOutput::bits && k <= 65000 && !has_pool(b)) l.result = Flush::sums;
  return l;
}

// The blocks of K are as equal as can be.
inline int64_t block_begin(const Layout& l, int64_t block) { return l.triples * block / l.blocks; }

inline int32_t group_vectors(const Block& b, int32_t channel_group) {
  return static_cast<int32_t>(smaller(4, divide_up(b.out_c - channel_group * kLanes, 32)));
}

inline int64_t packed_group_bytes(int32_t vectors) { return 32 * ((vectors + 1) / 2); }

struct Prepared {
  uint8_t* weights;  // [channel group][group][packed_group_bytes]
  Classes classes;
  int16_t* bounds;  // [channel group][class][kLanes], channels in unpack order; empty unless bits
  size_t bytes;
};

inline Prepared carve_prepared(const Block& b, const Layout& l, void* memory) {
  Carver carver = {static_cast<uint8_t*>(memory), 0};
  int64_t weight_bytes = 0;
  for (int32_t g = 0; g < l.channel_groups; ++g) {
    weight_bytes += l.groups * packed_group_bytes(group_vectors(b, g));
  }
  Prepared p = {};
  p.weights = carver.take<uint8_t>(weight_bytes);
  p.classes = carve_classes(b, l.flat, static_cast<int64_t>(l.channel_groups) * kLanes, &carver);
  p.bounds = carver.take<int16_t>(l.result == Flush::bits ? p.classes.count() * p.classes.width : 0);
  p.bytes = carver.used;
  return p;
}

inline const uint8_t* group_weights(const Layout& l, const Prepared& p, int32_t channel_group) {
  return p.weights + channel_group * l.groups * packed_group_bytes(4);  // all groups before are full
}

// ---- Output

// Where the results of a tile wait when they do not go straight to the output.
struct Scratch {
  int32_t* counts;      // [pixel of the tile][channels of the call] if counts
  int32_t* final_sums;  // as many as channels
  uint64_t* bits;       // [pixel of the tile][out_words] if pooled
};

// Aims at output words [word, word + out_words) of a tile. width: channels of the call. What depends on the
// block of K is left open.
inline Sink aim_sink(const Block& b, const Layout& l, const Prepared& p, const Tile& tile, int32_t word,
                     int32_t out_words, int32_t width, const Scratch& scratch, void* out) {
  static constexpr uint64_t kNoneFalling[2] = {0, 0};
  const Classes& classes = p.classes;
  Sink sink = {};
  sink.rows = tile.conv_rows;
  sink.cols = tile.cols;
  sink.out_words = out_words;
  sink.row_class = l.flat ? nullptr : classes.row_class + tile.conv_row;
  sink.col_class = l.flat ? nullptr : classes.col_class;
  sink.col_classes = classes.cols;
  sink.counts = scratch.counts;
  sink.width = width;
  const int64_t channel = static_cast<int64_t>(word) * 64;
  const int64_t pixel = first_out_pixel(b, tile);
  if (l.result == Flush::sums) {
    sink.constants = classes.constants + channel;
    sink.constant_stride = classes.width;
    sink.out_sums = static_cast<int32_t*>(out) + pixel * b.out_c + channel;
    sink.channels = static_cast<int32_t>(b.out_c - channel);
    sink.floats = b.output == BlockOutput::float32;
    sink.col_stride = b.out_c;
  } else if (l.result == Flush::bits) {
    sink.thresholds = p.bounds + channel / kLanes * classes.count() * kLanes + channel % kLanes;
    if (has_pool(b)) {
      sink.falling = kNoneFalling;
      sink.out = scratch.bits;
      sink.col_stride = out_words;
      sink.row_stride = static_cast<int64_t>(tile.cols) * out_words;
      sink.image_stride = sink.row_stride * tile.conv_rows;
      return sink;
    }
    sink.falling = b.falling + word;
    sink.out = static_cast<uint64_t*>(out) + pixel * b.out_words + word;
    sink.col_stride = b.out_words;
  }
  sink.row_stride = sink.col_stride * b.out_w;
  sink.image_stride = sink.row_stride * b.out_h;
  return sink;
}

// Finishes what went to the scratch memory, if anything did. width: channels of the call.
inline void finish_sink(const Block& b, const Layout& l, const Prepared& p, const Tile& tile, int32_t word,
                        int32_t out_words, int32_t width, const Scratch& scratch, void* out) {
  if (l.result == Flush::counts) {
    const int32_t channels = static_cast<int32_t>(smaller(width, b.out_c - 64 * word));
    const Counts counts = {scratch.counts, width, 64 * word, channels};
    finish_counts(b, l.flat, p.classes, counts, tile, scratch.final_sums, out);
  } else if (has_pool(b)) {
    pool_bits(b, tile, scratch.bits, out_words, word, static_cast<uint64_t*>(out));
  }
}

}  // namespace
}  // namespace binarynet::avx2
