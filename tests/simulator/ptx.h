// PTX text to a tree: what is declared and the instructions of every function, names resolved.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

namespace simulator {

enum class Space : uint8_t { Generic, Global, Shared, Local, Param, Const };

// A register that a function declares. bits: 1 (predicate), 16, 32 or 64.
struct Register {
  std::string name;
  uint8_t bits;
};

struct Variable {
  std::string name;
  Space space = Space::Global;
  uint32_t align = 1;
  uint64_t size = 0;  // bytes; 0 for extern shared arrays
  bool is_extern = false;
  std::vector<uint8_t> values;                               // initializer; shorter than size: zeros follow
  std::vector<std::pair<uint64_t, std::string>> references;  // offsets that hold addresses of other variables
};

struct Operand {
  enum Kind : uint8_t { RegisterName, Immediate, Symbol, Special, Address, Vector, Sink, Label, List };
  Kind kind = Sink;
  bool negated = false;  // !%p
  int32_t reg = -1;      // register of the function (RegisterName; Address: base or -1)
  int32_t second = -1;   // q of p|q: register, or -1
  bool has_second = false;
  int64_t value = 0;                   // bits of the immediate; Address: displacement
  bool is_float = false;               // the immediate was a 0f (32 bits) or 0d (64 bits) literal
  const Variable* variable = nullptr;  // Symbol; Address: base
  std::string name;                    // Special, Label, undeclared symbols (functions)
  std::vector<Operand> elements;       // Vector, List; Address: coordinates of a tensor
};

struct Instruction {
  std::string opcode;              // "ld"
  std::vector<std::string> parts;  // "global", "v4", "u32"
  int32_t guard = -1;              // predicate register
  bool guard_negated = false;
  std::vector<Operand> operands;
  uint32_t line = 0;
  uint32_t scope = 0;

  bool has(const char* part) const;
};

struct Function {
  std::string name;
  bool is_entry = false;
  bool has_body = false;
  uint32_t max_threads = 1024;
  uint32_t required_threads = 0;                     // .reqntid, or 0
  std::vector<const Variable*> parameters, results;  // space Param
  std::vector<Register> registers;
  std::vector<std::unique_ptr<Variable>> variables;  // all that it declares
  std::vector<Instruction> instructions;
  std::vector<uint32_t> scope_parents;                          // scope 0 is the body
  std::map<std::pair<uint32_t, std::string>, uint32_t> labels;  // (scope, name): instruction
  std::map<std::string, std::vector<std::pair<uint32_t, std::string>>>
      tables;  // .branchtargets: (scope, label)

  // Index of the instruction behind a label as seen from a scope, or -1.
  int64_t find_label(uint32_t scope, const std::string& name) const;
};

struct Module {
  std::vector<std::unique_ptr<Variable>> variables;  // of the module
  std::map<std::string, std::unique_ptr<Function>> functions;
  std::vector<std::string> lines;  // the text, for messages
  std::string target;
};

// Throws Error(InvalidPtx).
std::unique_ptr<Module> parse_ptx(const std::string& text);

}  // namespace simulator
