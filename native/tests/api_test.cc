// Every wrong call has its status and a text that says what was given and what was expected.
#include <cstdlib>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include "check.h"
#include "network.h"

namespace binarynet_tests {
namespace {

void expect(binarynet_status got, binarynet_status status, const std::vector<const char*>& parts, int line) {
  const std::string text = binarynet_last_error();
  if (got != status) {
    fail(__FILE__, line,
         "status " + std::to_string(got) + ", expected " + std::to_string(status) + ": " + text);
  }
  for (const char* part : parts) {
    if (text.find(part) == std::string::npos) {
      fail(__FILE__, line, "text '" + text + "' lacks '" + part + "'");
    }
  }
}

#define EXPECT_INVALID(call, ...) expect((call), BINARYNET_INVALID_ARGUMENT, {__VA_ARGS__}, __LINE__)

struct Fixture {
  Fixture() { CHECK_OK(binarynet_graph_create(&graph)); }
  ~Fixture() { binarynet_graph_free(graph); }
  binarynet_value input(int64_t h, int64_t w, int64_t c) {
    CHECK_OK(binarynet_graph_add_input(graph, h, w, c, &value));
    return value;
  }
  binarynet_status convolution(binarynet_value source, binarynet_window window, int64_t out, size_t words,
                               uint64_t fill = 0) {
    const std::vector<uint64_t> weights(words, fill);
    return binarynet_graph_add_convolution(graph, source, &window, out, weights.data(), words, &value);
  }
  binarynet_status pool(binarynet_value source, binarynet_window window) {
    return binarynet_graph_add_max_pool(graph, source, &window, &value);
  }
  binarynet_graph* graph = nullptr;
  binarynet_value value = -1;
};

constexpr int64_t kHuge = std::numeric_limits<int64_t>::max();

void test_inputs() {
  Fixture f;
  EXPECT_INVALID(binarynet_graph_add_input(f.graph, 0, 1, 1, &f.value), "input", "[0, 1, 1]", "at least 1");
  EXPECT_INVALID(binarynet_graph_add_input(f.graph, 1, -1, 1, &f.value), "[1, -1, 1]");
  EXPECT_INVALID(binarynet_graph_add_input(f.graph, kHuge, kHuge, kHuge, &f.value), "too large");
  EXPECT_INVALID(binarynet_graph_add_input(f.graph, 1 << 15, 1 << 15, 1, &f.value), "too large", "268435456");
  EXPECT_INVALID(binarynet_graph_add_input(f.graph, int64_t{1} << 32, int64_t{1} << 32, 1, &f.value),
                 "too large");
  EXPECT_INVALID(binarynet_graph_add_input(nullptr, 1, 1, 1, &f.value), "graph is null");
  EXPECT_INVALID(binarynet_graph_add_input(f.graph, 1, 1, 1, nullptr), "value is null");
  EXPECT_INVALID(f.convolution(0, {1, 1, 1, 1, 0, 0}, 1, 1), "no value 0", "0 values");
  f.input(5, 6, 3);
  EXPECT_INVALID(binarynet_graph_add_input(f.graph, 1, 1, 1, &f.value), "first and once");
  binarynet_value_info info;
  EXPECT_INVALID(binarynet_graph_value_info(f.graph, 1, &info), "no value 1");
  EXPECT_INVALID(binarynet_graph_value_info(f.graph, -1, &info), "no value -1");
}

void test_bits_inputs() {
  Fixture f;
  EXPECT_INVALID(binarynet_graph_add_bits_input(f.graph, 1, 1, 0, &f.value), "[1, 1, 0]", "at least 1");
  EXPECT_INVALID(binarynet_graph_add_bits_input(nullptr, 1, 1, 1, &f.value), "graph is null");
  CHECK_OK(binarynet_graph_add_bits_input(f.graph, 1, 2, 65, &f.value));
  EXPECT_INVALID(f.convolution(0, {1, 1, 1, 1, 0, 0}, 1, 65), "65 weight words", "1 x 1 x 1 x 2 = 2");
  CHECK_OK(f.convolution(0, {1, 1, 1, 1, 0, 0}, 1, 2));
  const binarynet_session_options options{nullptr, 1, &f.value, 1};
  binarynet_session* session = nullptr;
  CHECK_OK(binarynet_session_create(f.graph, &options, &session));
  std::vector<uint64_t> images(2 * 2 * 2, 0);
  int32_t sums[4];
  void* pointer = sums;
  CHECK_OK(binarynet_session_run(session, images.data(), 2, &pointer));
  CHECK(sums[3] == 65, "all taps agree");
  images[7] = 2;
  EXPECT_INVALID(binarynet_session_run(session, images.data(), 2, &pointer), "padding bits of image 1",
                 "lowest 1 bits");
  CHECK_OK(binarynet_session_run(session, images.data(), 1, &pointer));
  EXPECT_INVALID(binarynet_session_run(session, reinterpret_cast<char*>(images.data()) + 4, 1, &pointer),
                 "images (bits) are not aligned to 8 bytes");
  binarynet_session_free(session);
}

void test_windows() {
  Fixture f;
  f.input(5, 6, 3);
  EXPECT_INVALID(f.convolution(0, {0, 1, 1, 1, 0, 0}, 1, 1), "kernel height is 0");
  EXPECT_INVALID(f.convolution(0, {1, kHuge, 1, 1, 0, 0}, 1, 1), "kernel width is 9223372036854775807");
  EXPECT_INVALID(f.convolution(0, {1, 1, 0, 1, 0, 0}, 1, 1), "stride height is 0");
  EXPECT_INVALID(f.convolution(0, {1, 1, 1, -2, 0, 0}, 1, 1), "stride width is -2");
  EXPECT_INVALID(f.convolution(0, {3, 3, 1, 1, 3, 0}, 1, 9), "padding height is 3", "0 to 2");
  EXPECT_INVALID(f.convolution(0, {3, 3, 1, 1, 0, -1}, 1, 9), "padding width is -1");
  EXPECT_INVALID(f.convolution(0, {6, 1, 1, 1, 0, 0}, 1, 6), "kernel height 6", "5");
  EXPECT_INVALID(f.convolution(0, {1, 1, 1, 1, 0, 0}, 0, 1), "[5, 6, 0]");
  EXPECT_INVALID(f.convolution(0, {1, 1, 1, 1, 0, 0}, kHuge, 1), "too large");
  EXPECT_INVALID(f.convolution(0, {3, 3, 1, 1, 0, 0}, 2, 17), "17 weight words", "2 x 3 x 3 x 1 = 18");
  EXPECT_INVALID(f.convolution(0, {1, 1, 1, 1, 0, 0}, 2, 2, 8), "padding bits", "output channel 0",
                 "lowest 3");
  CHECK_OK(f.convolution(0, {1, 1, 1, 1, 0, 0}, 2, 2, 7));
  EXPECT_INVALID(f.convolution(1, {1, 1, 1, 1, 0, 0}, 2, 2), "value 1 is i32 [5, 6, 2]", "u8 or bits");
  EXPECT_INVALID(f.pool(0, {1, 1, 1, 1, 0, 0}), "value 0 is u8", "i32 or bits");
  EXPECT_INVALID(f.pool(1, {2, 2, 1, 1, 2, 0}), "padding height is 2");
  EXPECT_INVALID(f.pool(1, {2, 7, 1, 1, 0, 0}), "kernel width 7");
  EXPECT_INVALID(binarynet_graph_add_max_pool(f.graph, 1, nullptr, &f.value), "window is null");
  EXPECT_INVALID(binarynet_graph_add_convolution(f.graph, 0, nullptr, 1, nullptr, 0, &f.value),
                 "window is null");
}

void test_sums_stay_exact() {
  Fixture f;
  f.input(1, 1, 65794);
  EXPECT_INVALID(f.convolution(0, {1, 1, 1, 1, 0, 0}, 1, 1029), "fan-in of 1 x 1 x 65794", "65793");
  Fixture g;
  g.input(2, 1, 1);
  EXPECT_INVALID(g.convolution(0, {65794, 1, 1, 1, 65793, 0}, 1, 65794), "fan-in of 65794 x 1 x 1");
  EXPECT_INVALID(g.convolution(0, {1 << 27, 1 << 27, 1, 1, (1 << 27) - 1, (1 << 27) - 1}, 1, 1), "too large");
}

void test_parameters() {
  Fixture f;
  f.input(1, 1, 8);
  CHECK_OK(f.convolution(0, {1, 1, 1, 1, 0, 0}, 65, 65));
  const std::vector<int32_t> thresholds(65);
  std::vector<uint64_t> falling(2);
  std::vector<float> scale(65, 1.0f), shift(65, 0.0f);
  const auto threshold = [&](binarynet_value source, size_t channels) {
    return binarynet_graph_add_threshold(f.graph, source, thresholds.data(), falling.data(), channels,
                                         &f.value);
  };
  const auto affine = [&](binarynet_value source, size_t channels) {
    return binarynet_graph_add_affine(f.graph, source, scale.data(), shift.data(), channels, &f.value);
  };
  EXPECT_INVALID(threshold(0, 8), "value 0 is u8 [1, 1, 8]", "expected i32");
  EXPECT_INVALID(threshold(1, 64), "64 channels", "has 65");
  falling[1] = 2;
  EXPECT_INVALID(threshold(1, 65), "padding bits of falling", "lowest 1");
  falling[1] = 1;
  CHECK_OK(threshold(1, 65));
  EXPECT_INVALID(affine(2, 65), "value 2 is bits [1, 1, 65]", "expected i32");
  EXPECT_INVALID(affine(1, 66), "66 channels");
  scale[3] = std::numeric_limits<float>::quiet_NaN();
  EXPECT_INVALID(affine(1, 65), "channel 3", "finite");
  scale[3] = 1.0f;
  shift[64] = -std::numeric_limits<float>::infinity();
  EXPECT_INVALID(affine(1, 65), "channel 64", "finite");
  EXPECT_INVALID(binarynet_graph_add_threshold(f.graph, 1, nullptr, falling.data(), 65, &f.value),
                 "thresholds");
  EXPECT_INVALID(binarynet_graph_add_flatten(f.graph, 3, &f.value), "no value 3");
}

void test_too_much_memory() {
  // Each value is within its limit, all of them together are not: refused before anything is allocated.
  Fixture f;
  f.input(1 << 14, 1 << 14, 1);
  std::vector<binarynet_value> outputs;
  const std::vector<float> ones(1, 1.0f);
  const std::vector<binarynet_value> none;
  std::vector<binarynet_value> sums;
  for (int i = 0; i < 20; ++i) {
    CHECK_OK(f.convolution(0, {1, 1, 1, 1, 0, 0}, 1, 1));
    sums.push_back(f.value);
  }
  for (const binarynet_value sum : sums) {
    CHECK_OK(f.pool(sum, {1, 1, 1 << 14, 1 << 14, 0, 0}));
    CHECK_OK(f.pool(sum, {1, 1, 1 << 14, 1 << 14, 0, 0}));  // two users: the sums are needed
    outputs.push_back(f.value - 1);
    outputs.push_back(f.value);
  }
  const binarynet_session_options options{nullptr, 1, outputs.data(), outputs.size()};
  binarynet_session* session = nullptr;
  expect(binarynet_session_create(f.graph, &options, &session), BINARYNET_OUT_OF_MEMORY,
         {"intermediate values of one image need 21", "limit"}, __LINE__);
}

void test_sessions() {
  Fixture f;
  binarynet_session* session = nullptr;
  binarynet_value output = 0;
  binarynet_session_options options{nullptr, 1, &output, 1};
  EXPECT_INVALID(binarynet_session_create(f.graph, &options, &session), "no value 0");
  f.input(1, 1, 8);
  options.num_outputs = 0;
  EXPECT_INVALID(binarynet_session_create(f.graph, &options, &session), "no outputs");
  options.num_outputs = 1;
  output = 1;
  EXPECT_INVALID(binarynet_session_create(f.graph, &options, &session), "session output", "no value 1");
  options.outputs = nullptr;
  EXPECT_INVALID(binarynet_session_create(f.graph, &options, &session), "outputs is null");
  options.outputs = &output;
  output = 0;
  options.num_threads = -1;
  EXPECT_INVALID(binarynet_session_create(f.graph, &options, &session), "num_threads is -1");
  options.num_threads = 100000;
  EXPECT_INVALID(binarynet_session_create(f.graph, &options, &session), "num_threads is 100000", "1024");
  EXPECT_INVALID(binarynet_session_create(f.graph, nullptr, &session), "options is null");
  CHECK(session == nullptr, "a failing call leaves the result alone");

  CHECK_OK(f.convolution(0, {1, 1, 1, 1, 0, 0}, 2, 2));
  output = f.value;
  options.num_threads = 0;
  CHECK_OK(binarynet_session_create(f.graph, &options, &session));
  CHECK(binarynet_session_num_threads(session) >= 1, "at least the caller's thread");
  std::vector<uint8_t> images(8);
  std::vector<int32_t> memory(3);
  void* pointer = memory.data();
  EXPECT_INVALID(binarynet_session_run(session, images.data(), -1, &pointer), "batch is -1");
  EXPECT_INVALID(binarynet_session_run(session, images.data(), kHuge, &pointer), "batch is");
  EXPECT_INVALID(binarynet_session_run(session, nullptr, 1, &pointer), "images is null");
  EXPECT_INVALID(binarynet_session_run(session, images.data(), 1, nullptr), "outputs is null");
  void* nothing = nullptr;
  EXPECT_INVALID(binarynet_session_run(session, images.data(), 1, &nothing), "output 0 is null");
  void* odd = reinterpret_cast<char*>(memory.data()) + 1;
  EXPECT_INVALID(binarynet_session_run(session, images.data(), 1, &odd), "not aligned to 4");
  EXPECT_INVALID(binarynet_session_run(nullptr, images.data(), 1, &pointer), "session is null");
  CHECK_OK(binarynet_session_run(session, nullptr, 0, nullptr));
  CHECK_OK(binarynet_session_run(session, images.data(), 1, &pointer));
  CHECK(memory[0] == 8 * 255, "eight times -255 * -1");
  binarynet_session_free(session);
  binarynet_session_free(nullptr);
  binarynet_graph_free(nullptr);
}

binarynet_status create(const binarynet_graph* graph, const char* isa, std::string* used) {
  const binarynet_value output = 0;
  const binarynet_session_options options{isa, 1, &output, 1};
  binarynet_session* session = nullptr;
  const binarynet_status status = binarynet_session_create(graph, &options, &session);
  if (status == BINARYNET_OK) *used = binarynet_session_isa(session);
  binarynet_session_free(session);
  return status;
}

void test_instruction_sets() {
  Fixture f;
  f.input(1, 1, 8);
  std::string used;
  unsetenv("BINARYNET_FORCE_ISA");
  const std::vector<std::string> usable = usable_isas();
  CHECK(!usable.empty() && usable.back() == "portable", "portable works everywhere and comes last");
  CHECK_OK(create(f.graph, nullptr, &used));
  CHECK(used == usable.front(), "the best one: " + used);
  expect(create(f.graph, "mmx", &used), BINARYNET_UNAVAILABLE, {"'mmx'", "unknown", "portable"}, __LINE__);
  expect(create(f.graph, "", &used), BINARYNET_UNAVAILABLE, {"''", "portable"}, __LINE__);
  setenv("BINARYNET_FORCE_ISA", "AVX2000", 1);
  expect(create(f.graph, nullptr, &used), BINARYNET_UNAVAILABLE, {"BINARYNET_FORCE_ISA 'AVX2000'"}, __LINE__);
  for (const std::string& isa : usable) {
    setenv("BINARYNET_FORCE_ISA", isa.c_str(), 1);
    CHECK_OK(create(f.graph, nullptr, &used));
    CHECK(used == isa, "forced by the environment");
    CHECK_OK(create(f.graph, "portable", &used));
    CHECK(used == "portable", "an explicit name goes before the environment");
  }
  unsetenv("BINARYNET_FORCE_ISA");
  for (int32_t i = 0; i < binarynet_isa_count(); ++i) {
    if (binarynet_isa_why_not(i)[0] == '\0') continue;
    expect(create(f.graph, binarynet_isa_name(i), &used), BINARYNET_UNAVAILABLE, {"not usable here"},
           __LINE__);
  }
  CHECK(std::strlen(binarynet_isa_name(-1)) == 0 && std::strlen(binarynet_isa_why_not(99)) > 0,
        "out of range");
  CHECK(std::strlen(binarynet_version()) > 0, "a version");
}

}  // namespace

void test_api() {
  test_inputs();
  test_bits_inputs();
  test_windows();
  test_sums_stay_exact();
  test_parameters();
  test_too_much_memory();
  test_sessions();
  test_instruction_sets();
}

}  // namespace binarynet_tests
