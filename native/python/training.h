// The submodules of binarynet._native: `training`, kernels of the training step on arrays that the caller
// owns, `limits` and `dlpack`.
#pragma once

#include <nanobind/nanobind.h>

#include <exception>
#include <new>
#include <string>

#include "arrays.h"
#include "error.h"

namespace binarynet_python {

void add_training(nb::module_& m);
void add_elementwise(nb::module_& m);
void add_training_convolutions(nb::module_& m);
void add_limits(nb::module_& m);
void add_dlpack(nb::module_& m);

// Runs `body` without the GIL; its exceptions become NativeError.
template <class Body>
auto call(const Body& body) {
  binarynet_status status = BINARYNET_INTERNAL;
  std::string text;
  try {
    const nb::gil_scoped_release released;
    return body();
  } catch (const binarynet::Error& error) {
    status = error.status();
    text = error.what();
  } catch (const std::bad_alloc&) {
    status = BINARYNET_OUT_OF_MEMORY;
    text = "out of memory";
  } catch (const std::exception& error) {
    text = error.what();
  }
  raise(status, text);
}

}  // namespace binarynet_python
