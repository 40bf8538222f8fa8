// Packed bits by tables of weights (avx2_tables.h): offsets of a tile's pixels, and the run over the words of
// K.
//
// The tables of one word of K and 64 channels serve all sums of a tile. A convolution needs no im2row:
// offsets are made once per pixel of the input and word, and a tap is a shift within that array.
#include "avx2_layout.h"
#include "avx2_methods.h"
#include "avx2_tables.h"

namespace binarynet::avx2 {
namespace {

// The more sums share a table the better, as long as there are units for a few threads.
Tiling table_tiling(const Block& b, int64_t batch) {
  return shared_tiling(b, batch, divide_up(b.out_c, kTableLanes), 1024, 256, 2);
}

// Words of K that 16-bit counts hold, in whole byte counts.
constexpr int64_t kMostWordsOf16Bits = 65535 / (64 * kWordsPerByteCount) * kWordsPerByteCount;

// Offsets of a tile: [word of a pixel][image][input row][input column, or column if flat][field]. A flat
// pixel is a whole column.
struct OffsetShape {
  int32_t words;   // of a pixel
  int32_t pixels;  // in a row
  int64_t row_entries, image_entries, word_entries;
};

OffsetShape offset_shape(const Block& b, const Layout& l, int32_t images, int32_t conv_rows, int32_t cols) {
  OffsetShape s = {};
  s.words = l.flat ? b.kernel_h * b.kernel_w * b.in_words : b.in_words;
  s.pixels = l.flat ? cols : (cols - 1) * b.stride_w + b.kernel_w;
  s.row_entries = static_cast<int64_t>(s.pixels) * kTableFields;
  s.image_entries =
      s.row_entries * (l.flat ? 1 : (conv_rows - 1) * static_cast<int64_t>(b.stride_h) + b.kernel_h);
  s.word_entries = s.image_entries * images + kOffsetSlack;
  return s;
}

struct TableWorkspace {
  uint16_t* offsets;
  uint8_t* tables;
  uint8_t* bytes;  // [pixel of the tile][kTableLanes]
  uint16_t* sums;  // [pixel of the tile][kTableLanes]
  Scratch scratch;
  size_t bytes_used;
};

TableWorkspace carve_table_workspace(const Block& b, const Layout& l, const Tiling& tiling, void* memory) {
  const int32_t images = tiling.flat ? 1 : tiling.images_per_tile;
  const int32_t cols =
      tiling.flat ? static_cast<int32_t>(smaller(tiling.cols_per_tile, tiling.columns)) : b.conv_w;
  const OffsetShape shape = offset_shape(b, l, images, most_conv_rows(b, tiling), cols);
  const int64_t pixels = most_pixels(b, tiling);
  Carver carver = {static_cast<uint8_t*>(memory), 0};
  TableWorkspace w = {};
  w.offsets = carver.take<uint16_t>(shape.words * shape.word_entries);
  w.tables = carver.take<uint8_t>(kTablesBytes);
  w.bytes = carver.take<uint8_t>(pixels * kTableLanes);
  w.sums = carver.take<uint16_t>(pixels * kTableLanes);
  w.scratch.counts = carver.take<int32_t>(l.result == Flush::counts ? pixels * kTableLanes : 0);
  w.scratch.final_sums = carver.take<int32_t>(kTableLanes);
  w.scratch.bits = carver.take<uint64_t>(has_pool(b) ? pixels : 0);
  w.bytes_used = carver.used;
  return w;
}

// What the channel groups of one tile share.
struct TableJob {
  const Block& b;
  const Layout& l;
  const Prepared& p;
  const TableWorkspace& w;
  const Tile& tile;
  OffsetShape shape;
  void* out;
};

void offset_tile(const TableJob& job, const uint64_t* in) {
  const Block& b = job.b;
  const OffsetShape& s = job.shape;
  uint16_t* to = job.w.offsets;
  const auto add = [&](const uint64_t* from, int64_t pixels) {
    table_offsets(from, pixels, s.words, s.word_entries, to);
    to += pixels * kTableFields;
  };
  if (job.l.flat) return add(in + job.tile.col * s.words, job.tile.cols);
  const int64_t rows = s.image_entries / s.row_entries;
  const int64_t first_row = static_cast<int64_t>(job.tile.conv_row) * b.stride_h - b.pad_h;
  const int64_t left = smaller(b.pad_w, s.pixels);
  const int64_t inside = smaller(b.in_w, s.pixels - left);
  for (int64_t image = job.tile.image; image < job.tile.image + job.tile.images; ++image) {
    for (int64_t y = first_row; y < first_row + rows; ++y) {
      if (y < 0 || y >= b.in_h) {
        add(nullptr, s.pixels);
        continue;
      }
      add(nullptr, left);
      add(in + (image * b.in_h + y) * b.in_w * b.in_words, inside);
      add(nullptr, s.pixels - left - inside);
    }
  }
}

// One word of K: its groups among the packed weights, and the offsets of the tile's first sum.
struct WordOfK {
  int64_t first_group;
  int32_t groups;
  const uint16_t* offsets;
};

WordOfK word_of_k(const TableJob& job, int64_t word) {
  const Block& b = job.b;
  const Layout& l = job.l;
  const int64_t tap = word / b.in_words;
  const int32_t within = static_cast<int32_t>(word % b.in_words);
  WordOfK result = {};
  result.groups = static_cast<int32_t>(smaller(kWordGroups, l.pixel_nibbles - kWordGroups * within));
  if (l.flat) {
    result.first_group = tap * l.pixel_groups + kWordGroups * within;
    result.offsets = job.w.offsets + word * job.shape.word_entries;
  } else {
    const int64_t ky = tap / b.kernel_w;
    const int64_t kx = tap % b.kernel_w;
    result.first_group = ky * 3 * l.run_triples + kx * l.pixel_groups + kWordGroups * within;
    result.offsets =
        job.w.offsets + within * job.shape.word_entries + ky * job.shape.row_entries + kx * kTableFields;
  }
  return result;
}

// All of K for one word of output channels.
void run_tables(const TableJob& job, int32_t out_word) {
  const Block& b = job.b;
  const Layout& l = job.l;
  constexpr int32_t kHalves = kLanes / kTableLanes;
  const int32_t channel_group = out_word / kHalves;
  const int64_t group_stride = packed_group_bytes(group_vectors(b, channel_group));
  const uint8_t* packed = group_weights(l, job.p, channel_group) + out_word % kHalves * 32;
  const int64_t words = static_cast<int64_t>(b.kernel_h) * b.kernel_w * b.in_words;
  TablePass pass = {};
  pass.image_stride = job.shape.image_entries;
  pass.row_stride = job.shape.row_entries * b.stride_h;
  pass.col_stride = kTableFields * static_cast<int64_t>(l.flat ? 1 : b.stride_w);
  pass.images = job.tile.images;
  pass.tables = job.w.tables;
  pass.bytes = job.w.bytes;
  pass.sums = job.w.sums;
  pass.sink = aim_sink(b, l, job.p, job.tile, out_word, 1, kTableLanes, job.w.scratch, job.out);
  int64_t in_bytes = 0;      // words of K that the byte counts hold
  int64_t in_sums = 0;       // and the 16-bit sums
  bool first_counts = true;  // the 32-bit counts hold none
  for (int64_t word = 0; word < words; ++word) {
    const WordOfK k = word_of_k(job, word);
    make_tables(packed + k.first_group * group_stride, group_stride, k.groups, job.w.tables);
    pass.offsets = k.offsets;
    pass.start = in_bytes == 0;
    ++in_bytes;
    const bool last = word + 1 == words;
    pass.flush = last || in_bytes == kWordsPerByteCount;
    if (pass.flush) {
      pass.sink.first = in_sums == 0;
      in_sums += in_bytes;
      in_bytes = 0;
      const bool full = last || (l.result == Flush::counts && in_sums == kMostWordsOf16Bits);
      pass.sink.flush = !full ? Flush::keep : l.result;
      pass.sink.first_counts = first_counts;
      if (full) {
        in_sums = 0;
        first_counts = false;
      }
    }
    count_by_tables(pass);
  }
}

int64_t unit_count(const Block& block, int64_t batch) {
  return table_tiling(block, batch).tiles * block.out_words;
}

size_t workspace_bytes(const Block& block, int64_t batch) {
  return carve_table_workspace(block, make_layout(block), table_tiling(block, batch), nullptr).bytes_used;
}

void run(const Block& block, const void* prepared, const void* in, void* out, int64_t batch,
         int64_t unit_begin, int64_t unit_end, void* workspace) {
  const Layout layout = make_layout(block);
  const Tiling tiling = table_tiling(block, batch);
  const Prepared p = carve_prepared(block, layout, const_cast<void*>(prepared));
  const TableWorkspace w = carve_table_workspace(block, layout, tiling, workspace);
  const auto run_groups = [&](const Tile& tile, int32_t first, int32_t last) {
    const OffsetShape shape = offset_shape(block, layout, tile.images, tile.conv_rows, tile.cols);
    const TableJob job = {block, layout, p, w, tile, shape, out};
    offset_tile(job, static_cast<const uint64_t*>(in));
    for (int32_t word = first; word < last; ++word) {
      run_tables(job, word);
      finish_sink(block, layout, p, tile, word, 1, kTableLanes, w.scratch, out);
    }
  };
  for_each_tile(block, tiling, block.out_words, unit_begin, unit_end, run_groups);
}

}  // namespace

double tables_tile_sums(const Block& block, int64_t batch) {
  const double sums = static_cast<double>(batch) * block.conv_h * block.conv_w;
  return sums / static_cast<double>(larger(1, table_tiling(block, batch).tiles));
}

const Method kTables = {"tables of weights, made at run time", unit_count, workspace_bytes, run};

}  // namespace binarynet::avx2
