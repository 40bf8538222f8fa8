// The portable kernels: plain C++ with 128-bit vectors that every compiler here lowers to what its target
// has.
//
// Vector lanes are output channels ("vertical"): one activation word is XORed with the same word of eight
// channels, disagreements are counted per byte and widened only when a byte could overflow. Zero padding is
// exact because taps outside of the image are left out of both the count and the number of taps.
//
// The first layer adds, for a bit 1, the byte u, and nothing for a bit 0: with P = sum of u where the weight
// is +1, U = sum of all u, and N of n taps having weight +1,
//   sum of (2u - 255) * w  =  2 * (2P - U) - 255 * (2N - n).
#include <cstring>

#include "kernels.h"

namespace binarynet {
namespace {

typedef uint64_t Words __attribute__((vector_size(16)));   // one word of two channels
typedef uint16_t Counts __attribute__((vector_size(16)));  // eight channels

constexpr int64_t kGroup = 8;        // channels computed together
constexpr int64_t kSpan = 64;        // channels of one unit: one output word
constexpr int kWordsPerFlush = 31;   // 31 words add at most 248 to a byte
constexpr int kBytesPerFlush = 257;  // 257 bytes add at most 65535 to a 16-bit counter

int64_t groups(const Block& b) { return (b.out_c + kGroup - 1) / kGroup; }

int64_t taps(const Block& b) { return int64_t{b.kernel_h} * b.kernel_w; }

struct Range {
  int32_t begin, end;
};

// Taps of a window that lie inside of the image along one axis; empty if none does.
Range inside(int32_t first, int32_t kernel, int32_t length) {
  const Range range{first < 0 ? -first : 0, first + kernel > length ? length - first : kernel};
  return range.begin < range.end ? range : Range{0, 0};
}

// Prepared weights of packed inputs: [groups][taps][words][8 channels] words.
// Prepared weights of byte inputs: [groups][taps][channels] bytes, bit i of a byte being channel i of the
// group; then, for each group and tap, the number of +1 weights of each of the 8 channels: int32
// [groups][taps][8].
size_t prepared_bytes(const Block& b) {
  const size_t group_taps = static_cast<size_t>(groups(b) * taps(b));
  if (b.input == BlockInput::bits) return group_taps * static_cast<size_t>(b.in_words) * kGroup * 8;
  const size_t masks = (group_taps * static_cast<size_t>(b.in_c) + 63) / 64 * 64;
  return masks + group_taps * kGroup * sizeof(int32_t);
}

const int32_t* positives_of(const Block& b, const void* prepared) {
  const size_t masks = (static_cast<size_t>(groups(b) * taps(b) * b.in_c) + 63) / 64 * 64;
  return reinterpret_cast<const int32_t*>(static_cast<const char*>(prepared) + masks);
}

void prepare(const Block& b, void* prepared) {
  const int64_t weight_words = (int64_t{b.in_c} + 63) / 64;
  std::memset(prepared, 0, prepared_bytes(b));
  auto* lanes = static_cast<uint64_t*>(prepared);
  auto* masks = static_cast<uint8_t*>(prepared);
  auto* positives = const_cast<int32_t*>(positives_of(b, prepared));
  for (int64_t channel = 0; channel < b.out_c; ++channel) {
    const int64_t lane = channel % kGroup;
    for (int64_t tap = 0; tap < taps(b); ++tap) {
      const uint64_t* source = b.weights + (channel * taps(b) + tap) * weight_words;
      const int64_t row = channel / kGroup * taps(b) + tap;
      if (b.input == BlockInput::bits) {
        for (int64_t word = 0; word < weight_words; ++word) {
          lanes[(row * weight_words + word) * kGroup + lane] = source[word];
        }
        continue;
      }
      int32_t positive = 0;
      for (int64_t c = 0; c < b.in_c; ++c) {
        const unsigned bit = (source[c / 64] >> (c % 64)) & 1;
        masks[row * b.in_c + c] = static_cast<uint8_t>(masks[row * b.in_c + c] | (bit << lane));
        positive += static_cast<int32_t>(bit);
      }
      positives[row * kGroup + lane] = positive;
    }
  }
}

// Per byte: the number of ones in it.
inline Words count_bytes(Words x) {
  const Words k55 = {0x5555555555555555, 0x5555555555555555};
  const Words k33 = {0x3333333333333333, 0x3333333333333333};
  const Words k0f = {0x0f0f0f0f0f0f0f0f, 0x0f0f0f0f0f0f0f0f};
  x = x - ((x >> 1) & k55);
  x = (x & k33) + ((x >> 2) & k33);
  return (x + (x >> 4)) & k0f;
}

// Per word: the sum of its bytes.
inline Words sum_bytes(Words x) {
  const Words k00ff = {0x00ff00ff00ff00ff, 0x00ff00ff00ff00ff};
  x = (x & k00ff) + ((x >> 8) & k00ff);
  x = x + (x >> 16);
  x = x + (x >> 32);
  return x & Words{0xffff, 0xffff};
}

inline Words load(const uint64_t* from) {
  Words words;
  std::memcpy(&words, from, sizeof(words));
  return words;
}

// Sums of eight channels at one position of a convolution over packed inputs.
// `image` is the image's first word; taps ys x xs lie inside of it, the window's corner is at (top, left).
void sums_of_bits(const Block& b, const uint64_t* weights, const uint64_t* image, int32_t top, int32_t left,
                  Range ys, Range xs, int32_t* sums) {
  Words total[4] = {};
  Words bytes0 = {}, bytes1 = {}, bytes2 = {}, bytes3 = {};
  int room = kWordsPerFlush;
  for (int32_t y = ys.begin; y < ys.end; ++y) {
    // The taps of one row are neighbours, in the image as well as in the weights.
    const uint64_t* a = image + (int64_t{top + y} * b.in_w + left + xs.begin) * b.in_words;
    const uint64_t* w = weights + (int64_t{y} * b.kernel_w + xs.begin) * b.in_words * kGroup;
    const int64_t n = int64_t{xs.end - xs.begin} * b.in_words;
    for (int64_t i = 0; i < n;) {
      const int64_t stop = n - i < room ? n : i + room;
      room -= static_cast<int>(stop - i);
      for (; i < stop; ++i, w += kGroup) {
        const Words activation = {a[i], a[i]};
        bytes0 += count_bytes(activation ^ load(w));
        bytes1 += count_bytes(activation ^ load(w + 2));
        bytes2 += count_bytes(activation ^ load(w + 4));
        bytes3 += count_bytes(activation ^ load(w + 6));
      }
      if (room == 0) {
        total[0] += sum_bytes(bytes0);
        total[1] += sum_bytes(bytes1);
        total[2] += sum_bytes(bytes2);
        total[3] += sum_bytes(bytes3);
        bytes0 = bytes1 = bytes2 = bytes3 = Words{};
        room = kWordsPerFlush;
      }
    }
  }
  total[0] += sum_bytes(bytes0);
  total[1] += sum_bytes(bytes1);
  total[2] += sum_bytes(bytes2);
  total[3] += sum_bytes(bytes3);
  const int32_t num_taps = (ys.end - ys.begin) * (xs.end - xs.begin) * b.in_c;
  for (int lane = 0; lane < kGroup; ++lane) {
    sums[lane] = num_taps - 2 * static_cast<int32_t>(total[lane / 2][lane % 2]);
  }
}

// For each byte of weights, all ones in the 16-bit lanes of its set bits.
struct LaneMasks {
  alignas(16) uint16_t rows[256][kGroup];
};

constexpr LaneMasks make_lane_masks() {
  LaneMasks masks{};
  for (int byte = 0; byte < 256; ++byte) {
    for (int lane = 0; lane < kGroup; ++lane) masks.rows[byte][lane] = (byte >> lane) & 1 ? 0xffff : 0;
  }
  return masks;
}

constexpr LaneMasks kLaneMasks = make_lane_masks();

inline Counts mask_of(uint8_t weights) {
  Counts mask;
  std::memcpy(&mask, kLaneMasks.rows[weights], sizeof(mask));
  return mask;
}

// The same over bytes; `positives` are those of this group, [taps][8].
void sums_of_bytes(const Block& b, const uint8_t* weights, const int32_t* positives, const uint8_t* image,
                   int32_t top, int32_t left, Range ys, Range xs, int32_t* sums) {
  int32_t total[kGroup] = {};         // P
  int32_t num_positive[kGroup] = {};  // N
  int32_t all = 0;                    // U
  Counts partial = {};
  int room = kBytesPerFlush;
  const auto flush = [&] {
    for (int lane = 0; lane < kGroup; ++lane) total[lane] += partial[lane];
    partial = Counts{};
    room = kBytesPerFlush;
  };
  for (int32_t y = ys.begin; y < ys.end; ++y) {
    const uint8_t* a = image + (int64_t{top + y} * b.in_w + left + xs.begin) * b.in_c;
    const int64_t first_tap = int64_t{y} * b.kernel_w + xs.begin;
    const uint8_t* w = weights + first_tap * b.in_c;
    const int64_t n = int64_t{xs.end - xs.begin} * b.in_c;
    for (int64_t i = 0; i < n;) {
      const int64_t stop = n - i < room ? n : i + room;
      room -= static_cast<int>(stop - i);
      for (; i < stop; ++i) {
        const uint16_t u = a[i];
        all += u;
        partial += mask_of(w[i]) & Counts{u, u, u, u, u, u, u, u};
      }
      if (room == 0) flush();
    }
    for (int32_t x = 0; x < xs.end - xs.begin; ++x) {
      const int32_t* counts = positives + (first_tap + x) * kGroup;
      for (int lane = 0; lane < kGroup; ++lane) num_positive[lane] += counts[lane];
    }
  }
  flush();
  const int32_t num_taps = (ys.end - ys.begin) * (xs.end - xs.begin) * b.in_c;
  for (int lane = 0; lane < kGroup; ++lane) {
    sums[lane] = 2 * (2 * total[lane] - all) - 255 * (2 * num_positive[lane] - num_taps);
  }
}

// Sums of `num_groups` groups of channels at one position of the convolution, before pooling.
void convolve(const Block& b, const void* prepared, int64_t first_group, int64_t num_groups, const void* in,
              int64_t image, int32_t conv_y, int32_t conv_x, int32_t* sums) {
  const int32_t top = conv_y * b.stride_h - b.pad_h;
  const int32_t left = conv_x * b.stride_w - b.pad_w;
  const Range ys = inside(top, b.kernel_h, b.in_h);
  const Range xs = inside(left, b.kernel_w, b.in_w);
  const int64_t pixels = int64_t{b.in_h} * b.in_w;
  for (int64_t i = 0; i < num_groups; ++i) {
    const int64_t row = (first_group + i) * taps(b);
    if (b.input == BlockInput::bits) {
      sums_of_bits(b, static_cast<const uint64_t*>(prepared) + row * b.in_words * kGroup,
                   static_cast<const uint64_t*>(in) + image * pixels * b.in_words, top, left, ys, xs,
                   sums + i * kGroup);
    } else {
      sums_of_bytes(
          b, static_cast<const uint8_t*>(prepared) + row * b.in_c, positives_of(b, prepared) + row * kGroup,
          static_cast<const uint8_t*>(in) + image * pixels * b.in_c, top, left, ys, xs, sums + i * kGroup);
    }
  }
}

// One output pixel, 64 channels (or as many as there are): the maximum over the pooling window.
void pooled_sums(const Block& b, const void* prepared, int64_t span, const void* in, int64_t image, int32_t y,
                 int32_t x, int64_t num_groups, int32_t* best) {
  const int32_t top = y * b.pool_stride_h - b.pool_pad_h;
  const int32_t left = x * b.pool_stride_w - b.pool_pad_w;
  const Range ys = inside(top, b.pool_h, b.conv_h);
  const Range xs = inside(left, b.pool_w, b.conv_w);
  const int64_t first_group = span * (kSpan / kGroup);
  convolve(b, prepared, first_group, num_groups, in, image, top + ys.begin, left + xs.begin, best);
  int32_t sums[kSpan];
  for (int32_t pool_y = ys.begin; pool_y < ys.end; ++pool_y) {
    for (int32_t pool_x = xs.begin; pool_x < xs.end; ++pool_x) {
      if (pool_y == ys.begin && pool_x == xs.begin) continue;
      convolve(b, prepared, first_group, num_groups, in, image, top + pool_y, left + pool_x, sums);
      for (int64_t i = 0; i < num_groups * kGroup; ++i) best[i] = sums[i] > best[i] ? sums[i] : best[i];
    }
  }
}

// A unit is one row of output pixels of one image in one span of 64 channels; spans are numbered slowest, so
// that a contiguous range of units keeps to the same weights.
int64_t unit_count(const Block& b, int64_t batch) { return b.out_words * batch * b.out_h; }

size_t workspace_bytes(const Block& /*block*/, int64_t /*batch*/) { return 0; }

void run(const Block& b, const void* prepared, const void* in, void* out, int64_t batch, int64_t unit_begin,
         int64_t unit_end, void*) {
  for (int64_t unit = unit_begin; unit < unit_end; ++unit) {
    const int64_t span = unit / (batch * b.out_h);
    const int64_t row = unit % (batch * b.out_h);
    const int64_t first_channel = span * kSpan;
    const int64_t channels = b.out_c - first_channel < kSpan ? b.out_c - first_channel : kSpan;
    const int64_t num_groups = (channels + kGroup - 1) / kGroup;
    for (int32_t x = 0; x < b.out_w; ++x) {
      int32_t sums[kSpan];
      pooled_sums(b, prepared, span, in, row / b.out_h, static_cast<int32_t>(row % b.out_h), x, num_groups,
                  sums);
      const int64_t pixel = row * b.out_w + x;
      const int64_t first_sum = pixel * b.out_c + first_channel;
      if (b.output == BlockOutput::int32) {
        std::memcpy(static_cast<int32_t*>(out) + first_sum, sums,
                    static_cast<size_t>(channels) * sizeof(int32_t));
        continue;
      }
      if (b.output == BlockOutput::float32) {
        for (int64_t i = 0; i < channels; ++i) {
          static_cast<float*>(out)[first_sum + i] = static_cast<float>(sums[i]);
        }
        continue;
      }
      uint64_t bits = 0;
      for (int64_t i = 0; i < channels; ++i) {
        bits |= static_cast<uint64_t>(sums[i] >= b.thresholds[first_channel + i]) << i;
      }
      static_cast<uint64_t*>(out)[pixel * b.out_words + span] = bits ^ b.falling[span];
    }
  }
}

const Method kCounting = {"popcount by byte counters", unit_count, workspace_bytes, run};
const Method kAdding = {"masked additions of bytes", unit_count, workspace_bytes, run};

const Method& method(const Block& b, int64_t /*batch*/) {
  return b.input == BlockInput::bytes ? kAdding : kCounting;
}

const Engine kEngine = {prepared_bytes, prepare, method};

const Engine& engine(const Block& /*block*/) { return kEngine; }

}  // namespace

const KernelSet kPortableKernels = {"portable", engine};

}  // namespace binarynet
