// Dense layers in training, in plain C++: the definition of what the other kernels compute.
#include <cstring>

#include "kernels.h"

namespace binarynet::training {
namespace {

uint32_t found_in(float value) {
  if (value == 1.0f || value == -1.0f) return 0;
  if (value == 0.0f) return kFoundZero;
  const bool small = value >= -255.0f && value <= 255.0f;  // false for NaN
  const int32_t integer = small ? static_cast<int32_t>(value) : 0;
  return integer % 2 != 0 && static_cast<float>(integer) == value ? kFoundByte : kFoundOther;
}

uint32_t pack(const Signs& s, int64_t block_begin, int64_t block_end) {
  uint32_t found = 0;
  const int64_t row_end = block_end * kBlockSteps < s.rows ? block_end * kBlockSteps : s.rows;
  if (s.by_column != nullptr) {
    const int64_t first = column_offset(s.cols, block_begin * kBlockWords, 0);
    const int64_t last = column_offset(s.cols, block_end * kBlockWords, 0);
    std::memset(s.by_column + first, 0, static_cast<size_t>(last - first) * sizeof(uint32_t));
  }
  for (int64_t row = block_begin * kBlockSteps; row < row_end; ++row) {
    const float* values = s.values + row * s.cols;
    uint64_t* by_row = s.by_row == nullptr ? nullptr : s.by_row + row * row_words(s.cols);
    if (by_row != nullptr) std::memset(by_row, 0, static_cast<size_t>(row_words(s.cols)) * sizeof(uint64_t));
    for (int64_t col = 0; col < s.cols; ++col) {
      if (s.find) found |= found_in(values[col]);
      const bool up = s.strict ? values[col] > 0 : !(values[col] < 0);
      if (by_row != nullptr) by_row[col / kRowBits] |= static_cast<uint64_t>(up) << (col % kRowBits);
      if (s.by_column != nullptr) {
        s.by_column[column_offset(s.cols, row / kWordRows, col / kLanes) + col % kLanes] |=
            static_cast<uint32_t>(up) << (row % kWordRows);
      }
    }
  }
  return found;
}

// One group of steps of one element.
float group_sum(const SignedProduct& p, int64_t row, int64_t step, int64_t col) {
  float sum = 0;
  for (int64_t i = step; i < step + kGroupSteps; ++i) {
    const float value = i < p.steps ? p.values[row * p.row_stride + i * p.step_stride] : 0.0f;
    const uint32_t word = p.signs[column_offset(p.cols, i / kWordRows, col / kLanes) + col % kLanes];
    const bool up = (word >> (i % kWordRows)) & 1;
    const float term = up ? value : -value;
    sum = i == step ? term : sum + term;
  }
  return sum;
}

void multiply(const SignedProduct& p, int64_t row_begin, int64_t row_end, int64_t panel_begin,
              int64_t panel_end, void*) {
  const int64_t col_end = panel_end * kLanes < p.cols ? panel_end * kLanes : p.cols;
  for (int64_t row = row_begin; row < row_end; ++row) {
    for (int64_t col = panel_begin * kLanes; col < col_end; ++col) {
      float total = 0;
      for (int64_t block = 0; block < p.steps; block += kBlockSteps) {
        float sum = 0;
        for (int64_t step = block; step < block + kBlockSteps && step < p.steps; step += kGroupSteps) {
          sum += group_sum(p, row, step, col);
        }
        total = block == 0 ? sum : total + sum;
      }
      p.out[row * p.cols + col] = total;
    }
  }
}

void to_bytes(const float* values, int64_t count, uint8_t* bytes) {
  for (int64_t i = 0; i < count; ++i) {
    bytes[i] =
        values[i] == 0.0f ? uint8_t{0} : static_cast<uint8_t>((static_cast<int32_t>(values[i]) + 255) / 2);
  }
}

void multiply_real(const RealProduct& p, int64_t row_begin, int64_t row_end, void*) {
  for (int64_t row = row_begin; row < row_end; ++row) {
    for (int64_t col = 0; col < p.cols; ++col) {
      float total = 0;
      for (int64_t block = 0; block < p.steps; block += kBlockSteps) {
        float sum = 0;
        for (int64_t step = block; step < block + kBlockSteps && step < p.steps; ++step) {
          sum = __builtin_fmaf(p.left[step * p.rows + row], p.right[step * p.cols + col], sum);
        }
        total = block == 0 ? sum : total + sum;
      }
      p.out[row * p.cols + col] = total;
    }
  }
}

}  // namespace

const DenseKernels kPortableDense = {pack, multiply, 0, to_bytes, multiply_real, 0};

}  // namespace binarynet::training
