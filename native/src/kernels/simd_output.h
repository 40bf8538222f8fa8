// Where the results of a tile go: straight to the output as bits, or through memory when they are pooled or
// wanted as integers. Shared by the SIMD kernel sets; see simd_tiles.h for why everything is in an anonymous
// namespace.
#pragma once

#include "simd_classes.h"
#include "simd_tiles.h"

namespace binarynet {
namespace {

// Counts of one tile, for channels [channel, channel + channels).
struct Counts {
  const int32_t* counts;  // [images][conv_rows][cols][width]
  int32_t width, channel, channels;
};

// Largest sum over a window of one image of the tile, per channel.
inline void largest_sums(const Block& b, const Classes& classes, const Counts& c, const Tile& tile,
                         int32_t image, const PoolWindow& window, int32_t* sums) {
  const int32_t scale = b.input == BlockInput::bytes ? 2 : -2;
  for (int32_t row = window.row_begin; row < window.row_end; ++row) {
    for (int32_t col = window.col_begin; col < window.col_end; ++col) {
      const int32_t* constant = classes.constants + classes.at(tile.conv_row + row, col) + c.channel;
      const int64_t pixel = (static_cast<int64_t>(image) * tile.conv_rows + row) * tile.cols + col;
      const int32_t* count = c.counts + pixel * c.width;
      const bool first = row == window.row_begin && col == window.col_begin;
      for (int32_t k = 0; k < c.channels; ++k) {
        const int32_t sum = constant[k] + scale * count[k];
        sums[k] = first || sum > sums[k] ? sum : sums[k];
      }
    }
  }
}

// Pools, thresholds and stores the sums of one tile and channel group. `sums`: memory for c.channels values.
inline void finish_counts(const Block& b, bool flat, const Classes& classes, const Counts& c,
                          const Tile& tile, int32_t* sums, void* out) {
  for (int32_t image = 0; image < tile.images; ++image) {
    for (int32_t y = tile.out_row; y < tile.out_row + tile.out_rows; ++y) {
      const int32_t width = flat ? tile.cols : b.out_w;
      for (int32_t x = 0; x < width; ++x) {
        const PoolWindow window = flat ? PoolWindow{0, 1, x, x + 1} : pool_window(b, tile, y, x);
        const int64_t pixel = flat ? tile.col + x : ((tile.image + image) * b.out_h + y) * b.out_w + x;
        if (b.output == BlockOutput::int32) {
          int32_t* to = static_cast<int32_t*>(out) + pixel * b.out_c + c.channel;
          largest_sums(b, classes, c, tile, image, window, to);
          continue;
        }
        largest_sums(b, classes, c, tile, image, window, sums);
        if (b.output == BlockOutput::float32) {
          float* to = static_cast<float*>(out) + pixel * b.out_c + c.channel;
          for (int32_t k = 0; k < c.channels; ++k) to[k] = static_cast<float>(sums[k]);
          continue;
        }
        uint64_t* words = static_cast<uint64_t*>(out) + pixel * b.out_words + c.channel / 64;
        for (int32_t k = 0; k < c.channels; k += 64) {
          uint64_t bits = 0;
          for (int32_t j = k; j < c.channels && j < k + 64; ++j) {
            bits |= static_cast<uint64_t>(sums[j] >= b.thresholds[c.channel + j]) << (j - k);
          }
          words[k / 64] = bits ^ b.falling[(c.channel + k) / 64];
        }
      }
    }
  }
}

// ---- Engines whose channel group is one word of output bits

constexpr int32_t kWordChannels = 64;

struct OutputScratch {
  int32_t* counts;      // [pixel of the tile][kWordChannels]
  int32_t* final_sums;  // [kWordChannels]
  uint64_t* bits;       // [pixel of the tile] if pooled
};

// always_counts: the engine needs the counts also on the way to bits.
inline OutputScratch carve_output(const Block& b, int64_t pixels, bool always_counts, Carver* carver) {
  OutputScratch scratch = {};
  const bool counts = always_counts || b.output != BlockOutput::bits;
  scratch.counts = carver->take<int32_t>(counts ? pixels * kWordChannels : 0);
  scratch.final_sums = carver->take<int32_t>(kWordChannels);
  scratch.bits = carver->take<uint64_t>(has_pool(b) ? pixels : 0);
  return scratch;
}

// One channel group of one tile: pixel i gives bits[i * stride], or leaves its counts if bits is null.
struct WordOutput {
  const int32_t* bounds;  // of the group's first channel, class 0
  uint64_t* bits;
  int64_t stride;
  uint64_t falling;

  void put(int64_t pixel, uint64_t word) const { bits[pixel * stride] = word ^ falling; }
};

inline WordOutput aim_output(const Block& b, const Classes& classes, const Tile& tile, int32_t group,
                             const OutputScratch& scratch, void* out) {
  WordOutput output = {nullptr, nullptr, 1, 0};
  if (b.output != BlockOutput::bits) return output;
  output.bounds = classes.bounds + group * kWordChannels;
  if (has_pool(b)) {
    output.bits = scratch.bits;
  } else {
    output.bits = static_cast<uint64_t*>(out) + first_out_pixel(b, tile) * b.out_words + group;
    output.stride = b.out_words;
    output.falling = b.falling[group];
  }
  return output;
}

// Finishes what went to the scratch memory, if anything did.
inline void finish_output(const Block& b, bool flat, const Classes& classes, const Tile& tile, int32_t group,
                          const OutputScratch& scratch, void* out) {
  if (b.output != BlockOutput::bits) {
    const int32_t channel = group * kWordChannels;
    const int32_t channels = static_cast<int32_t>(smaller(kWordChannels, b.out_c - channel));
    finish_counts(b, flat, classes, {scratch.counts, kWordChannels, channel, channels}, tile,
                  scratch.final_sums, out);
  } else if (has_pool(b)) {
    pool_bits(b, tile, scratch.bits, 1, group, static_cast<uint64_t*>(out));
  }
}

}  // namespace
}  // namespace binarynet
