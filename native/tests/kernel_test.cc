// Each kernel set against its contract (kernels.h): any division into units, exactly as much memory as it
// asks for, inputs at the least alignment, nothing written outside of its units.
#include <algorithm>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include "check.h"
#include "dispatch.h"
#include "kernels/kernels.h"
#include "memory.h"
#include "network.h"

namespace binarynet_tests {
namespace {

using binarynet::AlignedBuffer;
using binarynet::Block;
using binarynet::BlockInput;
using binarynet::BlockOutput;
using binarynet::Engine;
using binarynet::KernelSet;
using binarynet::Method;

// A block with all that its pointers refer to, its input and its expected output, unpacked.
struct Case {
  Block block{};
  int64_t batch = 0;
  bool extreme =
      false;  // the first channel disagrees with the first pixels of the first image wherever it can
  std::vector<uint64_t> weights, falling;
  std::vector<int32_t> thresholds;
  std::vector<uint8_t> in, expected;  // bytes in the layout of the contract
  std::string text;
};

int32_t output_length(int32_t length, int32_t kernel, int32_t stride, int32_t pad) {
  return (length + 2 * pad - kernel) / stride + 1;
}

template <class Element>
std::vector<uint8_t> bytes_of(const std::vector<Element>& elements) {
  std::vector<uint8_t> bytes(elements.size() * sizeof(Element));
  if (!bytes.empty()) std::memcpy(bytes.data(), elements.data(), bytes.size());
  return bytes;
}

// The sums of the convolution, [batch, conv_h, conv_w, out_c], from unpacked operands.
std::vector<int32_t> naive_sums(const Case& test, const std::vector<int32_t>& in,
                                const std::vector<int32_t>& w) {
  const Block& b = test.block;
  std::vector<int32_t> sums;
  for (int64_t image = 0; image < test.batch; ++image) {
    for (int32_t y = 0; y < b.conv_h; ++y) {
      for (int32_t x = 0; x < b.conv_w; ++x) {
        for (int64_t o = 0; o < b.out_c; ++o) {
          int32_t sum = 0;
          for (int32_t ky = 0; ky < b.kernel_h; ++ky) {
            for (int32_t kx = 0; kx < b.kernel_w; ++kx) {
              const int64_t in_y = int64_t{y} * b.stride_h - b.pad_h + ky;
              const int64_t in_x = int64_t{x} * b.stride_w - b.pad_w + kx;
              if (in_y < 0 || in_y >= b.in_h || in_x < 0 || in_x >= b.in_w) continue;
              const int32_t* pixel = in.data() + ((image * b.in_h + in_y) * b.in_w + in_x) * b.in_c;
              const int32_t* weight = w.data() + ((o * b.kernel_h + ky) * b.kernel_w + kx) * b.in_c;
              for (int32_t c = 0; c < b.in_c; ++c) {
                const int32_t value = b.input == BlockInput::bytes ? 2 * pixel[c] - 255 : 2 * pixel[c] - 1;
                sum += weight[c] != 0 ? value : -value;
              }
            }
          }
          sums.push_back(sum);
        }
      }
    }
  }
  return sums;
}

std::vector<int32_t> naive_pool(const Case& test, const std::vector<int32_t>& sums) {
  const Block& b = test.block;
  std::vector<int32_t> pooled;
  for (int64_t image = 0; image < test.batch; ++image) {
    for (int32_t y = 0; y < b.out_h; ++y) {
      for (int32_t x = 0; x < b.out_w; ++x) {
        for (int32_t o = 0; o < b.out_c; ++o) {
          int32_t best = std::numeric_limits<int32_t>::min();
          for (int32_t conv_y = y * b.pool_stride_h - b.pool_pad_h, i = 0; i < b.pool_h; ++i, ++conv_y) {
            for (int32_t conv_x = x * b.pool_stride_w - b.pool_pad_w, j = 0; j < b.pool_w; ++j, ++conv_x) {
              if (conv_y < 0 || conv_y >= b.conv_h || conv_x < 0 || conv_x >= b.conv_w) continue;
              const int64_t pixel = (image * b.conv_h + conv_y) * b.conv_w + conv_x;
              best = std::max(best, sums[static_cast<size_t>(pixel * b.out_c + o)]);
            }
          }
          pooled.push_back(best);
        }
      }
    }
  }
  return pooled;
}

// Choose kernel, stride and padding of one axis; returns the output length.
int32_t choose_axis(Random* random, int32_t length, int64_t max_kernel, int32_t* kernel, int32_t* stride,
                    int32_t* pad) {
  do {
    *kernel = static_cast<int32_t>(random->between(1, max_kernel));
    *pad = random->one_in(3) ? 0 : static_cast<int32_t>(random->between(0, *kernel - 1));
  } while (length + 2 * *pad < *kernel);
  *stride = random->one_in(2) ? 1 : static_cast<int32_t>(random->between(1, 3));
  return output_length(length, *kernel, *stride, *pad);
}

void fill_case(Random* random, Case* filled);

Case random_case(Random* random) {
  const std::vector<int64_t> channels = {1, 3, 31, 33, 63, 64, 65, 127, 128, 129, 192, 256};
  Case test;
  Block& b = test.block;
  test.batch = random->pick<int64_t>({1, 1, 2, 3, 7});
  const bool dense = random->one_in(3);
  b.input = random->one_in(3) ? BlockInput::bytes : BlockInput::bits;
  b.output = random->pick<BlockOutput>(
      {BlockOutput::int32, BlockOutput::float32, BlockOutput::bits, BlockOutput::bits, BlockOutput::bits});
  b.in_c = static_cast<int32_t>(random->pick(channels));
  if (dense)
    b.in_c = static_cast<int32_t>(random->pick<int64_t>({10, 64, 200, 255, 256, 270, 500, 1000, 2050}));
  if (!dense && b.input == BlockInput::bytes)
    b.in_c = static_cast<int32_t>(random->pick<int64_t>({1, 2, 3, 4, 17}));
  b.out_c = static_cast<int32_t>(random->pick(channels));
  const bool wide =
      b.input == BlockInput::bits && random->one_in(12);  // what serves many channels and pixels
  if (wide) {
    b.output = BlockOutput::bits;
    b.out_c = static_cast<int32_t>(random->pick<int64_t>({384, 389, 490, 512, 512, 1024, 1030}));
    if (!dense) b.in_c = static_cast<int32_t>(random->pick<int64_t>({3, 64, 65, 130}));
  }
  b.in_words = (b.in_c + 63) / 64;
  b.out_words = (b.out_c + 63) / 64;
  b.in_h = dense ? 1 : static_cast<int32_t>(random->between(1, 10));
  b.in_w = dense ? 1 : static_cast<int32_t>(random->between(1, 10));
  if (!dense && b.input == BlockInput::bytes && random->one_in(8)) {  // more than one tile of rows
    b.in_h = static_cast<int32_t>(random->between(24, 40));
    b.in_w = static_cast<int32_t>(random->between(16, 40));
    test.batch = 1;
  }
  if (dense) test.batch = random->pick<int64_t>({1, 2, 5, 16, 33, 64});
  if (wide && dense && random->one_in(4)) test.batch = random->pick<int64_t>({150, 523});
  const int64_t max_kernel = dense ? 1 : b.in_c > 65 ? 3 : 5;
  b.conv_h = choose_axis(random, b.in_h, max_kernel, &b.kernel_h, &b.stride_h, &b.pad_h);
  b.conv_w = choose_axis(random, b.in_w, max_kernel, &b.kernel_w, &b.stride_w, &b.pad_w);
  if (!dense && random->one_in(3)) {  // the most common layer of all
    b.kernel_h = b.kernel_w = 3;
    b.stride_h = b.stride_w = b.pad_h = b.pad_w = 1;
    b.conv_h = b.in_h;
    b.conv_w = b.in_w;
  }
  b.out_h = b.conv_h;
  b.out_w = b.conv_w;
  b.pool_h = b.pool_w = b.pool_stride_h = b.pool_stride_w = 1;
  if (!dense && random->one_in(2)) {
    b.out_h = choose_axis(random, b.conv_h, 3, &b.pool_h, &b.pool_stride_h, &b.pool_pad_h);
    b.out_w = choose_axis(random, b.conv_w, 3, &b.pool_w, &b.pool_stride_w, &b.pool_pad_w);
    if (random->one_in(2) && b.conv_h >= 2 && b.conv_w >= 2) {
      b.pool_h = b.pool_w = b.pool_stride_h = b.pool_stride_w = 2;
      b.pool_pad_h = b.pool_pad_w = 0;
      b.out_h = b.conv_h / 2;
      b.out_w = b.conv_w / 2;
    }
  }

  fill_case(random, &test);
  return test;
}

// Operands, thresholds and expected output of a block whose geometry is known.
void fill_case(Random* random, Case* filled) {
  Case& test = *filled;
  Block& b = test.block;
  std::vector<int32_t> in, weights, falling;
  // Pixels: any; black and white; all black; all white. The last three reach the largest sums.
  const int64_t kind = b.input == BlockInput::bytes ? random->between(0, 3) : 0;
  for (int64_t i = 0; i < test.batch * b.in_h * b.in_w * b.in_c; ++i) {
    const int32_t most = b.input == BlockInput::bytes ? 255 : 1;
    const int64_t value = kind == 0   ? random->between(0, most)
                          : kind == 1 ? most * random->between(0, 1)
                                      : most * (kind - 2);
    in.push_back(static_cast<int32_t>(value));
  }
  // One channel in four agrees (or disagrees) with the first pixels of the first image wherever it can.
  const int64_t row = int64_t{b.kernel_h} * b.kernel_w * b.in_c;
  for (int64_t o = 0; o < b.out_c; ++o) {
    const bool extreme = test.extreme && o == 0;
    const bool correlated = random->one_in(4) || extreme;
    const int32_t flip = static_cast<int32_t>(random->between(extreme ? 1 : 0, 1));
    const int32_t middle = b.input == BlockInput::bytes ? 127 : 0;
    for (int64_t i = 0; i < row; ++i) {
      const bool above = in[static_cast<size_t>(i) % in.size()] > middle;
      weights.push_back(correlated ? static_cast<int32_t>(above) ^ flip
                                   : static_cast<int32_t>(random->between(0, 1)));
    }
  }
  test.weights = pack(weights, b.in_c);
  const std::vector<int32_t> sums = naive_pool(test, naive_sums(test, in, weights));

  if (b.output == BlockOutput::int32) {
    test.expected = bytes_of(sums);
  } else if (b.output == BlockOutput::float32) {
    test.expected = bytes_of(std::vector<float>(sums.begin(), sums.end()));
  } else {
    for (int32_t o = 0; o < b.out_c; ++o) {
      const int64_t pixel = random->between(0, static_cast<int64_t>(sums.size()) / b.out_c - 1);
      int32_t t =
          sums[static_cast<size_t>(pixel * b.out_c + o)] + static_cast<int32_t>(random->between(-1, 1));
      if (random->one_in(10)) {
        t = random->pick<int32_t>(
            {std::numeric_limits<int32_t>::min(), std::numeric_limits<int32_t>::max(), 70000, -70000});
      }
      test.thresholds.push_back(t);
      falling.push_back(static_cast<int32_t>(random->between(0, 1)));
    }
    test.falling = pack(falling, b.out_c);
    std::vector<int32_t> bits;
    for (size_t i = 0; i < sums.size(); ++i) {
      const size_t o = i % static_cast<size_t>(b.out_c);
      bits.push_back((sums[i] >= test.thresholds[o]) != (falling[o] != 0));
    }
    test.expected = bytes_of(pack(bits, b.out_c));
  }
  if (b.input == BlockInput::bytes) {
    test.in.assign(in.begin(), in.end());
  } else {
    test.in = bytes_of(pack(in, b.in_c));
  }
  const auto numbers = [](std::initializer_list<int32_t> list) {
    std::string text;
    for (const int32_t number : list) text += " " + std::to_string(number);
    return text;
  };
  test.text = std::string(b.input == BlockInput::bytes ? "bytes" : "bits") + ", batch" +
              numbers({static_cast<int32_t>(test.batch)}) + ", in" + numbers({b.in_h, b.in_w, b.in_c}) +
              ", kernel" + numbers({b.kernel_h, b.kernel_w}) + ", stride" +
              numbers({b.stride_h, b.stride_w}) + ", pad" + numbers({b.pad_h, b.pad_w}) + ", channels" +
              numbers({b.out_c}) + ", pool" + numbers({b.pool_h, b.pool_w}) + ", stride" +
              numbers({b.pool_stride_h, b.pool_stride_w}) + ", pad" + numbers({b.pool_pad_h, b.pool_pad_w}) +
              (b.output == BlockOutput::bits    ? ", to bits"
               : b.output == BlockOutput::int32 ? ", to int32"
                                                : ", to float32");
}

// Blocks with so many sums that kernels may choose methods for them that small ones never reach.
struct ManySums {
  int32_t batch, size, in_c, kernel, stride, pad, out_c;
  BlockOutput output;
  int32_t pool;
};

Case case_of(const ManySums& shape, Random* random) {
  Case test;
  Block& b = test.block;
  test.batch = shape.batch;
  test.extreme = true;
  b.input = BlockInput::bits;
  b.output = shape.output;
  b.in_h = b.in_w = shape.size;
  b.in_c = shape.in_c;
  b.in_words = (b.in_c + 63) / 64;
  b.kernel_h = b.kernel_w = shape.kernel;
  b.stride_h = b.stride_w = shape.stride;
  b.pad_h = b.pad_w = shape.pad;
  b.conv_h = b.conv_w = output_length(shape.size, shape.kernel, shape.stride, shape.pad);
  b.out_c = shape.out_c;
  b.out_words = (b.out_c + 63) / 64;
  b.pool_h = b.pool_w = b.pool_stride_h = b.pool_stride_w = shape.pool;
  b.out_h = b.out_w = b.conv_h / shape.pool;
  fill_case(random, &test);
  return test;
}

constexpr ManySums kManySums[] = {
    {3, 14, 120, 3, 1, 1, 66, BlockOutput::bits, 1},      // the last word of a pixel is not full
    {2, 24, 64, 3, 1, 1, 130, BlockOutput::bits, 2},      // three words of channels, pooled
    {1, 37, 64, 3, 2, 1, 65, BlockOutput::float32, 1},    // stride
    {7, 8, 128, 5, 1, 2, 33, BlockOutput::int32, 1},      // many border classes, one word of channels
    {300, 1, 776, 1, 1, 0, 200, BlockOutput::bits, 1},    // dense
    {260, 2, 192, 2, 1, 0, 128, BlockOutput::int32, 1},   // dense over several pixels
    {1300, 1, 256, 1, 1, 0, 64, BlockOutput::bits, 1},    // more than one tile
    {170, 1, 65700, 1, 1, 0, 65, BlockOutput::int32, 1},  // sums of more than 16 bits
    {3, 140, 1, 140, 1, 0, 40, BlockOutput::bits, 1},     // many words of one bit
    {1, 140, 1, 140, 1, 0, 40, BlockOutput::float32, 1},
};

void check_kernels(const KernelSet& kernels, const Case& test, Random* random) {
  Block b = test.block;
  b.threads = static_cast<int32_t>(random->between(1, 4));
  b.weights = test.weights.data();
  b.thresholds = test.thresholds.empty() ? nullptr : test.thresholds.data();
  b.falling = test.falling.empty() ? nullptr : test.falling.data();
  const std::string where = std::string(kernels.name) + ": " + test.text;

  const Engine& engine = kernels.engine(b);
  AlignedBuffer prepared(engine.prepared_bytes(b));
  if (prepared.bytes() > 0) std::memset(prepared.data(), 0xa5, prepared.bytes());
  engine.prepare(b, prepared.data());

  // Bytes at any address, words at a multiple of 8 that is not one of 16; ending where their memory ends.
  const size_t offset = b.input == BlockInput::bytes ? 1 : 8;
  AlignedBuffer in(test.in.size() + offset);
  std::memcpy(static_cast<uint8_t*>(in.data()) + offset, test.in.data(), test.in.size());
  const size_t guard = 8;
  AlignedBuffer out(test.expected.size() + 2 * guard);
  std::memset(out.data(), 0x5a, out.bytes());
  uint8_t* result = static_cast<uint8_t*>(out.data()) + guard;

  const Method& method = engine.method(b, test.batch);
  const int64_t units = method.unit_count(b, test.batch);
  CHECK(units >= 1, where);
  const int64_t max_share = random->one_in(3) ? units : random->between(1, units);
  std::vector<std::pair<int64_t, int64_t>> ranges;
  for (int64_t begin = 0; begin < units;) {
    const int64_t end = std::min(units, begin + random->between(1, max_share));
    ranges.emplace_back(begin, end);
    begin = end;
  }
  for (size_t i = ranges.size(); i > 1; --i) {
    std::swap(ranges[i - 1], ranges[static_cast<size_t>(random->between(0, static_cast<int64_t>(i) - 1))]);
  }
  for (const auto& range : ranges) {
    AlignedBuffer workspace(method.workspace_bytes(b, test.batch));
    if (workspace.bytes() > 0) std::memset(workspace.data(), 0xa5, workspace.bytes());
    method.run(b, prepared.data(), static_cast<uint8_t*>(in.data()) + offset, result, test.batch, range.first,
               range.second, workspace.data());
  }
  for (size_t i = 0; i < test.expected.size(); ++i) {
    CHECK(result[i] == test.expected[i],
          where + "; byte " + std::to_string(i) + " of " + std::to_string(test.expected.size()) + ": got " +
              std::to_string(result[i]) + ", expected " + std::to_string(test.expected[i]) + "; " +
              std::to_string(ranges.size()) + " ranges of " + std::to_string(units) + " units");
  }
  for (size_t i = 0; i < guard; ++i) {
    CHECK(result[-1 - static_cast<ptrdiff_t>(i)] == 0x5a && result[test.expected.size() + i] == 0x5a,
          where + ": written outside of the output");
  }
}

}  // namespace

void test_kernels(uint64_t seed, uint64_t rounds) {
  for (uint64_t round = 0; round < rounds; ++round) {
    Random random(seed * 10000 + round);
    const Case test = random_case(&random);
    for (const binarynet::InstructionSet& set : binarynet::instruction_sets()) {
      if (set.why_not.empty()) check_kernels(*set.kernels, test, &random);
    }
  }
  for (const ManySums& shape : kManySums) {
    Random random(seed * 10000 + 9000);
    const Case test = case_of(shape, &random);
    for (const binarynet::InstructionSet& set : binarynet::instruction_sets()) {
      if (set.why_not.empty()) check_kernels(*set.kernels, test, &random);
    }
  }
}

}  // namespace binarynet_tests
