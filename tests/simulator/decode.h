// PTX instructions to ops of one kernel, with the functions it calls put in place.
#pragma once

#include <map>
#include <set>
#include <string>
#include <vector>

#include "core.h"
#include "ops.h"
#include "ptx.h"
#include "types.h"

namespace simulator {

// An instruction that is not simulated: becomes an op that says so when it is executed.
struct Unsupported {
  std::string text;
};

// Where a loaded module's global and constant variables are.
using Addresses = std::map<const Variable*, uint64_t>;

class Decoder {
 public:
  Decoder(const Module& module, const Addresses& addresses, const Function& kernel, int capability);
  Program decode();

  // For the decoders of single instructions (decode_*.cc).
  const Instruction* in = nullptr;
  int capability;

  const Operand& operand(size_t i) const;  // throws Unsupported where there are fewer
  size_t operands() const { return in->operands.size(); }
  bool has(const char* part) const { return in->has(part); }
  Type last_type() const;                        // of the parts: the type of most instructions
  Type type_at(int i) const;                     // i-th type among the parts, None if there are fewer
  uint32_t source(const Operand& o, Type type);  // slot of a value
  uint32_t source32(const Operand& o) { return source(o, Type::U32); }
  uint32_t predicate(const Operand& o, bool* negated);
  uint32_t result(const Operand& o, Type type);  // slot; kNone for _
  uint32_t result_predicate(const Operand& o);
  uint32_t second_predicate(const Operand& o);  // q of p|q, or kNone
  uint32_t constant(uint64_t value, bool wide);
  uint32_t register_slot(int32_t reg, bool writes);
  uint8_t register_bits(int32_t reg) const { return current_->function->registers[reg].bits; }
  void address(const Operand& o, Op* op,
               Space* space);               // fills a, value, q; narrows Space::Param of functions
  uint32_t address_slot(const Operand& o);  // 64-bit slot that holds an address, computed by an op before
  uint32_t list(const std::vector<uint32_t>& slots);
  Op& emit(const Op& op);
  uint64_t symbol_address(const Variable* v);
  Space space_part() const;  // of the parts; Generic if none

 private:
  struct Instance {  // one function put in place
    const Function* function;
    std::vector<uint32_t> slots;
    std::map<const Variable*, const Variable*> bound;  // formal parameters of a call: the caller's variables
    Instance* caller = nullptr;
    std::vector<uint32_t> starts;                         // op of each instruction
    std::vector<std::pair<uint32_t, uint32_t>> branches;  // op, instruction it goes to
  };

  void collect(const Function& f, std::set<const Function*>* seen);
  void place_shared(const Variable* v);
  void function(Instance* instance);
  void instruction();
  void branch();
  void branch_table();
  void call();
  uint32_t local_offset(const Variable* v, const Instance* owner);
  uint32_t allocate_slot(uint32_t bits);
  uint32_t special(const std::string& name, Type type);

  const Module& module_;
  const Addresses& addresses_;
  const Function& kernel_;
  Program program_;
  Instance* current_ = nullptr;
  std::map<const Variable*, uint32_t> shared_, parameters_;
  std::map<std::pair<const Instance*, const Variable*>, uint32_t> locals_;
  std::vector<std::unique_ptr<Instance>> instances_;
  std::map<std::pair<uint64_t, bool>, uint32_t> constants_;
  std::map<std::string, uint32_t> specials_;
  std::vector<uint32_t> read_, written_;               // slots of the instruction being decoded
  std::vector<std::pair<uint32_t, uint32_t>> tables_;  // places in lists: instruction of the current instance
};

// True if the instruction is one of theirs; throws Unsupported.
bool decode_arithmetic(Decoder& d);
bool decode_memory(Decoder& d);
bool decode_warp(Decoder& d);
bool decode_async(Decoder& d);

}  // namespace simulator
