// Moves, and what the lanes of a warp do together.
#include "access.h"
#include "lanes.h"
#include "ops.h"

namespace simulator {

namespace {

void set_bits(uint32_t& predicate, uint32_t mask, uint32_t values) {
  predicate = (predicate & ~mask) | (values & mask);
}

}  // namespace

void move32(Warp& w, const Op& op, uint32_t mask) {
  auto* d = w.at<uint32_t>(op.d);
  const auto* a = w.at<uint32_t>(op.a);
  for_lanes(mask, [=](int l) { d[l] = a[l]; });
}

void move64(Warp& w, const Op& op, uint32_t mask) {
  auto* d = w.at<uint64_t>(op.d);
  const auto* a = w.at<uint64_t>(op.a);
  for_lanes(mask, [=](int l) { d[l] = a[l]; });
}

void move_predicate(Warp& w, const Op& op, uint32_t mask) {
  set_bits(w.predicate(op.d), mask, w.predicate(op.a) ^ (op.q ? kFull : 0));
}

void predicate_logic(Warp& w, const Op& op, uint32_t mask) {
  const uint32_t a = w.predicate(op.a) ^ (op.q ? kFull : 0);
  if (op.p == 3) return set_bits(w.predicate(op.d), mask, ~a);
  const uint32_t b = w.predicate(op.b) ^ (op.r ? kFull : 0);
  set_bits(w.predicate(op.d), mask, op.p == 0 ? a & b : op.p == 1 ? a | b : a ^ b);
}

void pack(Warp& w, const Op& op, uint32_t mask) {
  const uint32_t* list = w.block->launch->program->lists.data() + op.list;
  const uint32_t bits = op.p * 8;
  const uint64_t keep = bits >= 64 ? ~uint64_t{0} : (uint64_t{1} << bits) - 1;
  for_lanes(mask, [&](int l) {
    uint64_t value = 0;
    for (uint32_t i = 0; i < op.count; ++i)
      value |= (static_cast<uint64_t>(w.at<uint32_t>(list[i])[l]) & keep) << (i * bits);
    if (op.q)
      w.at<uint64_t>(op.d)[l] = value;
    else
      w.at<uint32_t>(op.d)[l] = static_cast<uint32_t>(value);
  });
}

void unpack(Warp& w, const Op& op, uint32_t mask) {
  const uint32_t* list = w.block->launch->program->lists.data() + op.list;
  const uint32_t bits = op.p * 8;
  const uint64_t keep = (uint64_t{1} << bits) - 1;
  for_lanes(mask, [&](int l) {
    const uint64_t value = op.q ? w.at<uint64_t>(op.a)[l] : w.at<uint32_t>(op.a)[l];
    for (uint32_t i = 0; i < op.count; ++i)
      if (list[i] != kNone) w.at<uint32_t>(list[i])[l] = static_cast<uint32_t>(value >> (i * bits) & keep);
  });
}

void read_clock(Warp& w, const Op& op, uint32_t mask) {
  Launch& launch = *w.block->launch;
  launch.clock += 16;
  for_lanes(mask, [&](int l) {
    if (op.p)
      w.at<uint64_t>(op.d)[l] = launch.clock;
    else
      w.at<uint32_t>(op.d)[l] = static_cast<uint32_t>(launch.clock);
  });
}

void add_wide(Warp& w, const Op& op, uint32_t mask) {
  const uint64_t by = static_cast<uint64_t>(op.value);
  auto* d = w.at<uint64_t>(op.d);
  const auto* a = w.at<uint64_t>(op.a);
  for_lanes(mask, [=](int l) { d[l] = a[l] + by; });
}

void add_narrow(Warp& w, const Op& op, uint32_t mask) {
  const uint32_t by = static_cast<uint32_t>(op.value);
  auto* d = w.at<uint64_t>(op.d);
  const auto* a = w.at<uint32_t>(op.a);
  for_lanes(mask, [=](int l) { d[l] = static_cast<uint32_t>(a[l] + by); });
}

void shuffle(Warp& w, const Op& op, uint32_t mask) {
  uint32_t values[kLanes], results[kLanes], in_range = 0;
  std::memcpy(values, w.at<uint32_t>(op.a), sizeof values);
  for_lanes(mask, [&](int l) {
    const int lane = l;
    const int b = static_cast<int>(w.at<uint32_t>(op.b)[l] & 31);
    const int c = static_cast<int>(w.at<uint32_t>(op.c)[l]);
    const int segment = c >> 8 & 31, clamp = c & 31;
    const int high = (lane & segment) | (clamp & ~segment), low = lane & segment;
    int from = lane;
    bool inside = false;
    switch (static_cast<Shuffle>(op.p)) {
      case Shuffle::Up:
        from = lane - b;
        inside = from >= high;
        break;
      case Shuffle::Down:
        from = lane + b;
        inside = from <= high;
        break;
      case Shuffle::Bfly:
        from = lane ^ b;
        inside = from <= high;
        break;
      case Shuffle::Idx:
        from = low | (b & ~segment);
        inside = from <= high;
        break;
    }
    if (!inside) from = lane;
    // A lane that does not take part gives no value.
    results[l] = mask >> from & 1 ? values[from] : 0xdeadbeef;
    in_range |= static_cast<uint32_t>(inside) << l;
  });
  if (op.d != kNone) {
    auto* d = w.at<uint32_t>(op.d);
    for_lanes(mask, [&](int l) { d[l] = results[l]; });
  }
  if (op.e != kNone) set_bits(w.predicate(op.e), mask, in_range);
}

void vote(Warp& w, const Op& op, uint32_t mask) {
  const uint32_t a = (w.predicate(op.a) ^ (op.q ? kFull : 0)) & mask;
  switch (static_cast<Vote>(op.p)) {
    case Vote::Ballot: {
      auto* d = w.at<uint32_t>(op.d);
      for_lanes(mask, [&](int l) { d[l] = a; });
      return;
    }
    case Vote::Any:
      return set_bits(w.predicate(op.d), mask, a ? kFull : 0);
    case Vote::All:
      return set_bits(w.predicate(op.d), mask, a == mask ? kFull : 0);
    case Vote::Uni:
      return set_bits(w.predicate(op.d), mask, a == mask || a == 0 ? kFull : 0);
  }
}

void match(Warp& w, const Op& op, uint32_t mask) {
  uint64_t values[kLanes] = {};
  uint32_t same[kLanes] = {};
  for_lanes(mask, [&](int l) { values[l] = op.q ? w.at<uint64_t>(op.a)[l] : w.at<uint32_t>(op.a)[l]; });
  for_lanes(mask, [&](int l) {
    for_lanes(mask, [&](int o) { same[l] |= static_cast<uint32_t>(values[l] == values[o]) << o; });
  });
  const bool all = same[__builtin_ctz(mask)] == mask;
  for_lanes(mask, [&](int l) { w.at<uint32_t>(op.d)[l] = op.p ? (all ? mask : 0) : same[l]; });
  if (op.e != kNone) set_bits(w.predicate(op.e), mask, all ? kFull : 0);
}

void reduce(Warp& w, const Op& op, uint32_t mask) {
  const auto* a = w.at<uint32_t>(op.a);
  uint32_t result = a[__builtin_ctz(mask)];
  for (uint32_t rest = mask & (mask - 1); rest; rest &= rest - 1) {
    const uint32_t v = a[__builtin_ctz(rest)];
    const bool less = op.q ? static_cast<int32_t>(v) < static_cast<int32_t>(result) : v < result;
    switch (static_cast<Atomic>(op.p)) {
      case Atomic::Add:
        result += v;
        break;
      case Atomic::Min:
        result = less ? v : result;
        break;
      case Atomic::Max:
        result = less ? result : v;
        break;
      case Atomic::And:
        result &= v;
        break;
      case Atomic::Or:
        result |= v;
        break;
      default:
        result ^= v;
    }
  }
  auto* d = w.at<uint32_t>(op.d);
  for_lanes(mask, [&](int l) { d[l] = result; });
}

void active_mask(Warp& w, const Op& op, uint32_t mask) {
  auto* d = w.at<uint32_t>(op.d);
  for_lanes(mask, [&](int l) { d[l] = mask; });
}

void elect(Warp& w, const Op& op, uint32_t mask) {
  const uint32_t leader = static_cast<uint32_t>(__builtin_ctz(mask));
  if (op.d != kNone) for_lanes(mask, [&](int l) { w.at<uint32_t>(op.d)[l] = leader; });
  set_bits(w.predicate(op.e), mask, 1u << leader);
}

void nothing(Warp&, const Op&, uint32_t) {}

void trap(Warp&, const Op&, uint32_t) { throw Fault{ErrorKind::Trap, "trap"}; }

void proxy_fence(Warp& w, const Op&, uint32_t) { w.proxy_fence = w.block->shared.step; }

void unknown(Warp& w, const Op& op, uint32_t) {
  throw Fault{ErrorKind::IllegalInstruction,
              w.block->launch->program->messages[static_cast<size_t>(op.value)]};
}

namespace {

Barrier& barrier_at(Warp& w, const Op& op, uint32_t mask) {
  const int first = __builtin_ctz(mask);
  const uint32_t id = w.at<uint32_t>(op.a)[first];
  const uint32_t threads = op.b == kNone ? 0 : w.at<uint32_t>(op.b)[first];
  if (id >= 16) throw Fault{ErrorKind::Synchronization, "there is no barrier " + std::to_string(id), first};
  if (op.b != kNone && (threads == 0 || threads % kLanes || threads > 1024))
    throw Fault{ErrorKind::Synchronization,
                "a barrier of " + std::to_string(threads) + " threads; expected a multiple of 32", first};
  Barrier& b = w.block->barriers[id];
  if (b.active && b.expected != threads)
    throw Fault{ErrorKind::Synchronization,
                "barrier " + std::to_string(id) + " is waited at with " + std::to_string(threads) +
                    " and with " + std::to_string(b.expected) + " threads (0: all)",
                first};
  b.expected = threads;
  return b;
}

void arrive(Warp& w, const Op& op, Barrier& b, uint32_t mask) {
  if (!b.active) {
    b.active = true;
    b.all = kFull;
    b.any = b.ones = 0;
  }
  const uint32_t lanes = static_cast<uint32_t>(__builtin_popcount(mask));
  b.lanes += lanes;
  b.counted += op.p ? kLanes : lanes;
  if (b.expected && b.counted > b.expected)
    throw Fault{ErrorKind::Synchronization,
                "more threads come to a barrier of " + std::to_string(b.expected) + " threads than that"};
  release(b.clocks, w);
}

}  // namespace

uint32_t barrier_wait(Warp& w, const Op& op, uint32_t mask) {
  const uint32_t id = w.at<uint32_t>(op.a)[__builtin_ctz(mask)];
  uint32_t fresh = mask & ~w.barrier_waiting;
  if (fresh) {
    Barrier& b = barrier_at(w, op, fresh);
    arrive(w, op, b, fresh);
    if (op.q) {
      const uint32_t values = w.predicate(op.c) ^ (op.r ? kFull : 0);
      b.ones += static_cast<uint32_t>(__builtin_popcount(values & fresh));
      if ((values & fresh) != fresh) b.all = 0;
      if (values & fresh) b.any = kFull;
    }
    w.barrier_waiting |= fresh;
    for_lanes(fresh, [&](int l) { w.barrier_phase[l] = b.phase; });
    w.block->barriers_changed();
  }
  const Barrier& b = w.block->barriers[id];
  uint32_t done = 0;
  for_lanes(mask, [&](int l) { done |= static_cast<uint32_t>(w.barrier_phase[l] != b.phase) << l; });
  w.barrier_waiting &= ~done;
  if (done) {
    w.clocks.join(b.done_clocks);
    if (op.q == 1)
      for_lanes(done, [&](int l) { w.at<uint32_t>(op.d)[l] = b.done_ones; });
    else if (op.q)
      set_bits(w.predicate(op.d), done, op.q == 2 ? b.done_all : b.done_any);
  }
  return done;
}

void barrier_arrive(Warp& w, const Op& op, uint32_t mask) {
  arrive(w, op, barrier_at(w, op, mask), mask);
  w.block->barriers_changed();
}

}  // namespace simulator
