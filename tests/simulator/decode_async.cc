// Tensor instructions, asynchronous copies, mbarriers.
#include "async.h"
#include "decode.h"

namespace simulator {

namespace {

std::string full_name(const Decoder& d) {
  std::string name = d.in->opcode;
  for (const std::string& part : d.in->parts) name += "." + part;
  return name;
}

[[noreturn]] void unsupported(const Decoder& d) {
  throw Unsupported{"the instruction " + full_name(d) + " is not simulated"};
}

bool contains(const Decoder& d, const char* text) { return full_name(d).find(text) != std::string::npos; }

// "m16n8k256" among the parts.
bool shape_of(const Decoder& d, MmaShape* shape) {
  for (const std::string& part : d.in->parts)
    if (std::sscanf(part.c_str(), "m%dn%dk%d", &shape->m, &shape->n, &shape->k) == 3) return true;
  return false;
}

void append(Decoder& d, const Operand& o, bool result, std::vector<uint32_t>* slots) {
  const std::vector<Operand> one = {o};
  for (const Operand& e : o.kind == Operand::Vector ? o.elements : one)
    slots->push_back(result ? d.result(e, Type::U32) : d.source32(e));
}

void decode_mma(Decoder& d) {
  Op op;
  MmaShape shape;
  const bool bits = d.has("b1");
  if (!shape_of(d, &shape) || (!bits && !d.has("s8") && !d.has("u8")) || d.has("sp") ||
      (bits && !d.has("popc")))
    unsupported(d);
  // 2 bits of difference: AND came with sm_80; from sm_75 on XOR of m8n8k128, 8 bits m8n8k16.
  const bool small = shape.m == 8 && !(bits && d.has("and"));
  if (d.capability < (small ? 75 : 80))
    throw Unsupported{full_name(d) + " needs a GPU of compute capability 8.0"};
  const MmaRegisters r = mma_registers(shape, bits ? 1 : 8);
  op.run = bits ? mma_bits : mma_bytes;
  op.converge = true;
  op.p = static_cast<uint8_t>(shape.m);
  op.q = static_cast<uint8_t>(shape.n);
  op.r = static_cast<uint8_t>(shape.k / 4);
  if (bits) {
    op.s = d.has("xor");
  } else {
    // .dtype.atype.btype.ctype
    std::vector<std::string> types;
    for (const std::string& part : d.in->parts)
      if (part == "s32" || part == "s8" || part == "u8") types.push_back(part);
    if (types.size() != 4 || types[0] != "s32" || types[3] != "s32") unsupported(d);
    op.s = static_cast<uint8_t>((types[1] == "s8" ? 1 : 0) | (types[2] == "s8" ? 2 : 0) |
                                (d.has("satfinite") ? 4 : 0));
  }
  std::vector<uint32_t> slots;
  for (size_t i = 1; i < 4; ++i) append(d, d.operand(i), false, &slots);
  std::vector<uint32_t> results;
  append(d, d.operand(0), true, &results);
  slots.insert(slots.begin(), results.begin(), results.end());
  if (results.size() != static_cast<size_t>(r.c) || slots.size() != static_cast<size_t>(2 * r.c + r.a + r.b))
    throw Unsupported{full_name(d) + " with other numbers of registers"};
  op.list = d.list(slots);
  d.emit(op);
}

void decode_matrix(Decoder& d, bool is_load) {
  if (!d.has("m8n8") || !d.has("b16")) unsupported(d);
  Op op;
  op.a = d.address_slot(d.operand(is_load ? 1 : 0));
  op.run = is_load ? load_matrix : store_matrix;
  op.converge = true;
  op.p = d.has("trans");
  std::vector<uint32_t> slots;
  append(d, d.operand(is_load ? 0 : 1), is_load, &slots);
  op.count = static_cast<uint32_t>(slots.size());
  if (!d.has(op.count == 4 ? "x4" : op.count == 2 ? "x2" : "x1")) unsupported(d);
  op.list = d.list(slots);
  d.emit(op);
}

void decode_wgmma(Decoder& d) {
  if (d.capability != 90) throw Unsupported{"wgmma needs sm_90a"};
  Op op;
  op.converge = true;
  if (d.has("fence")) {
    op.run = wgmma_fence;
  } else if (d.has("commit_group")) {
    op.run = wgmma_commit;
  } else if (d.has("wait_group")) {
    op.kind = Kind::Wait;
    op.wait = wgmma_wait;
    op.value = d.operand(0).value;
  } else {
    MmaShape shape;
    if (!d.has("mma_async") || !shape_of(d, &shape) || !wgmma_n_valid(shape.n)) unsupported(d);
    WgmmaKind kind = WgmmaKind::B1AndPopc;
    if (d.has("b1")) {
      if (!d.has("and") || !d.has("popc") || shape.k != 256) unsupported(d);
    } else {
      std::vector<bool> is_signed;
      for (const std::string& part : d.in->parts)
        if (part == "s8" || part == "u8") is_signed.push_back(part == "s8");
      if (is_signed.size() != 2 || shape.k != 32) unsupported(d);
      kind = is_signed[0] ? (is_signed[1] ? WgmmaKind::S8S8 : WgmmaKind::S8U8)
                          : (is_signed[1] ? WgmmaKind::U8S8 : WgmmaKind::U8U8);
    }
    op.run = wgmma_issue;
    op.q = static_cast<uint8_t>(shape.n / 8);
    op.r = static_cast<uint8_t>(kind);
    bool negated;
    op.c = d.predicate(d.operand(3), &negated);
    op.p = static_cast<uint8_t>((d.has("satfinite") ? 1 : 0) | (negated ? 2 : 0));
    std::vector<uint32_t> slots;
    append(d, d.operand(0), true, &slots);
    if (slots.size() != static_cast<size_t>(shape.n / 2))
      throw Unsupported{"wgmma with another number of registers"};
    if (d.operand(1).kind == Operand::Vector)
      append(d, d.operand(1), false, &slots);
    else
      op.a = d.source(d.operand(1), Type::U64);
    op.b = d.source(d.operand(2), Type::U64);
    op.list = d.list(slots);
  }
  d.emit(op);
}

void decode_mbarrier(Decoder& d) {
  Op op;
  if (d.has("test_wait") || d.has("try_wait")) {
    op.a = d.address_slot(d.operand(1));
    op.p = d.has("parity");
    op.b = d.source(d.operand(2), op.p ? Type::U32 : Type::U64);
    op.d = d.result_predicate(d.operand(0));
    if (d.has("try_wait")) {
      op.kind = Kind::Wait;
      op.wait = mbarrier_wait;
    } else {
      op.run = mbarrier_test;
    }
    d.emit(op);
    return;
  }
  if (d.has("pending_count")) {
    op.run = mbarrier_pending;
    op.a = d.source(d.operand(1), Type::U64);
    op.d = d.result(d.operand(0), Type::U32);
    d.emit(op);
    return;
  }
  op.run = mbarrier_change;
  Mbarrier which = Mbarrier::Arrive;
  if (d.has("init")) which = Mbarrier::Init;
  if (d.has("inval")) which = Mbarrier::Inval;
  if (d.has("complete_tx")) which = Mbarrier::CompleteTx;
  if (d.has("expect_tx")) which = d.has("arrive") ? Mbarrier::ArriveExpectTx : Mbarrier::ExpectTx;
  if (d.has("arrive_drop")) {
    if (d.has("expect_tx") || d.has("noComplete")) unsupported(d);
    which = Mbarrier::ArriveDrop;
  }
  if (d.has("noComplete")) which = Mbarrier::ArriveNoComplete;
  op.p = static_cast<uint8_t>(which);
  // Arrivals give a token, unless the mbarrier may be of another block.
  const bool gives = d.in->parts[0] == "arrive" || d.in->parts[0] == "arrive_drop";
  const size_t first = gives && d.operand(0).kind != Operand::Address ? 1 : 0;
  op.a = d.address_slot(d.operand(first));
  if (d.operands() > first + 1) op.b = d.source32(d.operand(first + 1));
  if (first) op.d = d.result(d.operand(0), Type::U64);
  d.emit(op);
}

void decode_lane_copy(Decoder& d) {
  Op op;
  op.a = d.address_slot(d.operand(0));
  op.b = d.address_slot(d.operand(1));
  op.run = copy_lane;
  const int64_t bytes = d.operand(2).value;
  if (d.operand(2).kind != Operand::Immediate || (bytes != 4 && bytes != 8 && bytes != 16) ||
      (d.has("cg") && bytes != 16))
    unsupported(d);
  op.r = static_cast<uint8_t>(bytes);
  const size_t count = d.operands() - (contains(d, "cache_hint") ? 1 : 0);
  if (count > 3) {
    const Operand& o = d.operand(3);
    if (o.kind == Operand::RegisterName && d.register_bits(o.reg) == 1) {
      bool negated;
      op.e = d.predicate(o, &negated);
      if (negated) unsupported(d);
    } else {
      op.c = d.source32(o);
    }
  }
  d.emit(op);
}

void decode_bulk(Decoder& d) {
  Op op;
  if (d.has("prefetch") || d.in->parts[0] == "prefetch") {
    op.run = nothing;
  } else if (d.has("commit_group")) {
    op.run = commit_bulks;
  } else if (d.has("wait_group")) {
    op.run = wait_bulks;
    op.value = d.operand(0).value;
  } else {
    if (contains(d, "multicast") || contains(d, "im2col") || contains(d, "cta_group") ||
        contains(d, "gather"))
      unsupported(d);
    const bool tensor = d.has("tensor");
    const bool to_shared = d.has("global") && contains(d, "complete_tx");
    if (!to_shared && !d.has("bulk_group")) unsupported(d);
    const Operand& map = d.operand(to_shared ? 1 : 0);
    op.a = d.address_slot(d.operand(0));
    op.b = d.address_slot(d.operand(1));
    if (tensor) {
      if (map.elements.size() != 1) unsupported(d);
      std::vector<uint32_t> slots;
      append(d, map.elements[0], false, &slots);
      op.list = d.list(slots);
      op.count = static_cast<uint32_t>(slots.size());
      if (!d.has((std::to_string(op.count) + "d").c_str())) unsupported(d);
      op.run = to_shared ? tensor_load_op : tensor_store_op;
      if (to_shared) op.c = d.address_slot(d.operand(2));
    } else {
      op.run = to_shared ? bulk_load : bulk_store;
      op.e = d.source32(d.operand(2));
      if (to_shared) op.c = d.address_slot(d.operand(3));
    }
  }
  d.emit(op);
}

bool decode_copies(Decoder& d) {
  if (!d.has("async")) return false;
  Op op;
  if (d.has("bulk")) {
    if (d.capability < 90) throw Unsupported{"bulk copies need a GPU of compute capability 9.0"};
    decode_bulk(d);
    return true;
  }
  if (d.capability < 80) throw Unsupported{"cp.async needs a GPU of compute capability 8.0"};
  if (d.has("commit_group")) {
    op.run = commit_lane_copies;
  } else if (d.has("wait_group") || d.has("wait_all")) {
    op.run = wait_lane_copies;
    op.value = d.has("wait_all") ? -1 : d.operand(0).value;
  } else if (d.has("mbarrier")) {
    if (!d.has("noinc")) unsupported(d);
    op.a = d.address_slot(d.operand(0));
    op.run = mbarrier_arrive_copies;
  } else {
    decode_lane_copy(d);
    return true;
  }
  d.emit(op);
  return true;
}

}  // namespace

bool decode_async(Decoder& d) {
  const std::string& name = d.in->opcode;
  if (name == "mma") return decode_mma(d), true;
  if (name == "ldmatrix") return decode_matrix(d, true), true;
  if (name == "stmatrix") return decode_matrix(d, false), true;
  if (name == "wgmma") return decode_wgmma(d), true;
  if (name == "mbarrier") return decode_mbarrier(d), true;
  if (name == "cp") return decode_copies(d);
  if (name == "setmaxnreg") {
    const int64_t count = d.operand(0).value;
    if (count < 24 || count > 256 || count % 8)
      throw Unsupported{"setmaxnreg takes multiples of 8 from 24 to 256"};
    Op op;
    op.run = nothing;
    op.converge = true;
    d.emit(op);
    return true;
  }
  return false;
}

}  // namespace simulator
