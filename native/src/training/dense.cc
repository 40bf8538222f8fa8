#include "training/dense.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <vector>

#include "dispatch.h"
#include "training/choice.h"
#include "training/parallel.h"

namespace binarynet::training {
namespace {

int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }

const DenseKernels& kernels() {
#if defined(BINARYNET_HAVE_AVX512_VPOPCNTDQ)
  return choose(&kAvx512VpopcntdqDense, kPortableDense);
#else
  return choose<DenseKernels>(nullptr, kPortableDense);
#endif
}

// A dense layer as the inference kernels know it.
Block dense_block(BlockInput input, const WeightBits& w, int32_t num_threads) {
  Block block = {};
  block.input = input;
  block.output = BlockOutput::int32;
  block.threads = num_threads;
  block.in_h = block.in_w = block.kernel_h = block.kernel_w = block.stride_h = block.stride_w = 1;
  block.conv_h = block.conv_w = block.out_h = block.out_w = 1;
  block.pool_h = block.pool_w = block.pool_stride_h = block.pool_stride_w = 1;
  block.in_c = static_cast<int32_t>(w.in_features);
  block.in_words = static_cast<int32_t>(row_words(w.in_features));
  block.out_c = static_cast<int32_t>(w.out_features);
  block.out_words = static_cast<int32_t>(row_words(w.out_features));
  block.weights = w.words;
  return block;
}

// Two units at least per thread, each of a size that is worth it.
int64_t unit_size(int64_t count, int64_t most, int32_t num_threads) {
  return std::clamp<int64_t>(divide_up(count, 2 * int64_t{num_threads}), 1, most);
}

// The weights, laid out for the inference kernels.
class Weights {
 public:
  Weights(BlockInput input, const WeightBits& w, int32_t num_threads)
      : block_(dense_block(input, w, num_threads)),
        engine_(choose_kernels(nullptr).engine(block_)),
        prepared_(engine_.prepared_bytes(block_)) {
    engine_.prepare(block_, prepared_.data());
  }

  // sums: int32 [batch, out_features].
  void multiply(const void* operands, int64_t batch, void* sums) const {
    const int32_t num_threads = block_.threads;
    const Method& method = engine_.method(block_, batch);
    const int64_t kernel_units = method.unit_count(block_, batch);
    const int64_t share = unit_size(kernel_units, 16, num_threads);
    const size_t workspace = method.workspace_bytes(block_, batch);
    parallel(num_threads, divide_up(kernel_units, share), workspace, [&](int64_t unit, void* scratch) {
      method.run(block_, prepared_.data(), operands, sums, batch, unit * share,
                 std::min(kernel_units, (unit + 1) * share), scratch);
    });
  }

 private:
  Block block_;
  const Engine& engine_;
  AlignedBuffer prepared_;
};

int32_t integer_at(const float* sums, int64_t i) {
  int32_t sum;
  std::memcpy(&sum, sums + i, sizeof(sum));
  return sum;
}

// A second matrix of sums, if there is one.
AlignedBuffer more_sums(bool wanted, int64_t size) {
  return AlignedBuffer(wanted ? static_cast<size_t>(size) * sizeof(int32_t) : 0);
}

// Sum of a row of +-1 given as bits.
int32_t sum_of_signs(const uint64_t* words, int64_t count) {
  int32_t ups = 0;
  for (int64_t i = 0; i < row_words(count); ++i) ups += __builtin_popcountll(words[i]);
  return 2 * ups - static_cast<int32_t>(count);
}

}  // namespace

uint32_t pack_signs(const Signs& signs, int32_t num_threads) {
  const DenseKernels& chosen = kernels();
  std::atomic<uint32_t> found{0};
  parallel(num_threads, blocks(signs.rows), 0,
           [&](int64_t block, void*) { found |= chosen.pack(signs, block, block + 1); });
  return found;
}

void multiply_bits(const BitOperands& a, const WeightBits& w, float* out, int32_t num_threads) {
  const int64_t size = a.batch * w.out_features;
  if (size == 0) return;
  const Weights weights(BlockInput::bits, w, num_threads);
  const AlignedBuffer strict = more_sums(a.strict != nullptr, size);
  weights.multiply(a.words, a.batch, out);  // int32 for now
  if (a.strict == nullptr) {
    for (int64_t i = 0; i < size; ++i) out[i] = static_cast<float>(integer_at(out, i));
    return;
  }
  weights.multiply(a.strict, a.batch, strict.data());
  const auto* strict_sums = static_cast<const int32_t*>(strict.data());
  for (int64_t i = 0; i < size; ++i) out[i] = static_cast<float>((integer_at(out, i) + strict_sums[i]) / 2);
}

