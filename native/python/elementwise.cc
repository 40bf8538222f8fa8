// binarynet._native.training, elementwise: arrays float32 [n].
#include "training/elementwise.h"

#include "training.h"

namespace binarynet_python {
namespace {

namespace training = binarynet::training;
using Access = Array::Access;

// A function of one array into another.
using Map = void (*)(const float*, float*, int64_t, int32_t);

template <Map kMap>
void map(nb::handle x, nb::handle out, int32_t num_threads) {
  const Array from(x, "x", 'f', {-1});
  const int64_t count = from.length(0);
  const Array to(out, "out", 'f', {count}, Access::write);
  call([&] { kMap(from.data<float>(), to.mutable_data<float>(), count, num_threads); });
}

void inside_window(nb::handle g, nb::handle x, nb::handle out, int32_t num_threads) {
  const Array from(x, "x", 'f', {-1});
  const int64_t count = from.length(0);
  const Array gradient(g, "g", 'f', {count});
  const Array to(out, "out", 'f', {count}, Access::write);
  call([&] {
    training::inside_window(gradient.data<float>(), from.data<float>(), to.mutable_data<float>(), count,
                            num_threads);
  });
}

void random_sign(nb::handle x, nb::handle out, uint64_t key, int32_t num_threads) {
  const Array from(x, "x", 'f', {-1});
  const int64_t count = from.length(0);
  const Array to(out, "out", 'f', {count}, Access::write);
  call([&] { training::random_sign(from.data<float>(), to.mutable_data<float>(), count, key, num_threads); });
}

void drop(nb::handle x, nb::handle out, uint64_t key, uint32_t threshold, int32_t num_threads) {
  const Array from(x, "x", 'f', {-1});
  const int64_t count = from.length(0);
  const Array to(out, "out", 'f', {count}, Access::write);
  call([&] {
    training::drop(from.data<float>(), to.mutable_data<float>(), count, key, threshold, num_threads);
  });
}

// The four arrays of an optimizer's step.
struct Moments {
  Moments(nb::handle weight, nb::handle gradient, nb::handle first, nb::handle second)
      : weight(weight, "weight", 'f', {-1}, Access::write),
        gradient(gradient, "gradient", 'f', {count()}),
        first(first, "first", 'f', {count()}, Access::write),
        second(second, "second", 'f', {count()}, Access::write) {}
  int64_t count() const { return weight.length(0); }

  Array weight, gradient, first, second;
};

void adam(nb::handle weight, nb::handle gradient, nb::handle average, nb::handle average_square,
          float complement1, float beta2, float complement2, float rate, float root, float eps, bool clip,
          int32_t num_threads) {
  const Moments arrays(weight, gradient, average, average_square);
  const training::AdamStep step = {arrays.weight.mutable_data<float>(),
                                   arrays.gradient.data<float>(),
                                   arrays.first.mutable_data<float>(),
                                   arrays.second.mutable_data<float>(),
                                   complement1,
                                   beta2,
                                   complement2,
                                   rate,
                                   root,
                                   eps,
                                   clip};
  call([&] { training::adam(step, arrays.count(), num_threads); });
}

void ada_max(nb::handle weight, nb::handle gradient, nb::handle average, nb::handle norm, float beta1,
             float complement1, float beta2, float rate, float eps, bool clip, int32_t num_threads) {
  const Moments arrays(weight, gradient, average, norm);
  const training::AdaMaxStep step = {arrays.weight.mutable_data<float>(),
                                     arrays.gradient.data<float>(),
                                     arrays.first.mutable_data<float>(),
                                     arrays.second.mutable_data<float>(),
                                     beta1,
                                     complement1,
                                     beta2,
                                     rate,
                                     eps,
                                     clip};
  call([&] { training::ada_max(step, arrays.count(), num_threads); });
}

}  // namespace

void add_elementwise(nb::module_& m) {
  m.def("sign", &map<training::sign>, nb::arg("x"), nb::arg("out"), nb::arg("num_threads"));
  m.def("round_to_ap2", &map<training::round_to_ap2>, nb::arg("x"), nb::arg("out"), nb::arg("num_threads"));
  m.def("inside_window", &inside_window, nb::arg("g"), nb::arg("x"), nb::arg("out"), nb::arg("num_threads"));
  m.def("random_sign", &random_sign, nb::arg("x"), nb::arg("out"), nb::arg("key"), nb::arg("num_threads"));
  m.def("drop", &drop, nb::arg("x"), nb::arg("out"), nb::arg("key"), nb::arg("threshold"),
        nb::arg("num_threads"));
  m.def("adam", &adam, nb::arg("weight"), nb::arg("gradient"), nb::arg("average"), nb::arg("average_square"),
        nb::arg("complement1"), nb::arg("beta2"), nb::arg("complement2"), nb::arg("rate"), nb::arg("root"),
        nb::arg("eps"), nb::arg("clip"), nb::arg("num_threads"));
  m.def("ada_max", &ada_max, nb::arg("weight"), nb::arg("gradient"), nb::arg("average"), nb::arg("norm"),
        nb::arg("beta1"), nb::arg("complement1"), nb::arg("beta2"), nb::arg("rate"), nb::arg("eps"),
        nb::arg("clip"), nb::arg("num_threads"));
}

}  // namespace binarynet_python
