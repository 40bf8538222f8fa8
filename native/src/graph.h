// The graph as its user builds it: a list of checked values. Nothing here knows of kernels.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "binarynet.h"

namespace binarynet {

enum class Op { input, convolution, max_pool, threshold, affine, flatten };

// Parameters of an operation; immutable, shared by the graph and the sessions made from it.
struct Parameters {
  std::vector<uint64_t> weights;    // convolution: [out_c][kernel_h][kernel_w][words]
  std::vector<int32_t> thresholds;  // threshold: [c]
  std::vector<uint64_t> falling;    // threshold: [words]
  std::vector<float> scale, shift;  // affine: [c]
};

struct Value {
  Op op;
  binarynet_value source;  // -1 for the input
  binarynet_value_info info;
  binarynet_window window;  // convolution, max_pool
  std::shared_ptr<const Parameters> parameters;
};

// What bounds every size, so that no later arithmetic can overflow: values of one image have at most this
// many elements, and the magnitude of every sum fits float32 exactly.
constexpr int64_t kMaxElements = int64_t{1} << 28;
constexpr int64_t kMaxSum = int64_t{1} << 24;
constexpr int32_t kMaxValues = 1 << 16;

class Graph {
 public:
  // type: BINARYNET_U8 or BINARYNET_BITS
  binarynet_value add_input(binarynet_type type, int64_t h, int64_t w, int64_t c);
  binarynet_value add_convolution(binarynet_value source, const binarynet_window& window,
                                  int64_t out_channels, const uint64_t* weights, size_t num_weight_words);
  binarynet_value add_max_pool(binarynet_value source, const binarynet_window& window);
  binarynet_value add_threshold(binarynet_value source, const int32_t* thresholds, const uint64_t* falling,
                                size_t num_channels);
  binarynet_value add_affine(binarynet_value source, const float* scale, const float* shift,
                             size_t num_channels);
  binarynet_value add_flatten(binarynet_value source);

  // Throws if there is no such value; `where` opens the text.
  const Value& value(binarynet_value index, const char* where) const;
  const std::vector<Value>& values() const { return values_; }

 private:
  binarynet_value add(Value value, const char* where);

  std::vector<Value> values_;
};

// Words of one pixel of a BITS value.
constexpr int64_t words(int64_t channels) { return (channels + 63) / 64; }

// Padding bits of the last word of each of `rows` rows of packed bits must be 0. Returns the first offending
// row or -1.
int64_t first_padded_row(const uint64_t* bits, int64_t rows, int64_t channels);

// Bytes of one image of a value.
int64_t bytes_per_image(const binarynet_value_info& info);

}  // namespace binarynet
