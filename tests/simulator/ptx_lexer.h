// Words, numbers and signs of PTX text.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace simulator {

struct Token {
  enum Kind : uint8_t { Word, Integer, Float32, Float64, String, Sign, End };
  Kind kind = End;
  std::string text;
  uint64_t value = 0;  // bits of a number
  uint32_t line = 0;
};

// Throws Error(InvalidPtx).
std::vector<Token> tokenize(const std::string& text);

}  // namespace simulator
