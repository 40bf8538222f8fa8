// The AVX-512 VBMI kernel set: that of VPOPCNTDQ, with one more method on packed bits, for layers of many
// channels and many pixels.
#pragma once

#include "kernels.h"

namespace binarynet::avx512_vbmi {

// ---- Bit slices (avx512_vbmi_slices.cc), or few pixels by vector popcount: `prepared` begins with what
// avx512_vpopcntdq::kBits prepares.

extern const Engine kWideBits;
bool slices_possible(const Block& block);  // whether it can serve a block, and is worth its memory

// ---- Planes and look-up tables of one word of K for 512 channels (avx512_vbmi_tables.cc)

constexpr int32_t kSliceChannels = 512;
constexpr int32_t kWordPlanesBytes = 64 * 64;  // a plane per bit of K
constexpr int32_t kAdders = 32;                // each takes two bits of K
constexpr int32_t kTableBytes = 512;           // 8 rows of 512 bits
constexpr int32_t kAllTablesBytes = kAdders * kTableBytes;

// The weights of 8 channel groups (avx512_bits_layout.h), of which `pairs` is the number of pairs of vectors,
// at one word of K. 0 pairs: a group that does not exist.
struct WordWeights {
  const uint64_t* vectors[8];
  int32_t pairs[8];
};

// planes: kWordPlanesBytes, scratch: as many.
void slice_word(const WordWeights& weights, uint8_t* planes, uint8_t* scratch);

// `parity`: 64 bytes, the XOR of the planes of all words before this one; updated. tables: [adder][row][64].
void build_tables(const uint8_t* planes, uint8_t* parity, uint8_t* tables);

}  // namespace binarynet::avx512_vbmi
