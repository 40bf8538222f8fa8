// binarynet._native.dlpack: arrays of other libraries in, ours out, by DLPack (its C structures, versions 0
// and 1).
#include <nanobind/nanobind.h>

#include <cstdint>
#include <memory>
#include <vector>

#include "training.h"

namespace binarynet_python {
namespace {

struct Tensor {
  void* data;
  int32_t device_type;
  int32_t device_id;
  int32_t num_axes;
  uint8_t code;
  uint8_t bits;
  uint16_t lanes;
  int64_t* shape;
  int64_t* strides;
  uint64_t byte_offset;
};

struct Unversioned {
  Tensor tensor;
  void* context;
  void (*deleter)(Unversioned*);
};

struct Versioned {
  uint32_t major;
  uint32_t minor;
  void* context;
  void (*deleter)(Versioned*);
  uint64_t flags;
  Tensor tensor;
};

constexpr uint64_t kReadOnly = 1;
constexpr uint32_t kMajor = 1, kMinor = 0;
constexpr const char* kName = "dltensor";
constexpr const char* kUsedName = "used_dltensor";
constexpr const char* kVersionedName = "dltensor_versioned";
constexpr const char* kUsedVersionedName = "used_dltensor_versioned";
constexpr const char* kOwnerName = "binarynet.dlpack.owner";

template <class Managed>
void release(PyObject* owner) {
  auto* managed = static_cast<Managed*>(PyCapsule_GetPointer(owner, kOwnerName));
  if (managed != nullptr && managed->deleter != nullptr) managed->deleter(managed);
}

nb::object tuple_of(const int64_t* values, int32_t count) {
  nb::list list;
  for (int32_t i = 0; i < count; ++i) list.append(values[i]);
  return nb::tuple(list);
}

template <class Managed>
nb::object taken(nb::handle capsule, const char* name, const char* used_name, bool read_only) {
  auto* managed = static_cast<Managed*>(PyCapsule_GetPointer(capsule.ptr(), name));
  PyObject* made = PyCapsule_New(managed, kOwnerName, nullptr);
  if (made == nullptr) throw nb::python_error();
  nb::object owner = nb::steal(made);
  if (PyCapsule_SetName(capsule.ptr(), used_name) != 0) throw nb::python_error();
  PyCapsule_SetDestructor(made, &release<Managed>);  // from here on it is ours
  const Tensor& t = managed->tensor;
  nb::object strides = t.strides == nullptr ? nb::object(nb::none()) : tuple_of(t.strides, t.num_axes);
  const uint64_t address = reinterpret_cast<uintptr_t>(t.data) + t.byte_offset;
  return nb::make_tuple(address, tuple_of(t.shape, t.num_axes), strides,
                        nb::make_tuple(t.code, t.bits, t.lanes), nb::make_tuple(t.device_type, t.device_id),
                        read_only, owner);
}

nb::object take(nb::handle capsule) {
  if (PyCapsule_IsValid(capsule.ptr(), kVersionedName)) {
    auto* managed = static_cast<Versioned*>(PyCapsule_GetPointer(capsule.ptr(), kVersionedName));
    if (managed->major > kMajor) throw nb::buffer_error("a DLPack version above 1, which was not asked for");
    return taken<Versioned>(capsule, kVersionedName, kUsedVersionedName, (managed->flags & kReadOnly) != 0);
  }
  if (PyCapsule_IsValid(capsule.ptr(), kName)) return taken<Unversioned>(capsule, kName, kUsedName, false);
  throw nb::type_error("no DLPack capsule, or one that was used before");
}

// What a tensor that we give away lives in: its consumer deletes it, from any thread.
template <class Managed>
struct Given {
  Managed managed{};
  std::vector<int64_t> shape, strides;
  nb::object owner;
};

template <class Managed>
void delete_given(Managed* managed) {
  const PyGILState_STATE state = PyGILState_Ensure();
  PyObject *type, *value, *traceback;
  PyErr_Fetch(&type, &value, &traceback);  // it may come while an error is on its way
  delete static_cast<Given<Managed>*>(managed->context);
  PyErr_Restore(type, value, traceback);
  PyGILState_Release(state);
}

template <class Managed>
void delete_unused(PyObject* capsule, const char* name) {
  if (!PyCapsule_IsValid(capsule, name)) return;  // somebody took it
  auto* managed = static_cast<Managed*>(PyCapsule_GetPointer(capsule, name));
  managed->deleter(managed);
}

template <class Managed>
nb::object given(std::unique_ptr<Given<Managed>> box, const char* name, PyCapsule_Destructor destructor) {
  box->managed.context = box.get();
  box->managed.deleter = &delete_given<Managed>;
  box->managed.tensor.shape = box->shape.data();
  box->managed.tensor.strides = box->strides.data();
  PyObject* capsule = PyCapsule_New(&box->managed, name, destructor);
  if (capsule == nullptr) throw nb::python_error();
  box.release();
  return nb::steal(capsule);
}

template <class Managed>
std::unique_ptr<Given<Managed>> boxed(nb::object owner, uint64_t address, nb::sequence shape, int code,
                                      int bits, int device_type, int device_id) {
  auto box = std::make_unique<Given<Managed>>();
  box->owner = std::move(owner);
  for (nb::handle length : shape) box->shape.push_back(nb::cast<int64_t>(length));
  box->strides.resize(box->shape.size());
  int64_t stride = 1;
  for (size_t axis = box->shape.size(); axis-- > 0;) {
    box->strides[axis] = stride;
    stride *= box->shape[axis];
  }
  Tensor& t = box->managed.tensor;
  t.data = reinterpret_cast<void*>(static_cast<uintptr_t>(address));
  t.device_type = device_type;
  t.device_id = device_id;
  t.num_axes = static_cast<int32_t>(box->shape.size());
  t.code = static_cast<uint8_t>(code);
  t.bits = static_cast<uint8_t>(bits);
  t.lanes = 1;
  return box;
}

nb::object give(nb::object owner, uint64_t address, nb::sequence shape, int code, int bits, int device_type,
                int device_id, bool versioned) {
  if (!versioned) {
    auto box = boxed<Unversioned>(std::move(owner), address, shape, code, bits, device_type, device_id);
    return given(std::move(box), kName, [](PyObject* c) { delete_unused<Unversioned>(c, kName); });
  }
  auto box = boxed<Versioned>(std::move(owner), address, shape, code, bits, device_type, device_id);
  box->managed.major = kMajor;
  box->managed.minor = kMinor;
  return given(std::move(box), kVersionedName,
               [](PyObject* c) { delete_unused<Versioned>(c, kVersionedName); });
}

}  // namespace

void add_dlpack(nb::module_& m) {
  nb::module_ group = m.def_submodule("dlpack", "Arrays by DLPack.");
  group.def(
      "take", &take, nb::arg("capsule"),
      "(address, shape, strides in elements or None, (type code, bits, lanes), (device type, id), read only, "
      "owner) of a capsule, which is used then; the memory is valid as long as the owner.");
  group.def("give", &give, nb::arg("owner"), nb::arg("address"), nb::arg("shape"), nb::arg("code"),
            nb::arg("bits"), nb::arg("device_type"), nb::arg("device_id"), nb::arg("versioned"),
            "A capsule of a dense array; the owner is kept until its consumer lets go.");
}

}  // namespace binarynet_python
