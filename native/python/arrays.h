// NumPy arrays in and out: strict checks on the way in, memory owned by NumPy on the way out.
#pragma once

#include <nanobind/nanobind.h>

#include <string>
#include <vector>

#include "binarynet.h"

namespace binarynet_python {

namespace nb = nanobind;

// Raises binarynet._native.NativeError; its attribute `status` is the name of the status.
[[noreturn]] void raise(binarynet_status status, const std::string& text);
void set_native_error_type(nb::handle type);

// A C-contiguous, aligned array of exactly this dtype and shape; anything else raises and says what was
// given.
class Array {
 public:
  enum class Access { read, write };

  // In `shape`, -1 is any length. `element`: 'B' uint8, 'Q' uint64, 'i' int32, 'f' float32.
  Array(nb::handle object, const char* name, char element, const std::vector<int64_t>& shape,
        Access access = Access::read);
  ~Array();
  Array(const Array&) = delete;
  Array& operator=(const Array&) = delete;

  template <class Element>
  const Element* data() const {
    return static_cast<const Element*>(view_.buf);
  }
  // Of an array taken for writing.
  template <class Element>
  Element* mutable_data() const {
    return static_cast<Element*>(view_.buf);
  }
  int64_t length(int axis) const { return view_.shape[axis]; }

 private:
  Py_buffer view_{};
};

// A new array of numpy.empty; `data` receives its address.
nb::object empty_array(nb::handle numpy_empty, nb::handle dtype, const std::vector<int64_t>& shape,
                       void** data);

}  // namespace binarynet_python
