// binarynet._native.training, elementwise operations and normalization: arrays float32 [n].
#include "training/elementwise.h"

#include "training.h"
#include "training/shift_norm.h"

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

// float32 [images, pixels, channels], with pixels that the kernels can group.
training::Images images_of(const Array& x) {
  if (x.length(1) % training::kNoiseWords != 0) {
    raise(BINARYNET_INVALID_ARGUMENT,
          "x: expected a number of pixels that is a multiple of 4, got " + std::to_string(x.length(1)));
  }
  return {x.length(0), x.length(1), x.length(2)};
}

void random_sign_images(nb::handle x, nb::handle out, uint64_t key, int32_t num_threads) {
  const Array from(x, "x", 'f', {-1, -1, -1});
  const training::Images images = images_of(from);
  const Array to(out, "out", 'f', {images.images, images.pixels, images.channels}, Access::write);
  call([&] {
    training::random_sign_images(from.data<float>(), to.mutable_data<float>(), images, key, num_threads);
  });
}

void drop_images(nb::handle x, nb::handle out, uint64_t key, uint32_t threshold, int32_t num_threads) {
  const Array from(x, "x", 'f', {-1, -1, -1});
  const training::Images images = images_of(from);
  const Array to(out, "out", 'f', {images.images, images.pixels, images.channels}, Access::write);
  call([&] {
    training::drop_images(from.data<float>(), to.mutable_data<float>(), images, key, threshold, num_threads);
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

void shift_norm(nb::handle x, int64_t outer, int64_t channels, int64_t inner, float scale, nb::handle weight,
                nb::handle bias, float eps, nb::handle y, nb::handle mean, nb::handle inv_std,
                int32_t num_threads) {
  const Array from(x, "x", 'f', {outer * channels * inner});
  const Array gains(weight, "weight", 'f', {channels});
  const Array offsets(bias, "bias", 'f', {channels});
  const Array to(y, "y", 'f', {from.length(0)}, Access::write);
  const Array means(mean, "mean", 'f', {channels}, Access::write);
  const Array inverse(inv_std, "inv_std", 'f', {channels}, Access::write);
  const training::ShiftNorm norm = {{outer, channels, inner},
                                    from.data<float>(),
                                    gains.data<float>(),
                                    offsets.data<float>(),
                                    scale,
                                    eps,
                                    to.mutable_data<float>(),
                                    means.mutable_data<float>(),
                                    inverse.mutable_data<float>()};
  call([&] { training::shift_norm(norm, num_threads); });
}

void shift_norm_gradient(nb::handle x, nb::handle g, int64_t outer, int64_t channels, int64_t inner,
                         float scale, nb::handle weight, nb::handle mean, nb::handle inv_std,
                         nb::handle x_gradient, nb::handle weight_gradient, nb::handle bias_gradient,
                         int32_t num_threads) {
  const Array from(x, "x", 'f', {outer * channels * inner});
  const Array upstream(g, "g", 'f', {from.length(0)});
  const Array gains(weight, "weight", 'f', {channels});
  const Array means(mean, "mean", 'f', {channels});
  const Array inverse(inv_std, "inv_std", 'f', {channels});
  const Array to(x_gradient, "x_gradient", 'f', {from.length(0)}, Access::write);
  const Array to_weight(weight_gradient, "weight_gradient", 'f', {channels}, Access::write);
  const Array to_bias(bias_gradient, "bias_gradient", 'f', {channels}, Access::write);
  const training::ShiftNormGradient norm = {{outer, channels, inner},
                                            from.data<float>(),
                                            upstream.data<float>(),
                                            gains.data<float>(),
                                            means.data<float>(),
                                            inverse.data<float>(),
                                            scale,
                                            to.mutable_data<float>(),
                                            to_weight.mutable_data<float>(),
                                            to_bias.mutable_data<float>()};
  call([&] { training::shift_norm_gradient(norm, num_threads); });
}

}  // namespace

void add_elementwise(nb::module_& m) {
  m.def("sign", &map<training::sign>, nb::arg("x"), nb::arg("out"), nb::arg("num_threads"));
  m.def("round_to_ap2", &map<training::round_to_ap2>, nb::arg("x"), nb::arg("out"), nb::arg("num_threads"));
  m.def("inside_window", &inside_window, nb::arg("g"), nb::arg("x"), nb::arg("out"), nb::arg("num_threads"));
  m.def("random_sign", &random_sign, nb::arg("x"), nb::arg("out"), nb::arg("key"), nb::arg("num_threads"));
  m.def("drop", &drop, nb::arg("x"), nb::arg("out"), nb::arg("key"), nb::arg("threshold"),
        nb::arg("num_threads"));
  m.def("random_sign_images", &random_sign_images, nb::arg("x"), nb::arg("out"), nb::arg("key"),
        nb::arg("num_threads"),
        "x, out: [images, pixels, channels], the noise that of [images, channels, pixels].");
  m.def("drop_images", &drop_images, nb::arg("x"), nb::arg("out"), nb::arg("key"), nb::arg("threshold"),
        nb::arg("num_threads"));
  m.def("adam", &adam, nb::arg("weight"), nb::arg("gradient"), nb::arg("average"), nb::arg("average_square"),
        nb::arg("complement1"), nb::arg("beta2"), nb::arg("complement2"), nb::arg("rate"), nb::arg("root"),
        nb::arg("eps"), nb::arg("clip"), nb::arg("num_threads"));
  m.def("ada_max", &ada_max, nb::arg("weight"), nb::arg("gradient"), nb::arg("average"), nb::arg("norm"),
        nb::arg("beta1"), nb::arg("complement1"), nb::arg("beta2"), nb::arg("rate"), nb::arg("eps"),
        nb::arg("clip"), nb::arg("num_threads"));
  m.def("shift_norm", &shift_norm, nb::arg("x"), nb::arg("outer"), nb::arg("channels"), nb::arg("inner"),
        nb::arg("scale"), nb::arg("weight"), nb::arg("bias"), nb::arg("eps"), nb::arg("y"), nb::arg("mean"),
        nb::arg("inv_std"), nb::arg("num_threads"),
        "x, y: [outer, channels, inner], flat; the others: [channels].");
  m.def("shift_norm_gradient", &shift_norm_gradient, nb::arg("x"), nb::arg("g"), nb::arg("outer"),
        nb::arg("channels"), nb::arg("inner"), nb::arg("scale"), nb::arg("weight"), nb::arg("mean"),
        nb::arg("inv_std"), nb::arg("x_gradient"), nb::arg("weight_gradient"), nb::arg("bias_gradient"),
        nb::arg("num_threads"));
}

}  // namespace binarynet_python
