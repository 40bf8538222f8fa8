// What lanes, warps and blocks do together; fences and the rest.
#include "decode.h"

namespace simulator {

namespace {

void decode_shuffle(Decoder& d) {
  Op op;
  op.run = shuffle;
  op.converge = true;
  const Shuffle which = d.has("up")     ? Shuffle::Up
                        : d.has("down") ? Shuffle::Down
                        : d.has("bfly") ? Shuffle::Bfly
                                        : Shuffle::Idx;
  op.p = static_cast<uint8_t>(which);
  op.a = d.source32(d.operand(1));
  op.b = d.source32(d.operand(2));
  op.c = d.source32(d.operand(3));
  op.m = d.source32(d.operand(4));
  op.d = d.result(d.operand(0), Type::B32);
  op.e = d.second_predicate(d.operand(0));
  d.emit(op);
}

void decode_vote(Decoder& d) {
  Op op;
  bool negated;
  op.run = vote;
  op.converge = true;
  op.p = static_cast<uint8_t>(d.has("ballot") ? Vote::Ballot
                              : d.has("any")  ? Vote::Any
                              : d.has("all")  ? Vote::All
                                              : Vote::Uni);
  op.a = d.predicate(d.operand(1), &negated);
  op.q = negated;
  if (!d.has("sync")) throw Unsupported{"vote without .sync is not simulated"};
  op.m = d.source32(d.operand(2));
  op.d = d.has("ballot") ? d.result(d.operand(0), Type::B32) : d.result_predicate(d.operand(0));
  d.emit(op);
}

void decode_barrier(Decoder& d) {
  const bool aligned = d.in->opcode == "bar" || d.has("aligned");
  Op op;
  op.converge = aligned;
  op.p = aligned;
  if (d.has("warp")) {
    op.converge = true;
    op.run = nothing;
    op.m = d.source32(d.operand(0));
    d.emit(op);
    return;
  }
  if (d.has("red")) {
    op.kind = Kind::Wait;
    op.wait = barrier_wait;
    op.q = d.has("popc") ? 1 : d.has("and") ? 2 : 3;
    op.a = d.source32(d.operand(1));
    const size_t last = d.operands() - 1;
    if (last == 3) op.b = d.source32(d.operand(2));
    bool negated;
    op.c = d.predicate(d.operand(last), &negated);
    op.r = negated;
    op.d = op.q == 1 ? d.result(d.operand(0), Type::U32) : d.result_predicate(d.operand(0));
    d.emit(op);
    return;
  }
  op.a = d.source32(d.operand(0));
  if (d.operands() > 1) op.b = d.source32(d.operand(1));
  if (d.has("arrive")) {
    op.run = barrier_arrive;
  } else {
    op.kind = Kind::Wait;
    op.wait = barrier_wait;
  }
  d.emit(op);
}

void decode_reduce(Decoder& d) {
  static const std::pair<const char*, Atomic> names[] = {{"add", Atomic::Add}, {"min", Atomic::Min},
                                                         {"max", Atomic::Max}, {"and", Atomic::And},
                                                         {"or", Atomic::Or},   {"xor", Atomic::Xor}};
  Op op;
  op.run = reduce;
  op.converge = true;
  for (const auto& [name, which] : names)
    if (d.has(name)) op.p = static_cast<uint8_t>(which);
  if (bytes_of(d.last_type()) != 4 || d.last_type() == Type::F32)
    throw Unsupported{"redux of floats is not simulated"};
  op.q = is_signed(d.last_type());
  op.a = d.source32(d.operand(1));
  op.m = d.source32(d.operand(2));
  op.d = d.result(d.operand(0), Type::U32);
  d.emit(op);
}

void decode_match(Decoder& d) {
  Op op;
  op.run = match;
  op.converge = true;
  op.p = d.has("all");
  const Type type = d.last_type();
  op.q = bytes_of(type) == 8;
  op.a = d.source(d.operand(1), type);
  op.m = d.source32(d.operand(2));
  op.d = d.result(d.operand(0), Type::U32);
  op.e = d.second_predicate(d.operand(0));
  d.emit(op);
}

}  // namespace

bool decode_warp(Decoder& d) {
  const std::string& name = d.in->opcode;
  Op op;
  op.run = nothing;
  if (name == "shfl") return decode_shuffle(d), true;
  if (name == "vote") return decode_vote(d), true;
  if (name == "bar" || name == "barrier") {
    if (d.has("cluster")) {
      // A cluster of one block: arrive orders nothing more, wait is a barrier of the block.
      if (d.has("arrive")) return d.emit(op), true;
      op.kind = Kind::Wait;
      op.wait = barrier_wait;
      op.p = d.has("aligned");
      op.converge = d.has("aligned");
      op.a = d.constant(15, false);
      return d.emit(op), true;
    }
    return decode_barrier(d), true;
  }
  if (name == "redux") return decode_reduce(d), true;
  if (name == "match") return decode_match(d), true;
  if (name == "activemask") {
    op.run = active_mask;
    op.d = d.result(d.operand(0), Type::U32);
    return d.emit(op), true;
  }
  if (name == "elect") {
    op.run = elect;
    op.converge = true;
    op.m = d.source32(d.operand(1));
    op.d = d.result(d.operand(0), Type::U32);
    op.e = d.second_predicate(d.operand(0));
    if (op.e == kNone) throw Unsupported{"elect without a predicate is not simulated"};
    return d.emit(op), true;
  }
  if (name == "fence" || name == "membar") {
    if (d.has("proxy")) op.run = proxy_fence;
    return d.emit(op), true;
  }
  if (name == "nanosleep" || name == "pmevent" || name == "griddepcontrol") return d.emit(op), true;
  if (name == "trap" || name == "brkpt") {
    op.run = trap;
    return d.emit(op), true;
  }
  return false;
}

}  // namespace simulator
