#include "error.h"

namespace binarynet {

const char* type_name(binarynet_type type) {
  switch (type) {
    case BINARYNET_U8:
      return "u8";
    case BINARYNET_BITS:
      return "bits";
    case BINARYNET_I32:
      return "i32";
    case BINARYNET_F32:
      return "f32";
  }
  return "unknown";
}

std::string shape_text(int64_t h, int64_t w, int64_t c) { return text("[", h, ", ", w, ", ", c, "]"); }

std::string value_text(const binarynet_value_info& info) {
  return text(type_name(info.type), " ", shape_text(info.h, info.w, info.c));
}

}  // namespace binarynet
