// The inner loops of the AVX2 kernels for packed bits: counting disagreements (bits of a XOR w) by table
// look-up.
//
// Lanes are output channels, so that there is no horizontal sum and bits of neighbouring channels come out
// together. A step handles one *group*: 4 bits of K for 32 channels per vector (one nibble of weights per
// byte lane). A byte shuffle looks up, for each channel's nibble a, an entry of a table row chosen by the
// activations. For a *pair* of output columns with nibbles n1 and n2, row n1 | n2 << 4 of a constant table
// holds
//
//     entry a = popcount(a ^ n1) | popcount(a ^ n2) << 4
//
// so one shuffle counts 4 bits of 32 channels for both columns. Three groups (a triple) add up to at most 12
// in each nibble: x = x0 + x1 + x2 has no carry between the nibbles. Over a block of K two byte sums are
// kept,
//
//     total += x (mod 256, may wrap)        high += x >> 4 (exact: at most 12 * 21 = 252 <= 255)
//
// and at the end of the block the low nibbles' sum (also at most 252) is total - 16 * high mod 256.
#pragma once

#include <cstddef>
#include <cstdint>

#include "avx2_flush.h"

namespace binarynet::avx2 {

constexpr int32_t kBlockTriples = 21;  // groups of a block of K: 63, 252 bits
constexpr int32_t kBlockGroups = 3 * kBlockTriples;
constexpr int32_t kTableRow = 16;  // bytes; pair indices are stored as offsets, index * kTableRow
constexpr int32_t kMostSegments = kBlockTriples;  // a segment has at least one triple

// A contiguous run of pair indices, relative to a pair's own position. Its weights follow those of the run
// before.
struct Segment {
  int64_t index;
  int32_t triples;
};

// One block of K for one channel group over all pairs of columns of a tile.
struct LutBlock {
  const uint16_t* index;
  int64_t image_stride, row_stride, pair_stride;  // of index
  int32_t images;
  Segment segments[kMostSegments];
  int32_t num_segments;
  const uint8_t* weights;  // unpacked: [group][vectors * 32]
  uint16_t* sums;          // [images][rows][pairs][2][vectors * 32], channels in unpack order
  Sink sink;               // pairs per row: (sink.cols + 1) / 2
};

// vectors: 1 to 4, the 32-channel vectors of the channel group.
void lut_block(int32_t vectors, const LutBlock& block);

// The same with packed weights (see unpack_groups), unpacked again for each pair of columns: for a few pairs
// that is cheaper than a copy of the block.
void lut_packed_block(int32_t vectors, const LutBlock& block);

// Weights of `groups` groups from one nibble per channel to one byte per channel.
// packed: [group][(vectors + 1) / 2][32]: low nibbles are the even vector, high nibbles the odd one.
void unpack_groups(int32_t vectors, const uint8_t* packed, int32_t groups, uint8_t* unpacked);

// Offsets of the table rows of two pixels. words * 16 entries are written; second may be all zeros.
void pair_offsets(const uint64_t* first, const uint64_t* second, int32_t words, uint16_t* offsets);

// One column (batch 1): streams the packed weights once. index: offsets of pairs whose second column is 0.
// prefetch: fetch weights 8 KB before they are needed; measured from memory 60 instead of 50 MAC/cycle, from
// a cache 4 % less.
void lut_column(int32_t vectors, const uint8_t* packed, const uint16_t* index, int64_t groups, bool prefetch,
                const Sink& sink);

}  // namespace binarynet::avx2
