// binarynet._native.Session: a compiled graph. What happens in every call is kept short: small networks take
// few microseconds.
#include "session.h"

#include <nanobind/nanobind.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "arrays.h"
#include "binarynet.h"
#include "graph.h"

namespace binarynet_python {
namespace {

constexpr char kElements[] = {'B', 'Q', 'i', 'f'};  // by binarynet_type, see Array
const char* const kDtypes[] = {"uint8", "uint64", "int32", "float32"};

// How a value looks as an array: [batch, h, w, c], or [batch, c] for a vector; bits are words.
struct Layout {
  Layout(const binarynet_value_info& info, bool is_vector)
      : type(info.type), bytes_per_image(size_of(info)), shape{-1} {
    if (!is_vector) shape.insert(shape.end(), {info.h, info.w});
    shape.push_back(info.type == BINARYNET_BITS ? BINARYNET_WORDS(info.c) : info.c);
  }

  static int64_t size_of(const binarynet_value_info& info) {
    const int64_t pixels = info.h * info.w;
    if (info.type == BINARYNET_BITS) return pixels * BINARYNET_WORDS(info.c) * 8;
    return pixels * info.c * (info.type == BINARYNET_U8 ? 1 : 4);
  }

  binarynet_type type;
  int64_t bytes_per_image;
  std::vector<int64_t> shape;  // the batch is -1
};

class Session {
 public:
  Session(const Graph& graph, const std::vector<binarynet_value>& outputs,
          const std::optional<std::string>& isa, int32_t num_threads,
          const std::vector<binarynet_value>& vectors)
      : input_(layout(graph, 0, vectors)) {
    const nb::module_ numpy = nb::module_::import_("numpy");
    numpy_empty_ = numpy.attr("empty");
    for (const binarynet_value output : outputs) {
      outputs_.push_back(layout(graph, output, vectors));
      dtypes_.push_back(numpy.attr("dtype")(kDtypes[outputs_.back().type]));
    }
    binarynet_session_options options{};
    options.isa = isa ? isa->c_str() : nullptr;
    options.num_threads = num_threads;
    options.outputs = outputs.data();
    options.num_outputs = outputs.size();
    check(
        binarynet_session_create(graph.get(), &options, &session_));  // holds the GIL: nobody may add values
  }
  ~Session() { binarynet_session_free(session_); }
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;

  nb::list run(nb::handle images, nb::handle out) const {
    const Array array(images, "images", kElements[input_.type], input_.shape);
    nb::list results;
    std::vector<void*> memory(outputs_.size());
    for (size_t i = 0; i < outputs_.size(); ++i) {
      if (i == 0 && !out.is_none()) {
        memory[i] = checked_out(out, array);
        results.append(out);
      } else {
        results.append(new_array(i, array.length(0), &memory[i]));
      }
    }
    binarynet_status status;
    {
      const nb::gil_scoped_release released;
      status = binarynet_session_run(session_, array.data<void>(), array.length(0), memory.data());
    }
    check(status);
    return results;
  }

  // The time of each step, in nanoseconds, for each of `repeats` runs. Runs can be long: they are made chunk
  // by chunk, as a session divides them anyway, and Python's signals (Ctrl-C) are looked at between chunks.
  std::vector<std::vector<int64_t>> profile(nb::handle images, int64_t repeats) const {
    const Array array(images, "images", kElements[input_.type], input_.shape);
    std::vector<nb::object> results;
    std::vector<void*> memory(outputs_.size());
    for (size_t i = 0; i < outputs_.size(); ++i) {
      results.push_back(new_array(i, array.length(0), &memory[i]));
    }
    const int64_t batch = array.length(0);
    const int64_t chunk = chunk_of(batch);
    std::vector<std::vector<int64_t>> times;
    for (int64_t i = 0; i < repeats; ++i) {
      times.emplace_back(static_cast<size_t>(binarynet_session_num_steps(session_)), 0);
      for (int64_t begin = 0; begin < batch; begin += chunk) {
        profile_chunk(array, begin, std::min(chunk, batch - begin), memory, times.back());
        if (PyErr_CheckSignals() != 0) throw nb::python_error();
      }
    }
    return times;
  }

