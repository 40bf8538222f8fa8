#include "ptx.h"

#include <cstring>
#include <unordered_map>

#include "ptx_lexer.h"
#include "simulator.h"

namespace simulator {

bool Instruction::has(const char* part) const {
  for (const std::string& p : parts)
    if (p == part) return true;
  return false;
}

int64_t Function::find_label(uint32_t scope, const std::string& name) const {
  while (true) {
    auto found = labels.find({scope, name});
    if (found != labels.end()) return found->second;
    if (scope == 0) return -1;
    scope = scope_parents[scope];
  }
}

namespace {

std::vector<std::string> split_dots(const std::string& text) {
  std::vector<std::string> parts;
  size_t start = 0;
  while (start <= text.size()) {
    size_t end = text.find('.', start);
    if (end == std::string::npos) end = text.size();
    if (end > start) parts.push_back(text.substr(start, end - start));
    start = end + 1;
  }
  return parts;
}

uint32_t type_bytes(const std::string& type) {  // ".u32" -> 4, 0: no type
  static const std::unordered_map<std::string, uint32_t> sizes = {
      {".u8", 1},  {".s8", 1},  {".b8", 1},  {".u16", 2},   {".s16", 2},  {".b16", 2},
      {".f16", 2}, {".u32", 4}, {".s32", 4}, {".b32", 4},   {".f32", 4},  {".u64", 8},
      {".s64", 8}, {".b64", 8}, {".f64", 8}, {".f16x2", 4}, {".b128", 16}};
  auto found = sizes.find(type);
  return found == sizes.end() ? 0 : found->second;
}

class Parser {
 public:
  Parser(const std::string& text) : tokens_(tokenize(text)), module_(std::make_unique<Module>()) {
    size_t start = 0;
    while (start <= text.size()) {
      size_t end = text.find('\n', start);
      if (end == std::string::npos) end = text.size();
      module_->lines.push_back(text.substr(start, end - start));
      start = end + 1;
    }
  }

  std::unique_ptr<Module> parse() {
    while (peek().kind != Token::End) top_level();
    return std::move(module_);
  }

 private:
  struct Scope {
    std::unordered_map<std::string, int32_t> registers;
    std::unordered_map<std::string, const Variable*> variables;
    uint32_t id = 0;
  };

  const Token& peek(size_t ahead = 0) const {
    return tokens_[std::min(position_ + ahead, tokens_.size() - 1)];
  }
  const Token& next() { return tokens_[std::min(position_++, tokens_.size() - 1)]; }
  bool is(const char* text) const { return peek().text == text && peek().kind != Token::String; }
  bool accept(const char* text) {
    if (!is(text)) return false;
    ++position_;
    return true;
  }
  void expect(const char* text) {
    if (!accept(text)) fail(std::string("expected '") + text + "', found '" + peek().text + "'");
  }
  [[noreturn]] void fail(const std::string& text) const {
    throw Error(ErrorKind::InvalidPtx, "PTX line " + std::to_string(peek().line) + ": " + text);
  }
  std::string word() {
    if (peek().kind != Token::Word) fail("expected a name, found '" + peek().text + "'");
    return next().text;
  }
  uint64_t integer() {
    const bool negative = accept("-");
    if (peek().kind != Token::Integer) fail("expected an integer, found '" + peek().text + "'");
    const uint64_t value = next().value;
    return negative ? 0 - value : value;
  }

  void top_level() {
    const std::string head = word();
    if (head == ".version") {
      next();
    } else if (head == ".target") {
      module_->target = word();
      while (accept(",")) next();
    } else if (head == ".address_size") {
      if (integer() != 64) fail("only 64-bit addresses are simulated");
    } else if (head == ".visible" || head == ".extern" || head == ".weak" || head == ".common") {
      linkage_extern_ = linkage_extern_ || head == ".extern";
    } else if (head == ".entry" || head == ".func") {
      function(head == ".entry");
      linkage_extern_ = false;
    } else if (head == ".global" || head == ".const" || head == ".shared") {
      variable(head, nullptr);
      linkage_extern_ = false;
    } else if (head == ".file" || head == ".loc") {
      const uint32_t line = peek().line;
      while (peek().kind != Token::End && peek().line == line) next();
    } else if (head == ".pragma" || head == ".alias") {
      while (!accept(";")) next();
    } else if (head == ".section") {
      while (!accept("}")) next();
    } else {
      fail("unknown directive " + head);
    }
  }

