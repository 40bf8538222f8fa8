// Loads, stores, atomics, addresses.
#include "decode.h"

namespace simulator {

namespace {

bool is_strong(const Decoder& d) {
  for (const char* part : {"volatile", "relaxed", "acquire", "release", "mmio"})
    if (d.has(part)) return true;
  return false;
}

void decode_access(Decoder& d, bool is_load) {
  const Type type = d.last_type();
  const Operand& registers = d.operand(is_load ? 0 : 1);
  const std::vector<Operand> one = {registers};
  const std::vector<Operand>& elements = registers.kind == Operand::Vector ? registers.elements : one;
  if (type == Type::None || elements.size() * bytes_of(type) > 32)
    throw Unsupported{d.in->opcode + " of this type is not simulated"};
  Op op;
  op.run = is_load ? load : store;
  Space space = d.space_part();
  d.address(d.operand(is_load ? 1 : 0), &op, &space);
  op.p = static_cast<uint8_t>(space);
  if (is_strong(d)) op.q |= kStrong;
  op.r = static_cast<uint8_t>(bytes_of(type));
  op.count = static_cast<uint32_t>(elements.size());
  bool wide = bytes_of(type) == 8;
  for (const Operand& e : elements)
    if (e.kind == Operand::RegisterName) wide = d.register_bits(e.reg) == 64;
  const Type width = wide ? Type::U64 : Type::U32;
  std::vector<uint32_t> slots;
  for (const Operand& e : elements) slots.push_back(is_load ? d.result(e, width) : d.source(e, width));
  op.list = d.list(slots);
  op.s = static_cast<uint8_t>((wide ? 8 : 4) | (is_signed(type) ? 16 : 0));
  d.emit(op);
}

void decode_atomic(Decoder& d, bool has_result) {
  static const std::pair<const char*, Atomic> names[] = {
      {"add", Atomic::Add}, {"min", Atomic::Min}, {"max", Atomic::Max},   {"and", Atomic::And},
      {"or", Atomic::Or},   {"xor", Atomic::Xor}, {"exch", Atomic::Exch}, {"cas", Atomic::Cas},
      {"inc", Atomic::Inc}, {"dec", Atomic::Dec}};
  const Type type = d.last_type();
  const size_t first = has_result ? 1 : 0;
  Op op;
  op.run = atomic;
  bool known = false;
  for (const auto& [name, which] : names)
    if (d.has(name)) {
      op.r = static_cast<uint8_t>(which);
      known = true;
    }
  if (!known || d.operand(first + 1).kind == Operand::Vector || bytes_of(type) < 4)
    throw Unsupported{"this atomic operation is not simulated"};
  op.s = static_cast<uint8_t>(type);
  Space space = d.space_part();
  d.address(d.operand(first), &op, &space);
  op.p = static_cast<uint8_t>(space);
  op.b = d.source(d.operand(first + 1), type);
  if (d.has("cas")) op.c = d.source(d.operand(first + 2), type);
  if (has_result) op.d = d.result(d.operand(0), type);
  d.emit(op);
}

void decode_cvta(Decoder& d) {
  const bool to = d.has("to");
  const Space space = d.space_part();
  uint64_t window = 0;
  if (space == Space::Shared) window = kSharedWindow;
  if (space == Space::Local) window = kLocalWindow;
  if (space == Space::Param) window = kParamWindow;
  Op op;
  op.run = add_wide;
  op.value = static_cast<int64_t>(to ? 0 - window : window);
  const Type type = d.last_type();
  if (bytes_of(type) != 8) throw Unsupported{"32-bit generic addresses are not simulated"};
  op.a = d.source(d.operand(1), type);
  op.d = d.result(d.operand(0), type);
  d.emit(op);
}

}  // namespace

bool decode_memory(Decoder& d) {
  const std::string& name = d.in->opcode;
  if (name == "ld" || name == "ldu") return decode_access(d, true), true;
  if (name == "st") return decode_access(d, false), true;
  if (name == "atom") return decode_atomic(d, true), true;
  if (name == "red" && !d.has("async")) return decode_atomic(d, false), true;
  if (name == "cvta") return decode_cvta(d), true;
  if (name == "mapa") {
    // Clusters are single blocks here: what an address means in block 0 of the cluster is itself.
    const Type type = d.last_type();
    Op op;
    op.run = bytes_of(type) == 8 ? move64 : move32;
    op.a = d.source(d.operand(1), type);
    op.d = d.result(d.operand(0), type);
    d.emit(op);
    return true;
  }
  if (name == "isspacep") {
    Op op;
    op.run = address_space_test;
    op.p = static_cast<uint8_t>(d.space_part());
    op.a = d.source(d.operand(1), Type::U64);
    op.d = d.result_predicate(d.operand(0));
    d.emit(op);
    return true;
  }
  if (name == "prefetch" || name == "prefetchu" || name == "discard" || name == "applypriority") {
    Op op;
    op.run = nothing;
    d.emit(op);
    return true;
  }
  if (name == "createpolicy") {
    Op op;
    op.run = move64;
    op.a = d.constant(0, true);
    op.d = d.result(d.operand(0), Type::U64);
    d.emit(op);
    return true;
  }
  return false;
}

}  // namespace simulator
