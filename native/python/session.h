// binarynet._native.Session.
#pragma once

#include <nanobind/nanobind.h>

namespace binarynet_python {

void add_session(nanobind::module_& m);

}  // namespace binarynet_python