  // After the state space: one declaration up to and with its semicolon, or up to a parameter's end.
  const Variable* variable(const std::string& space, Function* function, bool is_parameter = false) {
    auto v = std::make_unique<Variable>();
    v->space = space == ".const"    ? Space::Const
               : space == ".shared" ? Space::Shared
               : space == ".local"  ? Space::Local
               : space == ".param"  ? Space::Param
                                    : Space::Global;
    v->is_extern = linkage_extern_;
    uint32_t element = 0, align = 0;
    while (peek().kind == Token::Word && peek().text[0] == '.') {
      const std::string part = next().text;
      if (part == ".align") {
        align = static_cast<uint32_t>(integer());
      } else if (part == ".attribute") {
        while (!accept(")")) next();
      } else if (part == ".ptr" || part == ".global" || part == ".const" || part == ".shared" ||
                 part == ".local") {
        if (accept(".align")) integer();  // what a pointer parameter points to: advice for ptxas
      } else if (type_bytes(part)) {
        element = type_bytes(part);
      } else {
        fail("unknown word in a declaration: " + part);
      }
    }
    if (!element) fail("a declaration without a type");
    v->align = align ? align : element;
    v->name = word();
    v->size = element;
    bool unsized = false;
    while (accept("[")) {
      if (accept("]")) {
        unsized = true;
        v->size = 0;
      } else {
        v->size *= integer();
        expect("]");
      }
    }
    if (accept("=")) initializer(v.get(), element);
    if (unsized) v->size = v->values.size();
    if (!is_parameter) expect(";");
    const Variable* result = v.get();
    if (function) {
      scopes_.back().variables[v->name] = result;
      function->variables.push_back(std::move(v));
    } else {
      globals_[v->name] = result;
      module_->variables.push_back(std::move(v));
    }
    return result;
  }

  void initializer(Variable* v, uint32_t element) {
    if (accept("{")) {
      if (accept("}")) return;
      do initializer(v, element);
      while (accept(","));
      expect("}");
      return;
    }
    uint64_t value = 0;
    if (peek().kind == Token::Float32 || peek().kind == Token::Float64) {
      value = next().value;
    } else if (peek().kind == Token::Word) {
      std::string name = word();
      if (name == "generic") {
        expect("(");
        name = word();
        expect(")");
      }
      if (accept("+")) value = integer();
      v->references.emplace_back(v->values.size(), name);
    } else {
      value = integer();
    }
    const size_t at = v->values.size();
    v->values.resize(at + element);
    std::memcpy(v->values.data() + at, &value, std::min<size_t>(element, 8));
  }

  void function(bool is_entry) {
    auto created = std::make_unique<Function>();
    Function* f = created.get();
    f->is_entry = is_entry;
    scopes_.assign(1, {});
    f->scope_parents.assign(1, 0);
    if (is("(")) parameters(f, &f->results);
    f->name = word();
    if (is("(")) parameters(f, &f->parameters);
    while (peek().kind == Token::Word && peek().text[0] == '.') {
      const std::string part = word();
      if (part == ".maxntid" || part == ".reqntid") {
        uint64_t threads = integer();
        while (accept(",")) threads *= integer();
        f->max_threads = static_cast<uint32_t>(threads);
        if (part == ".reqntid") f->required_threads = f->max_threads;
      } else if (part == ".minnctapersm" || part == ".maxnreg" || part == ".maxclusterrank") {
        integer();
      } else if (part == ".pragma") {
        while (!accept(";")) next();
      } else if (part == ".noreturn") {
        continue;
      } else if (part == ".reqnctapercluster") {
        uint64_t blocks = integer();
        while (accept(",")) blocks *= integer();
        if (blocks != 1) fail("clusters of more than one block are not simulated");
      } else {
        fail("unknown directive of a function: " + part);
      }
    }
    if (accept("{")) {
      f->has_body = true;
      body(f);
    } else {
      expect(";");
    }
    // A definition replaces an earlier declaration.
    auto& slot = module_->functions[f->name];
    if (!slot || f->has_body) slot = std::move(created);
    scopes_.clear();
  }

