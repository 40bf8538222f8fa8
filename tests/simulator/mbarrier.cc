// mbarriers: words of shared memory that count arrivals and bytes.
#include "access.h"
#include "async.h"
#include "lanes.h"
#include "ops.h"

namespace simulator {

namespace {

uint32_t offset_of(Warp& w, uint32_t slot, int lane) {
  uint64_t address = w.at<uint64_t>(slot)[lane];
  if (address >= kWindowBytes && resolve_generic(address, &address) != Space::Shared)
    throw Fault{ErrorKind::IllegalAddress, "the mbarrier is not in shared memory: " + hex(address), lane};
  return shared_offset(w, address, 8, 8, lane, "uses an mbarrier in");
}

uint64_t read_word(Warp& w, uint32_t offset, int lane) {
  w.block->shared.read(offset, 8, w.index, w.clocks, lane, Access::Atomic);
  uint64_t word;
  std::memcpy(&word, w.block->shared.data() + offset, 8);
  return word;
}

void write_word(Warp& w, uint32_t offset, int lane, uint64_t word, Access access) {
  w.block->shared.write(offset, 8, &word, w.index, w.clocks, lane, access);
  ++w.block->events;
}

bool completed(Warp& w, const Op& op, int lane) {
  const uint32_t offset = offset_of(w, op.a, lane);
  const uint64_t word = read_word(w, offset, lane);
  const bool done = op.p ? mbarrier_test_wait_parity(word, w.at<uint32_t>(op.b)[lane])
                         : mbarrier_test_wait(word, w.at<uint64_t>(op.b)[lane]);
  if (done) acquire(w, offset);
  return done;
}

void set_bits(uint32_t& predicate, uint32_t mask, uint32_t values) {
  predicate = (predicate & ~mask) | (values & mask);
}

}  // namespace

void mbarrier_change(Warp& w, const Op& op, uint32_t mask) {
  const Mbarrier which = static_cast<Mbarrier>(op.p);
  for_lanes(mask, [&](int l) {
    const uint32_t offset = offset_of(w, op.a, l);
    const uint32_t count = op.b == kNone ? 1 : w.at<uint32_t>(op.b)[l];
    if (which == Mbarrier::Init) {
      w.block->objects.erase(offset);
      return write_word(w, offset, l, mbarrier_init(count), Access::Plain);
    }
    uint64_t word = read_word(w, offset, l), token = 0;
    switch (which) {
      case Mbarrier::Inval:
        word = 0;
        break;
      case Mbarrier::ExpectTx:
        word = mbarrier_expect_tx(word, count);
        break;
      case Mbarrier::CompleteTx:
        word = mbarrier_complete_tx(word, count);
        break;
      case Mbarrier::ArriveExpectTx:
        word = mbarrier_arrive(mbarrier_expect_tx(word, count), 1, &token);
        break;
      case Mbarrier::ArriveNoComplete:
        word = mbarrier_arrive_no_complete(word, count, &token);
        break;
      case Mbarrier::ArriveDrop:
        word = mbarrier_arrive_drop(word, count, &token);
        break;
      default:
        word = mbarrier_arrive(word, count, &token);
    }
    write_word(w, offset, l, word, Access::Atomic);
    release(w, offset);
    if (op.d != kNone) w.at<uint64_t>(op.d)[l] = token;
  });
}

void mbarrier_test(Warp& w, const Op& op, uint32_t mask) {
  uint32_t done = 0;
  for_lanes(mask, [&](int l) { done |= static_cast<uint32_t>(completed(w, op, l)) << l; });
  set_bits(w.predicate(op.d), mask, done);
  // Whoever polls does not stall: now and then something lands for it.
  if (done != mask && ++w.block->polls % 32 == 0 && !w.block->bulks.empty()) land(*w.block, 0);
}

uint32_t mbarrier_wait(Warp& w, const Op& op, uint32_t mask) {
  uint32_t done = 0;
  for_lanes(mask, [&](int l) { done |= static_cast<uint32_t>(completed(w, op, l)) << l; });
  set_bits(w.predicate(op.d), done, kFull);
  if (done == mask) return done;
  if (!w.block->launch->chance(4)) return done;
  // try_wait may give up at any time.
  set_bits(w.predicate(op.d), mask & ~done, 0);
  return mask;
}

std::string mbarrier_state(Warp& w, const Op& op, int lane) {
  uint64_t word;
  std::memcpy(&word, w.block->shared.data() + offset_of(w, op.a, lane), 8);
  return " (the mbarrier: " + mbarrier_text(word) + ")";
}

void mbarrier_pending(Warp& w, const Op& op, uint32_t mask) {
  for_lanes(mask, [&](int l) { w.at<uint32_t>(op.d)[l] = mbarrier_pending_count(w.at<uint64_t>(op.a)[l]); });
}

void mbarrier_arrive_copies(Warp& w, const Op& op, uint32_t mask) {
  for_lanes(mask, [&](int l) {
    Bulk b;
    b.kind = Bulk::Arrival;
    b.mbarrier = offset_of(w, op.a, l);
    read_word(w, b.mbarrier, l);
    b.warp = w.index;
    b.lane = static_cast<uint32_t>(l);
    b.pc = static_cast<uint32_t>(&op - w.block->launch->program->ops.data());
    start_bulk(w, std::move(b));
  });
}

}  // namespace simulator
