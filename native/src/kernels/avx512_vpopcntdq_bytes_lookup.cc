// Convolution and dense layers on 8-bit pixels (the first layer), AVX-512: many output channels.
//
// D, the sum of u * w with w = +-1 (simd_classes.h), is looked up: for five taps of a pixel all 32 sums
// +-u0 +-u1 +-u2 +-u3 +-u4 fill one vector of 16-bit words, for six taps two, and one permutation finds, for
// 32 output channels at once, the sum that five or six weights of each channel ask for. That is one
// permutation and one addition for 160 or 192 multiply-adds; a dot product of bytes does 64. 16 weights of a
// channel (a chunk: 5, 5 and 6 taps) are one word of the index, so weights are read as they are stored, at
// one bit each. All channels share the tables of a pixel.
//
// 8 chunks (128 taps) fit a 16-bit sum, +-32640, whatever the pixels; 15 (240 taps) do if pixels are counted
// as u - 128. Where there are more, blocks of at most so many chunks are added up as int32 in memory.
//
// A convolution's tables belong to a run of taps, that is to an input row and an output column, and serve
// every output row whose window has that row.
#include <immintrin.h>

#include <cstring>

#include "avx512_vpopcntdq.h"
#include "avx512_vpopcntdq_bytes_strips.h"
#include "avx512_vpopcntdq_bytes_tables.h"
#include "simd_classes.h"
#include "simd_output.h"
#include "simd_source.h"
#include "simd_tiles.h"

