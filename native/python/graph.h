// binarynet._native.Graph: a graph under construction.
#pragma once

#include <nanobind/nanobind.h>

#include <cstdint>
#include <string>
#include <tuple>
#include <utility>

#include "arrays.h"
#include "binarynet.h"

namespace binarynet_python {

using Pair = std::pair<int64_t, int64_t>;  // rows first

inline void check(binarynet_status status) {
  if (status != BINARYNET_OK) raise(status, binarynet_last_error());
}

inline binarynet_window make_window(Pair kernel, Pair stride, Pair padding) {
  return {kernel.first, kernel.second, stride.first, stride.second, padding.first, padding.second};
}

inline const char* type_name(binarynet_type type) {
  static const char* const names[] = {"u8", "bits", "i32", "f32"};
  return names[type];
}

class Graph {
 public:
  Graph() { check(binarynet_graph_create(&graph_)); }
  ~Graph() { binarynet_graph_free(graph_); }
  Graph(const Graph&) = delete;
  Graph& operator=(const Graph&) = delete;

  const binarynet_graph* get() const { return graph_; }

  binarynet_value_info info(binarynet_value value) const {
    binarynet_value_info info;
    check(binarynet_graph_value_info(graph_, value, &info));
    return info;
  }

  binarynet_value add_input(int64_t h, int64_t w, int64_t c) {
    binarynet_value value;
    check(binarynet_graph_add_input(graph_, h, w, c, &value));
    return value;
  }

  binarynet_value add_bits_input(int64_t h, int64_t w, int64_t c) {
    binarynet_value value;
    check(binarynet_graph_add_bits_input(graph_, h, w, c, &value));
    return value;
  }

  binarynet_value add_convolution(binarynet_value source, Pair kernel, Pair stride, Pair padding,
                                  int64_t out_channels, nb::handle weights) {
    const int64_t words = BINARYNET_WORDS(info(source).c);
    const Array array(weights, "convolution weights", 'Q',
                      {out_channels, kernel.first, kernel.second, words});
    const size_t num_words = static_cast<size_t>(array.length(0) * array.length(1) * array.length(2) * words);
    const binarynet_window window = make_window(kernel, stride, padding);
    binarynet_value value;
    check(binarynet_graph_add_convolution(graph_, source, &window, out_channels, array.data<uint64_t>(),
                                          num_words, &value));
    return value;
  }

  binarynet_value add_max_pool(binarynet_value source, Pair kernel, Pair stride, Pair padding) {
    const binarynet_window window = make_window(kernel, stride, padding);
    binarynet_value value;
    check(binarynet_graph_add_max_pool(graph_, source, &window, &value));
    return value;
  }

  binarynet_value add_threshold(binarynet_value source, nb::handle thresholds, nb::handle falling) {
    const int64_t channels = info(source).c;
    const Array threshold_array(thresholds, "thresholds", 'i', {channels});
    const Array falling_array(falling, "falling", 'Q', {BINARYNET_WORDS(channels)});
    binarynet_value value;
    check(binarynet_graph_add_threshold(graph_, source, threshold_array.data<int32_t>(),
                                        falling_array.data<uint64_t>(), static_cast<size_t>(channels),
                                        &value));
    return value;
  }

  binarynet_value add_affine(binarynet_value source, nb::handle scale, nb::handle shift) {
    const int64_t channels = info(source).c;
    const Array scale_array(scale, "scale", 'f', {channels});
    const Array shift_array(shift, "shift", 'f', {channels});
    binarynet_value value;
    check(binarynet_graph_add_affine(graph_, source, scale_array.data<float>(), shift_array.data<float>(),
                                     static_cast<size_t>(channels), &value));
    return value;
  }

  binarynet_value add_flatten(binarynet_value source) {
    binarynet_value value;
    check(binarynet_graph_add_flatten(graph_, source, &value));
    return value;
  }

  std::tuple<std::string, int64_t, int64_t, int64_t> value_info(binarynet_value value) const {
    const binarynet_value_info found = info(value);
    return {type_name(found.type), found.h, found.w, found.c};
  }

 private:
  binarynet_graph* graph_ = nullptr;
};

}  // namespace binarynet_python
