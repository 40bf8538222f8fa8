#include "ops.h"

#include <algorithm>
#include <cstring>

namespace binarynet {
namespace {

struct Range {
  int64_t begin, end;
};

// Input positions under window `index` along one axis, those outside of the image left out (never empty).
Range window_range(int64_t index, int64_t kernel, int64_t stride, int64_t pad, int64_t length) {
  const int64_t first = index * stride - pad;
  return {std::max<int64_t>(first, 0), std::min(first + kernel, length)};
}

// Maximum of int32 or of bit vectors (OR): one loop for both.
template <class Element, class Combine>
void max_pool(const OpGeometry& g, int64_t pixel_elements, const Element* in, Element* out, int64_t row_begin,
              int64_t row_end, Combine combine) {
  const binarynet_window& window = g.window;
  for (int64_t row = row_begin; row < row_end; ++row) {
    const Element* image = in + row / g.out_h * g.in_h * g.in_w * pixel_elements;
    const Range ys = window_range(row % g.out_h, window.kernel_h, window.stride_h, window.pad_h, g.in_h);
    for (int64_t x = 0; x < g.out_w; ++x) {
      const Range xs = window_range(x, window.kernel_w, window.stride_w, window.pad_w, g.in_w);
      Element* result = out + (row * g.out_w + x) * pixel_elements;
      std::memcpy(result, image + (ys.begin * g.in_w + xs.begin) * pixel_elements,
                  static_cast<size_t>(pixel_elements) * sizeof(Element));
      for (int64_t in_y = ys.begin; in_y < ys.end; ++in_y) {
        for (int64_t in_x = xs.begin; in_x < xs.end; ++in_x) {
          const Element* tap = image + (in_y * g.in_w + in_x) * pixel_elements;
          for (int64_t i = 0; i < pixel_elements; ++i) result[i] = combine(result[i], tap[i]);
        }
      }
    }
  }
}

}  // namespace

void max_pool_i32(const OpGeometry& geometry, const int32_t* in, int32_t* out, int64_t row_begin,
                  int64_t row_end) {
  max_pool(geometry, geometry.channels, in, out, row_begin, row_end,
           [](int32_t a, int32_t b) { return std::max(a, b); });
}

void max_pool_bits(const OpGeometry& geometry, const uint64_t* in, uint64_t* out, int64_t row_begin,
                   int64_t row_end) {
  max_pool(geometry, words(geometry.channels), in, out, row_begin, row_end,
           [](uint64_t a, uint64_t b) { return a | b; });
}

void threshold_rows(const OpGeometry& geometry, const Parameters& parameters, const int32_t* in,
                    uint64_t* out, int64_t row_begin, int64_t row_end) {
  const int64_t channels = geometry.channels;
  const int64_t pixel_words = words(channels);
  const int32_t* thresholds = parameters.thresholds.data();
  for (int64_t pixel = row_begin * geometry.out_w; pixel < row_end * geometry.out_w; ++pixel) {
    const int32_t* sums = in + pixel * channels;
    for (int64_t word = 0; word < pixel_words; ++word) {
      const int64_t first = word * 64;
      const int64_t count = std::min<int64_t>(64, channels - first);
      uint64_t bits = 0;
      for (int64_t i = 0; i < count; ++i) {
        bits |= static_cast<uint64_t>(sums[first + i] >= thresholds[first + i]) << i;
      }
      out[pixel * pixel_words + word] = bits ^ parameters.falling[static_cast<size_t>(word)];
    }
  }
}

void affine_rows(const OpGeometry& geometry, const Parameters& parameters, const int32_t* in, float* out,
                 int64_t row_begin, int64_t row_end) {
  const int64_t channels = geometry.channels;
  const float* scale = parameters.scale.data();
  const float* shift = parameters.shift.data();
  for (int64_t pixel = row_begin * geometry.out_w; pixel < row_end * geometry.out_w; ++pixel) {
    const int32_t* sums = in + pixel * channels;
    float* result = out + pixel * channels;
    for (int64_t i = 0; i < channels; ++i) {
      const float product = static_cast<float>(sums[i]) * scale[i];  // compiled with -ffp-contract=off
      result[i] = product + shift[i];
    }
  }
}

void flatten_bits(int64_t pixels, int64_t channels, const uint64_t* in, uint64_t* out, int64_t image_begin,
                  int64_t image_end) {
  const int64_t pixel_words = words(channels);
  const int64_t out_words = words(pixels * channels);
  for (int64_t image = image_begin; image < image_end; ++image) {
    const uint64_t* source = in + image * pixels * pixel_words;
    uint64_t* target = out + image * out_words;
    std::memset(target, 0, static_cast<size_t>(out_words) * sizeof(uint64_t));
    int64_t position = 0;
    for (int64_t pixel = 0; pixel < pixels; ++pixel) {
      for (int64_t word = 0; word < pixel_words; ++word) {
        // A word's padding bits are 0, so only whether it reaches into the next word needs care.
        const int64_t count = std::min<int64_t>(64, channels - word * 64);
        const uint64_t bits = source[pixel * pixel_words + word];
        const int64_t shift = position % 64;
        target[position / 64] |= bits << shift;
        if (shift + count > 64) target[position / 64 + 1] |= bits >> (64 - shift);
        position += count;
      }
    }
  }
}

}  // namespace binarynet
