#include <nanobind/stl/pair.h>

#include <utility>

#include "training.h"
#include "training/conv.h"

namespace binarynet_python {
namespace {

namespace training = binarynet::training;
using Access = Array::Access;
using Pair = std::pair<int64_t, int64_t>;  // rows first

// Whether windows of this shape and padding, at this stride, make so many sums of so many pixels.
bool axis_fits(int64_t in, int64_t out, int64_t kernel, int64_t stride, int64_t pad) {
  return kernel >= 1 && stride >= 1 && pad >= 0 && pad < kernel && in >= 1 && in + 2 * pad >= kernel &&
         out == (in + 2 * pad - kernel) / stride + 1;
}

void check_shape(const training::ConvShape& s, Pair stride) {
  const bool fits = axis_fits(s.in_h, s.out_h, s.kernel_h, stride.first, s.pad_h) &&
                    axis_fits(s.in_w, s.out_w, s.kernel_w, stride.second, s.pad_w);
  if (!fits || s.in_c < 1 || s.out_c < 1 || s.in_c * s.kernel_h * s.kernel_w > int64_t{1} << 24) {
    raise(BINARYNET_INVALID_ARGUMENT, "convolution: sizes, stride and padding do not fit");
  }
}

void pack_weights(nb::handle weights, nb::handle bits, int32_t num_threads) {
  const Array from(weights, "weights", 'f', {-1, -1, -1, -1});
  const int64_t words = training::row_words(from.length(1));
  const Array to(bits, "bits", 'Q', {from.length(0), from.length(2), from.length(3), words}, Access::write);
  call([&] {
    training::pack_conv_weights(from.data<float>(), from.length(0), from.length(1),
                                from.length(2) * from.length(3), to.mutable_data<uint64_t>(), num_threads);
  });
}

// `element` of out: 'f' or 'i'.
template <char element>
void convolve_bits(nb::handle signs, nb::handle weights, int64_t in_channels, Pair stride, Pair padding,
                   nb::handle out, int32_t num_threads) {
  const int64_t words = training::row_words(in_channels);
  const Array x(signs, "signs", 'Q', {-1, -1, -1, words});
  const Array w(weights, "weights", 'Q', {-1, -1, -1, words});
  const Array sums(out, "out", element, {x.length(0), -1, -1, w.length(0)}, Access::write);
  const training::Convolution convolution = {
      {x.length(0), x.length(1), x.length(2), in_channels, sums.length(1), sums.length(2), w.length(0),
       w.length(1), w.length(2), padding.first, padding.second},
      stride.first,
      stride.second,
      x.data<uint64_t>(),
      w.data<uint64_t>(),
      element == 'i' ? binarynet::BlockOutput::int32 : binarynet::BlockOutput::float32,
      sums.mutable_data<void>()};
  check_shape(convolution.shape, stride);
  call([&] { training::convolve_bits(convolution, num_threads); });
}

void input_gradient(nb::handle gradient, nb::handle weights, Pair padding, nb::handle out,
                    int32_t num_threads) {
  const Array g(gradient, "gradient", 'f', {-1, -1, -1, -1});
  const Array sums(out, "out", 'f', {g.length(0), -1, -1, -1}, Access::write);
  const Array w(weights, "weights", 'Q', {g.length(3), -1, -1, training::row_words(sums.length(3))});
  const training::InputGradient arguments = {
      {g.length(0), sums.length(1), sums.length(2), sums.length(3), g.length(1), g.length(2), g.length(3),
       w.length(1), w.length(2), padding.first, padding.second},
      g.data<float>(),
      w.data<uint64_t>(),
      sums.mutable_data<float>()};
  check_shape(arguments.shape, {1, 1});
  call([&] { training::input_gradient(arguments, num_threads); });
}

void weight_gradient(nb::handle gradient, nb::handle signs, Pair padding, nb::handle out,
                     int32_t num_threads) {
  const Array g(gradient, "gradient", 'f', {-1, -1, -1, -1});
  const Array sums(out, "out", 'f', {g.length(3), -1, -1, -1}, Access::write);
  const Array x(signs, "signs", 'Q', {g.length(0), -1, -1, training::row_words(sums.length(1))});
  const training::ConvShape shape = {g.length(0),    x.length(1),   x.length(2),   sums.length(1),
                                     g.length(1),    g.length(2),   g.length(3),   sums.length(2),
                                     sums.length(3), padding.first, padding.second};
  check_shape(shape, {1, 1});
  call([&] {
    training::weight_gradient(shape, g.data<float>(), x.data<uint64_t>(), sums.mutable_data<float>(),
                              num_threads);
  });
}

}  // namespace

void add_training_convolutions(nb::module_& m) {
  m.def("pack_conv_weights", &pack_weights, nb::arg("weights"), nb::arg("bits"), nb::arg("num_threads"),
        "weights float32 [out, in, rows, columns] to bits uint64 [out, rows, columns, words].");
  m.def("convolve_bits", &convolve_bits<'f'>, nb::arg("signs"), nb::arg("weights"), nb::arg("in_channels"),
        nb::arg("stride"), nb::arg("padding"), nb::arg("out"), nb::arg("num_threads"),
        "out float32 [batch, rows, columns, out] = the convolution of bits [batch, rows, columns, words] "
        "with packed weights.");
  m.def("convolve_bits_int32", &convolve_bits<'i'>, nb::arg("signs"), nb::arg("weights"),
        nb::arg("in_channels"), nb::arg("stride"), nb::arg("padding"), nb::arg("out"), nb::arg("num_threads"),
        "The same, out int32.");
  m.def("conv_input_gradient", &input_gradient, nb::arg("gradient"), nb::arg("weights"), nb::arg("padding"),
        nb::arg("out"), nb::arg("num_threads"),
        "out float32 [batch, rows, columns, in] from the gradient [batch, rows, columns, out] and packed "
        "weights; stride 1.");
  m.def("conv_weight_gradient", &weight_gradient, nb::arg("gradient"), nb::arg("signs"), nb::arg("padding"),
        nb::arg("out"), nb::arg("num_threads"),
        "out float32 [out, in, rows, columns] from the gradient and the bits of the input; stride 1.");
}

}  // namespace binarynet_python
