#include "training.h"

#include <optional>
#include <utility>
#include <vector>

#include "arrays.h"
#include "training/choice.h"
#include "training/dense.h"

namespace binarynet_python {
namespace {

namespace training = binarynet::training;
using Access = Array::Access;

// None, or an array.
std::optional<Array> optional_array(nb::handle object, const char* name, char element,
                                    const std::vector<int64_t>& shape, Access access = Access::read) {
  if (object.is_none()) return std::nullopt;
  return std::optional<Array>(std::in_place, object, name, element, shape, access);
}

// Of the column bits of a matrix.
std::vector<int64_t> column_shape(int64_t rows, int64_t cols) {
  return {training::blocks(rows), training::panels(cols), training::kBlockWords, training::kLanes};
}

uint32_t pack_signs(nb::handle values, bool strict, bool find, nb::handle by_row, nb::handle by_column,
                    int32_t num_threads) {
  const Array from(values, "values", 'f', {-1, -1});
  const int64_t rows = from.length(0);
  const int64_t cols = from.length(1);
  const auto row_bits =
      optional_array(by_row, "by_row", 'Q', {rows, training::row_words(cols)}, Access::write);
  const auto column_bits =
      optional_array(by_column, "by_column", 'i', column_shape(rows, cols), Access::write);
  const training::Signs signs = {from.data<float>(),
                                 rows,
                                 cols,
                                 strict,
                                 find,
                                 row_bits ? row_bits->mutable_data<uint64_t>() : nullptr,
                                 column_bits ? column_bits->mutable_data<uint32_t>() : nullptr};
  return call([&] { return training::pack_signs(signs, num_threads); });
}

void multiply_bits(nb::handle a, nb::handle a_strict, nb::handle w, int64_t in_features, nb::handle out,
                   int32_t num_threads) {
  const int64_t words = training::row_words(in_features);
  const Array a_bits(a, "a", 'Q', {-1, words});
  const int64_t batch = a_bits.length(0);
  const auto strict_bits = optional_array(a_strict, "a_strict", 'Q', {batch, words});
  const Array w_bits(w, "w", 'Q', {-1, words});
  const Array sums(out, "out", 'f', {batch, w_bits.length(0)}, Access::write);
  const training::BitOperands operands = {a_bits.data<uint64_t>(),
                                          strict_bits ? strict_bits->data<uint64_t>() : nullptr, batch};
  const training::WeightBits weights = {w_bits.data<uint64_t>(), w_bits.length(0), in_features};
  call([&] { training::multiply_bits(operands, weights, sums.mutable_data<float>(), num_threads); });
}

void multiply_bits_int32(nb::handle a, nb::handle w, int64_t in_features, nb::handle out,
                         int32_t num_threads) {
  const int64_t words = training::row_words(in_features);
  const Array a_bits(a, "a", 'Q', {-1, words});
  const Array w_bits(w, "w", 'Q', {-1, words});
  const Array sums(out, "out", 'i', {a_bits.length(0), w_bits.length(0)}, Access::write);
  const training::BitOperands operands = {a_bits.data<uint64_t>(), nullptr, a_bits.length(0)};
  const training::WeightBits weights = {w_bits.data<uint64_t>(), w_bits.length(0), in_features};
  call([&] { training::multiply_bits(operands, weights, sums.mutable_data<int32_t>(), num_threads); });
}

void multiply_bytes(nb::handle a, nb::handle masked, nb::handle w, nb::handle out, int32_t num_threads) {
  const Array a_bytes(a, "a", 'B', {-1, -1});
  const int64_t batch = a_bytes.length(0);
  const int64_t in_features = a_bytes.length(1);
  const int64_t words = training::row_words(in_features);
  const auto mask_bits = optional_array(masked, "masked", 'Q', {batch, words});
  const Array w_bits(w, "w", 'Q', {-1, words});
  const Array sums(out, "out", 'f', {batch, w_bits.length(0)}, Access::write);
  const training::ByteOperands operands = {a_bytes.data<uint8_t>(),
                                           mask_bits ? mask_bits->data<uint64_t>() : nullptr, batch};
  const training::WeightBits weights = {w_bits.data<uint64_t>(), w_bits.length(0), in_features};
  call([&] { training::multiply_bytes(operands, weights, sums.mutable_data<float>(), num_threads); });
}

void to_bytes(nb::handle values, nb::handle bytes, nb::handle zeros, int32_t num_threads) {
  const Array from(values, "values", 'f', {-1, -1});
  const int64_t rows = from.length(0);
  const int64_t cols = from.length(1);
  const Array to(bytes, "bytes", 'B', {rows, cols}, Access::write);
  const auto zero_bits =
      optional_array(zeros, "zeros", 'Q', {rows, training::row_words(cols)}, Access::write);
  call([&] {
    training::to_bytes(from.data<float>(), rows, cols, to.mutable_data<uint8_t>(),
                       zero_bits ? zero_bits->mutable_data<uint64_t>() : nullptr, num_threads);
  });
}

void multiply_real(nb::handle left, nb::handle right, nb::handle out, int32_t num_threads) {
  const Array left_array(left, "left", 'f', {-1, -1});
  const int64_t steps = left_array.length(0);
  const int64_t rows = left_array.length(1);
  const Array right_array(right, "right", 'f', {steps, -1});
  const int64_t cols = right_array.length(1);
  const Array sums(out, "out", 'f', {rows, cols}, Access::write);
  const training::RealProduct product = {
      left_array.data<float>(), right_array.data<float>(), steps, rows, cols, sums.mutable_data<float>()};
  call([&] { training::multiply_real(product, num_threads); });
}

void multiply_signs(nb::handle values, bool transposed, nb::handle signs, nb::handle out,
                    int32_t num_threads) {
  const Array real(values, "values", 'f', {-1, -1});
  const int64_t rows = real.length(transposed ? 1 : 0);
  const int64_t steps = real.length(transposed ? 0 : 1);
  const Array sums(out, "out", 'f', {rows, -1}, Access::write);
  const int64_t cols = sums.length(1);
  const Array bits(signs, "signs", 'i', column_shape(steps, cols));
  const training::SignedProduct product = {
      real.data<float>(),    transposed ? 1 : steps,    transposed ? rows : 1, rows, steps, cols,
      bits.data<uint32_t>(), sums.mutable_data<float>()};
  call([&] { training::multiply_signs(product, num_threads); });
}

const char* instruction_set() {
  return call([] { return training::instruction_set(); });
}

}  // namespace

void add_training(nb::module_& m) {
  add_training_convolutions(m);
  m.doc() =
      "Kernels of the training step. Arrays are C-contiguous NumPy arrays; results go into arrays that the "
      "caller gives. Layouts: native/src/training/kernels.h.";
  m.def("instruction_set", &instruction_set,
        "Whose kernels are used now: \"portable\" where the chosen instruction set has none of its own.");
  m.def(
      "pack_signs", &pack_signs, nb::arg("values"), nb::arg("strict"), nb::arg("find"),
      nb::arg("by_row").none(), nb::arg("by_column").none(), nb::arg("num_threads"),
      "values: float32 [rows, cols]; by_row: uint64 [rows, words], by_column: int32 [blocks, panels, 4, 16]. "
      "Returns what was found besides +1 and -1, if asked to `find`: 1 zero, 2 other odd "
      "integers up to 255, 4 anything else.");
  m.def("multiply_bits", &multiply_bits, nb::arg("a"), nb::arg("a_strict").none(), nb::arg("w"),
        nb::arg("in_features"), nb::arg("out"), nb::arg("num_threads"),
        "out float32 [batch, out_features] = a w^T of row bits.");
  m.def("multiply_bits_int32", &multiply_bits_int32, nb::arg("a"), nb::arg("w"), nb::arg("in_features"),
        nb::arg("out"), nb::arg("num_threads"), "The same of +1 and -1 only, out int32.");
  m.def("to_bytes", &to_bytes, nb::arg("values"), nb::arg("bytes"), nb::arg("zeros").none(),
        nb::arg("num_threads"),
        "values: float32 [rows, cols] of 2u - 255 and 0; bytes: uint8 [rows, cols] gets u (0 for 0), zeros: "
        "uint64 [rows, words] a bit for each 0.");
  m.def("multiply_bytes", &multiply_bytes, nb::arg("a"), nb::arg("masked").none(), nb::arg("w"),
        nb::arg("out"), nb::arg("num_threads"),
        "out float32 [batch, out_features] = (2 a - 255, or 0 where masked) w^T, w as row bits.");
  m.def("multiply_real", &multiply_real, nb::arg("left"), nb::arg("right"), nb::arg("out"),
        nb::arg("num_threads"), "out float32 [rows, cols] = left^T right.");
  m.def("multiply_signs", &multiply_signs, nb::arg("values"), nb::arg("transposed"), nb::arg("signs"),
        nb::arg("out"), nb::arg("num_threads"),
        "out float32 [rows, cols] = values (or values^T) times signs, given as column bits [steps, cols].");
  add_elementwise(m);
}

}  // namespace binarynet_python
