// The engine of the AVX2 kernel set for packed bits: weights and bounds, and which method serves a block.
#include <cstring>

#include "avx2.h"
#include "avx2_layout.h"
#include "avx2_methods.h"

namespace binarynet::avx2 {
namespace {

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

// ---- Methods

// By cycles per 64 channels of a tile, measured on a Zen 5: pairs take one per group of K and sum; tables,
// per word of K, a constant to make them and some per sum, of which the offsets serve all channels. The
// constant is a little more than measured there (500): other processors store only once per cycle.
const Method& choose_method(const Block& b, int64_t batch) {
  constexpr int64_t kFewestSums = 100;  // below, tables lose whatever the shape
  const int64_t all_sums = batch * b.conv_h * b.conv_w;
  if (is_flat(b) && all_sums == 1) return kColumn;
  if (all_sums < kFewestSums) return kPairs;
  const double sums = tables_tile_sums(b, batch);
  const double words = static_cast<double>(b.kernel_h) * b.kernel_w * b.in_words;
  const double pairs = static_cast<double>(make_layout(b).groups) * sums;
  const double tables = words * (620 + sums * (10 + 4.0 / b.out_words));
  return pairs <= tables ? kPairs : kTables;
}

size_t prepared_bytes(const Block& block) { return carve_prepared(block, make_layout(block), nullptr).bytes; }

void prepare(const Block& block, void* prepared) {
  const Layout layout = make_layout(block);
  const Prepared p = carve_prepared(block, layout, prepared);
  prepare_weights(block, layout, p.weights);
  prepare_classes(block, layout.flat, p.classes);
  if (layout.result == Flush::bits) prepare_unpacked_bounds(block, p.classes, p.bounds);
}

}  // namespace

const Engine kBits = {prepared_bytes, prepare, choose_method};

}  // namespace binarynet::avx2
