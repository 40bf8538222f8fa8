// Packed bits by constant tables (avx2_lut.h): the layout of indices, and the run over blocks of K.
//
// With one pair index per horizontally adjacent pixel pair and nibble, a convolution reads its operands in
// place, without im2row: the run of the next pixel starts one stride later. Flat blocks (dense layers) store
// indices by block of K instead: [block][pair][groups of the block].
#include <cstring>

#include "avx2_layout.h"
#include "avx2_methods.h"

namespace binarynet::avx2 {
namespace {

constexpr int64_t kFewPairs = 2;  // measured: from 3 on a copy of unpacked weights is better
constexpr int32_t kMostGroupsOf16Bits = 65535 / (4 * kBlockGroups) * kBlockGroups;  // 4 bits each

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
  uint16_t* one_pair;  // flat: [groups] of one pair
  uint64_t* zeros;     // a pixel (a column if flat) of bits 0
  uint8_t* weights;    // one block, unpacked
  uint16_t* sums;      // [pair of the tile][2][kLanes]
  Scratch scratch;
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
  w.scratch.counts = carver.take<int32_t>(l.result == Flush::counts ? pixels * kLanes : 0);
  w.scratch.final_sums = carver.take<int32_t>(kLanes);
  w.scratch.bits = carver.take<uint64_t>(has_pool(b) ? pixels * 2 : 0);
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

int32_t group_words(const Block& b, int32_t channel_group) {
  return static_cast<int32_t>(smaller(kLanes / 64, b.out_words - channel_group * (kLanes / 64)));
}

Sink aim_group(const Job& job, int32_t channel_group) {
  return aim_sink(job.b, job.l, job.p, job.tile, channel_group * (kLanes / 64),
                  group_words(job.b, channel_group), 32 * group_vectors(job.b, channel_group), job.w.scratch,
                  job.out);
}

// Groups of K after which 16-bit counts must be added to 32-bit ones; on the way to bits or sums they suffice
// for all of K.
int64_t groups_of_counts(const Layout& l) {
  return l.result == Flush::counts ? kMostGroupsOf16Bits : round_up(l.groups, kBlockGroups);
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
  call.weights = job.w.weights;
  call.sums = job.w.sums;
  Sink& sink = call.sink;
  sink = aim_group(job, channel_group);

  const bool few = static_cast<int64_t>(job.tile.images) * job.tile.conv_rows * job.shape.pairs <= kFewPairs;
  const uint8_t* packed = group_weights(l, job.p, channel_group);
  const int64_t blocks_of_counts = groups_of_counts(l) / kBlockGroups;
  for (int64_t block = 0; block < l.blocks; ++block) {
    const int32_t groups = static_cast<int32_t>(3 * (block_begin(l, block + 1) - block_begin(l, block)));
    if (few) {
      call.weights = packed;
    } else {
      unpack_groups(vectors, packed, groups, job.w.weights);
    }
    packed += groups * packed_group_bytes(vectors);
    locate_block(l, job.shape, block, &call);
    // Counts of 16 bits move to those of 32 before they could overflow.
    const bool last = block + 1 == l.blocks || (block + 1) % blocks_of_counts == 0;
    sink.first = block % blocks_of_counts == 0;
    sink.first_counts = block < blocks_of_counts;
    sink.flush = !last ? Flush::keep : l.result;
    few ? lut_packed_block(vectors, call) : lut_block(vectors, call);
  }
}

// One column: the weights are read once, straight from their packed layout.
void run_column(const Job& job, int32_t channel_group) {
  const Layout& l = job.l;
  const int32_t vectors = group_vectors(job.b, channel_group);
  Sink sink = aim_group(job, channel_group);
  sink.flush = l.result;
  const uint8_t* packed = group_weights(l, job.p, channel_group);
  constexpr int64_t kLargeWeights = 512 * 1024;  // bytes that will hardly stay in a second-level cache
  const bool prefetch = l.channel_groups * l.groups * packed_group_bytes(4) >= kLargeWeights;
  for (int64_t group = 0; group < l.groups; group += groups_of_counts(l)) {
    const int64_t groups = smaller(groups_of_counts(l), l.groups - group);
    sink.first_counts = group == 0;
    lut_column(vectors, packed + group * packed_group_bytes(vectors), job.w.one_pair + group, groups,
               prefetch, sink);
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
    const IndexShape shape = index_shape(block, layout, tile.images, tile.conv_rows, tile.cols);
    const Job job = {block, layout, p, w, tile, shape, out};
    index_tile(job, static_cast<const uint64_t*>(in));
    for (int32_t channel_group = first; channel_group < last; ++channel_group) {
      job.is_column() ? run_column(job, channel_group) : run_pairs(job, channel_group);
      finish_sink(block, layout, p, tile, channel_group * (kLanes / 64), group_words(block, channel_group),
                  32 * group_vectors(block, channel_group), w.scratch, out);
    }
  };
  for_each_tile(block, tiling, layout.channel_groups, unit_begin, unit_end, run_groups);
}

}  // namespace

const Method kColumn = {"table look-ups, one column", unit_count, workspace_bytes, run};
const Method kPairs = {"table look-ups, pairs of columns", unit_count, workspace_bytes, run};

}  // namespace binarynet::avx2
