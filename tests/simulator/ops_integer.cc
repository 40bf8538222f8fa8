// Integer arithmetic, logic and bit fields.
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
struct Brev {
  static uint32_t f(uint32_t v) {
    v = (v & 0x55555555u) << 1 | (v >> 1 & 0x55555555u);
    v = (v & 0x33333333u) << 2 | (v >> 2 & 0x33333333u);
    v = (v & 0x0f0f0f0fu) << 4 | (v >> 4 & 0x0f0f0f0fu);
    return __builtin_bswap32(v);
  }
  static uint64_t f(uint64_t v) {
    return static_cast<uint64_t>(f(static_cast<uint32_t>(v))) << 32 | f(static_cast<uint32_t>(v >> 32));
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

// Results of 32 bits from operands of any width.
template <class T, class F>
void count(Warp& w, const Op& op, uint32_t mask) {
  auto* d = w.at<uint32_t>(op.d);
  const auto* a = w.at<Slot<T>>(op.a);
  for_lanes(mask, [=](int l) { d[l] = F::f(get<T>(a[l])); });
}
struct Popc {
  static uint32_t f(uint32_t v) { return static_cast<uint32_t>(__builtin_popcount(v)); }
  static uint32_t f(uint64_t v) { return static_cast<uint32_t>(__builtin_popcountll(v)); }
};
struct Clz {
  static uint32_t f(uint32_t v) { return v ? static_cast<uint32_t>(__builtin_clz(v)) : 32; }
  static uint32_t f(uint64_t v) { return v ? static_cast<uint32_t>(__builtin_clzll(v)) : 64; }
};
struct Bfind {
  template <class T>
  static uint32_t f(T v) {
    if constexpr (std::is_signed_v<T>)
      if (v < 0) v = static_cast<T>(~v);
    const uint32_t zeros = Clz::f(static_cast<U<T>>(v));
    return zeros == 8 * sizeof(T) ? ~0u : 8 * sizeof(T) - 1 - zeros;
  }
};
struct BfindShift {
  template <class T>
  static uint32_t f(T v) {
    const uint32_t at = Bfind::f(v);
    return at == ~0u ? at : 8 * sizeof(T) - 1 - at;
  }
};

template <class T>
void bfe(Warp& w, const Op& op, uint32_t mask) {
  auto* d = w.at<Slot<T>>(op.d);
  const auto* a = w.at<Slot<T>>(op.a);
  const auto* b = w.at<uint32_t>(op.b);
  const auto* c = w.at<uint32_t>(op.c);
  constexpr uint32_t bits = 8 * sizeof(T);
  for_lanes(mask, [=](int l) {
    const uint32_t pos = b[l] & 255, len = c[l] & 255;
    const U<T> value = static_cast<U<T>>(a[l]);
    const uint32_t top = std::min(pos + len - 1, bits - 1);
    const bool sign = std::is_signed_v<T> && len && (value >> top & 1);
    U<T> field = pos < bits ? value >> pos : 0;
    const uint32_t kept = pos >= bits ? 0 : std::min(len, bits - pos);
    const U<T> keep = kept == 0 ? 0 : static_cast<U<T>>(~U<T>{0}) >> (bits - kept);
    field = (field & keep) | (sign ? static_cast<U<T>>(~keep) : 0);
    d[l] = field;
  });
}
template <class T>
void bfi(Warp& w, const Op& op, uint32_t mask) {  // d, insert a into b at c, length in e
  auto* d = w.at<Slot<T>>(op.d);
  const auto* a = w.at<Slot<T>>(op.a);
  const auto* b = w.at<Slot<T>>(op.b);
  const auto* c = w.at<uint32_t>(op.c);
  const auto* n = w.at<uint32_t>(op.e);
  constexpr uint32_t bits = 8 * sizeof(T);
  for_lanes(mask, [=](int l) {
    const uint32_t pos = c[l] & 255, len = std::min(n[l] & 255, bits);
    const T keep = len == 0 || pos >= bits ? T{0} : static_cast<T>((~T{0} >> (bits - len)) << pos);
    d[l] = pos >= bits ? b[l] : (b[l] & ~keep) | ((a[l] << pos) & keep);
  });
}

void prmt(Warp& w, const Op& op, uint32_t mask) {
  auto* d = w.at<uint32_t>(op.d);
  const auto* a = w.at<uint32_t>(op.a);
  const auto* b = w.at<uint32_t>(op.b);
  const auto* c = w.at<uint32_t>(op.c);
  const uint8_t mode = op.p;  // 0: by nibbles; 1..6: f4e, b4e, rc8, ecl, ecr, rc16
  for_lanes(mask, [=](int l) {
    const uint64_t bytes = static_cast<uint64_t>(b[l]) << 32 | a[l];
    const uint32_t s = c[l] & 3;
    uint32_t selector = c[l];
    switch (mode) {
      case 1:
        selector = 0x3210 + 0x1111 * s;
        break;
      case 2:
        selector = (s & 7) | ((s - 1) & 7) << 4 | ((s - 2) & 7) << 8 | ((s - 3) & 7) << 12;
        break;
      case 3:
        selector = 0x1111 * s;
        break;
      case 4:
        selector = 0;
        for (uint32_t i = 0; i < 4; ++i) selector |= std::max(i, s) << (4 * i);
        break;
      case 5:
        selector = 0;
        for (uint32_t i = 0; i < 4; ++i) selector |= std::min(i, s) << (4 * i);
        break;
      case 6:
        selector = s & 1 ? 0x3232 : 0x1010;
        break;
      default:
        break;
    }
    uint32_t result = 0;
    for (int i = 0; i < 4; ++i) {
      const uint32_t nibble = selector >> (4 * i) & 15;
      uint32_t byte = static_cast<uint32_t>(bytes >> (8 * (nibble & 7))) & 255;
      if (nibble & 8) byte = byte & 128 ? 255 : 0;
      result |= byte << (8 * i);
    }
    d[l] = result;
  });
}

void lop3(Warp& w, const Op& op, uint32_t mask) {
  auto* d = w.at<uint32_t>(op.d);
  const auto* a = w.at<uint32_t>(op.a);
  const auto* b = w.at<uint32_t>(op.b);
  const auto* c = w.at<uint32_t>(op.c);
  uint32_t terms[8];
  for (int i = 0; i < 8; ++i) terms[i] = op.value >> i & 1 ? kFull : 0;
  for_lanes(mask, [=](int l) {
    const uint32_t x = a[l], y = b[l], z = c[l];
    d[l] = (~x & ~y & ~z & terms[0]) | (~x & ~y & z & terms[1]) | (~x & y & ~z & terms[2]) |
           (~x & y & z & terms[3]) | (x & ~y & ~z & terms[4]) | (x & ~y & z & terms[5]) |
           (x & y & ~z & terms[6]) | (x & y & z & terms[7]);
  });
}

template <bool kLeft, bool kWrap>
void shf(Warp& w, const Op& op, uint32_t mask) {
  auto* d = w.at<uint32_t>(op.d);
  const auto* a = w.at<uint32_t>(op.a);
  const auto* b = w.at<uint32_t>(op.b);
  const auto* c = w.at<uint32_t>(op.c);
  for_lanes(mask, [=](int l) {
    const uint32_t n = kWrap ? c[l] & 31 : std::min(c[l], 32u);
    const uint64_t pair = static_cast<uint64_t>(b[l]) << 32 | a[l];
    d[l] = static_cast<uint32_t>(kLeft ? (pair << n) >> 32 : pair >> n);
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

void fns(Warp& w, const Op& op, uint32_t mask) {  // the n-th set bit from a base
  for_lanes(mask, [&](int l) {
    const uint32_t bits = w.at<uint32_t>(op.a)[l];
    int at = static_cast<int>(w.at<uint32_t>(op.b)[l]), n = static_cast<int>(w.at<uint32_t>(op.c)[l]);
    const int direction = n < 0 ? -1 : 1;
    uint32_t result = ~0u;
    if (n == 0) {
      if (bits >> (at & 31) & 1) result = static_cast<uint32_t>(at);
    } else {
      for (n = n < 0 ? -n : n; at >= 0 && at < 32; at += direction)
        if ((bits >> at & 1) && --n == 0) {
          result = static_cast<uint32_t>(at);
          break;
        }
    }
    w.at<uint32_t>(op.d)[l] = result;
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
  if (name == "bfind") {
    if (type == Type::U32) return count<uint32_t, Bfind>;
    if (type == Type::S32) return count<int32_t, Bfind>;
    if (type == Type::U64) return count<uint64_t, Bfind>;
    if (type == Type::S64) return count<int64_t, Bfind>;
  }
  if (name == "bfind.shiftamt") {
    if (type == Type::U32) return count<uint32_t, BfindShift>;
    if (type == Type::S32) return count<int32_t, BfindShift>;
    if (type == Type::U64) return count<uint64_t, BfindShift>;
    if (type == Type::S64) return count<int64_t, BfindShift>;
  }
  if (name == "bfe") {
    if (type == Type::U32) return bfe<uint32_t>;
    if (type == Type::S32) return bfe<int32_t>;
    if (type == Type::U64) return bfe<uint64_t>;
    if (type == Type::S64) return bfe<int64_t>;
  }
  if (type == Type::B32) {
    if (name == "popc") return count<uint32_t, Popc>;
    if (name == "clz") return count<uint32_t, Clz>;
    if (name == "brev") return unary<uint32_t, Brev>;
    if (name == "bfi") return bfi<uint32_t>;
    if (name == "prmt") return prmt;
    if (name == "lop3") return lop3;
    if (name == "fns") return fns;
    if (name == "shf.l.wrap") return shf<true, true>;
    if (name == "shf.l.clamp") return shf<true, false>;
    if (name == "shf.r.wrap") return shf<false, true>;
    if (name == "shf.r.clamp") return shf<false, false>;
  }
  if (type == Type::B64) {
    if (name == "popc") return count<uint64_t, Popc>;
    if (name == "clz") return count<uint64_t, Clz>;
    if (name == "brev") return unary<uint64_t, Brev>;
    if (name == "bfi") return bfi<uint64_t>;
  }
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
  return nullptr;
}

Handler dot_handler(const std::string& name, bool a_signed, bool b_signed) {
  if (name == "dp4a") {
    if (a_signed) return b_signed ? dp4a<int8_t, int8_t> : dp4a<int8_t, uint8_t>;
    return b_signed ? dp4a<uint8_t, int8_t> : dp4a<uint8_t, uint8_t>;
  }
  return name == "dp2a.hi" ? dp2a_of<true>(a_signed, b_signed) : dp2a_of<false>(a_signed, b_signed);
}

}  // namespace simulator
