// Arithmetic, logic, comparisons, conversions and moves.
#include <set>

#include "decode.h"

namespace simulator {

namespace {

void require(Handler handler, Decoder& d) {
  if (handler) return;
  std::string text = "the instruction " + d.in->opcode;
  for (const std::string& part : d.in->parts) text += "." + part;
  throw Unsupported{text + " is not simulated"};
}

// Qualifiers that change a result in ways that are not simulated.
void refuse(Decoder& d, std::initializer_list<const char*> parts) {
  for (const char* part : parts)
    if (d.has(part)) throw Unsupported{d.in->opcode + " with ." + part + " is not simulated"};
}

void emit_plain(Decoder& d, Handler handler, Type type, size_t count) {
  require(handler, d);
  Op op;
  op.run = handler;
  if (count > 0) op.a = d.source(d.operand(1), type);
  if (count > 1) op.b = d.source(d.operand(2), type);
  if (count > 2) op.c = d.source(d.operand(3), type);
  op.d = d.result(d.operand(0), type);
  d.emit(op);
}

bool decode_float(Decoder& d, Type type) {
  const std::string& name = d.in->opcode;
  static const std::set<std::string> unary = {"neg", "abs", "rcp", "sqrt"};
  static const std::set<std::string> binary = {"add", "sub", "mul", "div", "min", "max", "copysign"};
  if (!unary.count(name) && !binary.count(name) && name != "fma" && name != "mad") return false;
  refuse(d, {"ftz", "sat", "approx", "full", "rz", "rm", "rp", "NaN", "xorsign"});
  if (unary.count(name))
    emit_plain(d, float_handler(name, type), type, 1);
  else if (binary.count(name))
    emit_plain(d, float_handler(name, type), type, 2);
  else
    emit_plain(d, float_handler("fma", type), type, 3);
  return true;
}

bool decode_integer(Decoder& d, Type type) {
  const std::string& name = d.in->opcode;
  static const std::set<std::string> plain2 = {"div", "rem", "min", "max", "and", "or", "xor"};
  static const std::set<std::string> plain1 = {"neg", "abs", "not", "cnot"};
  if (name == "add" || name == "sub" || name == "addc" || name == "subc") {
    refuse(d, {"sat"});
    const bool in = name.size() == 4, out = d.has("cc");
    if (!in && !out) {
      emit_plain(d, integer_handler(name, type), type, 2);
    } else {
      Op op;
      op.run = integer_handler(in ? name : name + "c", type);
      require(op.run, d);
      op.p = static_cast<uint8_t>((in ? 1 : 0) | (out ? 2 : 0));
      op.a = d.source(d.operand(1), type);
      op.b = d.source(d.operand(2), type);
      op.d = d.result(d.operand(0), type);
      d.emit(op);
    }
    return true;
  }
  if (name == "mul" || name == "mad") {
    refuse(d, {"sat", "cc"});
    const std::string full = name + (d.has("hi") ? ".hi" : d.has("wide") ? ".wide" : ".lo");
    const Handler handler = integer_handler(full, type);
    require(handler, d);
    Op op;
    op.run = handler;
    const Type wide = !d.has("wide") ? type : bytes_of(type) == 4 ? Type::U64 : Type::U32;
    op.a = d.source(d.operand(1), type);
    op.b = d.source(d.operand(2), type);
    if (name == "mad") op.c = d.source(d.operand(3), wide);
    op.d = d.result(d.operand(0), wide);
    d.emit(op);
    return true;
  }
  if (plain2.count(name)) {
    refuse(d, {"relu"});
    emit_plain(d, integer_handler(name, type), type, 2);
    return true;
  }
  if (plain1.count(name)) {
    emit_plain(d, integer_handler(name, type), type, 1);
    return true;
  }
  if (name == "sad" || name == "prmt" || name == "fns") {
    const Handler handler = integer_handler(name, type);
    require(handler, d);
    Op op;
    op.run = handler;
    static const char* const modes[] = {"f4e", "b4e", "rc8", "ecl", "ecr", "rc16"};
    if (name == "prmt")
      for (uint8_t i = 0; i < 6; ++i)
        if (d.has(modes[i])) op.p = static_cast<uint8_t>(i + 1);
    op.a = d.source(d.operand(1), type);
    op.b = d.source(d.operand(2), type);
    op.c = d.source(d.operand(3), type);
    op.d = d.result(d.operand(0), type);
    d.emit(op);
    return true;
  }
  if (name == "shl" || name == "shr" || name == "bfe" || name == "bfi") {
    const Handler handler = integer_handler(name, type);
    require(handler, d);
    Op op;
    op.run = handler;
    op.a = d.source(d.operand(1), type);
    op.b = name == "bfi" ? d.source(d.operand(2), type) : d.source32(d.operand(2));
    if (name == "bfe" || name == "bfi") op.c = d.source32(d.operand(3));
    if (name == "bfi") op.e = d.source32(d.operand(4));
    op.d = d.result(d.operand(0), type);
    d.emit(op);
    return true;
  }
  if (name == "popc" || name == "clz" || name == "bfind" || name == "brev") {
    const Handler handler = integer_handler(d.has("shiftamt") ? "bfind.shiftamt" : name, type);
    require(handler, d);
    Op op;
    op.run = handler;
    op.a = d.source(d.operand(1), type);
    op.d = d.result(d.operand(0), name == "brev" ? type : Type::U32);
    d.emit(op);
    return true;
  }
  if (name == "shf") {
    emit_plain(
        d,
        integer_handler(std::string("shf.") + (d.has("l") ? "l." : "r.") + (d.has("wrap") ? "wrap" : "clamp"),
                        type),
        Type::B32, 3);
    return true;
  }
  if (name == "lop3") {
    refuse(d, {"BoolOp", "or", "and"});
    Op op;
    op.run = integer_handler(name, type);
    require(op.run, d);
    op.a = d.source32(d.operand(1));
    op.b = d.source32(d.operand(2));
    op.c = d.source32(d.operand(3));
    op.value = d.operand(4).value;
    op.d = d.result(d.operand(0), type);
    d.emit(op);
    return true;
  }
  if (name == "dp4a" || name == "dp2a") {
    const Type a = d.type_at(0), b = d.type_at(1);
    emit_plain(
        d,
        dot_handler(name == "dp4a" ? name : name + (d.has("hi") ? ".hi" : ".lo"), is_signed(a), is_signed(b)),
        Type::B32, 3);
    return true;
  }
  return false;
}

void decode_compare(Decoder& d, bool is_set) {
  static const char* const names[] = {"eq",  "ne",  "lt",  "le",  "gt",  "ge",  "equ",
                                      "neu", "ltu", "leu", "gtu", "geu", "num", "nan"};
  static const std::pair<const char*, Compare> unsigned_names[] = {
      {"lo", Compare::Lt}, {"ls", Compare::Le}, {"hi", Compare::Gt}, {"hs", Compare::Ge}};
  refuse(d, {"ftz"});
  const Type type = d.last_type();
  Compare compare = Compare::Eq;
  for (uint8_t i = 0; i < 14; ++i)
    if (d.in->parts[0] == names[i]) compare = static_cast<Compare>(i);
  for (const auto& [name, as] : unsigned_names)
    if (d.in->parts[0] == name) compare = as;
  Op op;
  op.run = compare_handler(compare, type);
  require(op.run, d);
  for (uint8_t i = 1; i <= 3; ++i)
    if (d.in->parts.size() > 1 && d.in->parts[1] == (i == 1 ? "and" : i == 2 ? "or" : "xor")) op.q = i;
  op.a = d.source(d.operand(1), type);
  op.b = d.source(d.operand(2), type);
  if (op.q) {
    bool negated;
    op.c = d.predicate(d.operand(3), &negated);
    op.r = negated;
  }
  if (is_set) {
    op.s = is_float(d.type_at(0)) ? 2 : 1;
    op.d = d.result(d.operand(0), Type::U32);
  } else {
    op.d = d.result_predicate(d.operand(0));
    op.e = d.second_predicate(d.operand(0));
  }
  d.emit(op);
}

void decode_convert(Decoder& d) {
  refuse(d, {"ftz", "relu", "satfinite"});
  const Type to = d.type_at(0), from = d.type_at(1);
  if (to == Type::None || from == Type::None)
    throw Unsupported{"a conversion of these types is not simulated"};
  const Operand& a = d.operand(1);
  const Operand& r = d.operand(0);
  Op op;
  op.run = convert;
  op.p = static_cast<uint8_t>(to);
  op.q = static_cast<uint8_t>(from);
  Rounding rounding = Rounding::None;
  if (d.has("rni")) rounding = Rounding::Nearest;
  if (d.has("rzi")) rounding = Rounding::Zero;
  if (d.has("rmi")) rounding = Rounding::Down;
  if (d.has("rpi")) rounding = Rounding::Up;
  if (is_float(to)) refuse(d, {"rz", "rm", "rp"});
  if (is_float(to) && is_float(from) && rounding != Rounding::None)
    throw Unsupported{"rounding to integral floats is not simulated"};
  op.r = static_cast<uint8_t>(rounding);
  const bool wide_source =
      a.kind == Operand::RegisterName ? d.register_bits(a.reg) == 64 : bytes_of(from) == 8;
  const bool wide_result = r.kind == Operand::RegisterName && d.register_bits(r.reg) == 64;
  op.s = static_cast<uint8_t>((d.has("sat") ? 1 : 0) | (wide_result ? 2 : 0) | (wide_source ? 4 : 0) |
                              (r.kind == Operand::RegisterName && d.register_bits(r.reg) == 16 ? 8 : 0));
  op.a = d.source(a, wide_source ? Type::U64 : Type::U32);
  op.d = d.result(r, wide_result ? Type::U64 : Type::U32);
  d.emit(op);
}

bool is_clock(const std::string& name) {
  return name.rfind("%clock", 0) == 0 || name.rfind("%globaltimer", 0) == 0;
}

void decode_move(Decoder& d) {
  const Operand& to = d.operand(0);
  const Operand& from = d.operand(1);
  const Type type = d.last_type();
  Op op;
  if (type == Type::Pred) {
    bool negated;
    op.run = move_predicate;
    op.a = d.predicate(from, &negated);
    op.q = negated;
    op.d = d.result_predicate(to);
  } else if (from.kind == Operand::Vector) {
    op.run = pack;
    op.count = static_cast<uint32_t>(from.elements.size());
    op.p = static_cast<uint8_t>(bytes_of(type) / op.count);
    op.q = bytes_of(type) == 8;
    std::vector<uint32_t> slots;
    for (const Operand& e : from.elements) slots.push_back(d.source(e, op.p == 2 ? Type::U16 : Type::U32));
    op.list = d.list(slots);
    op.d = d.result(to, type);
  } else if (to.kind == Operand::Vector) {
    op.run = unpack;
    op.count = static_cast<uint32_t>(to.elements.size());
    op.p = static_cast<uint8_t>(bytes_of(type) / op.count);
    op.q = bytes_of(type) == 8;
    op.a = d.source(from, type);
    std::vector<uint32_t> slots;
    for (const Operand& e : to.elements) slots.push_back(d.result(e, Type::U32));
    op.list = d.list(slots);
  } else if (from.kind == Operand::Special && is_clock(from.name)) {
    op.run = read_clock;
    op.p = bytes_of(type) == 8;
    op.d = d.result(to, type);
  } else {
    op.run = bytes_of(type) == 8 ? move64 : move32;
    op.a = d.source(from, type);
    op.d = d.result(to, type);
  }
  d.emit(op);
}

bool decode_predicates(Decoder& d) {
  const std::string& name = d.in->opcode;
  const uint8_t which = name == "and" ? 0 : name == "or" ? 1 : name == "xor" ? 2 : name == "not" ? 3 : 4;
  if (which == 4) return false;
  Op op;
  bool negated;
  op.run = predicate_logic;
  op.p = which;
  op.a = d.predicate(d.operand(1), &negated);
  op.q = negated;
  if (which < 3) {
    op.b = d.predicate(d.operand(2), &negated);
    op.r = negated;
  }
  op.d = d.result_predicate(d.operand(0));
  d.emit(op);
  return true;
}

}  // namespace

bool decode_arithmetic(Decoder& d) {
  const std::string& name = d.in->opcode;
  if (name == "mov") return decode_move(d), true;
  if (name == "setp") return decode_compare(d, false), true;
  if (name == "set") return decode_compare(d, true), true;
  if (name == "cvt") return decode_convert(d), true;
  const Type type = d.last_type();
  if (name == "selp") {
    Op op;
    bool negated;
    op.run = select_handler(type);
    op.a = d.source(d.operand(1), type);
    op.b = d.source(d.operand(2), type);
    op.c = d.predicate(d.operand(3), &negated);
    op.r = negated;
    op.d = d.result(d.operand(0), type);
    d.emit(op);
    return true;
  }
  if (type == Type::Pred) return decode_predicates(d);
  return is_float(type) ? decode_float(d, type) : decode_integer(d, type);
}

}  // namespace simulator
