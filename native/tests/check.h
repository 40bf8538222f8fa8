// The little that the tests need of a framework: the first failure prints where and what, and ends the
// program.
#pragma once

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "binarynet.h"

namespace binarynet_tests {

[[noreturn]] inline void fail(const char* file, int line, const std::string& text) {
  std::fprintf(stderr, "%s:%d: %s\n", file, line, text.c_str());
  std::exit(1);
}

#define CHECK(condition, text)                                                                          \
  do {                                                                                                  \
    if (!(condition)) binarynet_tests::fail(__FILE__, __LINE__, std::string(#condition ": ") + (text)); \
  } while (false)

#define CHECK_OK(call) CHECK((call) == BINARYNET_OK, binarynet_last_error())

// A small generator whose numbers are the same everywhere (splitmix64).
class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed) {}
  uint64_t next() {
    uint64_t z = (state_ += 0x9e3779b97f4a7c15);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    return z ^ (z >> 31);
  }
  // Uniform in [low, high].
  int64_t between(int64_t low, int64_t high) {
    return low + static_cast<int64_t>(next() % static_cast<uint64_t>(high - low + 1));
  }
  bool one_in(int64_t n) { return between(1, n) == 1; }
  template <class Item>
  Item pick(const std::vector<Item>& items) {
    return items[static_cast<size_t>(between(0, static_cast<int64_t>(items.size()) - 1))];
  }

 private:
  uint64_t state_;
};

// The instruction sets that work here.
inline std::vector<std::string> usable_isas() {
  std::vector<std::string> names;
  for (int32_t i = 0; i < binarynet_isa_count(); ++i) {
    if (binarynet_isa_why_not(i)[0] == '\0') names.push_back(binarynet_isa_name(i));
  }
  return names;
}

void test_api();
void test_kernels(uint64_t seed, uint64_t rounds);
void test_limits();
void test_networks(uint64_t seed);
void test_whole_sessions();
void test_threads(uint64_t seed);
void test_training(uint64_t seed);

}  // namespace binarynet_tests
