// Dense layers in training, in plain C++: the definition of what the other kernels compute.
#include <cstring>

#include "kernels.h"

namespace binarynet::training {
namespace {

uint32_t found_in(float value) {
  if (value == 1.0f || value == -1.0f) return 0;
  return value == 0.0f ? kFoundZero : kFoundOther;
}

uint32_t pack(const Signs& s, int64_t word_begin, int64_t word_end) {
  const int64_t words = column_words(s.rows);
  uint32_t found = 0;
  for (int64_t word = word_begin; word < word_end; ++word) {
    if (s.by_column != nullptr) {
      for (int64_t panel = 0; panel < panels(s.cols); ++panel) {
        std::memset(s.by_column + (panel * words + word) * kLanes, 0, kLanes * sizeof(uint32_t));
      }
    }
    const int64_t row_end = (word + 1) * kWordRows < s.rows ? (word + 1) * kWordRows : s.rows;
    for (int64_t row = word * kWordRows; row < row_end; ++row) {
      const float* values = s.values + row * s.cols;
      if (s.by_row != nullptr) {
        std::memset(s.by_row + row * row_words(s.cols), 0, static_cast<size_t>(row_words(s.cols)) * 8);
      }
      for (int64_t col = 0; col < s.cols; ++col) {
        found |= found_in(values[col]);
        const bool up = s.strict ? values[col] > 0 : !(values[col] < 0);
        if (s.by_row != nullptr) {
          s.by_row[row * row_words(s.cols) + col / kRowBits] |= static_cast<uint64_t>(up) << (col % kRowBits);
        }
        if (s.by_column != nullptr) {
          s.by_column[(col / kLanes * words + word) * kLanes + col % kLanes] |= static_cast<uint32_t>(up)
                                                                                << (row % kWordRows);
        }
      }
    }
  }
  return found;
}

// One group of steps of one element.
float group_sum(const SignedProduct& p, int64_t row, int64_t step, const uint32_t* signs, int64_t lane) {
  float sum = 0;
  for (int64_t i = step; i < step + kGroupSteps; ++i) {
    const float value = i < p.steps ? p.values[row * p.row_stride + i * p.step_stride] : 0.0f;
    const bool up = (signs[i / kWordRows * kLanes + lane] >> (i % kWordRows)) & 1;
    const float term = up ? value : -value;
    sum = i == step ? term : sum + term;
  }
  return sum;
}

void multiply(const SignedProduct& p, int64_t row_begin, int64_t row_end, int64_t panel_begin,
              int64_t panel_end, void*) {
  for (int64_t row = row_begin; row < row_end; ++row) {
    for (int64_t panel = panel_begin; panel < panel_end; ++panel) {
      const uint32_t* signs = p.signs + panel * column_words(p.steps) * kLanes;
      for (int64_t lane = 0; lane < kLanes && panel * kLanes + lane < p.cols; ++lane) {
        float total = 0;
        for (int64_t block = 0; block < p.steps; block += kBlockSteps) {
          float sum = 0;
          for (int64_t step = block; step < block + kBlockSteps && step < p.steps; step += kGroupSteps) {
            sum += group_sum(p, row, step, signs, lane);
          }
          total = block == 0 ? sum : total + sum;
        }
        p.out[row * p.cols + panel * kLanes + lane] = total;
      }
    }
  }
}

}  // namespace

const DenseKernels kPortableDense = {pack, multiply, 0};

}  // namespace binarynet::training
