// binarynet._native.training: kernels of the training step on arrays that the caller owns.
#pragma once

#include <nanobind/nanobind.h>

namespace binarynet_python {

void add_training(nanobind::module_& m);

}  // namespace binarynet_python
