// Types of PTX instructions.
#pragma once

#include <cstdint>
#include <string>

namespace simulator {

enum class Type : uint8_t {
  None,
  U8,
  S8,
  B8,
  U16,
  S16,
  B16,
  F16,
  U32,
  S32,
  B32,
  F32,
  U64,
  S64,
  B64,
  F64,
  Pred
};

inline Type parse_type(const std::string& name) {
  static const char* const names[] = {"",    "u8",  "s8",  "b8",  "u16", "s16", "b16", "f16", "u32",
                                      "s32", "b32", "f32", "u64", "s64", "b64", "f64", "pred"};
  for (uint8_t i = 1; i < sizeof names / sizeof *names; ++i)
    if (name == names[i]) return static_cast<Type>(i);
  return Type::None;
}

inline uint32_t bytes_of(Type type) {
  if (type >= Type::U8 && type <= Type::B8) return 1;
  if (type >= Type::U16 && type <= Type::F16) return 2;
  if (type >= Type::U32 && type <= Type::F32) return 4;
  if (type >= Type::U64 && type <= Type::F64) return 8;
  return 0;
}

inline bool is_signed(Type type) {
  return type == Type::S8 || type == Type::S16 || type == Type::S32 || type == Type::S64;
}
inline bool is_float(Type type) { return type == Type::F16 || type == Type::F32 || type == Type::F64; }

}  // namespace simulator
