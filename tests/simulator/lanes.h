// How handlers see registers: values of a type in slots of 32 or 64 bits per lane.
#pragma once

#include <cstdint>
#include <cstring>
#include <type_traits>

#include "core.h"
#include "types.h"

namespace simulator {

template <class T>
using Slot = std::conditional_t<sizeof(T) == 8, uint64_t, uint32_t>;

template <class T>
inline T get(Slot<T> bits) {
  if constexpr (std::is_floating_point_v<T>) {
    T value;
    std::memcpy(&value, &bits, sizeof(T));
    return value;
  } else {
    return static_cast<T>(bits);
  }
}

template <class T>
inline Slot<T> put(T value) {
  if constexpr (std::is_floating_point_v<T>) {
    Slot<T> bits = 0;
    std::memcpy(&bits, &value, sizeof(T));
    return bits;
  } else {
    return static_cast<Slot<T>>(static_cast<std::make_unsigned_t<T>>(value));
  }
}

// Handlers for one, two and three operands of one type; F::f is the function of one lane.
template <class T, class F>
void unary(Warp& w, const Op& op, uint32_t mask) {
  auto* d = w.at<Slot<T>>(op.d);
  const auto* a = w.at<Slot<T>>(op.a);
  for_lanes(mask, [=](int l) { d[l] = put<T>(F::f(get<T>(a[l]))); });
}

template <class T, class F>
void binary(Warp& w, const Op& op, uint32_t mask) {
  auto* d = w.at<Slot<T>>(op.d);
  const auto* a = w.at<Slot<T>>(op.a);
  const auto* b = w.at<Slot<T>>(op.b);
  for_lanes(mask, [=](int l) { d[l] = put<T>(F::f(get<T>(a[l]), get<T>(b[l]))); });
}

template <class T, class F>
void ternary(Warp& w, const Op& op, uint32_t mask) {
  auto* d = w.at<Slot<T>>(op.d);
  const auto* a = w.at<Slot<T>>(op.a);
  const auto* b = w.at<Slot<T>>(op.b);
  const auto* c = w.at<Slot<T>>(op.c);
  for_lanes(mask, [=](int l) { d[l] = put<T>(F::f(get<T>(a[l]), get<T>(b[l]), get<T>(c[l]))); });
}

// The handler for a type: F gets a value of that type to learn it. nullptr for types that are not integers.
template <class F>
Handler for_integer(Type type, F f) {
  switch (type) {
    case Type::U16:
    case Type::B16:
      return f(uint16_t{});
    case Type::S16:
      return f(int16_t{});
    case Type::U32:
    case Type::B32:
      return f(uint32_t{});
    case Type::S32:
      return f(int32_t{});
    case Type::U64:
    case Type::B64:
      return f(uint64_t{});
    case Type::S64:
      return f(int64_t{});
    default:
      return nullptr;
  }
}

template <class F>
Handler for_float(Type type, F f) {
  if (type == Type::F32) return f(float{});
  if (type == Type::F64) return f(double{});
  return nullptr;
}

}  // namespace simulator
