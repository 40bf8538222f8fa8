// Integer arithmetic and logic.
#include "lanes.h"
#include "ops.h"

namespace simulator {

namespace {

template <class T>
using U = std::make_unsigned_t<T>;
template <class T>
struct Wider;
template <>
struct Wider<uint16_t> {
  using type = uint32_t;
};
template <>
struct Wider<int16_t> {
  using type = int32_t;
};
template <>
struct Wider<uint32_t> {
  using type = uint64_t;
};
template <>
struct Wider<int32_t> {
  using type = int64_t;
};
template <>
struct Wider<uint64_t> {
  using type = unsigned __int128;
};
template <>
struct Wider<int64_t> {
  using type = __int128;
};

// 16-bit products are formed in int, which could overflow: 64 bits are wide enough for all but 64-bit ones.
template <class T>
T mul_lo(T a, T b) {
  return static_cast<T>(static_cast<uint64_t>(a) * static_cast<uint64_t>(b));
}
template <class T>
T mul_hi(T a, T b) {
  using W = typename Wider<T>::type;
  return static_cast<T>((static_cast<W>(a) * static_cast<W>(b)) >> (8 * sizeof(T)));
}

struct Add {
  template <class T>
  static T f(T a, T b) {
    return static_cast<T>(static_cast<U<T>>(a) + static_cast<U<T>>(b));
  }
};
struct Sub {
  template <class T>
  static T f(T a, T b) {
    return static_cast<T>(static_cast<U<T>>(a) - static_cast<U<T>>(b));
  }
};
struct MulLo {
  template <class T>
  static T f(T a, T b) {
    return mul_lo(a, b);
  }
};
struct MulHi {
  template <class T>
  static T f(T a, T b) {
    return mul_hi(a, b);
  }
};
struct MadLo {
  template <class T>
  static T f(T a, T b, T c) {
    return Add::f(mul_lo(a, b), c);
  }
};
struct MadHi {
  template <class T>
  static T f(T a, T b, T c) {
    return Add::f(mul_hi(a, b), c);
  }
};
struct Div {  // by zero: all bits, as GPUs answer
  template <class T>
  static T f(T a, T b) {
    if (b == 0) return static_cast<T>(~T{0});
    if constexpr (std::is_signed_v<T>)
      if (b == -1) return Sub::f(T{0}, a);
    return static_cast<T>(a / b);
  }
};
struct Rem {
  template <class T>
  static T f(T a, T b) {
    if (b == 0) return a;
    if constexpr (std::is_signed_v<T>)
      if (b == -1) return 0;
    return static_cast<T>(a % b);
  }
};
struct Min {
  template <class T>
  static T f(T a, T b) {
    return a < b ? a : b;
  }
};
struct Max {
  template <class T>
  static T f(T a, T b) {
    return a > b ? a : b;
  }
};
struct And {
  template <class T>
  static T f(T a, T b) {
    return static_cast<T>(a & b);
  }
};
struct Or {
  template <class T>
  static T f(T a, T b) {
    return static_cast<T>(a | b);
  }
};
struct Xor {
  template <class T>
  static T f(T a, T b) {
    return static_cast<T>(a ^ b);
  }
};
struct Not {
  template <class T>
  static T f(T a) {
    return static_cast<T>(~a);
  }
};
struct Cnot {
  template <class T>
  static T f(T a) {
    return a == 0;
  }
};
struct Neg {
  template <class T>
  static T f(T a) {
    return Sub::f(T{0}, a);
  }
};
struct Abs {
  template <class T>
  static T f(T a) {
    if constexpr (std::is_signed_v<T>) return a < 0 ? Sub::f(T{0}, a) : a;
    return a;
  }
};
struct Sad {
  template <class T>
  static T f(T a, T b, T c) {
    return Add::f(c, a < b ? Sub::f(b, a) : Sub::f(a, b));
  }
};
// Shifts take a 32-bit amount, clamped.
template <class T>
void shl(Warp& w, const Op& op, uint32_t mask) {
  auto* d = w.at<Slot<T>>(op.d);
  const auto* a = w.at<Slot<T>>(op.a);
  const auto* b = w.at<uint32_t>(op.b);
  constexpr uint32_t bits = 8 * sizeof(T);
  for_lanes(mask, [=](int l) {
    d[l] = b[l] < bits ? put<T>(static_cast<T>(static_cast<Slot<T>>(a[l]) << (b[l] & (bits - 1)))) : 0;
  });
}
template <class T>
void shr(Warp& w, const Op& op, uint32_t mask) {
  auto* d = w.at<Slot<T>>(op.d);
  const auto* a = w.at<Slot<T>>(op.a);
  const auto* b = w.at<uint32_t>(op.b);
  constexpr uint32_t bits = 8 * sizeof(T);
  for_lanes(mask, [=](int l) {
    const uint32_t by = b[l] < bits ? b[l] : bits - 1;
    const T shifted = static_cast<T>(get<T>(a[l]) >> by);
    d[l] = std::is_signed_v<T> || b[l] < bits ? put<T>(shifted) : 0;
  });
}

template <class T>
void mul_wide(Warp& w, const Op& op, uint32_t mask) {
  using W = typename Wider<T>::type;
  auto* d = w.at<Slot<W>>(op.d);
  const auto* a = w.at<Slot<T>>(op.a);
  const auto* b = w.at<Slot<T>>(op.b);
  for_lanes(mask, [=](int l) {
    d[l] = put<W>(static_cast<W>(static_cast<W>(get<T>(a[l])) * static_cast<W>(get<T>(b[l]))));
  });
}
template <class T>
void mad_wide(Warp& w, const Op& op, uint32_t mask) {
  using W = typename Wider<T>::type;
  auto* d = w.at<Slot<W>>(op.d);
  const auto* a = w.at<Slot<T>>(op.a);
  const auto* b = w.at<Slot<T>>(op.b);
  const auto* c = w.at<Slot<W>>(op.c);
  for_lanes(mask, [=](int l) {
    const W product = static_cast<W>(static_cast<W>(get<T>(a[l])) * static_cast<W>(get<T>(b[l])));
    d[l] = put<W>(Add::f(product, get<W>(c[l])));
  });
}

template <class A, class B>
void dp4a(Warp& w, const Op& op, uint32_t mask) {
  auto* d = w.at<uint32_t>(op.d);
  const auto* a = w.at<uint32_t>(op.a);
  const auto* b = w.at<uint32_t>(op.b);
  const auto* c = w.at<uint32_t>(op.c);
  for_lanes(mask, [=](int l) {
    uint32_t sum = c[l];
    for (int i = 0; i < 32; i += 8)
      sum += static_cast<uint32_t>(static_cast<A>(a[l] >> i) * static_cast<B>(b[l] >> i));
    d[l] = sum;
  });
}
template <class A, class B, bool kHigh>
void dp2a(Warp& w, const Op& op, uint32_t mask) {
  auto* d = w.at<uint32_t>(op.d);
  const auto* a = w.at<uint32_t>(op.a);
  const auto* b = w.at<uint32_t>(op.b);
  const auto* c = w.at<uint32_t>(op.c);
  using Half = std::conditional_t<std::is_signed_v<A>, int16_t, uint16_t>;
  for_lanes(mask, [=](int l) {
    const uint32_t bytes = kHigh ? b[l] >> 16 : b[l];
    d[l] = c[l] + static_cast<uint32_t>(static_cast<Half>(a[l]) * static_cast<B>(bytes)) +
           static_cast<uint32_t>(static_cast<Half>(a[l] >> 16) * static_cast<B>(bytes >> 8));
  });
}

// Additions with a carry that goes in (p & 1) or out (p & 2); subtractions add the complement.
template <class T, bool kSubtract>
void carry(Warp& w, const Op& op, uint32_t mask) {
  auto* d = w.at<Slot<T>>(op.d);
  const auto* a = w.at<Slot<T>>(op.a);
  const auto* b = w.at<Slot<T>>(op.b);
  for_lanes(mask, [&](int l) {
    const bool in = op.p & 1 ? w.carry >> l & 1 : false;
    using W = unsigned __int128;
    const W x = static_cast<U<T>>(a[l]), y = static_cast<U<T>>(b[l]);
    const W sum = kSubtract ? x - y - in : x + y + in;
    d[l] = static_cast<U<T>>(sum);
    if (op.p & 2) w.carry = (w.carry & ~(1u << l)) | static_cast<uint32_t>(sum >> (8 * sizeof(T)) & 1) << l;
  });
}

template <class F>
Handler binary_of(Type type) {
  return for_integer(type, [](auto t) -> Handler { return binary<decltype(t), F>; });
}
template <class F>
Handler unary_of(Type type) {
  return for_integer(type, [](auto t) -> Handler { return unary<decltype(t), F>; });
}
template <class F>
Handler ternary_of(Type type) {
  return for_integer(type, [](auto t) -> Handler { return ternary<decltype(t), F>; });
}

template <bool kHigh>
Handler dp2a_of(bool a, bool b) {
  if (a) return b ? dp2a<int8_t, int8_t, kHigh> : dp2a<int8_t, uint8_t, kHigh>;
  return b ? dp2a<uint8_t, int8_t, kHigh> : dp2a<uint8_t, uint8_t, kHigh>;
}

}  // namespace

Handler integer_handler(const std::string& name, Type type) {
  if (name == "add") return binary_of<Add>(type);
  if (name == "sub") return binary_of<Sub>(type);
  if (name == "mul.lo") return binary_of<MulLo>(type);
  if (name == "mul.hi") return binary_of<MulHi>(type);
  if (name == "mad.lo") return ternary_of<MadLo>(type);
  if (name == "mad.hi") return ternary_of<MadHi>(type);
  if (name == "div") return binary_of<Div>(type);
  if (name == "rem") return binary_of<Rem>(type);
  if (name == "min") return binary_of<Min>(type);
  if (name == "max") return binary_of<Max>(type);
  if (name == "and") return binary_of<And>(type);
  if (name == "or") return binary_of<Or>(type);
  if (name == "xor") return binary_of<Xor>(type);
  if (name == "not") return unary_of<Not>(type);
  if (name == "cnot") return unary_of<Cnot>(type);
  if (name == "neg") return unary_of<Neg>(type);
  if (name == "abs") return unary_of<Abs>(type);
  if (name == "sad") return ternary_of<Sad>(type);
  if (name == "shl") return for_integer(type, [](auto t) -> Handler { return shl<decltype(t)>; });
  if (name == "shr") return for_integer(type, [](auto t) -> Handler { return shr<decltype(t)>; });
  if (name == "mul.wide") {
    if (type == Type::U16) return mul_wide<uint16_t>;
    if (type == Type::S16) return mul_wide<int16_t>;
    if (type == Type::U32) return mul_wide<uint32_t>;
    if (type == Type::S32) return mul_wide<int32_t>;
  }
  if (name == "mad.wide") {
    if (type == Type::U16) return mad_wide<uint16_t>;
    if (type == Type::S16) return mad_wide<int16_t>;
    if (type == Type::U32) return mad_wide<uint32_t>;
    if (type == Type::S32) return mad_wide<int32_t>;
  }
  if (name == "addc" || name == "subc") {
    const bool subtract = name == "subc";
    if (bytes_of(type) == 4) return subtract ? carry<uint32_t, true> : carry<uint32_t, false>;
    if (bytes_of(type) == 8) return subtract ? carry<uint64_t, true> : carry<uint64_t, false>;
  }
  return bits_handler(name, type);
}

Handler dot_handler(const std::string& name, bool a_signed, bool b_signed) {
  if (name == "dp4a") {
    if (a_signed) return b_signed ? dp4a<int8_t, int8_t> : dp4a<int8_t, uint8_t>;
    return b_signed ? dp4a<uint8_t, int8_t> : dp4a<uint8_t, uint8_t>;
  }
  return name == "dp2a.hi" ? dp2a_of<true>(a_signed, b_signed) : dp2a_of<false>(a_signed, b_signed);
}

}  // namespace simulator
