// A network under test: every operation goes into a binarynet_graph and is computed at once by naive loops
// over unpacked integers, image by image, as the header's text defines it.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "binarynet.h"
#include "check.h"

namespace binarynet_tests {

// One value for a whole batch: bits as 0 / 1, [batch, h, w, c].
struct Tensor {
  binarynet_value_info info;
  std::vector<int32_t> numbers;  // u8, bits, i32
  std::vector<float> floats;     // f32
};

// How weights are chosen: at random; so that some sums reach +K and others -K; all alike.
enum class Weights { random, correlated, ones, zeros };

// How the images are chosen: at random (any bytes, or 0 and 255 only); all white.
enum class Pixels { random, white };

class Network {
 public:
  Network(int64_t batch, int64_t h, int64_t w, int64_t c, Random* random, Pixels pixels = Pixels::random,
          binarynet_type type = BINARYNET_U8);
  ~Network() { binarynet_graph_free(graph_); }
  Network(const Network&) = delete;
  Network& operator=(const Network&) = delete;

  binarynet_value convolution(binarynet_value source, const binarynet_window& window, int64_t out_channels,
                              Weights weights);
  binarynet_value max_pool(binarynet_value source, const binarynet_window& window);
  // Thresholds at, next to and out of reach of the sums that occur.
  binarynet_value threshold(binarynet_value source);
  binarynet_value affine(binarynet_value source);
  binarynet_value flatten(binarynet_value source);

  const binarynet_graph* graph() const { return graph_; }
  const Tensor& tensor(binarynet_value value) const { return tensors_[static_cast<size_t>(value)]; }
  binarynet_value last() const { return static_cast<binarynet_value>(tensors_.size()) - 1; }
  int64_t batch() const { return batch_; }

  // Run a session for these outputs and compare every byte.
  void check(const std::vector<binarynet_value>& outputs, const std::string& isa, int32_t num_threads) const;
  // The same with a session that exists.
  void check_run(const binarynet_session* session, const std::vector<binarynet_value>& outputs) const;
  std::string describe() const { return description_; }

 private:
  binarynet_value add(binarynet_value value, Tensor tensor, const std::string& text);
  int32_t signed_value(const Tensor& tensor, int64_t image, int64_t y, int64_t x, int64_t c) const;

  int64_t batch_;
  Random* random_;
  binarynet_graph* graph_ = nullptr;
  std::vector<Tensor> tensors_;
  std::string description_;
};

// Bytes of a tensor in the header's layout.
std::vector<uint8_t> layout(const Tensor& tensor, int64_t batch);
// 0 / 1 integers, rows of `channels` packed to words.
std::vector<uint64_t> pack(const std::vector<int32_t>& bits, int64_t channels);

// A random window that fits the source.
binarynet_window random_window(Random* random, const binarynet_value_info& source, int64_t max_kernel);

}  // namespace binarynet_tests
