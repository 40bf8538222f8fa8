#include "arrays.h"

#include <nanobind/stl/string.h>

#include <cstring>

namespace binarynet_python {
namespace {

nb::handle native_error_type;

const char* status_name(binarynet_status status) {
  switch (status) {
    case BINARYNET_OK:
      return "OK";
    case BINARYNET_INVALID_ARGUMENT:
      return "INVALID_ARGUMENT";
    case BINARYNET_OUT_OF_MEMORY:
      return "OUT_OF_MEMORY";
    case BINARYNET_UNAVAILABLE:
      return "UNAVAILABLE";
    case BINARYNET_INTERNAL:
      return "INTERNAL";
  }
  return "INTERNAL";
}

const char* dtype_name(char element) {
  switch (element) {
    case 'B':
      return "uint8";
    case 'Q':
      return "uint64";
    case 'i':
      return "int32";
    default:
      return "float32";
  }
}

// Buffer formats name C types: which one is 64 bits wide depends on the platform.
bool format_matches(const Py_buffer& view, char element) {
  const char* format = view.format == nullptr ? "B" : view.format;
  if (format[0] == '@' || format[0] == '=' || format[0] == '<') ++format;
  if (std::strlen(format) != 1) return false;
  switch (element) {
    case 'B':
      return format[0] == 'B';
    case 'Q':
      return view.itemsize == 8 && (format[0] == 'Q' || format[0] == 'L');
    case 'i':
      return view.itemsize == 4 && (format[0] == 'i' || format[0] == 'l');
    default:
      return view.itemsize == 4 && format[0] == 'f';
  }
}

std::string shape_text(const std::vector<int64_t>& shape) {
  std::string text = "[";
  for (size_t i = 0; i < shape.size(); ++i) {
    text += (i == 0 ? "" : ", ") + (shape[i] < 0 ? std::string("n") : std::to_string(shape[i]));
  }
  return text + "]";
}

// "float32 [2, 3]" for arrays, the type's name for the rest.
std::string given_text(nb::handle object) {
  if (nb::hasattr(object, "dtype") && nb::hasattr(object, "shape")) {
    const nb::object dtype = object.attr("dtype");
    std::string text = nb::str(nb::handle(dtype)).c_str();
    std::vector<int64_t> shape;
    for (nb::handle length : nb::iter(object.attr("shape"))) shape.push_back(nb::cast<int64_t>(length));
    return text + " " + shape_text(shape);
  }
  return nb::type_name(object.type()).c_str();
}

}  // namespace

void set_native_error_type(nb::handle type) { native_error_type = type; }

void raise(binarynet_status status, const std::string& text) {
  nb::object error = native_error_type(nb::str(text.c_str(), text.size()));
  error.attr("status") = status_name(status);
  PyErr_SetObject(native_error_type.ptr(), error.ptr());
  throw nb::python_error();
}

Array::Array(nb::handle object, const char* name, char element, const std::vector<int64_t>& shape,
             Access access) {
  const auto refuse = [&](const char* what) {
    raise(BINARYNET_INVALID_ARGUMENT, std::string(name) + ": expected a NumPy array " + dtype_name(element) +
                                          " " + shape_text(shape) + ", got " + given_text(object) + what);
  };
  if (PyObject_GetBuffer(object.ptr(), &view_, PyBUF_STRIDES | PyBUF_FORMAT) != 0) {
    PyErr_Clear();
    refuse("");
  }
  bool same_shape = view_.ndim == static_cast<int>(shape.size());
  for (int axis = 0; same_shape && axis < view_.ndim; ++axis) {
    same_shape = shape[axis] < 0 || view_.shape[axis] == shape[axis];
  }
  const bool same_type = format_matches(view_, element);
  const bool contiguous = PyBuffer_IsContiguous(&view_, 'C') == 1;
  const bool aligned = reinterpret_cast<uintptr_t>(view_.buf) % static_cast<uintptr_t>(view_.itemsize) == 0;
  const bool allowed = access == Access::read || view_.readonly == 0;
  if (same_shape && same_type && contiguous && aligned && allowed) return;
  PyBuffer_Release(&view_);
  refuse(!same_shape || !same_type ? ""
         : !contiguous             ? " that is not C-contiguous"
         : !aligned                ? " that is not aligned"
                                   : " that is read-only");
}

Array::~Array() { PyBuffer_Release(&view_); }

nb::object empty_array(nb::handle numpy_empty, nb::handle dtype, const std::vector<int64_t>& shape,
                       void** data) {
  const nb::object lengths = nb::steal(PyTuple_New(static_cast<Py_ssize_t>(shape.size())));
  if (!lengths.is_valid()) throw nb::python_error();
  for (size_t i = 0; i < shape.size(); ++i) {
    PyTuple_SET_ITEM(lengths.ptr(), static_cast<Py_ssize_t>(i), nb::int_(shape[i]).release().ptr());
  }
  nb::object array = numpy_empty(lengths, dtype);
  Py_buffer view;
  if (PyObject_GetBuffer(array.ptr(), &view, PyBUF_CONTIG) != 0) throw nb::python_error();
  *data = view.buf;
  PyBuffer_Release(&view);
  return array;
}

}  // namespace binarynet_python