namespace binarynet::avx512_vpopcntdq {
namespace {

constexpr int32_t kMostChunks = 8;  // of a block
constexpr int32_t kMostCentredChunks = 15;
constexpr int64_t kTableBytes = 32 * 1024;  // of a flat tile, to stay in the nearest cache

// A run of taps has full chunks and perhaps a last one of 1 to 15 taps, which needs 1 to 3 tables.
struct Layout {
  bool flat, centred;
  int32_t runs, words, groups;
  int64_t run_taps, run_full, run_chunks;
  int64_t chunks, blocks, block_chunks;
  int32_t tail;       // tables of the last chunk, 0 if it is full
  int64_t run_bytes;  // of the tables of a run
};

Layout make_layout(const Block& b) {
  Layout l = {};
  l.flat = is_flat(b);
  const Source source = describe_source(b, l.flat, 1, b.in_c, 1);
  l.runs = source.runs;
  l.run_taps = source.run_bytes;
  l.run_full = l.run_taps / kChunkTaps;
  l.run_chunks = divide_up(l.run_taps, kChunkTaps);
  l.chunks = l.runs * l.run_chunks;
  l.centred = l.flat && l.chunks > kMostChunks;  // where nothing is outside of the image
  l.blocks = divide_up(l.chunks, l.centred ? kMostCentredChunks : kMostChunks);
  l.block_chunks = divide_up(l.chunks, l.blocks);
  l.tail = tail_tables(l.run_taps % kChunkTaps);
  l.run_bytes = l.run_full * kChunkBytes + tail_bytes(l.tail);
  l.words = static_cast<int32_t>(divide_up(b.out_c, kWordChannels));
  l.groups = static_cast<int32_t>(divide_up(l.words, kGroupWords));
  return l;
}

// One block: its 16-bit sums are the result.
bool is_narrow(const Block& b, const Layout& l) { return l.blocks == 1 && b.output == BlockOutput::bits; }

// Widened, a word's 64 sums are in the order of `wide_place`: even and odd channels of 32 apart.
int32_t wide_place(int32_t channel) { return channel / 32 * 32 + channel % 2 * 16 + channel % 32 / 2; }

struct Prepared {
  uint16_t* weights;  // [group][chunk][channel of the group]: bit i is tap i of the chunk
  Classes classes;    // bounds in the order of wide_place()
  int16_t* bounds;    // [class][channel] if narrow
  size_t bytes;
};

Prepared carve_prepared(const Block& b, const Layout& l, void* memory) {
  Carver carver = {static_cast<uint8_t*>(memory), 0};
  Prepared p = {};
  const int64_t width = l.words * int64_t{kWordChannels};
  p.weights = carver.take<uint16_t>(l.chunks * width);
  p.classes = carve_classes(b, l.flat, width, &carver);
  p.bounds = carver.take<int16_t>(is_narrow(b, l) ? p.classes.count() * width : 0);
  p.bytes = carver.used;
  return p;
}

uint16_t* chunk_weights(const Layout& l, const Prepared& p, int32_t word, int64_t chunk) {
  const int32_t group = word / kGroupWords;
  const int64_t group_words = smaller(kGroupWords, l.words - group * kGroupWords);
  const int64_t before = l.chunks * group * kGroupWords + chunk * group_words + word % kGroupWords;
  return p.weights + before * kWordChannels;
}

void prepare_weights(const Block& b, const Layout& l, const Prepared& p) {
  const int64_t pixels = static_cast<int64_t>(b.kernel_h) * b.kernel_w;
  const int64_t pixel_words = divide_up(b.in_c, 64);
  memset(p.weights, 0, static_cast<size_t>(l.chunks * l.words) * kWordChannels * sizeof(uint16_t));
  for (int32_t word = 0; word < l.words; ++word) {
    const int32_t channels = static_cast<int32_t>(smaller(kWordChannels, b.out_c - word * kWordChannels));
    for (int32_t channel = 0; channel < channels; ++channel) {
      const uint64_t* from = b.weights + (word * kWordChannels + channel) * pixels * pixel_words;
      if (pixels == 1) {  // a dense layer; training prepares its weights in every step
        for (int64_t chunk = 0; chunk < l.chunks; ++chunk) {
          const uint64_t bits = from[chunk / 4] >> (chunk % 4 * kChunkTaps);
          chunk_weights(l, p, word, chunk)[channel] = static_cast<uint16_t>(bits);
        }
        continue;
      }
      for (int64_t tap = 0; tap < pixels * b.in_c; ++tap) {
        const uint64_t bit = from[tap / b.in_c * pixel_words + tap % b.in_c / 64] >> (tap % b.in_c % 64) & 1;
        const int64_t at = tap % l.run_taps;
        const int64_t chunk = tap / l.run_taps * l.run_chunks + at / kChunkTaps;
        uint16_t* lane = chunk_weights(l, p, word, chunk) + channel;
        *lane = static_cast<uint16_t>(*lane | bit << (at % kChunkTaps));
      }
    }
  }
}

void arrange_bounds(const Block& b, const Layout& l, const Prepared& p) {
  for (int64_t word = 0; word < p.classes.count() * l.words; ++word) {
    int32_t* bounds = p.classes.bounds + word * kWordChannels;
    int32_t in_order[kWordChannels];
    memcpy(in_order, bounds, sizeof(in_order));
    for (int32_t channel = 0; channel < kWordChannels; ++channel) {
      const int64_t bound = in_order[channel];
      bounds[wide_place(channel)] = in_order[channel];
      if (!is_narrow(b, l)) continue;
      p.bounds[word * kWordChannels + channel] =
          static_cast<int16_t>(smaller(larger(bound, INT16_MIN), INT16_MAX));
    }
  }
}

// ---- Tiles

Tiling make_byte_tiling(const Block& b, const Layout& l, int64_t batch) {
  if (!l.flat) {  // the more rows, the fewer tables are made twice
    const int64_t rows = int64_t{4} * b.conv_w;
    const Tiling large = tiles_of(b, batch, larger(512, rows));
    return large.tiles * l.groups >= units_wanted(b, 2) ? large : tiles_of(b, batch, larger(256, rows));
  }
  const int64_t fitting = kTableBytes / (l.block_chunks * kChunkBytes);
  return tiles_of(b, batch, smaller(256, fitting / kStrip * kStrip));
}

struct Workspace {
  uint8_t* source;
  uint8_t* tables;
  Pixel* pixels;      // of the tile; their taps are tables
  Segment* segments;  // of all of K
  int32_t* counts;    // [word][pixel][kWordChannels]: of all words if tables are made in several passes
  int32_t* final_sums;
  uint64_t* bits;  // [word of the group][pixel] if pooled
  int64_t pixel_count;
  int64_t pass_chunks;  // chunks whose tables exist at a time
  int64_t source_rows;  // of one image of a tile, not flat
  size_t bytes;
};

int64_t source_rows(const Block& b, int64_t conv_rows) { return (conv_rows - 1) * b.stride_h + b.kernel_h; }

Workspace carve_workspace(const Block& b, const Layout& l, const Tiling& tiling, void* memory) {
  Carver carver = {static_cast<uint8_t*>(memory), 0};
  Workspace w = {};
  w.pixel_count = most_pixels(b, tiling);
  w.pass_chunks = l.chunks;
  int64_t table_bytes = 0;
  if (l.flat) {
    const int64_t blocks = kTableBytes / (w.pixel_count * l.block_chunks * kChunkBytes);
    w.pass_chunks = smaller(l.chunks, larger(1, blocks) * l.block_chunks);
    table_bytes = w.pixel_count * w.pass_chunks * kChunkBytes;
  } else {
    w.source_rows = source_rows(b, most_conv_rows(b, tiling));
    table_bytes = tiling.images_per_tile * w.source_rows * b.conv_w * l.run_bytes;
  }
  w.source = carver.take<uint8_t>(l.flat ? 0 : source_bytes(b, tiling, b.in_c, 1));
  w.tables = carver.take<uint8_t>(table_bytes);
  w.pixels = carver.take<Pixel>(w.pixel_count);
  w.segments = carver.take<Segment>(l.chunks);
  const int64_t words = w.pass_chunks < l.chunks ? l.words : kGroupWords;
  w.counts = carver.take<int32_t>(is_narrow(b, l) ? 0 : words * w.pixel_count * kWordChannels);
  w.final_sums = carver.take<int32_t>(kWordChannels);
  w.bits = carver.take<uint64_t>(has_pool(b) ? kGroupWords * w.pixel_count : 0);
  w.bytes = carver.used;
  return w;
}

void list_segments(const Block& b, const Layout& l, const Workspace& w) {
  Segment* to = w.segments;
  for (int64_t chunk = 0; chunk < l.chunks;) {
    const int64_t at = chunk % l.run_chunks;
    const int64_t left = smaller(l.block_chunks - chunk % l.block_chunks, l.run_chunks - at);
    const bool tail = l.tail != 0 && at + left == l.run_chunks;
    const int64_t run_offset = l.flat ? 0 : chunk / l.run_chunks * b.conv_w * l.run_bytes;
    chunk += left;
    *to++ = {run_offset + at % w.pass_chunks * kChunkBytes, left - (tail ? 1 : 0), tail ? l.tail : 0,
             chunk % l.block_chunks == 0 || chunk == l.chunks};
  }
}

// What the channel groups of one tile share.
struct Job {
  const Block& b;
  const Layout& l;
  const Prepared& p;
  const Workspace& w;
  const Tile& tile;
  const uint8_t* in;
  void* out;
};

// Where a pixel's tables lie, in the terms of simd_source.h.
Source aim_tables(const Job& job) {
  Source s = {};
  s.base = job.w.tables;
  if (job.l.flat) {
    s.col_stride = job.w.pass_chunks * kChunkBytes;
    return s;
  }
  s.col_stride = job.l.run_bytes;
  s.row_stride = job.b.conv_w * job.l.run_bytes * job.b.stride_h;
  s.image_stride = source_rows(job.b, job.tile.conv_rows) * job.b.conv_w * job.l.run_bytes;
  return s;
}

// Chunks [begin, end) of a run.
template <bool kCentred>
void make_tables(const Layout& l, const TableMaker<kCentred>& make, const uint8_t* taps, int64_t begin,
                 int64_t end, uint8_t* to) {
  for (int64_t chunk = begin; chunk < smaller(end, l.run_full); ++chunk, to += kChunkBytes) {
    make.full_chunk(taps + chunk * kChunkTaps, to);
  }
  if (end > l.run_full) make.tail(taps + l.run_full * kChunkTaps, l.run_taps % kChunkTaps, to);
}

// One input row of a convolution.
void make_row_tables(const Job& job, const TableMaker<false>& make, const uint8_t* taps, int64_t col_stride,
                     uint8_t* to) {
  const Layout l = job.l;
  if (l.run_taps == 9) {
    for (int32_t col = 0; col < job.b.conv_w; ++col, taps += col_stride, to += 128) make.nine(taps, to);
    return;
  }
  for (int32_t col = 0; col < job.b.conv_w; ++col, taps += col_stride, to += l.run_bytes) {
    make_tables(l, make, taps, 0, l.run_chunks, to);
  }
}

// The tables of chunks [begin, end) for all pixels of the tile.
template <bool kCentred>
void make_flat_tables(const Job& job, int64_t begin, int64_t end) {
  const Source source = load_source(job.b, job.tile, true, job.in, job.b.in_c, 1, nullptr);
  const TableMaker<kCentred> make;
  const uint8_t* taps = source.base;
  uint8_t* to = job.w.tables;
  for (int32_t col = 0; col < job.tile.cols; ++col, taps += source.col_stride) {
    make_tables(job.l, make, taps, begin, end, to);
    to += job.w.pass_chunks * kChunkBytes;
  }
}

void make_tile_tables(const Job& job, int64_t begin, int64_t end) {
  if (job.l.flat) {
    job.l.centred ? make_flat_tables<true>(job, begin, end) : make_flat_tables<false>(job, begin, end);
    return;
  }
  const Source source = load_source(job.b, job.tile, false, job.in, job.b.in_c, 1, job.w.source);
  const TableMaker<false> make;
  const int64_t rows = job.tile.images * source_rows(job.b, job.tile.conv_rows);
  for (int64_t row = 0; row < rows; ++row) {
    uint8_t* to = job.w.tables + row * job.b.conv_w * job.l.run_bytes;
    make_row_tables(job, make, source.base + row * source.run_stride, source.col_stride, to);
  }
}

// Words of a group, its counts, and where its results go.
OutputScratch scratch_of(const Job& job, int32_t word) {
  const Workspace& w = job.w;
  const int64_t at = w.pass_chunks < job.l.chunks ? word : word % kGroupWords;
  return {w.counts + at * w.pixel_count * kWordChannels, w.final_sums,
          w.bits + word % kGroupWords * w.pixel_count};
}

// From the order of wide_place() to that of channels.
void order_counts(int32_t* counts, int64_t pixels) {
  const __m512i low = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
  const __m512i high = _mm512_add_epi32(low, _mm512_set1_epi32(8));
  for (const int32_t* end = counts + pixels * kWordChannels; counts < end; counts += 32) {
    const __m512i even = _mm512_load_si512(counts);
    const __m512i odd = _mm512_load_si512(counts + 16);
    _mm512_store_si512(counts, _mm512_permutex2var_epi32(even, low, odd));
    _mm512_store_si512(counts + 16, _mm512_permutex2var_epi32(even, high, odd));
  }
}

// Chunks from `begin` on of one channel group.
void run_channel_group(const Job& job, int32_t group, int64_t begin, const Segment* segments,
                       const Segment* segments_end) {
  const Layout& l = job.l;
  const int32_t first_word = group * kGroupWords;
  const int32_t words = static_cast<int32_t>(smaller(kGroupWords, l.words - first_word));
  Call call = {};
  call.pixels = job.w.pixels;
  call.num_pixels = tile_pixels(job.tile);
  call.segments = segments;
  call.segments_end = segments_end;
  call.weights = chunk_weights(l, job.p, first_word, begin);
  call.first = begin == 0;
  call.last = begin + job.w.pass_chunks >= l.chunks;
  call.narrow = is_narrow(job.b, l);
  call.counts = scratch_of(job, first_word).counts;
  call.word_counts = job.w.pixel_count * kWordChannels;
  call.narrow_bounds = job.p.bounds + first_word * kWordChannels;
  for (int32_t k = 0; k < words; ++k) {
    call.output[k] =
        aim_output(job.b, job.p.classes, job.tile, first_word + k, scratch_of(job, first_word + k), job.out);
  }
  words == kGroupWords ? run_pixels<2 * kGroupWords>(call) : run_pixels<2>(call);
  for (int32_t word = first_word; call.last && word < first_word + words; ++word) {
    if (job.b.output != BlockOutput::bits) order_counts(scratch_of(job, word).counts, call.num_pixels);
    finish_output(job.b, l.flat, job.p.classes, job.tile, word, scratch_of(job, word), job.out);
  }
}

// Channel groups [begin, end) of one tile, table by table.
void run_tile(const Job& job, int32_t begin, int32_t end) {
  list_pixels(aim_tables(job), job.p.classes, job.tile, job.w.pixels);
  const Segment* segment = job.w.segments;
  for (int64_t chunk = 0; chunk < job.l.chunks; chunk += job.w.pass_chunks) {
    const int64_t chunks = smaller(job.w.pass_chunks, job.l.chunks - chunk);
    const Segment* stop = segment;
    for (int64_t blocks = divide_up(chunks, job.l.block_chunks); blocks > 0; ++stop)
      blocks -= stop->ends_block;
    make_tile_tables(job, chunk, chunk + chunks);
    for (int32_t group = begin; group < end; ++group) run_channel_group(job, group, chunk, segment, stop);
    segment = stop;
  }
}

size_t prepared_bytes(const Block& block) { return carve_prepared(block, make_layout(block), nullptr).bytes; }

void prepare(const Block& block, void* prepared) {
  const Layout layout = make_layout(block);
  const Prepared p = carve_prepared(block, layout, prepared);
  prepare_weights(block, layout, p);
  prepare_classes(block, layout.flat, p.classes, layout.centred ? PixelCount::centred : PixelCount::plain);
  if (block.output == BlockOutput::bits) arrange_bounds(block, layout, p);
}

int64_t unit_count(const Block& block, int64_t batch) {
  const Layout layout = make_layout(block);
  return make_byte_tiling(block, layout, batch).tiles * layout.groups;
}

size_t workspace_bytes(const Block& block, int64_t batch) {
  const Layout layout = make_layout(block);
  return carve_workspace(block, layout, make_byte_tiling(block, layout, batch), nullptr).bytes;
}

void run(const Block& block, const void* prepared, const void* in, void* out, int64_t batch,
         int64_t unit_begin, int64_t unit_end, void* workspace) {
  const Layout layout = make_layout(block);
  const Tiling tiling = make_byte_tiling(block, layout, batch);
  const Prepared p = carve_prepared(block, layout, const_cast<void*>(prepared));
  const Workspace w = carve_workspace(block, layout, tiling, workspace);
  list_segments(block, layout, w);
  const auto run_groups = [&](const Tile& tile, int32_t first, int32_t last) {
    const Job job = {block, layout, p, w, tile, static_cast<const uint8_t*>(in), out};
    run_tile(job, first, last);
  };
  for_each_tile(block, tiling, layout.groups, unit_begin, unit_end, run_groups);
}

const Method kMethod = {"table look-ups of 5 and 6 pixels", unit_count, workspace_bytes, run};

const Method& method(const Block& /*block*/, int64_t /*batch*/) { return kMethod; }

}  // namespace

const Engine kByteLookups = {prepared_bytes, prepare, method};

}  // namespace binarynet::avx512_vpopcntdq
