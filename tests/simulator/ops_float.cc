// Floating point arithmetic, comparisons and conversions.
#include <cmath>

#include "lanes.h"
#include "ops.h"

namespace simulator {

namespace {

struct Add {
  template <class T>
  static T f(T a, T b) {
    return a + b;
  }
};
struct Sub {
  template <class T>
  static T f(T a, T b) {
    return a - b;
  }
};
struct Mul {
  template <class T>
  static T f(T a, T b) {
    return a * b;
  }
};
struct Div {
  template <class T>
  static T f(T a, T b) {
    return a / b;
  }
};
struct Fma {
  template <class T>
  static T f(T a, T b, T c) {
    return std::fma(a, b, c);
  }
};
struct Neg {
  template <class T>
  static T f(T a) {
    return -a;
  }
};
struct Abs {
  template <class T>
  static T f(T a) {
    return std::fabs(a);
  }
};
struct Rcp {
  template <class T>
  static T f(T a) {
    return 1 / a;
  }
};
struct Sqrt {
  template <class T>
  static T f(T a) {
    return std::sqrt(a);
  }
};
struct Min {
  template <class T>
  static T f(T a, T b) {
    return a != a ? b : b != b ? a : a < b || (a == b && std::signbit(a)) ? a : b;
  }
};
struct Max {
  template <class T>
  static T f(T a, T b) {
    return a != a ? b : b != b ? a : a > b || (a == b && !std::signbit(a)) ? a : b;
  }
};
struct CopySign {
  template <class T>
  static T f(T a, T b) {
    return std::copysign(b, a);
  }
};

template <class T, Compare kCompare>
inline bool holds(T a, T b) {
  const bool unordered = a != a || b != b;
  switch (kCompare) {
    case Compare::Eq:
      return a == b;
    case Compare::Ne:
      return !unordered && a != b;
    case Compare::Lt:
      return a < b;
    case Compare::Le:
      return a <= b;
    case Compare::Gt:
      return a > b;
    case Compare::Ge:
      return a >= b;
    case Compare::Equ:
      return unordered || a == b;
    case Compare::Neu:
      return unordered || a != b;
    case Compare::Ltu:
      return unordered || a < b;
    case Compare::Leu:
      return unordered || a <= b;
    case Compare::Gtu:
      return unordered || a > b;
    case Compare::Geu:
      return unordered || a >= b;
    case Compare::Num:
      return !unordered;
    case Compare::Nan:
      return unordered;
  }
  return false;
}

template <class T, Compare kCompare>
void compare(Warp& w, const Op& op, uint32_t mask) {
  const auto* a = w.at<Slot<T>>(op.a);
  const auto* b = w.at<Slot<T>>(op.b);
  uint32_t yes = 0;
  for (int l = 0; l < kLanes; ++l)
    yes |= static_cast<uint32_t>(holds<T, kCompare>(get<T>(a[l]), get<T>(b[l]))) << l;
  uint32_t no = ~yes;
  if (op.q) {
    const uint32_t with = w.predicate(op.c) ^ (op.r ? kFull : 0);
    yes = op.q == 1 ? yes & with : op.q == 2 ? yes | with : yes ^ with;
    no = op.q == 1 ? no & with : op.q == 2 ? no | with : no ^ with;
  }
  if (op.s) {
    auto* d = w.at<uint32_t>(op.d);
    const uint32_t value = op.s == 1 ? kFull : 0x3f800000;
    for_lanes(mask, [=](int l) { d[l] = yes >> l & 1 ? value : 0; });
    return;
  }
  if (op.d != kNone) w.predicate(op.d) = (w.predicate(op.d) & ~mask) | (yes & mask);
  if (op.e != kNone) w.predicate(op.e) = (w.predicate(op.e) & ~mask) | (no & mask);
}

template <class T>
Handler compare_of(Compare c) {
  switch (c) {
    case Compare::Eq:
      return compare<T, Compare::Eq>;
    case Compare::Ne:
      return compare<T, Compare::Ne>;
    case Compare::Lt:
      return compare<T, Compare::Lt>;
    case Compare::Le:
      return compare<T, Compare::Le>;
    case Compare::Gt:
      return compare<T, Compare::Gt>;
    case Compare::Ge:
      return compare<T, Compare::Ge>;
    default:
      break;
  }
  if constexpr (std::is_floating_point_v<T>) {
    switch (c) {
      case Compare::Equ:
        return compare<T, Compare::Equ>;
      case Compare::Neu:
        return compare<T, Compare::Neu>;
      case Compare::Ltu:
        return compare<T, Compare::Ltu>;
      case Compare::Leu:
        return compare<T, Compare::Leu>;
      case Compare::Gtu:
        return compare<T, Compare::Gtu>;
      case Compare::Geu:
        return compare<T, Compare::Geu>;
      case Compare::Num:
        return compare<T, Compare::Num>;
      case Compare::Nan:
        return compare<T, Compare::Nan>;
      default:
        break;
    }
  }
  return nullptr;
}

template <class T>
void select(Warp& w, const Op& op, uint32_t mask) {
  auto* d = w.at<T>(op.d);
  const auto* a = w.at<T>(op.a);
  const auto* b = w.at<T>(op.b);
  const uint32_t which = w.predicate(op.c) ^ (op.r ? kFull : 0);
  for_lanes(mask, [=](int l) { d[l] = which >> l & 1 ? a[l] : b[l]; });
}

double round_to(double value, Rounding rounding) {
  switch (rounding) {
    case Rounding::Nearest:
      return std::nearbyint(value);
    case Rounding::Zero:
      return std::trunc(value);
    case Rounding::Down:
      return std::floor(value);
    case Rounding::Up:
      return std::ceil(value);
    default:
      return value;
  }
}

// Sign- or zero-extends from a type within 64 bits.
int64_t extend(uint64_t bits, Type type) {
  switch (type) {
    case Type::S8:
      return static_cast<int8_t>(bits);
    case Type::S16:
      return static_cast<int16_t>(bits);
    case Type::S32:
      return static_cast<int32_t>(bits);
    case Type::U8:
    case Type::B8:
      return static_cast<uint8_t>(bits);
    case Type::U16:
    case Type::B16:
    case Type::F16:
      return static_cast<uint16_t>(bits);
    case Type::U32:
    case Type::B32:
    case Type::F32:
      return static_cast<uint32_t>(bits);
    default:
      return static_cast<int64_t>(bits);
  }
}

double to_double(uint64_t bits, Type type) {
  if (type == Type::F64) return get<double>(bits);
  if (type == Type::F32) return get<float>(static_cast<uint32_t>(bits));
  _Float16 half;
  const uint16_t low = static_cast<uint16_t>(bits);
  std::memcpy(&half, &low, 2);
  return static_cast<double>(half);
}

uint64_t from_double(double value, Type type) {
  if (type == Type::F64) return put<double>(value);
  if (type == Type::F32) return put<float>(static_cast<float>(value));
  const _Float16 half = static_cast<_Float16>(value);
  uint16_t bits;
  std::memcpy(&bits, &half, 2);
  return bits;
}

// [low, high] of an integer type.
void limits(Type type, __int128* low, __int128* high) {
  const uint32_t bits = 8 * bytes_of(type);
  const __int128 one = 1;
  *low = is_signed(type) ? -(one << (bits - 1)) : 0;
  *high = is_signed(type) ? (one << (bits - 1)) - 1 : (one << bits) - 1;
}

uint64_t saturate(__int128 value, Type type) {
  __int128 low, high;
  limits(type, &low, &high);
  return static_cast<uint64_t>(value < low ? low : value > high ? high : value);
}

uint64_t integer_from_double(double value, Type type) {
  __int128 low, high;
  limits(type, &low, &high);
  if (std::isnan(value)) return bytes_of(type) == 8 ? uint64_t{1} << 63 : 0;
  if (value <= static_cast<double>(low)) return static_cast<uint64_t>(low);
  if (value >= static_cast<double>(high)) return static_cast<uint64_t>(high);
  return static_cast<uint64_t>(static_cast<__int128>(value));
}

uint64_t convert_one(uint64_t bits, Type to, Type from, Rounding rounding, bool saturates) {
  if (!is_float(from)) {
    const int64_t value = extend(bits, from);
    const bool huge = from == Type::U64 && value < 0;
    if (!is_float(to)) {
      if (!saturates) return static_cast<uint64_t>(value);
      return saturate(huge ? static_cast<__int128>(bits) : value, to);
    }
    if (to == Type::F32) return put<float>(huge ? static_cast<float>(bits) : static_cast<float>(value));
    return from_double(huge ? static_cast<double>(bits) : static_cast<double>(value), to);
  }
  double value = to_double(bits, from);
  if (!is_float(to)) return integer_from_double(round_to(value, rounding), to);
  if (saturates) value = value > 0 ? std::fmin(value, 1) : 0;
  return from_double(value, to);
}

}  // namespace

Handler float_handler(const std::string& name, Type type) {
  auto of2 = [type](auto f) {
    return for_float(type, [f](auto t) -> Handler { return binary<decltype(t), decltype(f)>; });
  };
  auto of1 = [type](auto f) {
    return for_float(type, [f](auto t) -> Handler { return unary<decltype(t), decltype(f)>; });
  };
  if (name == "add") return of2(Add{});
  if (name == "sub") return of2(Sub{});
  if (name == "mul") return of2(Mul{});
  if (name == "div") return of2(Div{});
  if (name == "min") return of2(Min{});
  if (name == "max") return of2(Max{});
  if (name == "copysign") return of2(CopySign{});
  if (name == "neg") return of1(Neg{});
  if (name == "abs") return of1(Abs{});
  if (name == "rcp") return of1(Rcp{});
  if (name == "sqrt") return of1(Sqrt{});
  if (name == "fma") return for_float(type, [](auto t) -> Handler { return ternary<decltype(t), Fma>; });
  return nullptr;
}

Handler compare_handler(Compare c, Type type) {
  const Handler integer = for_integer(type, [c](auto t) -> Handler { return compare_of<decltype(t)>(c); });
  return integer ? integer : for_float(type, [c](auto t) -> Handler { return compare_of<decltype(t)>(c); });
}

Handler select_handler(Type type) { return bytes_of(type) == 8 ? select<uint64_t> : select<uint32_t>; }

void convert(Warp& w, const Op& op, uint32_t mask) {
  const Type to = static_cast<Type>(op.p), from = static_cast<Type>(op.q);
  const Rounding rounding = static_cast<Rounding>(op.r);
  uint64_t values[kLanes];
  if (op.s & 4) {
    const auto* a = w.at<uint64_t>(op.a);
    for (int l = 0; l < kLanes; ++l) values[l] = a[l];
  } else {
    const auto* a = w.at<uint32_t>(op.a);
    if (from == Type::S32)
      for (int l = 0; l < kLanes; ++l)
        values[l] = static_cast<uint64_t>(static_cast<int64_t>(static_cast<int32_t>(a[l])));
    else
      for (int l = 0; l < kLanes; ++l) values[l] = a[l];
  }
  const bool plain = (op.s & 1) == 0 && !is_float(to) && !is_float(from);
  if (!plain || bytes_of(from) < 4 || (bytes_of(from) == 4 && (op.s & 4))) {
    for_lanes(mask, [&](int l) { values[l] = convert_one(values[l], to, from, rounding, op.s & 1); });
  }
  // The destination register may be wider than the type: extended by its sign.
  if (bytes_of(to) < 4 || (bytes_of(to) == 4 && (op.s & 2)))
    for_lanes(mask, [&](int l) { values[l] = static_cast<uint64_t>(extend(values[l], to)); });
  if (op.s & 2) {
    auto* d = w.at<uint64_t>(op.d);
    for_lanes(mask, [&](int l) { d[l] = values[l]; });
  } else {
    const uint32_t keep = op.s & 8 ? 0xffff : kFull;  // a 16-bit register
    auto* d = w.at<uint32_t>(op.d);
    for_lanes(mask, [&](int l) { d[l] = static_cast<uint32_t>(values[l]) & keep; });
  }
}

}  // namespace simulator