  void parameters(Function* f, std::vector<const Variable*>* list) {
    expect("(");
    if (accept(")")) return;
    do {
      const std::string space = word();
      if (space == ".reg") fail("functions with register parameters are not simulated");
      list->push_back(variable(space, f, true));
    } while (accept(","));
    expect(")");
  }

  void body(Function* f) {
    while (true) {
      if (accept("{")) {
        Scope scope;
        scope.id = static_cast<uint32_t>(f->scope_parents.size());
        f->scope_parents.push_back(scopes_.back().id);
        scopes_.push_back(std::move(scope));
      } else if (accept("}")) {
        if (scopes_.size() == 1) return;
        scopes_.pop_back();
      } else if (accept(";")) {
        continue;
      } else if (is("@") || (peek().kind == Token::Word && peek().text[0] != '.' && !is_label())) {
        instruction(f);
      } else if (peek().kind == Token::Word && is_label()) {
        label(f);
      } else {
        statement_directive(f);
      }
    }
  }

  bool is_label() const { return peek(1).kind == Token::Sign && peek(1).text == ":"; }

  void label(Function* f) {
    const std::string name = word();
    expect(":");
    if (accept(".branchtargets")) {
      auto& table = f->tables[name];
      do table.emplace_back(scopes_.back().id, word());
      while (accept(","));
      expect(";");
      return;
    }
    if (is(".callprototype") || is(".calltargets")) fail("indirect calls are not simulated");
    if (!f->labels.emplace(std::make_pair(scopes_.back().id, name), f->instructions.size()).second)
      fail("label " + name + " is defined twice");
  }

  void statement_directive(Function* f) {
    const std::string head = word();
    if (head == ".reg") {
      declare_registers(f);
    } else if (head == ".shared" || head == ".local" || head == ".param" || head == ".global" ||
               head == ".const") {
      variable(head, f);
    } else if (head == ".loc") {
      const uint32_t line = peek().line;
      while (peek().line == line && peek().kind != Token::End) next();
    } else if (head == ".pragma") {
      while (!accept(";")) next();
    } else {
      fail("unknown directive " + head);
    }
  }

  void declare_registers(Function* f) {
    const std::string type = word();
    uint8_t bits = 1;
    if (type != ".pred") {
      const uint32_t bytes = type_bytes(type);
      if (bytes == 0 || bytes == 16) fail("registers of type " + type + " are not simulated");
      bits = static_cast<uint8_t>(bytes == 1 ? 16 : bytes * 8);
    }
    do {
      const std::string name = word();
      if (accept("<")) {
        const uint64_t count = integer();
        expect(">");
        for (uint64_t i = 0; i < count; ++i) declare_register(f, name + std::to_string(i), bits);
      } else {
        declare_register(f, name, bits);
      }
    } while (accept(","));
    expect(";");
  }

  void declare_register(Function* f, const std::string& name, uint8_t bits) {
    scopes_.back().registers[name] = static_cast<int32_t>(f->registers.size());
    f->registers.push_back({name, bits});
  }

  int32_t find_register(const std::string& name) const {
    for (auto scope = scopes_.rbegin(); scope != scopes_.rend(); ++scope) {
      auto found = scope->registers.find(name);
      if (found != scope->registers.end()) return found->second;
    }
    return -1;
  }

