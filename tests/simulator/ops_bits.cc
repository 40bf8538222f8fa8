// Bit fields, counts and permutations.
#include "lanes.h"
#include "ops.h"

namespace simulator {

namespace {

template <class T>
using U = std::make_unsigned_t<T>;

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

}  // namespace

Handler bits_handler(const std::string& name, Type type) {
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
  return nullptr;
}

}  // namespace simulator
