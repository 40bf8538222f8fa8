// binarynet_replay FILE [isa...]: networks and their values, computed elsewhere (tests/native/replay.py
// writes them), once more on these instruction sets (default: all that work here). For machines, or
// emulators, where the Python side does not run. Exit status 0 if every byte is equal.
//
// FILE is a list of little-endian int64 numbers and arrays (their size in bytes, then the bytes):
//   number of cases; per case: name, number of nodes, nodes, index of the result, batch, images, and one
//   array per value with its expected bytes, in the layout of binarynet.h. Nodes: operation (see
//   `Operation`), then its arguments in the order of the functions in binarynet.h.
#include <algorithm>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <string>
#include <vector>

#include "binarynet.h"
#include "check.h"

namespace binarynet_tests {
namespace {

enum class Operation : int64_t { input, bits_input, convolution, max_pool, threshold, affine, flatten };

// An array, aligned for every element type.
struct Array {
  std::vector<uint64_t> memory;
  size_t bytes = 0;

  explicit Array(size_t size) : memory(size / 8 + 1), bytes(size) {}
  template <class Element>
  const Element* as() const {
    return reinterpret_cast<const Element*>(memory.data());
  }
};

class Reader {
 public:
  explicit Reader(const char* path) : file_(path, std::ios::binary) { CHECK(file_.good(), path); }

  int64_t number() {
    int64_t value = 0;
    read(&value, sizeof(value));
    return value;
  }
  Array array() {
    Array array(static_cast<size_t>(number()));
    read(array.memory.data(), array.bytes);
    return array;
  }
  std::string text() {
    const Array letters = array();
    return std::string(letters.as<char>(), letters.bytes);
  }
  void end() { CHECK(file_.peek() == std::ifstream::traits_type::eof(), "nothing follows the last case"); }

 private:
  void read(void* to, size_t bytes) {
    file_.read(static_cast<char*>(to), static_cast<std::streamsize>(bytes));
    CHECK(file_.good(), "the file ends too early");
  }