  const Variable* find_variable(const std::string& name) const {
    for (auto scope = scopes_.rbegin(); scope != scopes_.rend(); ++scope) {
      auto found = scope->variables.find(name);
      if (found != scope->variables.end()) return found->second;
    }
    auto found = globals_.find(name);
    return found == globals_.end() ? nullptr : found->second;
  }

  void instruction(Function* f) {
    Instruction in;
    in.scope = scopes_.back().id;
    in.line = peek().line;
    if (accept("@")) {
      in.guard_negated = accept("!");
      const std::string name = word();
      in.guard = find_register(name);
      if (in.guard < 0 || f->registers[in.guard].bits != 1) fail(name + " is no predicate");
    }
    in.parts = split_dots(word());
    in.opcode = in.parts.front();
    in.parts.erase(in.parts.begin());
    if (!is(";")) {
      do in.operands.push_back(operand());
      while (accept(","));
    }
    expect(";");
    f->instructions.push_back(std::move(in));
  }

  Operand operand() {
    Operand o;
    if (accept("(")) {
      o.kind = Operand::List;
      if (!is(")")) {
        do o.elements.push_back(operand());
        while (accept(","));
      }
      expect(")");
      return o;
    }
    if (accept("{")) {
      o.kind = Operand::Vector;
      do o.elements.push_back(operand());
      while (accept(","));
      expect("}");
      return o;
    }
    if (accept("[")) {
      address(&o);
      expect("]");
      return o;
    }
    if (accept("!")) {
      o = operand();
      o.negated = true;
      return o;
    }
    if (is("-") || peek().kind == Token::Integer) {
      o.kind = Operand::Immediate;
      if (is("-") && (peek(1).kind == Token::Float64 || peek(1).kind == Token::Float32))
        fail("a negative float");
      o.value = static_cast<int64_t>(integer());
      return o;
    }
    if (peek().kind == Token::Float32 || peek().kind == Token::Float64) {
      o.kind = Operand::Immediate;
      o.is_float = true;
      o.value = static_cast<int64_t>(next().value);
      return o;
    }
    named(&o);
    if (accept("|")) {
      o.has_second = true;
      const std::string name = word();
      if (name != "_") {
        o.second = find_register(name);
        if (o.second < 0) fail(name + " is no register");
      }
    }
    if (o.kind == Operand::Symbol && (is("+") || is("-"))) {
      const bool minus = is("-");
      if (!minus) next();
      o.value = static_cast<int64_t>(integer());
    }
    return o;
  }

  void named(Operand* o) {
    const std::string name = word();
    if (name == "_") return;
    o->reg = find_register(name);
    if (o->reg >= 0) {
      o->kind = Operand::RegisterName;
      return;
    }
    o->variable = find_variable(name);
    o->name = name;
    if (o->variable) {
      o->kind = Operand::Symbol;
    } else if (name[0] == '%' || name == "WARP_SZ") {
      o->kind = Operand::Special;
    } else {
      o->kind = Operand::Label;  // or a function
    }
  }

  void address(Operand* o) {
    o->kind = Operand::Address;
    if (peek().kind == Token::Integer) {
      o->value = static_cast<int64_t>(integer());
    } else {
      const std::string name = word();
      o->reg = find_register(name);
      if (o->reg < 0) {
        o->variable = find_variable(name);
        o->name = name;
        if (!o->variable) fail(name + " is not declared");
      }
      if (accept("+") || is("-")) o->value = static_cast<int64_t>(integer());
    }
    while (accept(",")) o->elements.push_back(operand());
  }

  std::vector<Token> tokens_;
  size_t position_ = 0;
  std::unique_ptr<Module> module_;
  std::vector<Scope> scopes_;
  std::unordered_map<std::string, const Variable*> globals_;
  bool linkage_extern_ = false;
};

}  // namespace

std::unique_ptr<Module> parse_ptx(const std::string& text) { return Parser(text).parse(); }

}  // namespace simulator
