// Failures inside the core travel as exceptions; only abi.cc catches them and turns them into status codes.
#pragma once

#include <exception>
#include <sstream>
#include <string>
#include <utility>

#include "binarynet.h"

namespace binarynet {

class Error : public std::exception {
 public:
  Error(binarynet_status status, std::string text) : status_(status), text_(std::move(text)) {}
  binarynet_status status() const noexcept { return status_; }
  const char* what() const noexcept override { return text_.c_str(); }

 private:
  binarynet_status status_;
  std::string text_;
};

// All parts, one after the other.
template <class... Parts>
std::string text(const Parts&... parts) {
  std::ostringstream stream;
  (stream << ... << parts);
  return stream.str();
}

template <class... Parts>
[[noreturn]] void invalid(const Parts&... parts) {
  throw Error(BINARYNET_INVALID_ARGUMENT, text(parts...));
}

// "[28, 28, 1]", with the type in front if asked: "uint8 [28, 28, 1]".
std::string shape_text(int64_t h, int64_t w, int64_t c);
std::string value_text(const binarynet_value_info& info);
const char* type_name(binarynet_type type);

}  // namespace binarynet
