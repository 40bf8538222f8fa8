// binarynet._native: the C interface as Python classes, thin, for binarynet.runtime; and its submodules
// `training` (training.cc), `limits` and `dlpack`.
#include <nanobind/nanobind.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>

#include "arrays.h"
#include "binarynet.h"
#include "graph.h"
#include "session.h"
#include "training.h"

namespace binarynet_python {
namespace {

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

  add_session(m);

  m.def("instruction_sets", &instruction_sets,
        "[(name, why_not)] of this build, best first; why_not is empty where the set is usable.");
  m.def("version", &binarynet_version);

  nb::module_ training = m.def_submodule("training");
  add_training(training);
  add_limits(m);
  add_dlpack(m);
}
