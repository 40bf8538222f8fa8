// binarynet._native: the C interface as Python classes, thin, for binarynet.runtime; and its submodule
// `training` (training.cc).
#include <nanobind/nanobind.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <array>
#include <optional>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "arrays.h"
#include "binarynet.h"
#include "training.h"

namespace binarynet_python {
namespace {

using Pair = std::pair<int64_t, int64_t>;  // rows first

void check(binarynet_status status) {
  if (status != BINARYNET_OK) raise(status, binarynet_last_error());
}

binarynet_window make_window(Pair kernel, Pair stride, Pair padding) {
  return {kernel.first, kernel.second, stride.first, stride.second, padding.first, padding.second};
}

const char* type_name(binarynet_type type) {
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

class Session {
 public:
  Session(const Graph& graph, const std::vector<binarynet_value>& outputs,
          const std::optional<std::string>& isa, int32_t num_threads)
      : input_(graph.info(0)), numpy_empty_(nb::module_::import_("numpy").attr("empty")) {
    binarynet_session_options options{};
    options.isa = isa ? isa->c_str() : nullptr;
    options.num_threads = num_threads;
    options.outputs = outputs.data();
    options.num_outputs = outputs.size();
    for (const binarynet_value output : outputs) outputs_.push_back(graph.info(output));
    check(
        binarynet_session_create(graph.get(), &options, &session_));  // holds the GIL: nobody may add values
  }
  ~Session() { binarynet_session_free(session_); }
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;

  nb::list run(nb::handle images) const {
    const bool bits = input_.type == BINARYNET_BITS;
    const Array array(images, "images", bits ? 'Q' : 'B',
                      {-1, input_.h, input_.w, bits ? BINARYNET_WORDS(input_.c) : input_.c});
    const int64_t batch = array.length(0);
    nb::list results;
    std::vector<void*> memory(outputs_.size());
    for (size_t i = 0; i < outputs_.size(); ++i) {
      static const char* const dtypes[] = {"uint8", "uint64", "int32", "float32"};
      const binarynet_value_info& info = outputs_[i];
      const int64_t last = info.type == BINARYNET_BITS ? BINARYNET_WORDS(info.c) : info.c;
      results.append(empty_array(numpy_empty_, dtypes[info.type], {batch, info.h, info.w, last}, &memory[i]));
    }
    binarynet_status status;
    {
      const nb::gil_scoped_release released;
      status = binarynet_session_run(session_, array.data<void>(), batch, memory.data());
    }
    check(status);
    return results;
  }

  const char* isa() const { return binarynet_session_isa(session_); }
  int32_t num_threads() const { return binarynet_session_num_threads(session_); }

 private:
  binarynet_value_info input_;
  std::vector<binarynet_value_info> outputs_;
  nb::object numpy_empty_;
  binarynet_session* session_ = nullptr;
};

nb::list instruction_sets() {
  nb::list rows;
  for (int32_t i = 0; i < binarynet_isa_count(); ++i) {
    rows.append(nb::make_tuple(binarynet_isa_name(i), binarynet_isa_why_not(i)));
  }
  return rows;
}

}  // namespace
}  // namespace binarynet_python

NB_MODULE(_native, m) {
  using namespace binarynet_python;
  m.doc() = "The native core of binarynet. Used by binarynet.runtime, and (training) by binarynet.ops.";

  PyObject* error = PyErr_NewExceptionWithDoc(
      "binarynet._native.NativeError",
      "A call of the native core failed. `status`: INVALID_ARGUMENT, OUT_OF_MEMORY, UNAVAILABLE or INTERNAL.",
      PyExc_RuntimeError, nullptr);
  if (error == nullptr) throw nb::python_error();
  set_native_error_type(error);  // lives as long as the process
  m.attr("NativeError") = nb::handle(error);

  nb::class_<Graph>(m, "Graph", "A graph under construction; every addition is checked.")
      .def(nb::init<>())
      .def("add_input", &Graph::add_input, nb::arg("h"), nb::arg("w"), nb::arg("c"))
      .def("add_bits_input", &Graph::add_bits_input, nb::arg("h"), nb::arg("w"), nb::arg("c"))
      .def("add_convolution", &Graph::add_convolution, nb::arg("source"), nb::arg("kernel"),
           nb::arg("stride"), nb::arg("padding"), nb::arg("out_channels"), nb::arg("weights").none())
      .def("add_max_pool", &Graph::add_max_pool, nb::arg("source"), nb::arg("kernel"), nb::arg("stride"),
           nb::arg("padding"))
      .def("add_threshold", &Graph::add_threshold, nb::arg("source"), nb::arg("thresholds"),
           nb::arg("falling"))
      .def("add_affine", &Graph::add_affine, nb::arg("source"), nb::arg("scale").none(),
           nb::arg("shift").none())
      .def("add_flatten", &Graph::add_flatten, nb::arg("source"))
      .def("value_info", &Graph::value_info, nb::arg("value"));

  nb::class_<Session>(m, "Session", "A compiled graph; any number of threads may run it at the same time.")
      .def(nb::init<const Graph&, const std::vector<binarynet_value>&, const std::optional<std::string>&,
                    int32_t>(),
           nb::arg("graph"), nb::arg("outputs"), nb::arg("isa") = nb::none(), nb::arg("num_threads") = 0)
      .def("run", &Session::run, nb::arg("images").none(),
           "images: uint8 [batch, h, w, c], or uint64 [batch, h, w, words] for an input of bits; "
           "C-contiguous. "
           "Returns one array [batch, ...] per output.")
      .def_prop_ro("isa", &Session::isa)
      .def_prop_ro("num_threads", &Session::num_threads);

  m.def("instruction_sets", &instruction_sets,
        "[(name, why_not)] of this build, best first; why_not is empty where the set is usable.");
  m.def("version", &binarynet_version);

  nb::module_ training = m.def_submodule("training");
  add_training(training);
  add_limits(m);
}
