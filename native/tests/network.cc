#include "network.h"

#include <algorithm>
#include <cstring>
#include <limits>

namespace binarynet_tests {
namespace {

std::string window_text(const binarynet_window& w) {
  return std::to_string(w.kernel_h) + "x" + std::to_string(w.kernel_w) + " stride " +
         std::to_string(w.stride_h) + "x" + std::to_string(w.stride_w) + " padding " +
         std::to_string(w.pad_h) + "x" + std::to_string(w.pad_w);
}

std::string info_text(const binarynet_value_info& info) {
  const char* const types[] = {"u8", "bits", "i32", "f32"};
  return std::string(types[info.type]) + "[" + std::to_string(info.h) + "," + std::to_string(info.w) + "," +
         std::to_string(info.c) + "]";
}

int64_t output_length(int64_t length, int64_t kernel, int64_t stride, int64_t pad) {
  return (length + 2 * pad - kernel) / stride + 1;
}

int64_t count(const binarynet_value_info& info) { return info.h * info.w * info.c; }

}  // namespace

std::vector<uint64_t> pack(const std::vector<int32_t>& bits, int64_t channels) {
  const size_t row_words = static_cast<size_t>((channels + 63) / 64);
  const size_t rows = bits.size() / static_cast<size_t>(channels);
  std::vector<uint64_t> packed(rows * row_words, 0);
  for (size_t i = 0; i < bits.size(); ++i) {
    const size_t row = i / static_cast<size_t>(channels);
    const size_t c = i % static_cast<size_t>(channels);
    if (bits[i] != 0) packed[row * row_words + c / 64] |= uint64_t{1} << (c % 64);
  }
  return packed;
}

std::vector<uint8_t> layout(const Tensor& tensor, int64_t batch) {
  std::vector<uint8_t> bytes;
  const auto append = [&bytes](const void* data, size_t size) {
    const uint8_t* from = static_cast<const uint8_t*>(data);
    bytes.insert(bytes.end(), from, from + size);
  };
  if (batch == 0) return bytes;
  switch (tensor.info.type) {
    case BINARYNET_U8:
      bytes.assign(tensor.numbers.begin(), tensor.numbers.end());
      break;
    case BINARYNET_BITS: {
      const std::vector<uint64_t> packed = pack(tensor.numbers, tensor.info.c);
      append(packed.data(), packed.size() * 8);
      break;
    }
    case BINARYNET_I32:
      append(tensor.numbers.data(), tensor.numbers.size() * 4);
      break;
    case BINARYNET_F32:
      append(tensor.floats.data(), tensor.floats.size() * 4);
      break;
  }
  return bytes;
}

Network::Network(int64_t batch, int64_t h, int64_t w, int64_t c, Random* random, Pixels pixels,
                 binarynet_type type)
    : batch_(batch), random_(random) {
  CHECK_OK(binarynet_graph_create(&graph_));
  Tensor input;
  input.info = {type, h, w, c};
  const int32_t white = type == BINARYNET_BITS ? 1 : 255;
  const bool extremes = random->one_in(4);
  for (int64_t i = 0; i < batch * h * w * c; ++i) {
    int64_t u = extremes ? random->between(0, 1) * white : random->between(0, white);
    if (pixels == Pixels::white) u = white;
    input.numbers.push_back(static_cast<int32_t>(u));
  }
  binarynet_value value;
  const auto add_input = type == BINARYNET_BITS ? binarynet_graph_add_bits_input : binarynet_graph_add_input;
  CHECK_OK(add_input(graph_, h, w, c, &value));
  add(value, std::move(input), "batch " + std::to_string(batch) + " input");
}

binarynet_value Network::add(binarynet_value value, Tensor tensor, const std::string& text) {
  CHECK(value == static_cast<binarynet_value>(tensors_.size()), "values are numbered in order");
  binarynet_value_info info;
  CHECK_OK(binarynet_graph_value_info(graph_, value, &info));
  CHECK(info.type == tensor.info.type && info.h == tensor.info.h && info.w == tensor.info.w &&
            info.c == tensor.info.c,
        text + ": " + info_text(info) + ", expected " + info_text(tensor.info));
  description_ += text + " " + info_text(info) + "; ";
  tensors_.push_back(std::move(tensor));
  return value;
}

// What a tap stands for: +1 / -1, or 2u - 255; 0 outside of the image.
int32_t Network::signed_value(const Tensor& tensor, int64_t image, int64_t y, int64_t x, int64_t c) const {
  const binarynet_value_info& info = tensor.info;
  if (y < 0 || y >= info.h || x < 0 || x >= info.w) return 0;
  const int32_t number =
      tensor.numbers[static_cast<size_t>(((image * info.h + y) * info.w + x) * info.c + c)];
  return info.type == BINARYNET_U8 ? 2 * number - 255 : 2 * number - 1;
}

binarynet_value Network::convolution(binarynet_value source, const binarynet_window& window,
                                     int64_t out_channels, Weights weights) {
  const Tensor& in = tensor(source);
  Tensor out;
  out.info = {BINARYNET_I32, output_length(in.info.h, window.kernel_h, window.stride_h, window.pad_h),
              output_length(in.info.w, window.kernel_w, window.stride_w, window.pad_w), out_channels};
  const int64_t row = window.kernel_h * window.kernel_w * in.info.c;

  // Taps of one position of one image, as the convolution sees them.
  const auto taps = [&](int64_t image, int64_t y, int64_t x) {
    std::vector<int32_t> values;
    for (int64_t ky = 0; ky < window.kernel_h; ++ky) {
      for (int64_t kx = 0; kx < window.kernel_w; ++kx) {
        for (int64_t c = 0; c < in.info.c; ++c) {
          values.push_back(signed_value(in, image, y * window.stride_h - window.pad_h + ky,
                                        x * window.stride_w - window.pad_w + kx, c));
        }
      }
    }
    return values;
  };

  std::vector<int32_t> bits(static_cast<size_t>(out_channels * row));
  for (int64_t o = 0; o < out_channels; ++o) {
    std::vector<int32_t> like;
    if (weights == Weights::correlated && batch_ > 0) {
      like = taps(random_->between(0, batch_ - 1), random_->between(0, out.info.h - 1),
                  random_->between(0, out.info.w - 1));
    }
    const bool opposite = random_->one_in(2);
    for (int64_t i = 0; i < row; ++i) {
      int32_t bit = static_cast<int32_t>(random_->between(0, 1));
      if (!like.empty()) bit = (like[static_cast<size_t>(i)] > 0) != opposite;
      if (weights == Weights::ones) bit = 1;
      if (weights == Weights::zeros) bit = 0;
      bits[static_cast<size_t>(o * row + i)] = bit;
    }
  }

  for (int64_t image = 0; image < batch_; ++image) {
    for (int64_t y = 0; y < out.info.h; ++y) {
      for (int64_t x = 0; x < out.info.w; ++x) {
        const std::vector<int32_t> values = taps(image, y, x);
        for (int64_t o = 0; o < out_channels; ++o) {
          const int32_t* weight = bits.data() + o * row;
          int32_t sum = 0;
          for (int64_t i = 0; i < row; ++i) sum += weight[i] != 0 ? values[i] : -values[i];
          out.numbers.push_back(sum);
        }
      }
    }
  }

  const std::vector<uint64_t> packed = pack(bits, in.info.c);
  binarynet_value value;
  CHECK_OK(binarynet_graph_add_convolution(graph_, source, &window, out_channels, packed.data(),
                                           packed.size(), &value));
  return add(value, std::move(out), "convolution(" + std::to_string(source) + ") " + window_text(window));
}

binarynet_value Network::max_pool(binarynet_value source, const binarynet_window& window) {
  const Tensor& in = tensor(source);
  Tensor out;
  out.info = in.info;
  out.info.h = output_length(in.info.h, window.kernel_h, window.stride_h, window.pad_h);
  out.info.w = output_length(in.info.w, window.kernel_w, window.stride_w, window.pad_w);
  for (int64_t i = 0; i < batch_ * count(out.info); ++i) {
    const int64_t c = i % out.info.c;
    const int64_t x = i / out.info.c % out.info.w;
    const int64_t y = i / out.info.c / out.info.w % out.info.h;
    const int64_t image = i / count(out.info);
    int32_t best = std::numeric_limits<int32_t>::min();
    for (int64_t ky = 0; ky < window.kernel_h; ++ky) {
      for (int64_t kx = 0; kx < window.kernel_w; ++kx) {
        const int64_t in_y = y * window.stride_h - window.pad_h + ky;
        const int64_t in_x = x * window.stride_w - window.pad_w + kx;
        if (in_y < 0 || in_y >= in.info.h || in_x < 0 || in_x >= in.info.w) continue;
        best = std::max(
            best,
            in.numbers[static_cast<size_t>(((image * in.info.h + in_y) * in.info.w + in_x) * in.info.c + c)]);
      }
    }
    out.numbers.push_back(best);
  }
  binarynet_value value;
  CHECK_OK(binarynet_graph_add_max_pool(graph_, source, &window, &value));
  return add(value, std::move(out), "max_pool(" + std::to_string(source) + ") " + window_text(window));
}

binarynet_value Network::threshold(binarynet_value source) {
  const Tensor& in = tensor(source);
  const int64_t channels = in.info.c;
  std::vector<int32_t> thresholds, falling;
  const int64_t style = random_->between(0, 2);  // falling: none, all, mixed
  for (int64_t c = 0; c < channels; ++c) {
    int32_t t = static_cast<int32_t>(random_->between(-2, 2));
    if (!in.numbers.empty()) {  // a sum that occurs in this channel, or its neighbour
      const int64_t pixel = random_->between(0, static_cast<int64_t>(in.numbers.size()) / channels - 1);
      t = in.numbers[static_cast<size_t>(pixel * channels + c)] +
          static_cast<int32_t>(random_->between(-1, 1));
    }
    if (random_->one_in(8)) {
      t = random_->pick<int32_t>({std::numeric_limits<int32_t>::min(), std::numeric_limits<int32_t>::max(),
                                  -(1 << 24), 1 << 24, 40000, -40000});
    }
    thresholds.push_back(t);
    falling.push_back(static_cast<int32_t>(style == 2 ? random_->between(0, 1) : style));
  }
  Tensor out;
  out.info = in.info;
  out.info.type = BINARYNET_BITS;
  for (size_t i = 0; i < in.numbers.size(); ++i) {
    const size_t c = i % static_cast<size_t>(channels);
    out.numbers.push_back((in.numbers[i] >= thresholds[c]) != (falling[c] != 0));
  }
  const std::vector<uint64_t> packed = pack(falling, channels);
  binarynet_value value;
  CHECK_OK(binarynet_graph_add_threshold(graph_, source, thresholds.data(), packed.data(),
                                         static_cast<size_t>(channels), &value));
  return add(value, std::move(out), "threshold(" + std::to_string(source) + ")");
}

binarynet_value Network::affine(binarynet_value source) {
  const Tensor& in = tensor(source);
  std::vector<float> scale, shift;
  for (int64_t c = 0; c < in.info.c; ++c) {
    scale.push_back(static_cast<float>(random_->between(-1000000, 1000000)) / 3.0e5f);
    shift.push_back(static_cast<float>(random_->between(-1000000, 1000000)) / 7.0e4f);
  }
  Tensor out;
  out.info = in.info;
  out.info.type = BINARYNET_F32;
  for (size_t i = 0; i < in.numbers.size(); ++i) {
    const size_t c = i % static_cast<size_t>(in.info.c);
    volatile float product = static_cast<float>(in.numbers[i]) * scale[c];  // rounded here
    out.floats.push_back(product + shift[c]);                               // and here
  }
  binarynet_value value;
  CHECK_OK(binarynet_graph_add_affine(graph_, source, scale.data(), shift.data(),
                                      static_cast<size_t>(in.info.c), &value));
  return add(value, std::move(out), "affine(" + std::to_string(source) + ")");
}

binarynet_value Network::flatten(binarynet_value source) {
  Tensor out = tensor(source);
  out.info = {out.info.type, 1, 1, count(out.info)};
  binarynet_value value;
  CHECK_OK(binarynet_graph_add_flatten(graph_, source, &value));
  return add(value, std::move(out), "flatten(" + std::to_string(source) + ")");
}

void Network::check(const std::vector<binarynet_value>& outputs, const std::string& isa,
                    int32_t num_threads) const {
  binarynet_session_options options{isa.c_str(), num_threads, outputs.data(), outputs.size()};
  binarynet_session* session = nullptr;
  CHECK_OK(binarynet_session_create(graph_, &options, &session));
  CHECK(isa == binarynet_session_isa(session), "the instruction set asked for is in use");
  CHECK(num_threads == binarynet_session_num_threads(session), "as many threads as asked for");
  check_run(session, outputs);
  binarynet_session_free(session);
}

void Network::check_run(const binarynet_session* session, const std::vector<binarynet_value>& outputs) const {
  // Memory of exactly the right size, so that AddressSanitizer sees every byte too far; filled with rubbish.
  const std::vector<uint8_t> images = layout(tensors_[0], batch_);
  std::vector<std::vector<uint8_t>> expected;
  std::vector<std::vector<uint64_t>> memory;
  std::vector<void*> pointers;
  for (const binarynet_value output : outputs) {
    expected.push_back(layout(tensor(output), batch_));
    memory.emplace_back((expected.back().size() + 7) / 8, 0xa5a5a5a5a5a5a5a5);
    memory.back().reserve(1);  // an address also for batch 0
    pointers.push_back(memory.back().data());
  }
  CHECK_OK(binarynet_session_run(session, images.data(), batch_, pointers.data()));
  for (size_t i = 0; i < outputs.size(); ++i) {
    const uint8_t* got = static_cast<const uint8_t*>(pointers[i]);
    for (size_t byte = 0; byte < expected[i].size(); ++byte) {
      if (got[byte] == expected[i][byte]) continue;
      const size_t per_image = expected[i].size() / static_cast<size_t>(batch_);
      fail(__FILE__, __LINE__,
           std::string(binarynet_session_isa(session)) + ", " +
               std::to_string(binarynet_session_num_threads(session)) + " threads: value " +
               std::to_string(outputs[i]) + " differs in image " + std::to_string(byte / per_image) +
               " at byte " + std::to_string(byte % per_image) + " of " + std::to_string(per_image) +
               ": got " + std::to_string(got[byte]) + ", expected " + std::to_string(expected[i][byte]) +
               "; network: " + description_);
    }
  }
}

binarynet_window random_window(Random* random, const binarynet_value_info& source, int64_t max_kernel) {
  const auto axis = [&](int64_t length, int64_t* kernel, int64_t* stride, int64_t* pad) {
    do {
      *kernel = random->between(1, max_kernel);
      *pad = random->one_in(2) ? random->between(0, *kernel - 1) : 0;
    } while (length + 2 * *pad < *kernel);
    *stride = random->one_in(2) ? 1 : random->between(1, 3);
  };
  binarynet_window window;
  axis(source.h, &window.kernel_h, &window.stride_h, &window.pad_h);
  axis(source.w, &window.kernel_w, &window.stride_w, &window.pad_w);
  if (random->one_in(3)) {
    const binarynet_window square{window.kernel_h, window.kernel_h, window.stride_h,
                                  window.stride_h, window.pad_h,    window.pad_h};
    if (source.w + 2 * square.pad_w >= square.kernel_w) window = square;
  }
  return window;
}

}  // namespace binarynet_tests
