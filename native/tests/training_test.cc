// The kernels of training against naive loops: packing, products, the order of float additions; and that
// nothing is read or written beyond the arrays (which end where their memory ends, for the sanitizers).
#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "check.h"
#include "training/choice.h"
#include "training/dense.h"
#include "training/parallel.h"

namespace binarynet_tests {
namespace {

namespace training = binarynet::training;

enum class Content { signs, masked, bytes, masked_bytes, real };

float draw(Content content, Random* random) {
  const bool zero = random->one_in(4);
  switch (content) {
    case Content::masked:
      if (zero) return 0.0f;
      [[fallthrough]];
    case Content::signs:
      return random->one_in(2) ? 1.0f : -1.0f;
    case Content::masked_bytes:
      if (zero) return 0.0f;
      [[fallthrough]];
    case Content::bytes:
      return static_cast<float>(2 * random->between(0, 255) - 255);
    default:
      return random->one_in(20) ? (zero ? -0.0f : 0.0f)
                                : static_cast<float>(random->between(-1000000, 1000000)) / 7e5f;
  }
}

std::vector<float> matrix(int64_t rows, int64_t cols, Content content, Random* random) {
  std::vector<float> values(static_cast<size_t>(rows * cols));
  for (float& value : values) value = draw(content, random);
  return values;
}

struct Packed {
  std::vector<uint64_t> by_row;
  std::vector<uint32_t> by_column;
  uint32_t found;
};

// Into memory full of ones, to see what is not written.
Packed pack(const std::vector<float>& values, int64_t rows, int64_t cols, bool strict, int32_t threads) {
  Packed packed;
  packed.by_row.assign(static_cast<size_t>(rows * training::row_words(cols)), ~uint64_t{0});
  packed.by_column.assign(
      static_cast<size_t>(training::column_offset(cols, training::blocks(rows) * training::kBlockWords, 0)),
      ~uint32_t{0});
  const training::Signs signs = {values.data(),          rows, cols, strict, true, packed.by_row.data(),
                                 packed.by_column.data()};
  packed.found = training::pack_signs(signs, threads);
  return packed;
}

bool bit_of_row(const Packed& packed, int64_t cols, int64_t row, int64_t col) {
  const int64_t word = row * training::row_words(cols) + col / 64;
  return (packed.by_row[static_cast<size_t>(word)] >> (col % 64)) & 1;
}

bool bit_of_column(const Packed& packed, int64_t cols, int64_t row, int64_t col) {
  const int64_t at = training::column_offset(cols, row / 32, col / 16) + col % 16;
  return (packed.by_column[static_cast<size_t>(at)] >> (row % 32)) & 1;
}

void check_packing(const std::vector<float>& values, int64_t rows, int64_t cols, bool strict,
                   const Packed& packed, const std::string& where) {
  int64_t ups = 0;
  for (int64_t row = 0; row < rows; ++row) {
    for (int64_t col = 0; col < cols; ++col) {
      const float value = values[static_cast<size_t>(row * cols + col)];
      const bool up = strict ? value > 0 : !(value < 0);
      ups += up;
      CHECK(bit_of_row(packed, cols, row, col) == up, where + ": row bits");
      CHECK(bit_of_column(packed, cols, row, col) == up, where + ": column bits");
    }
  }
  for (const uint64_t word : packed.by_row) ups -= __builtin_popcountll(word);
  CHECK(ups == 0, where + ": row bits beyond the matrix");
  for (const uint32_t word : packed.by_column) ups += __builtin_popcountll(word);
  for (const uint64_t word : packed.by_row) ups -= __builtin_popcountll(word);
  CHECK(ups == 0, where + ": column bits beyond the matrix");
}

// The order of additions that kernels.h states, written down again.
float signed_sum(const std::vector<float>& terms) {
  float total = 0;
  for (size_t block = 0; block < terms.size(); block += 128) {
    float sum = 0;
    for (size_t group = block; group < std::min(terms.size(), block + 128); group += 4) {
      float four = terms[group];
      for (size_t i = group + 1; i < group + 4; ++i) four += i < terms.size() ? terms[i] : 0.0f;
      sum += four;
    }
    total = block == 0 ? sum : total + sum;
  }
  return total;
}

struct Sizes {
  int64_t batch, out, in;
  std::string text() const {
    return std::to_string(batch) + " x " + std::to_string(out) + " x " + std::to_string(in);
  }
};

void check_products(const Sizes& n, Content content, int32_t threads, Random* random) {
  const std::string where = std::string(training::instruction_set()) + ", " + n.text() + ", content " +
                            std::to_string(static_cast<int>(content)) + ", threads " +
                            std::to_string(threads);
  const std::vector<float> x = matrix(n.batch, n.in, content, random);
  const std::vector<float> w = matrix(n.out, n.in, Content::real, random);
  const std::vector<float> g = matrix(n.batch, n.out, Content::real, random);
  const Packed x_bits = pack(x, n.batch, n.in, false, threads);
  const Packed x_strict = pack(x, n.batch, n.in, true, threads);
  const Packed w_bits = pack(w, n.out, n.in, false, threads);
  check_packing(x, n.batch, n.in, false, x_bits, where);
  check_packing(x, n.batch, n.in, true, x_strict, where);
  check_packing(w, n.out, n.in, false, w_bits, where);

  uint32_t found = 0;
  for (const float value : x) {
    if (value == 0.0f) found |= training::kFoundZero;
    if (std::fabs(value) > 1.0f) found |= training::kFoundByte;
  }
  CHECK(x_bits.found == found, where + ": found " + std::to_string(x_bits.found));

  // Forward.
  const training::WeightBits weights = {w_bits.by_row.data(), n.out, n.in};
  std::vector<float> sums(static_cast<size_t>(n.batch * n.out), -7.0f);
  const bool masked = (found & training::kFoundZero) != 0;
  if ((found & training::kFoundByte) != 0) {
    std::vector<uint8_t> bytes(x.size());
    std::vector<uint64_t> zeros(masked ? x_bits.by_row.size() : 0);
    training::to_bytes(x.data(), n.batch, n.in, bytes.data(), masked ? zeros.data() : nullptr, threads);
    training::multiply_bytes({bytes.data(), masked ? zeros.data() : nullptr, n.batch}, weights, sums.data(),
                             threads);
  } else {
    training::multiply_bits({x_bits.by_row.data(), masked ? x_strict.by_row.data() : nullptr, n.batch},
                            weights, sums.data(), threads);
  }
  for (int64_t b = 0; b < n.batch; ++b) {
    for (int64_t o = 0; o < n.out; ++o) {
      int64_t sum = 0;
      for (int64_t k = 0; k < n.in; ++k) {
        const int64_t value = static_cast<int64_t>(x[static_cast<size_t>(b * n.in + k)]);
        sum += w[static_cast<size_t>(o * n.in + k)] >= 0 ? value : -value;
      }
      CHECK(sums[static_cast<size_t>(b * n.out + o)] == static_cast<float>(sum), where + ": forward");
    }
  }

  // Gradient of the inputs: g times the signs of w. Gradient of the weights: g transposed times those of x.
  std::vector<float> gx(static_cast<size_t>(n.batch * n.in), -7.0f);
  training::multiply_signs({g.data(), n.out, 1, n.batch, n.out, n.in, w_bits.by_column.data(), gx.data()},
                           threads);
  std::vector<float> gw(static_cast<size_t>(n.out * n.in), -7.0f);
  training::multiply_signs({g.data(), 1, n.out, n.out, n.batch, n.in, x_bits.by_column.data(), gw.data()},
                           threads);
  std::vector<float> real(gw.size(), -7.0f);
  training::multiply_real({g.data(), x.data(), n.batch, n.out, n.in, real.data()}, threads);
  for (int64_t k = 0; k < n.in; ++k) {
    std::vector<float> terms(static_cast<size_t>(n.out));
    for (int64_t b = 0; b < n.batch; ++b) {
      for (int64_t o = 0; o < n.out; ++o) {
        const float value = g[static_cast<size_t>(b * n.out + o)];
        terms[static_cast<size_t>(o)] = w[static_cast<size_t>(o * n.in + k)] >= 0 ? value : -value;
      }
      CHECK(gx[static_cast<size_t>(b * n.in + k)] == signed_sum(terms), where + ": gradient of the inputs");
    }
    terms.resize(static_cast<size_t>(n.batch));
    for (int64_t o = 0; o < n.out; ++o) {
      float total = 0;
      float chain = 0;
      for (int64_t b = 0; b < n.batch; ++b) {
        const float value = g[static_cast<size_t>(b * n.out + o)];
        const float operand = x[static_cast<size_t>(b * n.in + k)];
        terms[static_cast<size_t>(b)] = operand >= 0 ? value : -value;
        chain = std::fma(value, operand, b % 128 == 0 ? 0.0f : chain);
        if (b % 128 == 127 || b == n.batch - 1) total = b < 128 ? chain : total + chain;
      }
      const size_t at = static_cast<size_t>(o * n.in + k);
      CHECK(gw[at] == signed_sum(terms), where + ": gradient of the weights");
      CHECK(real[at] == total, where + ": real product");
    }
  }
}

void check_others() {
  for (const float value : {2.0f, 0.5f, -1.5f, 256.0f, 257.0f, -257.0f, 3.0000002f, INFINITY, NAN}) {
    std::vector<float> values(70, 1.0f);
    for (const size_t at : {size_t{0}, size_t{37}, size_t{69}}) {
      values[at] = value;
      CHECK(pack(values, 1, 70, false, 1).found == training::kFoundOther, std::to_string(value));
      CHECK(pack(values, 70, 1, false, 1).found == training::kFoundOther, std::to_string(value));
      CHECK(bit_of_row(pack(values, 1, 70, false, 1), 70, 0, static_cast<int64_t>(at)) == !(value < 0),
            std::to_string(value));
      values[at] = 1.0f;
    }
  }
}

void check_parallel() {
  const std::vector<int> before(1000, 0);
  std::vector<int> seen = before;
  for (const int32_t threads : {1, 2, 3, 2, 5}) {
    training::parallel(threads, 1000, 4096, [&](int64_t unit, void* workspace) {
      std::memset(workspace, static_cast<int>(unit), 4096);
      ++seen[static_cast<size_t>(unit)];
    });
  }
  CHECK(seen == std::vector<int>(1000, 5), "each unit once");
}

}  // namespace

void test_training(uint64_t seed) {
  Random random(seed);
  check_parallel();
  for (const std::string& isa : usable_isas()) {
    setenv("BINARYNET_FORCE_ISA", isa.c_str(), 1);
    check_others();
    for (const Content content : {Content::signs, Content::masked, Content::bytes, Content::masked_bytes}) {
      for (const Sizes& sizes : {Sizes{1, 1, 1}, Sizes{3, 5, 7}, Sizes{16, 17, 64}, Sizes{33, 48, 65},
                                 Sizes{130, 20, 49}, Sizes{5, 131, 127}}) {
        check_products(sizes, content, random.one_in(2) ? 1 : 3, &random);
      }
      const Sizes sizes = {random.between(1, 140), random.between(1, 140), random.between(1, 100)};
      check_products(sizes, content, 2, &random);
    }
    check_products({2, 4, 5000}, Content::signs, 2, &random);  // more columns than a chunk of packing
  }
  unsetenv("BINARYNET_FORCE_ISA");
}

}  // namespace binarynet_tests
