// How the AVX-512 kernels on packed bits keep their weights: one layout, from which every method starts,
// because a session learns the batch (and so the best method) only when it runs. See simd_tiles.h for why
// everything is in an anonymous namespace.
//
// A group is 64 channels. Its vectors hold one 64-bit word of K for 8 channels each and come in pairs of 16
// channels: lane i of the even one is channel 2i, of the odd one channel 2i + 1. The last group has only as
// many pairs as it needs.
#pragma once

#include <cstring>

#include "simd_classes.h"
#include "simd_output.h"
#include "simd_tiles.h"

namespace binarynet {
namespace {

struct BitsPrepared {
  uint64_t* weights;  // [channel group][word of K][2 * pairs][8]
  Classes classes;
  size_t bytes;
};

inline int32_t channel_groups(const Block& b) {
  return static_cast<int32_t>(divide_up(b.out_c, kWordChannels));
}

// Pairs of vectors that a channel group needs.
inline int32_t group_pairs(const Block& b, int32_t group) {
  return static_cast<int32_t>(smaller(4, divide_up(b.out_c - group * kWordChannels, 16)));
}

inline int64_t words_of_k(const Block& b) {
  return static_cast<int64_t>(b.kernel_h) * b.kernel_w * b.in_words;
}

inline const uint64_t* group_weights(const Block& b, const BitsPrepared& p, int32_t group) {
  return p.weights + group * words_of_k(b) * kWordChannels;  // all groups before are full
}

inline BitsPrepared carve_bits_prepared(const Block& b, void* memory) {
  const int32_t groups = channel_groups(b);
  const int64_t channels = (groups - 1) * int64_t{kWordChannels} + 16 * group_pairs(b, groups - 1);
  Carver carver = {static_cast<uint8_t*>(memory), 0};
  BitsPrepared p = {};
  p.weights = carver.take<uint64_t>(words_of_k(b) * channels);
  p.classes = carve_classes(b, is_flat(b), groups * int64_t{kWordChannels}, &carver);
  p.bytes = carver.used;
  return p;
}

}  // namespace
}  // namespace binarynet
