#include "training/conv.h"

#include <algorithm>
#include <vector>

#include "dispatch.h"
#include "memory.h"
#include "training/choice.h"
#include "training/parallel.h"

namespace binarynet::training {
namespace {

int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }

const ConvKernels& kernels() {
#if defined(BINARYNET_HAVE_AVX512_VPOPCNTDQ)
  return choose(&kAvx512VpopcntdqConv, kPortableConv);
#else
  return choose<ConvKernels>(nullptr, kPortableConv);
#endif
}

// The convolution as the inference kernels know it.
Block block_of(const Convolution& c, int32_t num_threads) {
  const ConvShape& s = c.shape;
  const auto narrow = [](int64_t value) { return static_cast<int32_t>(value); };
  Block block = {};
  block.input = BlockInput::bits;
  block.output = c.element;
  block.threads = num_threads;
  block.in_h = narrow(s.in_h);
  block.in_w = narrow(s.in_w);
  block.in_c = narrow(s.in_c);
  block.in_words = narrow(row_words(s.in_c));
  block.kernel_h = narrow(s.kernel_h);
  block.kernel_w = narrow(s.kernel_w);
  block.stride_h = narrow(c.stride_h);
  block.stride_w = narrow(c.stride_w);
  block.pad_h = narrow(s.pad_h);
  block.pad_w = narrow(s.pad_w);
  block.conv_h = block.out_h = narrow(s.out_h);
  block.conv_w = block.out_w = narrow(s.out_w);
  block.out_c = narrow(s.out_c);
  block.out_words = narrow(row_words(s.out_c));
  block.pool_h = block.pool_w = block.pool_stride_h = block.pool_stride_w = 1;
  block.weights = c.weights;
  return block;
}

// See WeightGradient.
class Slots {
 public:
  explicit Slots(const ConvShape& s) {
    const int64_t groups = column_groups(s);
    slot_of_.resize(static_cast<size_t>(s.kernel_w * groups));
    for (int64_t group = 0; group < groups; ++group) {
      if (group * kGroupSteps % kBlockColumns == 0) begin_.push_back(count());
      const int32_t first = count();
      for (int64_t kx = 0; kx < s.kernel_w; ++kx) {
        const auto wanted = static_cast<int32_t>(group << 4 | columns_inside(s, group, kx));
        const auto found = std::find(cases_.begin() + first, cases_.end(), wanted);
        slot_of_[static_cast<size_t>(kx * groups + group)] =
            static_cast<int32_t>(found - cases_.begin()) - begin_.back();
        if (found == cases_.end()) cases_.push_back(wanted);
      }
    }
    begin_.push_back(count());
    for (size_t word = 1; word < begin_.size(); ++word) {
      most_ = std::max<int64_t>(most_, begin_[word] - begin_[word - 1]);
    }
  }

  void describe(WeightGradient* gradient) const {
    // Tables of about 28 KB for 8 channels: what is left of a first-level cache for them.
    constexpr int64_t kBlockTables = 56;
    gradient->block_rows = std::clamp<int64_t>(kBlockTables / most_, 1, kMostBlockRows);
    gradient->slots = most_;
    gradient->slot_begin = begin_.data();
    gradient->cases = cases_.data();
    gradient->slot_of = slot_of_.data();
  }

 private:
  int32_t count() const { return static_cast<int32_t>(cases_.size()); }

  static int64_t columns_inside(const ConvShape& s, int64_t group, int64_t kx) {
    int64_t mask = 0;
    for (int64_t i = 0; i < kGroupSteps; ++i) {
      const int64_t x = group * kGroupSteps + i;
      const int64_t pixel = x + kx - s.pad_w;
      if (x < s.out_w && pixel >= 0 && pixel < s.in_w) mask |= int64_t{1} << i;
    }
    return mask;
  }

  std::vector<int32_t> begin_, cases_, slot_of_;
  int64_t most_ = 0;
};

}  // namespace

void pack_conv_weights(const float* weights, int64_t out_c, int64_t in_c, int64_t taps, uint64_t* bits,
                       int32_t num_threads) {
  constexpr int64_t kChannels = 16;  // of a unit
  const ConvKernels& chosen = kernels();
  parallel(num_threads, divide_up(out_c, kChannels), 0, [&](int64_t unit, void*) {
    chosen.pack_weights(weights, in_c, taps, unit * kChannels, std::min(out_c, (unit + 1) * kChannels), bits);
  });
}

void convolve_bits(const Convolution& convolution, int32_t num_threads) {
  const int64_t batch = convolution.shape.batch;
  if (batch == 0) return;
  const Block block = block_of(convolution, num_threads);
  const Engine& engine = choose_kernels(nullptr).engine(block);
  const AlignedBuffer prepared(engine.prepared_bytes(block));
  engine.prepare(block, prepared.data());
  const Method& method = engine.method(block, batch);
  const int64_t kernel_units = method.unit_count(block, batch);
  const int64_t share = std::clamp<int64_t>(divide_up(kernel_units, 4 * int64_t{num_threads}), 1, 16);
  parallel(num_threads, divide_up(kernel_units, share), method.workspace_bytes(block, batch),
           [&](int64_t unit, void* workspace) {
             method.run(block, prepared.data(), convolution.signs, convolution.out, batch, unit * share,
                        std::min(kernel_units, (unit + 1) * share), workspace);
           });
}

void input_gradient(const InputGradient& gradient, int32_t num_threads) {
  const ConvShape& s = gradient.shape;
  if (s.batch == 0) return;
  const ConvKernels& chosen = kernels();
  const AlignedBuffer prepared(chosen.input_prepared_bytes(s));
  chosen.input_prepare(gradient, prepared.data());
  // Images, or parts of them where there are few.
  const int64_t parts = std::min(s.in_h, divide_up(2 * int64_t{num_threads}, s.batch));
  parallel(num_threads, s.batch * parts, chosen.input_workspace_bytes(s), [&](int64_t unit, void* workspace) {
    const int64_t part = unit % parts;
    chosen.input_run(gradient, prepared.data(), unit / parts, s.in_h * part / parts,
                     s.in_h * (part + 1) / parts, workspace);
  });
}

void weight_gradient(const ConvShape& shape, const float* g, const uint64_t* signs, float* out,
                     int32_t num_threads) {
  const Slots slots(shape);
  WeightGradient gradient = {};
  gradient.shape = shape;
  gradient.g = g;
  gradient.signs = signs;
  gradient.out = out;
  slots.describe(&gradient);
  const ConvKernels& chosen = kernels();
  const AlignedBuffer prepared(chosen.weight_prepared_bytes(shape));
  constexpr int64_t kRows = 64;  // of a unit
  const int64_t rows = shape.batch * shape.in_h;
  parallel(num_threads, divide_up(rows, kRows), 0, [&](int64_t unit, void*) {
    chosen.weight_prepare(gradient, prepared.data(), unit * kRows, std::min(rows, (unit + 1) * kRows));
  });
  parallel(num_threads, divide_up(shape.out_c, kUnitChannels), chosen.weight_workspace_bytes(gradient),
           [&](int64_t unit, void* workspace) {
             chosen.weight_run(gradient, prepared.data(), unit * kUnitChannels, workspace);
           });
}

}  // namespace binarynet::training
