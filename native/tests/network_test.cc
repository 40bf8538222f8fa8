// Whole networks through the C interface, on every instruction set, with one and two threads: only the last
// value (all fused), every value (nothing fused), and random choices with repetitions.
#include "network.h"

#include <algorithm>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "check.h"

namespace binarynet_tests {
namespace {

const std::vector<int64_t> kChannels = {1, 2, 3, 31, 33, 63, 64, 65, 127, 128, 129};
const std::vector<int64_t> kBatches = {1, 2, 7};

void check_everywhere(const Network& network, Random* random) {
  std::vector<binarynet_value> all;
  for (binarynet_value v = 0; v <= network.last(); ++v) all.push_back(v);
  std::vector<binarynet_value> some;
  const int64_t length = random->between(1, 4);
  for (int64_t i = 0; i < length; ++i) some.push_back(random->pick(all));
  for (const std::string& isa : usable_isas()) {
    for (const int32_t num_threads : {1, 2}) {
      network.check({network.last()}, isa, num_threads);
      network.check(all, isa, num_threads);
      network.check(some, isa, num_threads);
    }
  }
}

Weights random_weights(Random* random) {
  return random->pick<Weights>({Weights::random, Weights::random, Weights::correlated, Weights::correlated,
                                Weights::ones, Weights::zeros});
}

// A threshold with a max-pool before it, after it, both or none.
binarynet_value binarize(Network* network, binarynet_value sums, Random* random) {
  binarynet_value v = sums;
  if (random->one_in(3)) v = network->max_pool(v, random_window(random, network->tensor(v).info, 3));
  v = network->threshold(v);
  if (random->one_in(4)) v = network->max_pool(v, random_window(random, network->tensor(v).info, 3));
  return v;
}

// Channels are awkward, images not square; two or three convolutions, then a dense layer with scores.
void test_random_networks(uint64_t seed) {
  for (int64_t round = 0; round < 300; ++round) {
    Random random(seed * 1000 + static_cast<uint64_t>(round));
    const int64_t batch = round % 15 == 0 ? 0 : random.pick(kBatches);
    const bool bits = round % 5 == 4;
    const int64_t channels = bits ? random.pick(kChannels) : random.pick<int64_t>({1, 3, 5, 64});
    Network network(batch, random.between(1, 9), random.between(1, 9), channels, &random, Pixels::random,
                    bits ? BINARYNET_BITS : BINARYNET_U8);
    binarynet_value v = 0;
    if (bits && random.one_in(3)) v = network.max_pool(v, random_window(&random, network.tensor(v).info, 3));
    const int64_t depth = random.between(1, 3);
    for (int64_t layer = 0; layer < depth; ++layer) {
      const binarynet_window window = random_window(&random, network.tensor(v).info, layer == 0 ? 5 : 3);
      v = network.convolution(v, window, random.pick(kChannels), random_weights(&random));
      if (random.one_in(6)) network.affine(v);
      v = binarize(&network, v, &random);
    }
    v = network.flatten(v);
    v = network.convolution(v, {1, 1, 1, 1, 0, 0}, random.between(1, 12), random_weights(&random));
    network.affine(v);
    check_everywhere(network, &random);
  }
}

// Dense layers only, all batch sizes that matter to a kernel that tiles over the batch.
void test_dense_networks(uint64_t seed) {
  const std::vector<int64_t> batches = {0, 1, 2, 3, 7, 8, 15, 16, 17, 31, 33, 64, 65};
  for (size_t i = 0; i < batches.size(); ++i) {
    Random random(seed * 2000 + i);
    const int64_t hidden = random.pick<int64_t>({63, 130, 257});
    Network network(batches[i], 1, 1, random.pick<int64_t>({1, 33, 64, 300}), &random);
    binarynet_value v = network.convolution(0, {1, 1, 1, 1, 0, 0}, hidden, Weights::random);
    v = network.threshold(v);
    v = network.convolution(v, {1, 1, 1, 1, 0, 0}, random.pick(kChannels), Weights::correlated);
    v = network.threshold(v);
    v = network.convolution(v, {1, 1, 1, 1, 0, 0}, 10, Weights::random);
    network.affine(v);
    check_everywhere(network, &random);
  }
}

// Fan-ins around every size at which a counter of 8 or 16 bits might overflow, with sums of +K and -K.
void test_large_fan_in(uint64_t seed) {
  const binarynet_window dense{1, 1, 1, 1, 0, 0};
  for (const int64_t fan_in :
       {127, 128, 129, 257, 258, 515, 1029, 8191, 32769, 65793}) {  // 65793 * 255 = 2^24 - 1
    for (const Pixels pixels : {Pixels::random, Pixels::white}) {
      Random random(seed * 3000 + static_cast<uint64_t>(fan_in));
      Network network(2, 1, 1, fan_in, &random, pixels);
      for (const Weights weights : {Weights::correlated, Weights::ones, Weights::zeros}) {
        network.convolution(0, dense, 9, weights);
      }
      check_everywhere(network, &random);
    }
  }
  // So many pixels of so many bits, flattened.
  const std::vector<std::pair<int64_t, int64_t>> shapes = {{62, 32}, {31, 64},   {5, 397},   {64, 32},
                                                           {63, 65}, {127, 129}, {200, 165}, {257, 256}};
  for (const auto& shape : shapes) {
    Random random(seed * 3500 + static_cast<uint64_t>(shape.second));
    Network network(2, 1, shape.first, 1, &random);
    const binarynet_value sums = network.convolution(0, dense, shape.second, Weights::random);
    const binarynet_value bits = network.flatten(network.threshold(sums));
    for (const Weights weights : {Weights::correlated, Weights::ones, Weights::zeros}) {
      network.convolution(bits, dense, 33, weights);
    }
    check_everywhere(network, &random);
  }
}

// More images than one chunk holds, and intermediate values too large for a chunk of more than a few.
void test_chunks(uint64_t seed) {
  Random random(seed * 4000);
  Network small(2500, 1, 2, 3, &random);
  binarynet_value v = small.threshold(small.convolution(0, {1, 2, 1, 1, 0, 1}, 5, Weights::random));
  v = small.convolution(small.flatten(v), {1, 1, 1, 1, 0, 0}, 4, Weights::random);
  small.affine(v);
  check_everywhere(small, &random);

  Network large(6, 40, 33, 1, &random);
  v = large.convolution(0, {1, 1, 1, 1, 0, 0}, 200, Weights::random);  // 1 MB per image
  large.affine(v);
  v = large.threshold(v);
  v = large.max_pool(v, {3, 2, 2, 2, 1, 0});
  large.flatten(v);
  check_everywhere(large, &random);
}

// One session, batches of many sizes one after the other.
void test_changing_batches(uint64_t seed) {
  const std::vector<int64_t> batches = {1, 900, 3, 64, 0, 2, 1};
  std::vector<std::unique_ptr<Network>> networks;
  for (const int64_t batch : batches) {
    Random random(seed * 6000);  // the same network every time: nothing in it depends on the images
    networks.push_back(std::make_unique<Network>(batch, 2, 3, 5, &random, Pixels::white));
    Network& network = *networks.back();
    const binarynet_value sums = network.convolution(0, {2, 2, 1, 1, 0, 0}, 130, Weights::ones);
    network.max_pool(sums, {1, 2, 1, 1, 0, 1});
    network.max_pool(sums, {1, 1, 1, 1, 0, 0});
  }
  const std::vector<binarynet_value> outputs = {2, 3};  // the sums stay in the session's own memory
  for (const std::string& isa : usable_isas()) {
    const binarynet_session_options options{isa.c_str(), 1, outputs.data(), outputs.size()};
    binarynet_session* session = nullptr;
    CHECK_OK(binarynet_session_create(networks.front()->graph(), &options, &session));
    for (const auto& network : networks) network->check_run(session, outputs);
    binarynet_session_free(session);
  }
}

// One value with several users of several kinds: nothing may be fused away that somebody needs.
void test_shared_values(uint64_t seed) {
  for (uint64_t round = 0; round < 10; ++round) {
    Random random(seed * 5000 + round);
    Network network(3, 5, 6, 2, &random);
    const binarynet_value sums = network.convolution(0, {3, 3, 1, 1, 1, 1}, 70, Weights::random);
    const binarynet_value bits = network.threshold(sums);
    const binarynet_value pooled = network.max_pool(sums, {2, 2, 2, 2, 0, 0});
    const binarynet_value other_bits = network.threshold(sums);
    const binarynet_value pooled_bits = network.threshold(pooled);
    const binarynet_value flat = network.flatten(sums);
    const binarynet_value flat_bits = network.flatten(bits);
    const binarynet_value flat_images = network.flatten(0);
    const std::vector<binarynet_value> values = {
        sums,
        pooled,
        network.affine(flat),
        network.flatten(network.affine(sums)),
        network.convolution(flat_bits, {1, 1, 1, 1, 0, 0}, 3, Weights::random),
        network.convolution(flat_images, {1, 1, 1, 1, 0, 0}, 3, Weights::random),
        network.convolution(other_bits, {2, 3, 2, 1, 0, 2}, 5, Weights::random),
        network.max_pool(flat_bits, {1, 1, 1, 1, 0, 0}),
        network.threshold(flat),
        pooled_bits};
    std::vector<binarynet_value> some;
    for (const binarynet_value value : values) {
      if (random.one_in(2)) some.push_back(value);
    }
    if (some.empty()) some.push_back(flat_images);
    for (const std::string& isa : usable_isas()) network.check(some, isa, 2);
    check_everywhere(network, &random);
  }
}

}  // namespace

void test_networks(uint64_t seed) {
  test_random_networks(seed);
  test_dense_networks(seed);
  test_large_fan_in(seed);
  test_chunks(seed);
  test_changing_batches(seed);
  test_shared_values(seed);
}

}  // namespace binarynet_tests
