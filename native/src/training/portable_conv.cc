// Gradients of convolutions, in plain C++: the definition of what the other kernels compute.
#include <cstring>

#include "conv_kernels.h"

namespace binarynet::training {
namespace {

void pack_weights(const float* weights, int64_t in_c, int64_t taps, int64_t out_begin, int64_t out_end,
                  uint64_t* bits) {
  const int64_t words = row_words(in_c);
  weights += out_begin * in_c * taps;
  for (int64_t o = out_begin; o < out_end; ++o) {
    uint64_t* to = bits + o * taps * words;
    std::memset(to, 0, static_cast<size_t>(taps * words) * sizeof(uint64_t));
    for (int64_t i = 0; i < in_c; ++i) {
      for (int64_t tap = 0; tap < taps; ++tap, ++weights) {
        to[tap * words + i / kRowBits] |= static_cast<uint64_t>(!(*weights < 0)) << (i % kRowBits);
      }
    }
  }
}

bool bit_of(const uint64_t* bits, int64_t i) { return (bits[i / kRowBits] >> (i % kRowBits)) & 1; }

size_t no_bytes(const ConvShape&) { return 0; }

// ---- Input

// One group of output channels, from `channel` on, at one pixel of g.
float channel_group(const InputGradient& gradient, const float* g, int64_t channel, int64_t tap, int64_t in) {
  const ConvShape& s = gradient.shape;
  const int64_t words = row_words(s.in_c);
  const int64_t taps = s.kernel_h * s.kernel_w;
  float sum = 0;
  for (int64_t o = channel; o < channel + kGroupSteps && o < s.out_c; ++o) {
    const bool up = bit_of(gradient.weights + (o * taps + tap) * words, in);
    const float term = up ? g[o] : -g[o];
    sum = o == channel ? term : sum + term;
  }
  return sum;
}

float input_sum(const InputGradient& gradient, int64_t image, int64_t y, int64_t x, int64_t in) {
  const ConvShape& s = gradient.shape;
  float sum = 0;
  for (int64_t block = 0; block < s.out_c; block += kBlockChannels) {
    for (int64_t ky = 0; ky < s.kernel_h; ++ky) {
      for (int64_t kx = 0; kx < s.kernel_w; ++kx) {
        const int64_t row = y + s.pad_h - ky;
        const int64_t col = x + s.pad_w - kx;
        if (row < 0 || row >= s.out_h || col < 0 || col >= s.out_w) continue;
        const float* g = gradient.g + ((image * s.out_h + row) * s.out_w + col) * s.out_c;
        for (int64_t o = block; o < block + kBlockChannels && o < s.out_c; o += kGroupSteps) {
          sum += channel_group(gradient, g, o, ky * s.kernel_w + kx, in);
        }
      }
    }
  }
  return sum;
}

void input_prepare(const InputGradient&, void*) {}

void input_run(const InputGradient& gradient, const void*, int64_t image, int64_t row_begin, int64_t row_end,
               void*) {
  const ConvShape& s = gradient.shape;
  for (int64_t y = row_begin; y < row_end; ++y) {
    for (int64_t x = 0; x < s.in_w; ++x) {
      float* out = gradient.out + ((image * s.in_h + y) * s.in_w + x) * s.in_c;
      for (int64_t in = 0; in < s.in_c; ++in) out[in] = input_sum(gradient, image, y, x, in);
    }
  }
}

// ---- Weights

// One group of columns, from `col` on, of row `row` of the batch, for the tap that looks at pixels `shift`
// columns away, in the row of the input that begins at `pixels`.
float column_group(const WeightGradient& gradient, int64_t row, int64_t col, const uint64_t* pixels,
                   int64_t shift, int64_t out, int64_t in) {
  const ConvShape& s = gradient.shape;
  float sum = 0;
  for (int64_t x = col; x < col + kGroupSteps && x < s.out_w; ++x) {
    if (x + shift < 0 || x + shift >= s.in_w) continue;
    const float value = gradient.g[(row * s.out_w + x) * s.out_c + out];
    sum += bit_of(pixels + (x + shift) * row_words(s.in_c), in) ? value : -value;
  }
  return sum;
}

float weight_sum(const WeightGradient& gradient, int64_t out, int64_t in, int64_t ky, int64_t kx) {
  const ConvShape& s = gradient.shape;
  const int64_t rows = s.batch * s.out_h;
  float total = 0;
  for (int64_t block = 0; block < rows; block += gradient.block_rows) {
    for (int64_t first = 0; first < s.out_w; first += kBlockColumns) {
      float sum = 0;
      for (int64_t row = block; row < block + gradient.block_rows && row < rows; ++row) {
        const int64_t y = row % s.out_h + ky - s.pad_h;
        if (y < 0 || y >= s.in_h) continue;
        const uint64_t* pixels = gradient.signs + (row / s.out_h * s.in_h + y) * s.in_w * row_words(s.in_c);
        for (int64_t col = first; col < first + kBlockColumns && col < s.out_w; col += kGroupSteps) {
          sum += column_group(gradient, row, col, pixels, kx - s.pad_w, out, in);
        }
      }
      total += sum;
    }
  }
  return total;
}

void weight_prepare(const WeightGradient&, void*, int64_t, int64_t) {}

size_t weight_workspace_bytes(const WeightGradient&) { return 0; }

void weight_run(const WeightGradient& gradient, const void*, int64_t out_begin, void*) {
  const ConvShape& s = gradient.shape;
  for (int64_t out = out_begin; out < out_begin + kUnitChannels && out < s.out_c; ++out) {
    float* to = gradient.out + out * s.in_c * s.kernel_h * s.kernel_w;
    for (int64_t in = 0; in < s.in_c; ++in) {
      for (int64_t ky = 0; ky < s.kernel_h; ++ky) {
        for (int64_t kx = 0; kx < s.kernel_w; ++kx) *to++ = weight_sum(gradient, out, in, ky, kx);
      }
    }
  }
}

}  // namespace

const ConvKernels kPortableConv = {pack_weights, no_bytes,       input_prepare,          no_bytes,  input_run,
                                   no_bytes,     weight_prepare, weight_workspace_bytes, weight_run};

}  // namespace binarynet::training
