// The inner loops of the AVX2 kernels for packed bits, second method: tables of weights made at run time.
//
// Lanes are output channels, two per byte: low nibble channel i, high nibble channel i + 32 of 64 (which is
// how the weights are stored, see avx2_lut.h). A word of K (64 bits) is split into ten fields of 6 or 7 bits.
// A field of n bits has a table of 2^n entries of 64 nibbles, in the first-level cache; entry i is, per
// channel, the popcount of (i ^ weights of the field). Counting a field of one row of activations is then one
// load, and the row's word becomes, once for all channels, a list of offsets into the tables. Two fields add
// up to at most 14 in each nibble and are widened as in avx2_lut.h (total and high).
//
// Making the tables of a word costs as much as some 50 rows, so this pays where there are many.
#pragma once

#include <cstddef>
#include <cstdint>

#include "avx2_flush.h"

namespace binarynet::avx2 {

constexpr int32_t kTableLanes = 64;  // channels of a table
constexpr int32_t kTableFields = 10;
constexpr int32_t kTablesBytes = 28 * 1024;  // tables of one word: 6 * 2 KB + 4 * 4 KB
constexpr int32_t kWordGroups = 16;          // groups of 4 bits in a word
constexpr int32_t kWordsPerByteCount = 3;    // words of K that a byte can count: 192 disagreements
constexpr int64_t kOffsetSlack = 16;         // offsets are written 16 at a time

// The tables of one word of K for 64 channels, from packed weights (avx2_lut.h) whose groups are group_stride
// bytes apart. groups: 1 to 16, as many as the word has; the others count as 0.
void make_tables(const uint8_t* packed, int64_t group_stride, int32_t groups, uint8_t* to);

// Offsets of all fields of `pixels` pixels of `words` words, zeros if from is null:
// to[word * word_stride + pixel * kTableFields], and up to kOffsetSlack entries behind the last pixel.
void table_offsets(const uint64_t* from, int64_t pixels, int32_t words, int64_t word_stride, uint16_t* to);

// One word of K for 64 channels over all sums of a tile.
struct TablePass {
  const uint16_t* offsets;                       // of the tile's first sum
  int64_t image_stride, row_stride, col_stride;  // of offsets
  int32_t images;
  const uint8_t* tables;
  uint8_t* bytes;  // [images][rows][cols][2][32]: total and high of the passes since the last flush
  bool start;      // there are none
  bool flush;      // pass the counts on
  uint16_t* sums;  // [images][rows][cols][64], channels in unpack order
  Sink sink;
};

void count_by_tables(const TablePass& pass);

}  // namespace binarynet::avx2
