#include "decode.h"

#include <algorithm>

#include "simulator.h"

namespace simulator {

namespace {

uint32_t round_up(uint64_t value, uint32_t to) { return static_cast<uint32_t>((value + to - 1) / to * to); }

}  // namespace

Decoder::Decoder(const Module& module, const Addresses& addresses, const Function& kernel, int capability)
    : capability(capability), module_(module), addresses_(addresses), kernel_(kernel) {}

Program Decoder::decode() {
  KernelInfo& info = program_.info;
  info.name = kernel_.name;
  info.max_threads = kernel_.max_threads;
  program_.required_threads = kernel_.required_threads;
  program_.text = &module_.lines;
  for (const Variable* v : kernel_.parameters) {
    const uint32_t offset = round_up(info.parameter_bytes, v->align);
    parameters_[v] = offset;
    info.parameters.push_back({offset, static_cast<uint32_t>(v->size), v->align});
    info.parameter_bytes = offset + static_cast<uint32_t>(v->size);
  }
  std::set<const Function*> seen;
  collect(kernel_, &seen);
  auto top = std::make_unique<Instance>();
  top->function = &kernel_;
  Instance* first = top.get();
  instances_.push_back(std::move(top));
  function(first);
  return std::move(program_);
}

// Shared memory of all functions that can be reached: static variables, then the dynamic ones.
void Decoder::collect(const Function& f, std::set<const Function*>* seen) {
  if (!seen->insert(&f).second) return;
  for (const auto& v : f.variables)
    if (v->space == Space::Shared) place_shared(v.get());
  auto visit = [&](auto& self, const Operand& o) -> void {
    if (o.variable && o.variable->space == Space::Shared) place_shared(o.variable);
    if (o.kind == Operand::Label) {
      auto called = module_.functions.find(o.name);
      if (called != module_.functions.end()) collect(*called->second, seen);
    }
    for (const Operand& e : o.elements) self(self, e);
  };
  for (const Instruction& i : f.instructions)
    for (const Operand& o : i.operands) visit(visit, o);
}

void Decoder::place_shared(const Variable* v) {
  if (v->is_extern) {
    program_.dynamic_align = std::max(program_.dynamic_align, v->align);
    return;
  }
  if (shared_.count(v)) return;
  const uint32_t at = round_up(program_.shared_base + program_.info.static_shared_bytes, v->align);
  shared_[v] = at;
  program_.info.static_shared_bytes = at + static_cast<uint32_t>(v->size) - program_.shared_base;
}

uint32_t dynamic_shared_base(const Program& p) {
  // As aligned as declared and not more, so that a kernel cannot rely on luck.
  const uint32_t base = round_up(p.shared_base + p.info.static_shared_bytes, p.dynamic_align);
  return base % (2 * p.dynamic_align) == 0 && p.dynamic_align < 1024 ? base + p.dynamic_align : base;
}

uint32_t Decoder::allocate_slot(uint32_t bits) {
  // Predicates are masks of 4 bytes, the others start at multiples of 64.
  uint32_t& bytes = program_.register_bytes;
  if (bits > 1) bytes = round_up(bytes, 64);
  const uint32_t slot = bytes;
  bytes += bits == 1 ? 4 : bits == 64 ? 256 : 128;
  return slot;
}

uint32_t Decoder::register_slot(int32_t reg, bool writes) {
  uint32_t& slot = current_->slots[static_cast<size_t>(reg)];
  if (slot == kNone) {
    slot = allocate_slot(register_bits(reg));
    program_.info.registers += register_bits(reg) == 64 ? 2 : 1;
  }
  (writes ? written_ : read_).push_back(slot);
  return slot;
}

uint32_t Decoder::constant(uint64_t value, bool wide) {
  auto [found, fresh] = constants_.emplace(std::make_pair(value, wide), 0);
  if (fresh) {
    found->second = allocate_slot(wide ? 64 : 32);
    program_.specials.push_back({Special::Constant, 0, found->second, wide, value});
  }
  return found->second;
}

uint32_t Decoder::special(const std::string& name, Type type) {
  const bool wide = bytes_of(type) == 8;
  const std::string key = name + (wide ? "/64" : "");
  auto known = specials_.find(key);
  if (known != specials_.end()) return known->second;
  static const std::map<std::string, std::pair<Special::Name, uint8_t>> names = {
      {"%tid.x", {Special::Tid, 0}},
      {"%tid.y", {Special::Tid, 1}},
      {"%tid.z", {Special::Tid, 2}},
      {"%ntid.x", {Special::Ntid, 0}},
      {"%ntid.y", {Special::Ntid, 1}},
      {"%ntid.z", {Special::Ntid, 2}},
      {"%ctaid.x", {Special::Ctaid, 0}},
      {"%ctaid.y", {Special::Ctaid, 1}},
      {"%ctaid.z", {Special::Ctaid, 2}},
      {"%nctaid.x", {Special::Nctaid, 0}},
      {"%nctaid.y", {Special::Nctaid, 1}},
      {"%nctaid.z", {Special::Nctaid, 2}},
      {"%clusterid.x", {Special::Ctaid, 0}},
      {"%clusterid.y", {Special::Ctaid, 1}},
      {"%clusterid.z", {Special::Ctaid, 2}},
      {"%nclusterid.x", {Special::Nctaid, 0}},
      {"%nclusterid.y", {Special::Nctaid, 1}},
      {"%nclusterid.z", {Special::Nctaid, 2}},
      {"%laneid", {Special::Lane, 0}},
      {"%warpid", {Special::Warp, 0}},
      {"%nwarpid", {Special::Warps, 0}},
      {"%lanemask_eq", {Special::LaneMask, 0}},
      {"%lanemask_le", {Special::LaneMask, 1}},
      {"%lanemask_lt", {Special::LaneMask, 2}},
      {"%lanemask_ge", {Special::LaneMask, 3}},
      {"%lanemask_gt", {Special::LaneMask, 4}},
      {"%dynamic_smem_size", {Special::DynamicShared, 0}},
      {"%total_smem_size", {Special::TotalShared, 0}}};
  static const std::map<std::string, uint32_t> fixed = {{"WARP_SZ", 32},
                                                        {"%cluster_ctaid.x", 0},
                                                        {"%cluster_ctaid.y", 0},
                                                        {"%cluster_ctaid.z", 0},
                                                        {"%cluster_nctaid.x", 1},
                                                        {"%cluster_nctaid.y", 1},
                                                        {"%cluster_nctaid.z", 1},
                                                        {"%cluster_ctarank", 0},
                                                        {"%cluster_nctarank", 1},
                                                        {"%smid", 0},
                                                        {"%nsmid", 1},
                                                        {"%gridid", 0}};
  auto number = fixed.find(name);
  if (number != fixed.end()) return constant(number->second, wide);
  auto found = names.find(name);
  if (found == names.end()) throw Unsupported{"the special register " + name + " is not simulated"};
  if (wide) throw Unsupported{"the special register " + name + " as 64 bits is not simulated"};
  const uint32_t slot = allocate_slot(32);
  program_.specials.push_back({found->second.first, found->second.second, slot, wide, 0});
  return specials_[key] = slot;
}

const Operand& Decoder::operand(size_t i) const {
  if (i >= in->operands.size()) throw Unsupported{in->opcode + " with so few operands is not simulated"};
  return in->operands[i];
}

Type Decoder::last_type() const {
  for (auto part = in->parts.rbegin(); part != in->parts.rend(); ++part) {
    const Type type = parse_type(*part);
    if (type != Type::None) return type;
  }
  return Type::None;
}

Type Decoder::type_at(int i) const {
  for (const std::string& part : in->parts) {
    const Type type = parse_type(part);
    if (type != Type::None && i-- == 0) return type;
  }
  return Type::None;
}

Space Decoder::space_part() const {
  for (const std::string& part : in->parts) {
    if (part == "global") return Space::Global;
    if (part.rfind("shared", 0) == 0) return Space::Shared;
    if (part == "local") return Space::Local;
    if (part.rfind("param", 0) == 0) return Space::Param;
    if (part == "const") return Space::Const;
  }
  return Space::Generic;
}

uint32_t Decoder::source(const Operand& o, Type type) {
  const bool wide = bytes_of(type) == 8;
  switch (o.kind) {
    case Operand::RegisterName: {
      const uint8_t bits = register_bits(o.reg);
      if (o.negated || bits == 1 || (bits == 64) != wide)
        throw Unsupported{in->opcode + ": the register " + current_->function->registers[o.reg].name +
                          " of " + std::to_string(bits) + " bits does not fit the type"};
      return register_slot(o.reg, false);
    }
    case Operand::Immediate: {
      uint64_t bits = static_cast<uint64_t>(o.value);
      if (o.is_float && type == Type::F32 && bits > 0xffffffffu) {  // 1.0 or 0d...
        double number;
        std::memcpy(&number, &bits, 8);
        const float narrow = static_cast<float>(number);
        uint32_t narrow_bits;
        std::memcpy(&narrow_bits, &narrow, 4);
        bits = narrow_bits;
      }
      if (bytes_of(type) == 2) bits &= 0xffff;
      return constant(wide ? bits : bits & 0xffffffffu, wide);
    }
    case Operand::Symbol:
      return constant(symbol_address(o.variable) + static_cast<uint64_t>(o.value), wide);
    case Operand::Special:
      return special(o.name, type);
    default:
      throw Unsupported{in->opcode + ": an operand of this form is not simulated"};
  }
}

uint32_t Decoder::predicate(const Operand& o, bool* negated) {
  *negated = o.negated;
  if (o.kind == Operand::Immediate) {
    // A slot whose bits are all set or clear serves as a predicate.
    return constant(o.value ? 0xffffffffu : 0, false);
  }
  if (o.kind != Operand::RegisterName || register_bits(o.reg) != 1)
    throw Unsupported{in->opcode + ": expected a predicate"};
  return register_slot(o.reg, false);
}

uint32_t Decoder::result(const Operand& o, Type type) {
  if (o.kind == Operand::Sink) return kNone;
  if (o.kind != Operand::RegisterName || register_bits(o.reg) == 1 ||
      (register_bits(o.reg) == 64) != (bytes_of(type) == 8))
    throw Unsupported{in->opcode + ": a result of this form is not simulated"};
  return register_slot(o.reg, true);
}

uint32_t Decoder::result_predicate(const Operand& o) {
  if (o.kind == Operand::Sink) return kNone;
  if (o.kind != Operand::RegisterName || register_bits(o.reg) != 1)
    throw Unsupported{in->opcode + ": expected a predicate to write"};
  return register_slot(o.reg, true);
}

uint32_t Decoder::second_predicate(const Operand& o) {
  if (!o.has_second || o.second < 0) return kNone;
  if (register_bits(o.second) != 1) throw Unsupported{in->opcode + ": expected a predicate behind |"};
  return register_slot(o.second, true);
}

uint32_t Decoder::local_offset(const Variable* v, const Instance* owner) {
  auto [found, fresh] = locals_.emplace(std::make_pair(owner, v), 0);
  if (fresh) {
    uint32_t& bytes = program_.info.local_bytes;
    found->second = round_up(bytes, std::max<uint32_t>(v->align, 8));
    bytes = round_up(found->second + v->size, 16);
  }
  return found->second;
}

uint64_t Decoder::symbol_address(const Variable* v) {
  switch (v->space) {
    case Space::Shared:
      return v->is_extern ? dynamic_shared_base(program_) : shared_.at(v);
    case Space::Local:
      return local_offset(v, current_);
    case Space::Param: {
      auto found = parameters_.find(v);
      if (found != parameters_.end()) return found->second;
      // A parameter of a call lives in the caller's local memory.
      auto formal = current_->bound.find(v);
      return formal == current_->bound.end() ? local_offset(v, current_)
                                             : local_offset(formal->second, current_->caller);
    }
    default: {
      auto found = addresses_.find(v);
      if (found == addresses_.end()) throw Unsupported{"the variable " + v->name + " has no address"};
      return found->second;
    }
  }
}

void Decoder::address(const Operand& o, Op* op, Space* space) {
  if (o.kind != Operand::Address) throw Unsupported{in->opcode + ": expected an address"};
  op->value = o.value;
  if (o.variable) {
    op->value += static_cast<int64_t>(symbol_address(o.variable));
    if (*space == Space::Generic) {
      *space = o.variable->space;
      if (*space == Space::Const) *space = Space::Global;
    }
    if (o.variable->space == Space::Param && !parameters_.count(o.variable)) *space = Space::Local;
  } else if (o.reg >= 0) {
    if (register_bits(o.reg) < 32) throw Unsupported{in->opcode + ": an address in a register of 16 bits"};
    if (*space == Space::Param && current_->function != &kernel_)
      throw Unsupported{in->opcode + ": parameters of functions by address are not simulated"};
    op->a = register_slot(o.reg, false);
    if (register_bits(o.reg) == 64) op->q |= kWideBase;
  }
  if (*space == Space::Const) *space = Space::Global;
}

uint32_t Decoder::address_slot(const Operand& o) {
  Op op;
  Space space = Space::Generic;
  address(o, &op, &space);
  if (op.a == kNone) {
    read_.clear();
    // Symbols mean what they mean in the space of the instruction, and that is shared memory unless it is a
    // parameter.
    return constant(static_cast<uint64_t>(op.value) + (space == Space::Param ? kParamWindow : 0), true);
  }
  op.run = op.q & kWideBase ? add_wide : add_narrow;
  op.d = allocate_slot(64);
  const uint32_t slot = op.d;
  emit(op);
  return slot;
}

uint32_t Decoder::list(const std::vector<uint32_t>& slots) {
  const uint32_t at = static_cast<uint32_t>(program_.lists.size());
  program_.lists.insert(program_.lists.end(), slots.begin(), slots.end());
  return at;
}

Op& Decoder::emit(const Op& op) {
  program_.ops.push_back(op);
  program_.lines.push_back(in ? in->line : 0);
  Op& created = program_.ops.back();
  if (in && in->guard >= 0) {
    created.guard = register_slot(in->guard, false);
    created.guard_negated = in->guard_negated;
  }
  auto keep = [this](const std::vector<uint32_t>& slots) {
    const uint32_t at = static_cast<uint32_t>(program_.slots.size());
    program_.slots.insert(program_.slots.end(), slots.begin(), slots.end());
    return std::make_pair(at, static_cast<uint32_t>(slots.size()));
  };
  program_.reads.push_back(keep(read_));
  program_.writes.push_back(keep(written_));
  read_.clear();
  written_.clear();
  return created;
}

void Decoder::function(Instance* instance) {
  Instance* const outer = current_;
  current_ = instance;
  const Function& f = *instance->function;
  instance->slots.assign(f.registers.size(), kNone);
  const Instruction* const calling = in;
  const size_t first_table = tables_.size();
  for (const Instruction& i : f.instructions) {
    in = &i;
    instance->starts.push_back(static_cast<uint32_t>(program_.ops.size()));
    try {
      instruction();
    } catch (const Unsupported& what) {
      program_.messages.push_back(what.text);
      Op op;
      op.run = unknown;
      op.value = static_cast<int64_t>(program_.messages.size()) - 1;
      emit(op);
    }
  }
  in = nullptr;
  instance->starts.push_back(static_cast<uint32_t>(program_.ops.size()));
  // The end: of the kernel, or the way back to the caller.
  Op end;
  end.run = nothing;
  if (instance->function == &kernel_) end.kind = Kind::Exit;
  emit(end);
  for (auto [op, target] : instance->branches) program_.ops[op].value = instance->starts[target];
  for (size_t i = first_table; i < tables_.size(); ++i)
    program_.lists[tables_[i].first] = instance->starts[tables_[i].second];
  tables_.resize(first_table);
  in = calling;
  current_ = outer;
}

void Decoder::instruction() {
  const std::string& name = in->opcode;
  if (name == "bra") return branch();
  if (name == "brx") return branch_table();
  if (name == "call") return call();
  if (name == "exit" || (name == "ret" && current_->function == &kernel_)) {
    Op op;
    op.kind = Kind::Exit;
    emit(op);
    return;
  }
  if (name == "ret") {
    Op op;
    op.kind = Kind::Branch;
    current_->branches.emplace_back(static_cast<uint32_t>(program_.ops.size()),
                                    static_cast<uint32_t>(current_->function->instructions.size()));
    emit(op);
    return;
  }
  if (decode_arithmetic(*this) || decode_memory(*this) || decode_warp(*this) || decode_async(*this)) return;
  std::string full = name;
  for (const std::string& part : in->parts) full += "." + part;
  throw Unsupported{"the instruction " + full + " is not simulated"};
}

void Decoder::branch() {
  const int64_t target = current_->function->find_label(in->scope, operand(0).name);
  if (target < 0) throw Unsupported{"the label " + operand(0).name + " is not defined"};
  Op op;
  op.kind = Kind::Branch;
  current_->branches.emplace_back(static_cast<uint32_t>(program_.ops.size()), static_cast<uint32_t>(target));
  emit(op);
}

void Decoder::branch_table() {
  auto table = current_->function->tables.find(operand(1).name);
  if (!has("idx") || table == current_->function->tables.end())
    throw Unsupported{"a branch without a table is not simulated"};
  Op op;
  op.kind = Kind::BranchTable;
  op.a = source32(operand(0));
  std::vector<uint32_t> targets;
  for (const auto& [scope, label] : table->second) {
    const int64_t target = current_->function->find_label(scope, label);
    if (target < 0) throw Unsupported{"the label " + label + " is not defined"};
    targets.push_back(static_cast<uint32_t>(target));
  }
  op.list = list(targets);
  op.count = static_cast<uint32_t>(targets.size());
  for (uint32_t i = 0; i < op.count; ++i) tables_.emplace_back(op.list + i, targets[i]);
  emit(op);
}

void Decoder::call() {
  // call (results), name, (arguments): parameters are variables in the caller's local memory.
  size_t at = 0;
  const Operand* results = nullptr;
  const Operand* arguments = nullptr;
  if (operand(at).kind == Operand::List) results = &operand(at++);
  const std::string name = operand(at++).name;
  if (at < operands() && operand(at).kind == Operand::List) arguments = &operand(at);
  if (name == "__assertfail") {
    Op op;
    op.run = trap;
    emit(op);
    return;
  }
  auto found = module_.functions.find(name);
  if (found == module_.functions.end() || !found->second->has_body)
    throw Unsupported{"the call of " + name + " is not simulated"};
  if (in->guard >= 0) throw Unsupported{"a call under a predicate is not simulated"};
  for (const Instance* i = current_; i; i = i->caller)
    if (i->function == found->second.get()) throw Unsupported{"recursion (" + name + ") is not simulated"};
  auto created = std::make_unique<Instance>();
  Instance* instance = created.get();
  instance->function = found->second.get();
  instance->caller = current_;
  auto bind = [&](const std::vector<const Variable*>& formal, const Operand* actual) {
    if (formal.size() != (actual ? actual->elements.size() : 0))
      throw Unsupported{"a call of " + name + " with another number of arguments"};
    for (size_t i = 0; i < formal.size(); ++i) {
      if (!actual->elements[i].variable)
        throw Unsupported{"a call with arguments in registers is not simulated"};
      instance->bound[formal[i]] = actual->elements[i].variable;
    }
  };
  bind(instance->function->parameters, arguments);
  bind(instance->function->results, results);
  instances_.push_back(std::move(created));
  function(instance);
}

}  // namespace simulator
