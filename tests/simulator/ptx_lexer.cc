#include "ptx_lexer.h"

#include <cctype>
#include <cstring>

#include "simulator.h"

namespace simulator {

namespace {

bool starts_word(char c) { return std::isalpha(static_cast<unsigned char>(c)) || std::strchr("_$%.", c); }
bool in_word(char c) { return std::isalnum(static_cast<unsigned char>(c)) || std::strchr("_$%.", c); }

uint64_t parse_number(const std::string& text, uint32_t line, Token::Kind* kind) {
  size_t used = 0;
  uint64_t value = 0;
  try {
    if (text.size() > 2 && text[0] == '0' && std::strchr("fFdD", text[1])) {
      *kind = std::tolower(text[1]) == 'f' ? Token::Float32 : Token::Float64;
      value = std::stoull(text.substr(2), &used, 16);
      used += 2;
    } else if (text.find('.') != std::string::npos) {
      *kind = Token::Float64;
      double number = std::stod(text, &used);
      std::memcpy(&value, &number, 8);
    } else if (text.size() > 2 && text[0] == '0' && std::tolower(text[1]) == 'b') {
      *kind = Token::Integer;
      value = std::stoull(text.substr(2), &used, 2);
      used += 2;
    } else {
      *kind = Token::Integer;
      value = std::stoull(text, &used, 0);
    }
  } catch (const std::exception&) {
    used = 0;
  }
  if (used < text.size() && (text[used] == 'U' || text[used] == 'u')) ++used;
  if (used == 0 || used != text.size())
    throw Error(ErrorKind::InvalidPtx, "PTX line " + std::to_string(line) + ": bad number " + text);
  return value;
}

}  // namespace

std::vector<Token> tokenize(const std::string& text) {
  std::vector<Token> tokens;
  uint32_t line = 1;
  size_t i = 0;
  const size_t n = text.size();
  while (i < n) {
    const char c = text[i];
    if (c == '\n') {
      ++line;
      ++i;
    } else if (c == '\0' || std::isspace(static_cast<unsigned char>(c))) {
      ++i;
    } else if (c == '/' && i + 1 < n && text[i + 1] == '/') {
      while (i < n && text[i] != '\n') ++i;
    } else if (c == '/' && i + 1 < n && text[i + 1] == '*') {
      size_t end = text.find("*/", i + 2);
      if (end == std::string::npos) end = n - 2;
      for (; i < end + 2; ++i) line += text[i] == '\n';
    } else if (c == '"') {
      size_t end = text.find('"', i + 1);
      if (end == std::string::npos)
        throw Error(ErrorKind::InvalidPtx, "PTX line " + std::to_string(line) + ": a string without its end");
      tokens.push_back({Token::String, text.substr(i + 1, end - i - 1), 0, line});
      i = end + 1;
    } else if (std::isdigit(static_cast<unsigned char>(c))) {
      size_t end = i;
      while (end < n && (std::isalnum(static_cast<unsigned char>(text[end])) || text[end] == '.')) ++end;
      Token token{Token::Integer, text.substr(i, end - i), 0, line};
      token.value = parse_number(token.text, line, &token.kind);
      tokens.push_back(token);
      i = end;
    } else if (starts_word(c)) {
      size_t end = i;
      // "::" joins words (shared::cta, mbarrier::complete_tx::bytes); a single colon ends a label.
      while (end < n && (in_word(text[end]) || (text[end] == ':' && end + 2 < n && text[end + 1] == ':')))
        end += text[end] == ':' ? 2 : 1;
      tokens.push_back({Token::Word, text.substr(i, end - i), 0, line});
      i = end;
    } else {
      tokens.push_back({Token::Sign, std::string(1, c), 0, line});
      ++i;
    }
  }
  tokens.push_back({Token::End, "", 0, line});
  return tokens;
}

}  // namespace simulator
