#include "training/dense.h"

#include <algorithm>
#include <atomic>
#include <cstring>

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
Block dense_block(const BitProduct& p) {
  Block block = {};
  block.input = BlockInput::bits;
  block.output = BlockOutput::int32;
  block.in_h = block.in_w = block.kernel_h = block.kernel_w = block.stride_h = block.stride_w = 1;
  block.conv_h = block.conv_w = block.out_h = block.out_w = 1;
  block.pool_h = block.pool_w = block.pool_stride_h = block.pool_stride_w = 1;
  block.in_c = static_cast<int32_t>(p.in_features);
  block.in_words = static_cast<int32_t>(row_words(p.in_features));
  block.out_c = static_cast<int32_t>(p.out_features);
  block.out_words = static_cast<int32_t>(row_words(p.out_features));
  block.weights = p.w;
  return block;
}

// Two units at least per thread, each of a size that is worth it.
int64_t unit_size(int64_t count, int64_t most, int32_t num_threads) {
  return std::clamp<int64_t>(divide_up(count, 2 * int64_t{num_threads}), 1, most);
}

}  // namespace

uint32_t pack_signs(const Signs& signs, int32_t num_threads) {
  const DenseKernels& chosen = kernels();
  std::atomic<uint32_t> found{0};
  parallel(num_threads, blocks(signs.rows), 0,
           [&](int64_t block, void*) { found |= chosen.pack(signs, block, block + 1); });
  return found;
}

void multiply_bits(const BitProduct& p, int32_t num_threads) {
  const int64_t size = p.batch * p.out_features;
  if (size == 0) return;
  const KernelSet& set = choose_kernels(nullptr);
  const Block block = dense_block(p);
  const AlignedBuffer prepared(set.prepared_bytes(block));
  set.prepare(block, prepared.data());
  const AlignedBuffer strict_sums(p.a_strict == nullptr ? 0 : static_cast<size_t>(size) * sizeof(int32_t));

  const int64_t kernel_units = set.unit_count(block, p.batch);
  const int64_t share = unit_size(kernel_units, 16, num_threads);
  const int64_t units = divide_up(kernel_units, share);
  const size_t workspace = set.workspace_bytes(block, p.batch, share);
  const auto multiply = [&](const uint64_t* a, void* sums) {
    parallel(num_threads, units, workspace, [&](int64_t unit, void* scratch) {
      set.run(block, prepared.data(), a, sums, p.batch, unit * share,
              std::min(kernel_units, (unit + 1) * share), scratch);
    });
  };
  multiply(p.a, p.out);  // int32 for now
  if (p.a_strict != nullptr) multiply(p.a_strict, strict_sums.data());

  const auto* strict = static_cast<const int32_t*>(strict_sums.data());
  for (int64_t i = 0; i < size; ++i) {
    int32_t sum;
    std::memcpy(&sum, p.out + i, sizeof(sum));
    p.out[i] = static_cast<float>(strict == nullptr ? sum : (sum + strict[i]) / 2);
  }
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

}  // namespace binarynet::training