  // (plan, steps) as dictionaries named like the fields of the C structures.
  nb::object plan(int64_t batch) const {
    binarynet_plan plan;
    std::vector<binarynet_step> steps(static_cast<size_t>(binarynet_session_num_steps(session_)));
    check(binarynet_session_describe(session_, batch, &plan, steps.data(), steps.size()));
    nb::dict whole;
    whole["num_chunks"] = plan.num_chunks;
    whole["chunk"] = plan.chunk;
    whole["weight_bytes"] = plan.weight_bytes;
    whole["arena_bytes"] = plan.arena_bytes;
    whole["scratch_bytes"] = plan.scratch_bytes;
    whole["workspace_bytes"] = plan.workspace_bytes;
    nb::list rows;
    for (const binarynet_step& step : steps) {
      nb::list values;
      for (int32_t i = 0; i < step.num_values; ++i) values.append(step.values[i]);
      nb::dict row;
      row["kind"] = step.kind;
      row["method"] = step.method;
      row["values"] = values;
      row["units"] = step.units;
      row["tasks"] = step.tasks;
      row["threads"] = step.threads;
      row["why_threads"] = step.why_threads;
      row["weight_bytes"] = step.weight_bytes;
      row["scratch_bytes"] = step.scratch_bytes;
      row["in_bytes"] = step.in_bytes;
      row["out_bytes"] = step.out_bytes;
      row["work"] = step.work;
      rows.append(row);
    }
    return nb::make_tuple(whole, rows);
  }

  const char* isa() const { return binarynet_session_isa(session_); }
  int32_t num_threads() const { return binarynet_session_num_threads(session_); }

 private:
  static Layout layout(const Graph& graph, binarynet_value value,
                       const std::vector<binarynet_value>& vectors) {
    const binarynet_value_info info = graph.info(value);
    bool is_vector = false;
    for (const binarynet_value vector : vectors) is_vector = is_vector || vector == value;
    if (is_vector && (info.h != 1 || info.w != 1)) {
      raise(BINARYNET_INVALID_ARGUMENT,
            "value " + std::to_string(value) + " is no vector: it has rows and columns");
    }
    return {info, is_vector};
  }

  int64_t chunk_of(int64_t batch) const {
    binarynet_plan plan;
    std::vector<binarynet_step> steps(static_cast<size_t>(binarynet_session_num_steps(session_)));
    check(binarynet_session_describe(session_, batch, &plan, steps.data(), steps.size()));
    return plan.chunk;
  }

  // Adds to the time of each step. `memory`: of the whole batch's results.
  void profile_chunk(const Array& images, int64_t begin, int64_t count, std::vector<void*> memory,
                     std::vector<int64_t>& times) const {
    for (size_t i = 0; i < memory.size(); ++i) {
      memory[i] = static_cast<char*>(memory[i]) + begin * outputs_[i].bytes_per_image;
    }
    const char* const first = images.data<char>() + begin * input_.bytes_per_image;
    binarynet_status status;
    {
      const nb::gil_scoped_release released;
      status = binarynet_session_profile(session_, first, count, memory.data(), times.data(), times.size());
    }
    check(status);
  }

  nb::object new_array(size_t output, int64_t batch, void** data) const {
    std::vector<int64_t> shape = outputs_[output].shape;
    shape[0] = batch;
    return empty_array(numpy_empty_, dtypes_[output], shape, data);
  }

  // Memory of the caller's for the first output.
  void* checked_out(nb::handle out, const Array& images) const {
    const Layout& layout = outputs_.front();
    std::vector<int64_t> shape = layout.shape;
    shape[0] = images.length(0);
    const Array array(out, "out", kElements[layout.type], shape,
                      Array::Access::write);  // `out` keeps the memory
    const auto* const begin = array.data<char>();
    const auto* const input = images.data<char>();
    if (begin < input + shape[0] * input_.bytes_per_image &&
        input < begin + shape[0] * layout.bytes_per_image) {
      raise(BINARYNET_INVALID_ARGUMENT, "out: expected memory of its own, it overlaps the images");
    }
    return array.mutable_data<char>();
  }

  Layout input_;
  std::vector<Layout> outputs_;
  nb::object numpy_empty_;
  std::vector<nb::object> dtypes_;
  binarynet_session* session_ = nullptr;
};

}  // namespace

void add_session(nb::module_& m) {
  nb::class_<Session>(m, "Session", "A compiled graph; any number of threads may run it at the same time.")
      .def(nb::init<const Graph&, const std::vector<binarynet_value>&, const std::optional<std::string>&,
                    int32_t, const std::vector<binarynet_value>&>(),
           nb::arg("graph"), nb::arg("outputs"), nb::arg("isa") = nb::none(), nb::arg("num_threads") = 0,
           nb::arg("vectors") = nb::list(), "vectors: values [1, 1, c] whose arrays are [batch, c].")
      .def("run", &Session::run, nb::arg("images").none(), nb::arg("out") = nb::none(),
           "images: uint8 [batch, h, w, c], or uint64 [batch, h, w, words] for an input of bits; "
           "C-contiguous. "
           "Returns one array [batch, ...] per output; the first one is written into `out` if it is given.")
      .def("profile", &Session::profile, nb::arg("images").none(), nb::arg("repeats"),
           "Nanoseconds of each step, for each of `repeats` runs.")
      .def("plan", &Session::plan, nb::arg("batch"), "What a run does: (whole, [step, ...]), dictionaries.")
      .def_prop_ro("isa", &Session::isa)
      .def_prop_ro("num_threads", &Session::num_threads);
}

}  // namespace binarynet_python