void multiply_bits(const BitOperands& a, const WeightBits& w, int32_t* out, int32_t num_threads) {
  if (a.batch == 0 || w.out_features == 0) return;
  Weights(BlockInput::bits, w, num_threads).multiply(a.words, a.batch, out);
}

void multiply_bytes(const ByteOperands& a, const WeightBits& w, float* out, int32_t num_threads) {
  const int64_t size = a.batch * w.out_features;
  if (size == 0) return;
  Weights(BlockInput::bytes, w, num_threads).multiply(a.bytes, a.batch, out);  // int32 for now
  if (a.masked == nullptr) {
    for (int64_t i = 0; i < size; ++i) out[i] = static_cast<float>(integer_at(out, i));
    return;
  }
  // A masked u = 0 has added -255 w. The sum of the w at masked places is half of: all w, plus the product of
  // w with the signs of the mask.
  const AlignedBuffer mask = more_sums(true, size);
  Weights(BlockInput::bits, w, num_threads).multiply(a.masked, a.batch, mask.data());
  const auto* mask_sums = static_cast<const int32_t*>(mask.data());
  std::vector<int32_t> all(static_cast<size_t>(w.out_features));
  for (int64_t n = 0; n < w.out_features; ++n) {
    all[static_cast<size_t>(n)] = sum_of_signs(w.words + n * row_words(w.in_features), w.in_features);
  }
  for (int64_t first = 0; first < size; first += w.out_features) {
    for (int64_t n = 0; n < w.out_features; ++n) {
      const int32_t masked = (all[static_cast<size_t>(n)] + mask_sums[first + n]) / 2;
      out[first + n] = static_cast<float>(integer_at(out, first + n) + 255 * masked);
    }
  }
}

void to_bytes(const float* values, int64_t rows, int64_t cols, uint8_t* bytes, uint64_t* zeros,
              int32_t num_threads) {
  const DenseKernels& chosen = kernels();
  parallel(num_threads, rows, 0, [&](int64_t row, void*) {
    chosen.to_bytes(values + row * cols, cols, bytes + row * cols);
    if (zeros == nullptr) return;
    uint64_t* words = zeros + row * row_words(cols);
    std::fill_n(words, row_words(cols), uint64_t{0});
    for (int64_t col = 0; col < cols; ++col) {
      words[col / kRowBits] |= static_cast<uint64_t>(values[row * cols + col] == 0.0f) << (col % kRowBits);
    }
  });
}

void multiply_signs(const SignedProduct& p, int32_t num_threads) {
  if (p.steps == 0) {
    std::fill_n(p.out, p.rows * p.cols, 0.0f);
    return;
  }
  if (p.rows == 0 || p.cols == 0) return;
  const DenseKernels& chosen = kernels();
  // Rows in even shares of at most a tile: 100 rows are 7 tiles of 14 or 15, not 6 of 16 and one of 4.
  const int64_t row_tiles = divide_up(p.rows, kTileRows);
  const int64_t panel_tiles =
      divide_up(panels(p.cols), unit_size(panels(p.cols) * row_tiles, kTilePanels, num_threads));
  const auto part = [](int64_t count, int64_t parts, int64_t i) { return count * i / parts; };
  parallel(num_threads, row_tiles * panel_tiles, chosen.multiply_workspace, [&](int64_t unit, void* scratch) {
    const int64_t row = unit / panel_tiles;
    const int64_t panel = unit % panel_tiles;
    chosen.multiply(p, part(p.rows, row_tiles, row), part(p.rows, row_tiles, row + 1),
                    part(panels(p.cols), panel_tiles, panel), part(panels(p.cols), panel_tiles, panel + 1),
                    scratch);
  });
}

void multiply_real(const RealProduct& p, int32_t num_threads) {
  if (p.steps == 0) {
    std::fill_n(p.out, p.rows * p.cols, 0.0f);
    return;
  }
  const DenseKernels& chosen = kernels();
  const int64_t size = std::max<int64_t>(8, unit_size(p.rows, kRealRows, num_threads));
  parallel(num_threads, divide_up(p.rows, size), chosen.multiply_real_workspace,
           [&](int64_t unit, void* scratch) {
             chosen.multiply_real(p, unit * size, std::min(p.rows, (unit + 1) * size), scratch);
           });
}

}  // namespace binarynet::training
