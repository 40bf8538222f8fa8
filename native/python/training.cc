#include "training.h"

#include <exception>
#include <new>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "arrays.h"
#include "error.h"
#include "training/choice.h"
#include "training/dense.h"

namespace binarynet_python {
namespace {

namespace training = binarynet::training;
using Access = Array::Access;

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
  const auto strict_bits = optional_array(a_strict, "a_strict", 'Q', {a_bits.length(0), words});
  const Array w_bits(w, "w", 'Q', {-1, words});
  const Array sums(out, "out", 'f', {a_bits.length(0), w_bits.length(0)}, Access::write);
  const training::BitProduct product = {
      a_bits.data<uint64_t>(),   strict_bits ? strict_bits->data<uint64_t>() : nullptr,
      w_bits.data<uint64_t>(),   a_bits.length(0),
      w_bits.length(0),          in_features,
      sums.mutable_data<float>()};
  call([&] { training::multiply_bits(product, num_threads); });
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
  m.doc() =
      "Kernels of the training step. Arrays are C-contiguous NumPy arrays; results go into arrays that the "
      "caller gives. Layouts: native/src/training/kernels.h.";
  m.def("instruction_set", &instruction_set,
        "Whose kernels are used now: \"portable\" where the chosen instruction set has none of its own.");
  m.def(
      "pack_signs", &pack_signs, nb::arg("values"), nb::arg("strict"), nb::arg("find"),
      nb::arg("by_row").none(), nb::arg("by_column").none(), nb::arg("num_threads"),
      "values: float32 [rows, cols]; by_row: uint64 [rows, words], by_column: int32 [blocks, panels, 4, 16]. "
      "Returns what was found besides +1 and -1, if asked to `find`: 1 zero, 2 anything else.");
  m.def("multiply_bits", &multiply_bits, nb::arg("a"), nb::arg("a_strict").none(), nb::arg("w"),
        nb::arg("in_features"), nb::arg("out"), nb::arg("num_threads"),
        "out float32 [batch, out_features] = a w^T of row bits.");
  m.def("multiply_signs", &multiply_signs, nb::arg("values"), nb::arg("transposed"), nb::arg("signs"),
        nb::arg("out"), nb::arg("num_threads"),
        "out float32 [rows, cols] = values (or values^T) times signs, given as column bits [steps, cols].");
}

}  // namespace binarynet_python
