// Elementwise operations in plain C++: the definition of what the other kernels compute.
#include "elementwise_loops.h"

namespace binarynet::training {
namespace {

// Philox4x32-10, see ops/noise.py.
void philox(uint64_t block, uint64_t key, uint32_t words[4]) {
  uint32_t c0 = static_cast<uint32_t>(block);
  uint32_t c1 = static_cast<uint32_t>(block >> 32);
  uint32_t c2 = 0;
  uint32_t c3 = 0;
  uint32_t k0 = static_cast<uint32_t>(key);
  uint32_t k1 = static_cast<uint32_t>(key >> 32);
  for (int round = 0; round < 10; ++round) {
    const uint64_t p0 = uint64_t{c0} * 0xD2511F53u;
    const uint64_t p1 = uint64_t{c2} * 0xCD9E8D57u;
    c0 = static_cast<uint32_t>(p1 >> 32) ^ c1 ^ k0;
    c1 = static_cast<uint32_t>(p1);
    c2 = static_cast<uint32_t>(p0 >> 32) ^ c3 ^ k1;
    c3 = static_cast<uint32_t>(p0);
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  words[0] = c0;
  words[1] = c1;
  words[2] = c2;
  words[3] = c3;
}

// body(i, n) for each element, n its odd number.
template <class Body>
void with_noise(int64_t begin, int64_t end, uint64_t key, const Body& body) {
  for (int64_t i = begin; i < end; i += 4) {
    uint32_t words[4];
    philox(static_cast<uint64_t>(i / 4), key, words);
    for (int64_t j = 0; j < 4 && i + j < end; ++j) body(i + j, (words[j] >> 8) | 1u);
  }
}

template <class Body>
void with_noise_of_images(const Images& images, int64_t begin, int64_t end, uint64_t key, const Body& body) {
  const int64_t groups = images.pixels / kNoiseWords;
  for (int64_t group = begin; group < end; ++group) {
    for (int64_t channel = 0; channel < images.channels; ++channel) {
      uint32_t words[4];
      const int64_t block = (group / groups * images.channels + channel) * groups + group % groups;
      philox(static_cast<uint64_t>(block), key, words);
      for (int64_t j = 0; j < kNoiseWords; ++j) {
        body((group * kNoiseWords + j) * images.channels + channel, (words[j] >> 8) | 1u);
      }
    }
  }
}

float drawn_sign(float x, uint32_t n) {
  const float drawn = static_cast<float>(static_cast<int32_t>(n)) < (x + 1.0f) * 8388608.0f ? 1.0f : -1.0f;
  return x != x ? x : drawn;
}

void random_sign(const float* x, float* out, int64_t begin, int64_t end, uint64_t key) {
  with_noise(begin, end, key, [&](int64_t i, uint32_t n) { out[i] = drawn_sign(x[i], n); });
}

void drop(const float* x, float* out, int64_t begin, int64_t end, uint64_t key, uint32_t threshold) {
  with_noise(begin, end, key, [&](int64_t i, uint32_t n) { out[i] = n >= threshold ? x[i] : 0.0f; });
}

void random_sign_images(const float* x, float* out, const Images& images, int64_t begin, int64_t end,
                        uint64_t key) {
  with_noise_of_images(images, begin, end, key, [&](int64_t i, uint32_t n) { out[i] = drawn_sign(x[i], n); });
}

void drop_images(const float* x, float* out, const Images& images, int64_t begin, int64_t end, uint64_t key,
                 uint32_t threshold) {
  with_noise_of_images(images, begin, end, key,
                       [&](int64_t i, uint32_t n) { out[i] = n >= threshold ? x[i] : 0.0f; });
}

}  // namespace

const ElementwiseKernels kPortableElementwise = {
    sign_loop,          inside_window_loop, round_to_ap2_loop, random_sign, drop,
    random_sign_images, drop_images,        adam_loop,         ada_max_loop};

}  // namespace binarynet::training
