// Convolution and dense layers on packed bits, AVX2: the layout of weights, indices and thresholds around
// avx2_lut.
//
// K runs as [kernel row][kernel column][channel nibble]. For one kernel row the taps of an output pixel are
// then one contiguous run of groups, and the run of the next pixel starts one stride later: with one pair
// index per horizontally adjacent pixel pair and nibble, a convolution reads its operands in place, without
// im2row. Flat blocks (dense layers) store indices by block of K instead: [block][pair][groups of the block].
//
// Counts become bits or sums as simd_classes.h derives, with one bound per channel and border class.
#include <cstring>

#include "avx2.h"
#include "avx2_lut.h"
#include "simd_classes.h"
#include "simd_output.h"
#include "simd_tiles.h"

namespace binarynet::avx2 {
namespace {

constexpr int32_t kMostGroupsOf16Bits = 65535 / (4 * kBlockGroups) * kBlockGroups;  // 4 bits each

// Everything that follows from a block alone.
struct Layout {
  bool flat;
  bool counts;            // raw counts go through finish_counts()
  int32_t pixel_nibbles;  // nibbles of a pixel that hold channels
  int32_t pixel_groups;   // the same, or more to make runs divisible by 3
  int32_t runs;           // contiguous runs of K: kernel rows, or 1 if flat
  int32_t run_triples;
  int64_t triples, blocks, groups;
  int32_t channel_groups;
};

Layout make_layout(const Block& b) {
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
  l.counts = b.output != BlockOutput::bits || taps * b.in_c > 32766;
  return l;
}

// The blocks of K are as equal as can be.
int64_t block_begin(const Layout& l, int64_t block) { return l.triples * block / l.blocks; }

int32_t group_vectors(const Block& b, int32_t channel_group) {
  return static_cast<int32_t>(smaller(4, divide_up(b.out_c - channel_group * kLanes, 32)));
}

int64_t packed_group_bytes(int32_t vectors) { return 32 * ((vectors + 1) / 2); }

struct Prepared {
  uint8_t* weights;  // [channel group][group][packed_group_bytes]
  Classes classes;
  int16_t* bounds;  // [channel group][class][kLanes], channels in unpack order; empty if counts
  size_t bytes;
};

Prepared carve_prepared(const Block& b, const Layout& l, void* memory) {
  Carver carver = {static_cast<uint8_t*>(memory), 0};
  int64_t weight_bytes = 0;
  for (int32_t g = 0; g < l.channel_groups; ++g) {
    weight_bytes += l.groups * packed_group_bytes(group_vectors(b, g));
  }
  Prepared p = {};
  p.weights = carver.take<uint8_t>(weight_bytes);
  p.classes = carve_classes(b, l.flat, static_cast<int64_t>(l.channel_groups) * kLanes, &carver);
  p.bounds = carver.take<int16_t>(l.counts ? 0 : p.classes.count() * p.classes.width);
  p.bytes = carver.used;
  return p;
}

const uint8_t* group_weights(const Layout& l, const Prepared& p, int32_t channel_group) {
  return p.weights + channel_group * l.groups * packed_group_bytes(4);  // all groups before are full
}

// The nibble of weights that group `group` of K holds for one channel.
unsigned weight_nibble(const Block& b, const Layout& l, int32_t channel, int64_t group) {
  const int64_t run_groups = 3 * static_cast<int64_t>(l.run_triples);
  const int64_t run = group / run_groups;
  const int64_t pixel = group % run_groups / l.pixel_groups;
  const int64_t nibble = group % run_groups % l.pixel_groups;
  const int64_t run_pixels = l.flat ? static_cast<int64_t>(b.kernel_h) * b.kernel_w : b.kernel_w;
  if (pixel >= run_pixels || nibble >= l.pixel_nibbles) return 0;
  const int64_t taps = static_cast<int64_t>(b.kernel_h) * b.kernel_w;
  const uint64_t* words = b.weights + (channel * taps + run * b.kernel_w + pixel) * b.in_words;
  return words[nibble / 16] >> (nibble % 16 * 4) & 15;
}

void prepare_weights(const Block& b, const Layout& l, uint8_t* packed) {
  for (int32_t channel_group = 0; channel_group < l.channel_groups; ++channel_group) {
    const int64_t group_bytes = packed_group_bytes(group_vectors(b, channel_group));
    memset(packed, 0, static_cast<size_t>(l.groups * group_bytes));
    const int32_t channels = static_cast<int32_t>(smaller(kLanes, b.out_c - channel_group * kLanes));
    for (int32_t lane = 0; lane < channels; ++lane) {
      uint8_t* to = packed + lane / 64 * 32 + lane % 32;
      const int shift = lane / 32 % 2 * 4;
      for (int64_t group = 0; group < l.groups; ++group) {
        const unsigned nibble = weight_nibble(b, l, channel_group * kLanes + lane, group);
        to[group * group_bytes] = static_cast<uint8_t>(to[group * group_bytes] | nibble << shift);
      }
    }
    packed += l.groups * group_bytes;
  }
}

// Position, in unpack order, of a channel of its group.
int32_t unpack_position(int32_t lane) {
  const int32_t half = lane % 16 / 8;  // channels 0-7 and 16-23 of a vector are in the first half
  return lane / 32 * 32 + half * 16 + lane % 32 / 16 * 8 + lane % 8;
}

// The bounds once more, as the 16-bit numbers that the inner loop compares with: a count is at most 32766.
void prepare_unpacked_bounds(const Block& b, const Classes& classes, int16_t* bounds) {
  memset(bounds, 0,
         sizeof(int16_t) * static_cast<size_t>(classes.count() * classes.width));  // nothing is below
  for (int64_t k = 0; k < classes.count(); ++k) {
    for (int32_t channel = 0; channel < b.out_c; ++channel) {
      const int64_t bound = classes.bounds[k * classes.width + channel];
      const int64_t group_class = channel / kLanes * classes.count() + k;
      bounds[group_class * kLanes + unpack_position(channel % kLanes)] =
          static_cast<int16_t>(smaller(larger(bound, 0), 32767));
    }
  }
}

// ---- Indices of the activations
// ------------------------------------------------------------------------------

// Pair indices of a tile. Direct blocks: [image][input row][pixel pair][pixel_groups], rows from the first
// that the tile's sums look at; flat blocks: [block of K][pair][groups of the block].
struct IndexShape {
  int32_t pairs;
  int32_t pixel_pairs;  // direct: per row
  int64_t row_entries, image_entries, entries;
};

constexpr int64_t kIndexSlack = 32;  // pair_offsets() writes whole words, so up to 15 entries too many

IndexShape index_shape(const Block& b, const Layout& l, int32_t images, int32_t conv_rows, int32_t cols) {
  IndexShape s = {};
  s.pairs = (cols + 1) / 2;
  if (l.flat) {
    s.entries = s.pairs * l.groups;
    return s;
  }
  s.pixel_pairs = (s.pairs - 1) * 2 * b.stride_w + b.kernel_w;
  s.row_entries = static_cast<int64_t>(s.pixel_pairs) * l.pixel_groups;
  s.image_entries = s.row_entries * ((conv_rows - 1) * static_cast<int64_t>(b.stride_h) + b.kernel_h);
  s.entries = s.image_entries * images;
  return s;
}

void index_tile_rows(const Block& b, const Layout& l, const Tile& tile, const IndexShape& shape,
                     const uint64_t* in, const uint64_t* zeros, uint16_t* index) {
  const int64_t rows = shape.image_entries / shape.row_entries;
  const int64_t first_row = static_cast<int64_t>(tile.conv_row) * b.stride_h - b.pad_h;
  const int64_t gap = l.pixel_groups - 16 * b.in_words;  // groups beyond the pixel's last word: at most 2
  for (int64_t image = tile.image; image < tile.image + tile.images; ++image) {
    for (int64_t y = first_row; y < first_row + rows; ++y) {
      if (y < 0 || y >= b.in_h) {
        memset(index, 0, static_cast<size_t>(shape.row_entries) * sizeof(uint16_t));
        index += shape.row_entries;
        continue;
      }
      const uint64_t* row = in + (image * b.in_h + y) * b.in_w * b.in_words;
      for (int64_t x = -b.pad_w; x < shape.pixel_pairs - b.pad_w; ++x) {
        const int64_t x2 = x + b.stride_w;
        pair_offsets(x >= 0 && x < b.in_w ? row + x * b.in_words : zeros,
                     x2 >= 0 && x2 < b.in_w ? row + x2 * b.in_words : zeros, b.in_words, index);
        for (int64_t k = 0; k < gap; ++k) index[16 * b.in_words + k] = 0;
        index += l.pixel_groups;
      }
    }
  }
}

// All groups of one pair of columns, in order of K.
void index_columns(const Block& b, const Layout& l, const uint64_t* first, const uint64_t* second,
                   uint16_t* index) {
  const int64_t pixels = static_cast<int64_t>(b.kernel_h) * b.kernel_w;
  for (int64_t pixel = 0; pixel < pixels; ++pixel) {
    pair_offsets(first + pixel * b.in_words, second + pixel * b.in_words, b.in_words,
                 index + pixel * l.pixel_groups);
  }
  for (int64_t group = pixels * l.pixel_groups; group < l.groups; ++group) index[group] = 0;
}

void index_tile_columns(const Block& b, const Layout& l, const Tile& tile, const IndexShape& shape,
                        const uint64_t* in, const uint64_t* zeros, uint16_t* one_pair, uint16_t* index) {
  const int64_t words = static_cast<int64_t>(b.kernel_h) * b.kernel_w * b.in_words;
  for (int64_t pair = 0; pair < shape.pairs; ++pair) {
    const uint64_t* first = in + (tile.col + 2 * pair) * words;
    index_columns(b, l, first, 2 * pair + 1 < tile.cols ? first + words : zeros, one_pair);
    for (int64_t block = 0; block < l.blocks; ++block) {
      const int64_t begin = 3 * block_begin(l, block);
      const int64_t size = 3 * block_begin(l, block + 1) - begin;
      memcpy(index + begin * shape.pairs + pair * size, one_pair + begin,
             static_cast<size_t>(size) * sizeof(uint16_t));
    }
  }
}

// ---- Running
// -------------------------------------------------------------------------------------------------

struct Workspace {
  uint16_t* index;
  uint16_t* one_pair;   // flat: [groups] of one pair
  uint64_t* zeros;      // a pixel (a column if flat) of bits 0
  uint8_t* weights;     // one block, unpacked
  uint16_t* sums;       // [pair of the tile][2][kLanes]
  int32_t* counts;      // [pixel of the tile][kLanes] if counts
  int32_t* final_sums;  // [kLanes]
  uint64_t* bits;       // [pixel of the tile][2] if pooled
  size_t bytes;
};

Workspace carve_workspace(const Block& b, const Layout& l, const Tiling& tiling, void* memory) {
  const int32_t images = tiling.flat ? 1 : tiling.images_per_tile;
  const int32_t rows = most_conv_rows(b, tiling);
  const int32_t cols =
      tiling.flat ? static_cast<int32_t>(smaller(tiling.cols_per_tile, tiling.columns)) : b.conv_w;
  const IndexShape shape = index_shape(b, l, images, rows, cols);
  const int64_t pixels = static_cast<int64_t>(images) * rows * cols;
  const int64_t pairs = static_cast<int64_t>(images) * rows * shape.pairs;
  const int64_t column_words =
      l.flat ? static_cast<int64_t>(b.kernel_h) * b.kernel_w * b.in_words : b.in_words;
  Carver carver = {static_cast<uint8_t*>(memory), 0};
  Workspace w = {};
  w.index = carver.take<uint16_t>(shape.entries + kIndexSlack);
  w.one_pair = carver.take<uint16_t>(l.flat ? l.groups + kIndexSlack : 0);
  w.zeros = carver.take<uint64_t>(column_words);
  w.weights = carver.take<uint8_t>(kBlockGroups * kLanes);
  w.sums = carver.take<uint16_t>(pairs * 2 * kLanes);
  w.counts = carver.take<int32_t>(l.counts ? pixels * kLanes : 0);
  w.final_sums = carver.take<int32_t>(kLanes);
  w.bits = carver.take<uint64_t>(has_pool(b) ? pixels * 2 : 0);
  w.bytes = carver.used;
  if (memory != nullptr) memset(w.zeros, 0, static_cast<size_t>(column_words) * sizeof(uint64_t));
  return w;
}

// Where block `block` of K lies in the index.
void locate_block(const Layout& l, const IndexShape& shape, int64_t block, LutBlock* call) {
  const int64_t begin = block_begin(l, block);
  const int64_t end = block_begin(l, block + 1);
  if (l.flat) {
    call->segments[0] = {3 * begin * shape.pairs, static_cast<int32_t>(end - begin)};
    call->pair_stride = 3 * (end - begin);
    call->num_segments = 1;
    return;
  }
  call->num_segments = 0;
  for (int64_t triple = begin; triple < end;) {
    const int64_t run = triple / l.run_triples;
    const int64_t stop = smaller(end, (run + 1) * l.run_triples);
    const int64_t within = triple - run * l.run_triples;
    call->segments[call->num_segments++] = {run * shape.row_entries + 3 * within,
                                            static_cast<int32_t>(stop - triple)};
    triple = stop;
  }
}

// What the channel groups of one tile share.
struct Job {
  const Block& b;
  const Layout& l;
  const Prepared& p;
  const Workspace& w;
  const Tile& tile;
  IndexShape shape;
  void* out;

