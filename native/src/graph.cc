#include "graph.h"

#include <cmath>
#include <utility>

#include "error.h"

namespace binarynet {
namespace {

// [h, w, c] positive, and h * w * c within the limit (divisions instead of products: no overflow).
void check_shape(const char* where, int64_t h, int64_t w, int64_t c) {
  if (h < 1 || w < 1 || c < 1) {
    invalid(where, ": shape ", shape_text(h, w, c), ": height, width and channels must be at least 1");
  }
  if (h > kMaxElements || w > kMaxElements / h || c > kMaxElements / h / w) {
    invalid(where, ": shape ", shape_text(h, w, c), " is too large: an image may have at most ", kMaxElements,
            " elements");
  }
}

// Output length of a window along one axis; throws unless every window lies on at least one element.
int64_t window_length(const char* where, const char* axis, int64_t length, int64_t kernel, int64_t stride,
                      int64_t pad) {
  if (kernel < 1 || kernel > kMaxElements) {
    invalid(where, ": kernel ", axis, " is ", kernel, ", expected 1 to ", kMaxElements);
  }
  if (stride < 1 || stride > kMaxElements) {
    invalid(where, ": stride ", axis, " is ", stride, ", expected 1 to ", kMaxElements);
  }
  if (pad < 0 || pad >= kernel) {
    invalid(where, ": padding ", axis, " is ", pad, ", expected 0 to ", kernel - 1,
            " (smaller than the kernel)");
  }
  if (length + 2 * pad < kernel) {
    invalid(where, ": kernel ", axis, " ", kernel, " is larger than the padded ", axis, " ", length + 2 * pad,
            " of its source");
  }
  return (length + 2 * pad - kernel) / stride + 1;
}

void check_window(const char* where, const binarynet_window& window, const binarynet_value_info& source,
                  binarynet_value_info* result) {
  result->h = window_length(where, "height", source.h, window.kernel_h, window.stride_h, window.pad_h);
  result->w = window_length(where, "width", source.w, window.kernel_w, window.stride_w, window.pad_w);
}

void require_type(const char* where, binarynet_value source, const binarynet_value_info& info,
                  binarynet_type expected) {
  if (info.type != expected) {
    invalid(where, ": value ", source, " is ", value_text(info), ", expected ", type_name(expected));
  }
}

void require_channels(const char* where, size_t given, int64_t expected) {
  if (given != static_cast<size_t>(expected)) {
    invalid(where, ": parameters for ", given, " channels, but the source has ", expected);
  }
}

}  // namespace

int64_t first_padded_row(const uint64_t* bits, int64_t rows, int64_t channels) {
  const int64_t used = channels % 64;
  if (used == 0) return -1;
  const int64_t row_words = words(channels);
  for (int64_t row = 0; row < rows; ++row) {
    if ((bits[(row + 1) * row_words - 1] >> used) != 0) return row;
  }
  return -1;
}

int64_t bytes_per_image(const binarynet_value_info& info) {
  const int64_t pixels = info.h * info.w;
  switch (info.type) {
    case BINARYNET_U8:
      return pixels * info.c;
    case BINARYNET_BITS:
      return pixels * words(info.c) * 8;
    case BINARYNET_I32:
    case BINARYNET_F32:
      return pixels * info.c * 4;
  }
  return 0;
}

const Value& Graph::value(binarynet_value index, const char* where) const {
  if (index < 0 || static_cast<size_t>(index) >= values_.size()) {
    invalid(where, ": there is no value ", index, ": the graph has ", values_.size(), " values");
  }
  return values_[static_cast<size_t>(index)];
}

binarynet_value Graph::add(Value value, const char* where) {
  check_shape(where, value.info.h, value.info.w, value.info.c);
  if (values_.size() >= static_cast<size_t>(kMaxValues)) {
    invalid(where, ": a graph may have at most ", kMaxValues, " values");
  }
  values_.push_back(std::move(value));
  return static_cast<binarynet_value>(values_.size()) - 1;
}

binarynet_value Graph::add_input(binarynet_type type, int64_t h, int64_t w, int64_t c) {
  if (!values_.empty()) invalid("input: the graph has an input already; it is added first and once");
  return add({Op::input, -1, {type, h, w, c}, {}, nullptr}, "input");
}

binarynet_value Graph::add_convolution(binarynet_value source, const binarynet_window& window,
                                       int64_t out_channels, const uint64_t* weights,
                                       size_t num_weight_words) {
  const char* where = "convolution";
  const binarynet_value_info info = value(source, where).info;
  if (info.type != BINARYNET_U8 && info.type != BINARYNET_BITS) {
    invalid(where, ": value ", source, " is ", value_text(info), ", expected u8 or bits");
  }
  binarynet_value_info result{BINARYNET_I32, 0, 0, out_channels};
  check_window(where, window, info, &result);
  check_shape(where, result.h, result.w, result.c);

  const int64_t magnitude = info.type == BINARYNET_U8 ? 255 : 1;
  const int64_t limit = kMaxSum / magnitude;
  if (window.kernel_h > limit || window.kernel_w > limit / window.kernel_h ||
      info.c > limit / window.kernel_h / window.kernel_w) {
    invalid(where, ": a fan-in of ", window.kernel_h, " x ", window.kernel_w, " x ", info.c,
            " is too large: sums over ", type_name(info.type), " are exact up to a fan-in of ", limit);
  }
  // Below 2^24 * 2^28 = 2^52 words.
  const int64_t rows = out_channels * window.kernel_h * window.kernel_w;
  const int64_t expected = rows * words(info.c);
  if (num_weight_words != static_cast<uint64_t>(expected)) {
    invalid(where, ": ", num_weight_words, " weight words, expected ", out_channels, " x ", window.kernel_h,
            " x ", window.kernel_w, " x ", words(info.c), " = ", expected);
  }
  const int64_t row = first_padded_row(weights, rows, info.c);
  if (row >= 0) {
    invalid(where, ": padding bits of the weights of output channel ",
            row / (window.kernel_h * window.kernel_w), " are not 0: of each last word only the lowest ",
            info.c % 64, " bits are used");
  }
  auto parameters = std::make_shared<Parameters>();
  parameters->weights.assign(weights, weights + num_weight_words);
  return add({Op::convolution, source, result, window, std::move(parameters)}, where);
}

binarynet_value Graph::add_max_pool(binarynet_value source, const binarynet_window& window) {
  const char* where = "max_pool";
  const binarynet_value_info info = value(source, where).info;
  if (info.type != BINARYNET_I32 && info.type != BINARYNET_BITS) {
    invalid(where, ": value ", source, " is ", value_text(info), ", expected i32 or bits");
  }
  binarynet_value_info result = info;
  check_window(where, window, info, &result);
  return add({Op::max_pool, source, result, window, nullptr}, where);
}

binarynet_value Graph::add_threshold(binarynet_value source, const int32_t* thresholds,
                                     const uint64_t* falling, size_t num_channels) {
  const char* where = "threshold";
  binarynet_value_info info = value(source, where).info;
  require_type(where, source, info, BINARYNET_I32);
  require_channels(where, num_channels, info.c);
  if (first_padded_row(falling, 1, info.c) >= 0) {
    invalid(where, ": padding bits of falling are not 0: of the last word only the lowest ", info.c % 64,
            " bits are used");
  }
  auto parameters = std::make_shared<Parameters>();
  parameters->thresholds.assign(thresholds, thresholds + num_channels);
  parameters->falling.assign(falling, falling + words(info.c));
  info.type = BINARYNET_BITS;
  return add({Op::threshold, source, info, {}, std::move(parameters)}, where);
}

binarynet_value Graph::add_affine(binarynet_value source, const float* scale, const float* shift,
                                  size_t num_channels) {
  const char* where = "affine";
  binarynet_value_info info = value(source, where).info;
  require_type(where, source, info, BINARYNET_I32);
  require_channels(where, num_channels, info.c);
  for (size_t channel = 0; channel < num_channels; ++channel) {
    if (!std::isfinite(scale[channel]) || !std::isfinite(shift[channel])) {
      invalid(where, ": scale and shift of channel ", channel, " are ", scale[channel], " and ",
              shift[channel], ", expected finite numbers");
    }
  }
  auto parameters = std::make_shared<Parameters>();
  parameters->scale.assign(scale, scale + num_channels);
  parameters->shift.assign(shift, shift + num_channels);
  info.type = BINARYNET_F32;
  return add({Op::affine, source, info, {}, std::move(parameters)}, where);
}

binarynet_value Graph::add_flatten(binarynet_value source) {
  const char* where = "flatten";
  const binarynet_value_info info = value(source, where).info;
  return add({Op::flatten, source, {info.type, 1, 1, info.h * info.w * info.c}, {}, nullptr}, where);
}

}  // namespace binarynet
