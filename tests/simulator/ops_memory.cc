// Loads, stores and atomics.
#include "access.h"
#include "lanes.h"
#include "ops.h"

namespace simulator {

namespace {

const char* space_name(Space space) {
  switch (space) {
    case Space::Shared:
      return "shared";
    case Space::Local:
      return "local";
    case Space::Param:
      return "parameter";
    default:
      return "global";
  }
}

[[noreturn]] void out_of_bounds(Space space, uint64_t address, uint32_t bytes, int lane, const char* verb,
                                const std::string& why) {
  throw Fault{ErrorKind::IllegalAddress,
              std::string(verb) + " " + std::to_string(bytes) + " bytes of " + space_name(space) +
                  " memory at " + (space == Space::Global ? hex(address) : std::to_string(address)) +
                  ", which " + why,
              lane};
}

}  // namespace

Space resolve_generic(uint64_t address, uint64_t* in_space) {
  if (address - kSharedWindow < kWindowBytes) {
    *in_space = address - kSharedWindow;
    return Space::Shared;
  }
  if (address - kLocalWindow < kWindowBytes) {
    *in_space = address - kLocalWindow;
    return Space::Local;
  }
  if (address - kParamWindow < kWindowBytes) {
    *in_space = address - kParamWindow;
    return Space::Param;
  }
  *in_space = address;
  return Space::Global;
}

void check_bounds(Warp& w, Space space, uint64_t address, uint32_t bytes, uint32_t align, int lane,
                  const char* verb) {
  if (align && address % align)
    throw Fault{ErrorKind::MisalignedAddress,
                std::string(verb) + " " + space_name(space) + " memory at " +
                    (space == Space::Global ? hex(address) : std::to_string(address)) +
                    ", which is no multiple of " + std::to_string(align),
                lane};
  const Launch& launch = *w.block->launch;
  uint64_t first = 0, end = 0;
  if (space == Space::Shared) {
    first = launch.program->shared_base;
    end = w.block->shared.size();
  } else if (space == Space::Local) {
    end = launch.program->info.local_bytes;
  } else if (space == Space::Param) {
    end = launch.parameters.size();
  } else {
    return;
  }
  if (address < first || address >= end || bytes > end - address)
    out_of_bounds(space, address, bytes, lane, verb,
                  "lies outside of [" + std::to_string(first) + ", " + std::to_string(end) + ")");
}

Allocation* global_at(Warp& w, const Op* op, uint64_t address, uint32_t bytes, int lane, const char* verb) {
  Allocation* a = op ? op->cache : nullptr;
  if (a && address >= a->base && address - a->base <= a->bytes && bytes <= a->bytes - (address - a->base))
    return a;
  const Memory& memory = *w.block->launch->memory;
  a = memory.find(address, bytes);
  if (!a) out_of_bounds(Space::Global, address, bytes, lane, verb, memory.describe(address, bytes));
  if (op) op->cache = a;
  return a;
}

void check_initialized(const Allocation& a, uint64_t address, uint32_t bytes, int lane) {
  const uint8_t* shadow = a.shadow(address);
  uint8_t all = 1;
  for (uint32_t i = 0; i < bytes; ++i) all &= shadow[i];
  if (all) return;
  uint32_t i = 0;
  while (shadow[i]) ++i;
  throw Fault{ErrorKind::Uninitialized,
              "reads global memory at " + hex(address + i) + ", which nothing has written (offset " +
                  std::to_string(address + i - a.base) + " of a buffer of " + std::to_string(a.bytes) +
                  " bytes)",
              lane};
}

void write_global(Warp& w, Allocation& a, uint64_t address, uint32_t bytes, int lane, bool plain,
                  const void* values) {
  if (a.constant)
    out_of_bounds(Space::Global, address, bytes, lane, "writes",
                  "is constant memory, which kernels cannot write");
  if (!a.has_writers) a.track_writers();
  uint64_t* writers = a.writer(address);
  uint8_t* data = a.at(address);
  const Block& block = *w.block;
  const uint64_t thread = lane < 0 ? 0 : w.linear_thread(lane);
  const uint64_t stamp = plain && lane >= 0 ? (thread + 1) << 32 | block.shared.step : 0;
  uint64_t others = 0;
  for (uint32_t i = 0; i < bytes; ++i) others |= writers[i] ? (writers[i] ^ stamp) >> 32 : 0;
  if (others && stamp) {
    for (uint32_t i = 0; i < bytes; ++i) {
      const uint64_t before = writers[i];
      if (!before || (before ^ stamp) >> 32 == 0 || data[i] == static_cast<const uint8_t*>(values)[i])
        continue;
      const uint64_t other = (before >> 32) - 1, threads = block.launch->threads;
      if (other / threads == block.linear) {
        const uint32_t warp = static_cast<uint32_t>(other % threads / kLanes),
                       step = static_cast<uint32_t>(before);
        if (warp == w.index ? step != block.shared.step : step <= w.clocks.at[warp]) continue;
      }
      throw Fault{ErrorKind::Race,
                  "race in global memory at " + hex(address + i) +
                      ": overwrites, with another value, what thread " + std::to_string(other % threads) +
                      " of block number " + std::to_string(other / threads) +
                      " wrote in this launch (offset " + std::to_string(address + i - a.base) +
                      " of a buffer of " + std::to_string(a.bytes) + " bytes)",
                  lane};
    }
  }
  for (uint32_t i = 0; i < bytes; ++i) writers[i] = stamp;
  std::memcpy(data, values, bytes);
  std::memset(a.shadow(address), 1, bytes);
}

void release(Clocks& into, const Warp& w) {
  Clocks mine = w.clocks;
  mine.at[w.index] = w.block->shared.step;
  into.join(mine);
}

void release(Warp& w, uint32_t object) { release(w.block->objects[object], w); }

void acquire(Warp& w, uint32_t object) {
  auto found = w.block->objects.find(object);
  if (found != w.block->objects.end()) w.clocks.join(found->second);
}

uint32_t shared_offset(Warp& w, uint64_t address, uint32_t bytes, uint32_t align, int lane,
                       const char* verb) {
  check_bounds(w, Space::Shared, address, bytes, align, lane, verb);
  return static_cast<uint32_t>(address);
}

void read_memory(Warp& w, const Op& op, Space space, uint64_t address, uint32_t bytes, int lane, bool strong,
                 void* result) {
  if (space == Space::Generic) space = resolve_generic(address, &address);
  check_bounds(w, space, address, bytes, bytes, lane, "reads");
  Block& block = *w.block;
  switch (space) {
    case Space::Shared: {
      const uint32_t offset = static_cast<uint32_t>(address);
      block.shared.read(offset, bytes, w.index, w.clocks, lane, strong ? Access::Atomic : Access::Plain);
      if (strong) acquire(w, offset);
      std::memcpy(result, block.shared.data() + offset, bytes);
      return;
    }
    case Space::Local:
      std::memcpy(result,
                  w.local + static_cast<uint64_t>(lane) * block.launch->program->info.local_bytes + address,
                  bytes);
      return;
    case Space::Param:
      std::memcpy(result, block.launch->parameters.data() + address, bytes);
      return;
    default: {
      const Allocation* a = global_at(w, &op, address, bytes, lane, "reads");
      check_initialized(*a, address, bytes, lane);
      std::memcpy(result, a->at(address), bytes);
    }
  }
}

void write_memory(Warp& w, const Op& op, Space space, uint64_t address, uint32_t bytes, int lane, bool strong,
                  const void* values) {
  if (space == Space::Generic) space = resolve_generic(address, &address);
  check_bounds(w, space, address, bytes, bytes, lane, "writes");
  Block& block = *w.block;
  switch (space) {
    case Space::Shared: {
      const uint32_t offset = static_cast<uint32_t>(address);
      block.shared.write(offset, bytes, values, w.index, w.clocks, lane,
                         strong ? Access::Atomic : Access::Plain);
      if (strong) release(w, offset);
      return;
    }
    case Space::Local:
      std::memcpy(w.local + static_cast<uint64_t>(lane) * block.launch->program->info.local_bytes + address,
                  values, bytes);
      return;
    case Space::Param:
      out_of_bounds(space, address, bytes, lane, "writes", "kernels cannot write");
    default:
      write_global(w, *global_at(w, &op, address, bytes, lane, "writes"), address, bytes, lane, !strong,
                   values);
  }
}

namespace {

struct Rows {
  alignas(64) uint8_t at[kLanes][32];
};

template <class Element, class S>
void scatter(Warp& w, const Op& op, uint32_t mask, const Rows& rows) {
  for (uint32_t v = 0; v < op.count; ++v) {
    const uint32_t slot = w.block->launch->program->lists[op.list + v];
    if (slot == kNone) continue;
    S* d = w.at<S>(slot);
    for_lanes(mask, [&](int l) {
      Element e;
      std::memcpy(&e, rows.at[l] + v * sizeof(Element), sizeof e);
      d[l] = static_cast<S>(e);
    });
  }
}

template <class Element>
void gather(Warp& w, const Op& op, uint32_t mask, Rows& rows) {
  for (uint32_t v = 0; v < op.count; ++v) {
    const uint32_t slot = w.block->launch->program->lists[op.list + v];
    for_lanes(mask, [&](int l) {
      const Element e = op.s & 8 ? static_cast<Element>(w.at<uint64_t>(slot)[l])
                                 : static_cast<Element>(w.at<uint32_t>(slot)[l]);
      std::memcpy(rows.at[l] + v * sizeof(Element), &e, sizeof e);
    });
  }
}

}  // namespace

void load(Warp& w, const Op& op, uint32_t mask) {
  Rows rows;
  const uint32_t bytes = op.count * op.r;
  const Space space = static_cast<Space>(op.p);
  const bool strong = op.q & kStrong;
  uint64_t last = ~uint64_t{0};
  int last_lane = 0;
  for (uint32_t rest = mask; rest; rest &= rest - 1) {
    const int l = __builtin_ctz(rest);
    const uint64_t address = lane_address(w, op, l);
    if (address == last && space != Space::Local && space != Space::Generic) {
      std::memcpy(rows.at[l], rows.at[last_lane], bytes);  // a broadcast: checked already
      continue;
    }
    read_memory(w, op, space, address, bytes, l, strong, rows.at[l]);
    last = address;
    last_lane = l;
  }
  const bool wide = op.s & 8, sign = op.s & 16;
  switch (op.r) {
    case 1:
      if (wide)
        return sign ? scatter<int8_t, uint64_t>(w, op, mask, rows)
                    : scatter<uint8_t, uint64_t>(w, op, mask, rows);
      return sign ? scatter<int8_t, uint32_t>(w, op, mask, rows)
                  : scatter<uint8_t, uint32_t>(w, op, mask, rows);
    case 2:
      if (wide)
        return sign ? scatter<int16_t, uint64_t>(w, op, mask, rows)
                    : scatter<uint16_t, uint64_t>(w, op, mask, rows);
      return sign ? scatter<int16_t, uint32_t>(w, op, mask, rows)
                  : scatter<uint16_t, uint32_t>(w, op, mask, rows);
    case 4:
      if (wide)
        return sign ? scatter<int32_t, uint64_t>(w, op, mask, rows)
                    : scatter<uint32_t, uint64_t>(w, op, mask, rows);
      return scatter<uint32_t, uint32_t>(w, op, mask, rows);
    default:
      return scatter<uint64_t, uint64_t>(w, op, mask, rows);
  }
}

void store(Warp& w, const Op& op, uint32_t mask) {
  Rows rows;
  const uint32_t bytes = op.count * op.r;
  switch (op.r) {
    case 1:
      gather<uint8_t>(w, op, mask, rows);
      break;
    case 2:
      gather<uint16_t>(w, op, mask, rows);
      break;
    case 4:
      gather<uint32_t>(w, op, mask, rows);
      break;
    default:
      gather<uint64_t>(w, op, mask, rows);
  }
  const Space space = static_cast<Space>(op.p);
  for (uint32_t rest = mask; rest; rest &= rest - 1) {
    const int l = __builtin_ctz(rest);
    write_memory(w, op, space, lane_address(w, op, l), bytes, l, op.q & kStrong, rows.at[l]);
  }
}

void address_space_test(Warp& w, const Op& op, uint32_t mask) {
  for_lanes(mask, [&](int l) {
    uint64_t address = w.at<uint64_t>(op.a)[l];
    const bool yes = resolve_generic(address, &address) == static_cast<Space>(op.p);
    uint32_t& p = w.predicate(op.d);
    p = (p & ~(1u << l)) | static_cast<uint32_t>(yes) << l;
  });
}

namespace {

template <class T>
T apply(Atomic which, T old, T b, T c) {
  switch (which) {
    case Atomic::Add:
      if constexpr (std::is_floating_point_v<T>)
        return old + b;
      else
        return static_cast<T>(static_cast<std::make_unsigned_t<T>>(old) +
                              static_cast<std::make_unsigned_t<T>>(b));
    case Atomic::Min:
      return b < old ? b : old;
    case Atomic::Max:
      return b > old ? b : old;
    case Atomic::Exch:
      return b;
    case Atomic::Cas:
      return old == b ? c : old;
    case Atomic::Inc:
      return old >= b ? T{0} : static_cast<T>(old + 1);
    case Atomic::Dec:
      return old == T{0} || old > b ? b : static_cast<T>(old - 1);
    default:
      break;
  }
  if constexpr (!std::is_floating_point_v<T>) {
    if (which == Atomic::And) return static_cast<T>(old & b);
    if (which == Atomic::Or) return static_cast<T>(old | b);
    return static_cast<T>(old ^ b);
  }
  return old;
}

template <class T>
void atomic_lane(Warp& w, const Op& op, int l) {
  uint64_t address = lane_address(w, op, l);
  Space space = static_cast<Space>(op.p);
  if (space == Space::Generic) space = resolve_generic(address, &address);
  if (space != Space::Shared && space != Space::Global)
    throw Fault{ErrorKind::IllegalAddress, "an atomic operation on memory that is neither global nor shared",
                l};
  const T b = get<T>(w.at<Slot<T>>(op.b)[l]);
  const T c = op.c == kNone ? T{} : get<T>(w.at<Slot<T>>(op.c)[l]);
  T old;
  check_bounds(w, space, address, sizeof(T), sizeof(T), l, "changes");
  if (space == Space::Shared) {
    const uint32_t offset = static_cast<uint32_t>(address);
    SharedMemory& shared = w.block->shared;
    shared.read(offset, sizeof(T), w.index, w.clocks, l, Access::Atomic);
    std::memcpy(&old, shared.data() + offset, sizeof(T));
    const T now = apply<T>(static_cast<Atomic>(op.r), old, b, c);
    shared.write(offset, sizeof(T), &now, w.index, w.clocks, l, Access::Atomic);
    acquire(w, offset);
    release(w, offset);
  } else {
    Allocation* a = global_at(w, &op, address, sizeof(T), l, "changes");
    check_initialized(*a, address, sizeof(T), l);
    std::memcpy(&old, a->at(address), sizeof(T));
    const T now = apply<T>(static_cast<Atomic>(op.r), old, b, c);
    write_global(w, *a, address, sizeof(T), l, false, &now);
  }
  if (op.d != kNone) w.at<Slot<T>>(op.d)[l] = put<T>(old);
}

}  // namespace

void atomic(Warp& w, const Op& op, uint32_t mask) {
  for (uint32_t rest = mask; rest; rest &= rest - 1) {
    const int l = __builtin_ctz(rest);
    switch (static_cast<Type>(op.s)) {
      case Type::S32:
        atomic_lane<int32_t>(w, op, l);
        break;
      case Type::U32:
      case Type::B32:
        atomic_lane<uint32_t>(w, op, l);
        break;
      case Type::S64:
        atomic_lane<int64_t>(w, op, l);
        break;
      case Type::U64:
      case Type::B64:
        atomic_lane<uint64_t>(w, op, l);
        break;
      case Type::F32:
        atomic_lane<float>(w, op, l);
        break;
      case Type::F64:
        atomic_lane<double>(w, op, l);
        break;
      default:
        throw Fault{ErrorKind::IllegalInstruction, "atomics of this type are not simulated"};
    }
  }
}

}  // namespace simulator