  bool is_column() const { return l.flat && tile.cols == 1; }
};

// The parts of a call that depend on where the bits or counts of a channel group go.
void aim_output(const Job& job, int32_t channel_group, LutBlock* call) {
  static constexpr uint64_t kNoneFalling[2] = {0, 0};
  const Block& b = job.b;
  const Classes& classes = job.p.classes;
  const int32_t word = channel_group * (kLanes / 64);
  call->out_words = static_cast<int32_t>(smaller(kLanes / 64, b.out_words - word));
  call->row_class = job.l.flat ? nullptr : classes.row_class + job.tile.conv_row;
  call->col_class = job.l.flat ? nullptr : classes.col_class;
  call->col_classes = classes.cols;
  call->counts = job.w.counts;
  if (job.l.counts) return;
  call->thresholds = job.p.bounds + channel_group * classes.count() * kLanes;
  if (has_pool(b)) {
    call->falling = kNoneFalling;
    call->out = job.w.bits;
    call->out_col_stride = call->out_words;
    call->out_row_stride = static_cast<int64_t>(job.tile.cols) * call->out_words;
    call->out_image_stride = call->out_row_stride * job.tile.conv_rows;
  } else {
    call->falling = b.falling + word;
    call->out = static_cast<uint64_t*>(job.out) + first_out_pixel(b, job.tile) * b.out_words + word;
    call->out_col_stride = b.out_words;
    call->out_row_stride = static_cast<int64_t>(b.out_w) * b.out_words;
    call->out_image_stride = call->out_row_stride * b.out_h;
  }
}

// Finishes what went to the workspace, if anything did.
void finish_output(const Job& job, int32_t channel_group) {
  const Block& b = job.b;
  if (job.l.counts) {
    const int32_t channel = channel_group * kLanes;
    const int32_t channels = static_cast<int32_t>(smaller(kLanes, b.out_c - channel));
    const Counts counts = {job.w.counts, 32 * group_vectors(b, channel_group), channel, channels};
    finish_counts(b, job.l.flat, job.p.classes, counts, job.tile, job.w.final_sums, job.out);
  } else if (has_pool(b)) {
    const int32_t word = channel_group * (kLanes / 64);
    const int32_t words = static_cast<int32_t>(smaller(kLanes / 64, b.out_words - word));
    pool_bits(b, job.tile, job.w.bits, words, word, static_cast<uint64_t*>(job.out));
  }
}

void run_pairs(const Job& job, int32_t channel_group) {
  const Layout& l = job.l;
  const int32_t vectors = group_vectors(job.b, channel_group);
  LutBlock call = {};
  call.index = job.w.index;
  call.image_stride = job.shape.image_entries;
  call.row_stride = job.shape.row_entries * job.b.stride_h;
  call.pair_stride = 2 * static_cast<int64_t>(job.b.stride_w) * l.pixel_groups;
  call.images = job.tile.images;
  call.rows = job.tile.conv_rows;
  call.cols = job.tile.cols;
  call.weights = job.w.weights;
  call.sums = job.w.sums;
  aim_output(job, channel_group, &call);

  const uint8_t* packed = group_weights(l, job.p, channel_group);
  constexpr int64_t kBlocksOf16Bits = kMostGroupsOf16Bits / kBlockGroups;
  for (int64_t block = 0; block < l.blocks; ++block) {
    const int32_t groups = static_cast<int32_t>(3 * (block_begin(l, block + 1) - block_begin(l, block)));
    unpack_groups(vectors, packed, groups, job.w.weights);
    packed += groups * packed_group_bytes(vectors);
    locate_block(l, job.shape, block, &call);
    // Sums of 16 bits move to the 32-bit counts before they could overflow (never on the way to bits).
    const bool last = block + 1 == l.blocks || (block + 1) % kBlocksOf16Bits == 0;
    call.first = block % kBlocksOf16Bits == 0;
    call.first_counts = block < kBlocksOf16Bits;
    call.flush = !last ? Flush::keep : l.counts ? Flush::counts : Flush::bits;
    lut_block(vectors, call);
  }
}

// One column: the weights are read once, straight from their packed layout.
void run_column(const Job& job, int32_t channel_group) {
  const Layout& l = job.l;
  const int32_t vectors = group_vectors(job.b, channel_group);
  LutBlock call = {};
  aim_output(job, channel_group, &call);
  call.flush = l.counts ? Flush::counts : Flush::bits;
  const uint8_t* packed = group_weights(l, job.p, channel_group);
  for (int64_t group = 0; group < l.groups; group += kMostGroupsOf16Bits) {
    const int64_t groups = smaller(kMostGroupsOf16Bits, l.groups - group);
    call.first_counts = group == 0;
    lut_column(vectors, packed + group * packed_group_bytes(vectors), job.w.one_pair + group, groups, call);
  }
}

void index_tile(const Job& job, const uint64_t* in) {
  const Block& b = job.b;
  const Workspace& w = job.w;
  if (job.is_column()) {
    const int64_t words = static_cast<int64_t>(b.kernel_h) * b.kernel_w * b.in_words;
    index_columns(b, job.l, in + job.tile.col * words, w.zeros, w.one_pair);
  } else if (job.l.flat) {
    index_tile_columns(b, job.l, job.tile, job.shape, in, w.zeros, w.one_pair, w.index);
  } else {
    index_tile_rows(b, job.l, job.tile, job.shape, in, w.zeros, w.index);
  }
}

}  // namespace

size_t bits_prepared_bytes(const Block& block) {
  return carve_prepared(block, make_layout(block), nullptr).bytes;
}

void bits_prepare(const Block& block, void* prepared) {
  const Layout layout = make_layout(block);
  const Prepared p = carve_prepared(block, layout, prepared);
  prepare_weights(block, layout, p.weights);
  prepare_classes(block, layout.flat, p.classes);
  if (!layout.counts) prepare_unpacked_bounds(block, p.classes, p.bounds);
}

int64_t bits_unit_count(const Block& block, int64_t batch) {
  const int32_t groups = make_layout(block).channel_groups;
  return make_tiling(block, batch, groups).tiles * groups;
}

size_t bits_workspace_bytes(const Block& block, int64_t batch) {
  const Layout layout = make_layout(block);
  return carve_workspace(block, layout, make_tiling(block, batch, layout.channel_groups), nullptr).bytes;
}

void bits_run(const Block& block, const void* prepared, const uint64_t* in, void* out, int64_t batch,
              int64_t unit_begin, int64_t unit_end, void* workspace) {
  const Layout layout = make_layout(block);
  const Tiling tiling = make_tiling(block, batch, layout.channel_groups);
  const Prepared p = carve_prepared(block, layout, const_cast<void*>(prepared));
  const Workspace w = carve_workspace(block, layout, tiling, workspace);
  for (int64_t unit = unit_begin; unit < unit_end;) {
    const int64_t stop = smaller(unit_end, (unit / layout.channel_groups + 1) * layout.channel_groups);
    const Tile tile = tile_at(block, tiling, unit / layout.channel_groups);
    const IndexShape shape = index_shape(block, layout, tile.images, tile.conv_rows, tile.cols);
    const Job job = {block, layout, p, w, tile, shape, out};
    index_tile(job, in);
    for (; unit < stop; ++unit) {
      const int32_t channel_group = static_cast<int32_t>(unit % layout.channel_groups);
      job.is_column() ? run_column(job, channel_group) : run_pairs(job, channel_group);
      finish_output(job, channel_group);
    }
  }
}

const char* bits_method(const Block& block, int64_t batch) {
  const bool column = is_flat(block) && batch * block.conv_h * block.conv_w == 1;
  return column ? "table look-ups, one column" : "table look-ups, pairs of columns";
}

}  // namespace binarynet::avx2