  std::ifstream file_;
};

struct Case {
  std::string name;
  binarynet_graph* graph = nullptr;
  int64_t batch = 0;
  binarynet_value result = 0;
  Array images{0};
  std::vector<Array> expected;  // per value
};

binarynet_window read_window(Reader* reader) {
  binarynet_window window;
  for (int64_t* field : {&window.kernel_h, &window.kernel_w, &window.stride_h, &window.stride_w,
                         &window.pad_h, &window.pad_w}) {
    *field = reader->number();
  }
  return window;
}

void add_node(Reader* reader, binarynet_graph* graph) {
  const Operation operation = static_cast<Operation>(reader->number());
  binarynet_value value;
  if (operation == Operation::input || operation == Operation::bits_input) {
    const int64_t h = reader->number();
    const int64_t w = reader->number();
    const int64_t c = reader->number();
    const auto add =
        operation == Operation::input ? binarynet_graph_add_input : binarynet_graph_add_bits_input;
    CHECK_OK(add(graph, h, w, c, &value));
    return;
  }
  const binarynet_value source = static_cast<binarynet_value>(reader->number());
  switch (operation) {
    case Operation::convolution: {
      const binarynet_window window = read_window(reader);
      const int64_t out_channels = reader->number();
      const Array weights = reader->array();
      CHECK_OK(binarynet_graph_add_convolution(graph, source, &window, out_channels, weights.as<uint64_t>(),
                                               weights.bytes / 8, &value));
      break;
    }
    case Operation::max_pool: {
      const binarynet_window window = read_window(reader);
      CHECK_OK(binarynet_graph_add_max_pool(graph, source, &window, &value));
      break;
    }
    case Operation::threshold: {
      const Array thresholds = reader->array();
      const Array falling = reader->array();
      CHECK_OK(binarynet_graph_add_threshold(graph, source, thresholds.as<int32_t>(), falling.as<uint64_t>(),
                                             thresholds.bytes / 4, &value));
      break;
    }
    case Operation::affine: {
      const Array scale = reader->array();
      const Array shift = reader->array();
      CHECK_OK(binarynet_graph_add_affine(graph, source, scale.as<float>(), shift.as<float>(),
                                          scale.bytes / 4, &value));
      break;
    }
    case Operation::flatten:
      CHECK_OK(binarynet_graph_add_flatten(graph, source, &value));
      break;
    default:
      CHECK(false, "unknown operation");
  }
}

Case read_case(Reader* reader) {
  Case test;
  test.name = reader->text();
  CHECK_OK(binarynet_graph_create(&test.graph));
  const int64_t nodes = reader->number();
  for (int64_t i = 0; i < nodes; ++i) add_node(reader, test.graph);
  test.result = static_cast<binarynet_value>(reader->number());
  test.batch = reader->number();
  test.images = reader->array();
  for (int64_t i = 0; i < nodes; ++i) test.expected.push_back(reader->array());
  return test;
}

void check_outputs(const Case& test, const std::vector<binarynet_value>& outputs, const std::string& isa,
                   int32_t threads) {
  const binarynet_session_options options{isa.c_str(), threads, outputs.data(), outputs.size()};
  binarynet_session* session = nullptr;
  CHECK_OK(binarynet_session_create(test.graph, &options, &session));
  std::vector<Array> results;
  std::vector<void*> memory;
  for (const binarynet_value value : outputs) {
    results.emplace_back(test.expected[static_cast<size_t>(value)].bytes);
    memory.push_back(results.back().memory.data());
  }
  CHECK_OK(binarynet_session_run(session, test.images.as<uint8_t>(), test.batch, memory.data()));
  for (size_t i = 0; i < outputs.size(); ++i) {
    const Array& expected = test.expected[static_cast<size_t>(outputs[i])];
    const uint8_t* bytes = results[i].as<uint8_t>();
    const auto differing = std::mismatch(bytes, bytes + expected.bytes, expected.as<uint8_t>());
    CHECK(differing.first == bytes + expected.bytes,
          test.name + ", " + isa + ", " + std::to_string(threads) + " threads, " +
              std::to_string(outputs.size()) + " outputs: value " + std::to_string(outputs[i]) + ", byte " +
              std::to_string(differing.first - bytes) + " differs");
  }
  binarynet_session_free(session);
}

// The result alone (all fused); with every layer's bits; every value (nothing fused).
void check_case(const Case& test, const std::string& isa) {
  std::vector<binarynet_value> bits{test.result}, all{test.result};
  for (size_t i = 0; i < test.expected.size(); ++i) {
    const binarynet_value value = static_cast<binarynet_value>(i);
    binarynet_value_info info;
    CHECK_OK(binarynet_graph_value_info(test.graph, value, &info));
    if (info.type == BINARYNET_BITS) bits.push_back(value);
    all.push_back(value);
  }
  for (const int32_t threads : {1, 2}) {
    check_outputs(test, {test.result}, isa, threads);
    check_outputs(test, bits, isa, threads);
    check_outputs(test, all, isa, threads);
  }
}

int replay(const char* path, std::vector<std::string> isas) {
  if (isas.empty()) isas = usable_isas();
  Reader reader(path);
  const int64_t cases = reader.number();
  for (int64_t i = 0; i < cases; ++i) {
    const Case test = read_case(&reader);
    for (const std::string& isa : isas) check_case(test, isa);
    binarynet_graph_free(test.graph);
  }
  reader.end();
  std::printf("%lld cases: ok\n", static_cast<long long>(cases));
  return 0;
}

}  // namespace
}  // namespace binarynet_tests

int main(int argc, char** argv) {
  if (argc < 2) {
    std::fprintf(stderr, "usage: binarynet_replay FILE [isa...]\n");
    return 2;
  }
  return binarynet_tests::replay(argv[1], {argv + 2, argv + argc});
}
