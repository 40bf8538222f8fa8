// The simulated GPU: memory, modules, launches.
#include <algorithm>
#include <map>
#include <numeric>

#include "async.h"
#include "core.h"
#include "decode.h"
#include "memory.h"
#include "ptx.h"
#include "simulator.h"

namespace simulator {

struct Machine::Impl {
  struct Loaded {
    std::unique_ptr<simulator::Module> module;
    Addresses addresses;
    std::map<std::string, std::unique_ptr<Program>> programs;
  };

  explicit Impl(const Options& o) : options(o), memory(o.memory_bytes, o.first_address), random(o.seed) {}

  const Loaded& loaded(int handle) const {
    auto found = modules.find(handle);
    if (found == modules.end())
      throw Error(ErrorKind::NotFound, "there is no module " + std::to_string(handle));
    return found->second;
  }

  const Program& program(int handle, const std::string& name) {
    const Loaded& m = loaded(handle);
    auto& slot = const_cast<Loaded&>(m).programs[name];
    if (!slot) {
      auto found = m.module->functions.find(name);
      if (found == m.module->functions.end() || !found->second->is_entry) {
        const_cast<Loaded&>(m).programs.erase(name);
        throw Error(ErrorKind::NotFound, "there is no kernel " + name + " in the module");
      }
      slot = std::make_unique<Program>(
          Decoder(*m.module, m.addresses, *found->second, options.major * 10 + options.minor).decode());
    }
    return *slot;
  }

  void check_target(const std::string& target) const;
  void place(Loaded* m);

  Options options;
  Memory memory;
  std::mt19937_64 random;
  std::map<int, Loaded> modules;
  int next_module = 1;
};

void Machine::Impl::check_target(const std::string& target) const {
  // sm_90a: only on 9.0; sm_80: 8.0 and later.
  const int capability = options.major * 10 + options.minor;
  const int version = target.rfind("sm_", 0) == 0 ? std::atoi(target.c_str() + 3) : 0;
  const bool exact = !target.empty() && target.back() == 'a';
  if (version == 0 || version > capability || (exact && version != capability))
    throw Error(ErrorKind::InvalidPtx, "PTX for " + (target.empty() ? "no target" : target) +
                                           " does not run on a GPU of compute capability " +
                                           std::to_string(options.major) + "." +
                                           std::to_string(options.minor));
}

void Machine::Impl::place(Loaded* m) {
  std::vector<const Variable*> all;
  for (const auto& v : m->module->variables) all.push_back(v.get());
  for (const auto& [name, f] : m->module->functions)
    for (const auto& v : f->variables) all.push_back(v.get());
  std::map<std::string, uint64_t> by_name;
  for (const Variable* v : all) {
    if ((v->space != Space::Global && v->space != Space::Const) || v->size == 0) continue;
    Allocation* a = memory.allocate(v->size, true);
    a->variable = true;
    a->constant = v->space == Space::Const;
    if (!v->values.empty())
      std::memcpy(a->data.data(), v->values.data(), std::min<size_t>(v->values.size(), v->size));
    m->addresses[v] = by_name[v->name] = a->base;
  }
  for (const auto& [v, base] : m->addresses)
    for (const auto& [offset, name] : v->references) {
      auto found = by_name.find(name);
      if (found == by_name.end())
        throw Error(ErrorKind::InvalidPtx, "an initializer names " + name + ", which is unknown");
      uint64_t value;
      uint8_t* at = memory.find(base + offset, 8)->at(base + offset);
      std::memcpy(&value, at, 8);
      value += found->second;
      std::memcpy(at, &value, 8);
    }
}

Machine::Machine(const Options& options) : impl_(std::make_unique<Impl>(options)) {}
Machine::~Machine() = default;

const Options& Machine::options() const { return impl_->options; }

void Machine::set_schedule(Schedule schedule, uint64_t seed) {
  impl_->options.schedule = schedule;
  impl_->options.seed = seed;
  impl_->random.seed(seed);
}

uint32_t Machine::max_dynamic_shared_bytes() const {
  switch (impl_->options.major * 10 + impl_->options.minor) {
    case 75:
      return 64 * 1024;
    case 80:
    case 87:
      return 163 * 1024;
    case 86:
    case 89:
    case 120:
    case 121:
      return 99 * 1024;
    case 90:
    case 100:
    case 103:
      return 227 * 1024;
    default:
      return 48 * 1024;
  }
}

uint64_t Machine::allocate(uint64_t bytes) { return impl_->memory.allocate(bytes)->base; }
void Machine::free(uint64_t address) { impl_->memory.free(address); }

void Machine::write(uint64_t address, const void* source, uint64_t bytes) {
  if (bytes == 0) return;
  Allocation* a = impl_->memory.host(address, bytes);
  std::memcpy(a->at(address), source, bytes);
  std::memset(a->shadow(address), 1, bytes);
}

void Machine::read(uint64_t address, void* result, uint64_t bytes, bool allow_uninitialized) const {
  if (bytes == 0) return;
  const Allocation* a = impl_->memory.host(address, bytes);
  if (!allow_uninitialized) {
    const void* hole = std::memchr(a->shadow(address), 0, bytes);
    if (hole)
      throw Error(ErrorKind::Uninitialized,
                  "the host reads " + std::to_string(bytes) + " bytes at " + hex(address) +
                      ", but nothing has written byte " +
                      std::to_string(static_cast<const uint8_t*>(hole) - a->shadow(address)) + " of them");
  }
  std::memcpy(result, a->at(address), bytes);
}

void Machine::copy(uint64_t destination, uint64_t source, uint64_t bytes) {
  if (bytes == 0) return;
  Allocation* to = impl_->memory.host(destination, bytes);
  const Allocation* from = impl_->memory.host(source, bytes);
  std::memmove(to->at(destination), from->at(source), bytes);
  std::memmove(to->shadow(destination), from->shadow(source), bytes);
}

void Machine::memset(uint64_t address, uint8_t value, uint64_t bytes) {
  if (bytes == 0) return;
  Allocation* a = impl_->memory.host(address, bytes);
  std::memset(a->at(address), value, bytes);
  std::memset(a->shadow(address), 1, bytes);
}

uint64_t Machine::memory_used() const { return impl_->memory.used(); }

bool Machine::allocation(uint64_t address, uint64_t* base, uint64_t* bytes) const {
  const Allocation* a = impl_->memory.find(address, 1);
  if (!a) return false;
  *base = a->base;
  *bytes = a->bytes;
  return true;
}

int Machine::load_module(const std::string& ptx) {
  Impl::Loaded m;
  m.module = parse_ptx(ptx);
  impl_->check_target(m.module->target);
  impl_->place(&m);
  const int handle = impl_->next_module++;
  impl_->modules[handle] = std::move(m);
  return handle;
}

void Machine::unload_module(int module) {
  for (const auto& [variable, address] : impl_->loaded(module).addresses) impl_->memory.free(address, true);
  impl_->modules.erase(module);
}

std::vector<std::string> Machine::kernels(int module) const {
  std::vector<std::string> names;
  for (const auto& [name, function] : impl_->loaded(module).module->functions)
    if (function->is_entry) names.push_back(name);
  return names;
}

const KernelInfo& Machine::kernel(int module, const std::string& name) const {
  return impl_->program(module, name).info;
}

uint64_t Machine::global_variable(int module, const std::string& name, uint64_t* bytes) const {
  for (const auto& [variable, address] : impl_->loaded(module).addresses)
    if (variable->name == name) {
      *bytes = variable->size;
      return address;
    }
  throw Error(ErrorKind::NotFound, "there is no variable " + name + " in the module");
}

LaunchCounts Machine::launch(int module, const std::string& kernel, Dim3 grid, Dim3 block,
                             uint32_t dynamic_shared_bytes, const void* parameters, size_t parameter_bytes) {
  const Program& p = impl_->program(module, kernel);
  auto refuse = [&](const std::string& text) {
    throw Error(ErrorKind::InvalidValue, "launch of " + kernel + ": " + text);
  };
  const uint64_t threads = uint64_t{block.x} * block.y * block.z, blocks = uint64_t{grid.x} * grid.y * grid.z;
  if (threads == 0 || threads > 1024 || threads > p.info.max_threads || block.z > 64)
    refuse(std::to_string(threads) + " threads in a block; expected 1 to " +
           std::to_string(std::min<uint32_t>(1024, p.info.max_threads)));
  if (p.required_threads && threads != p.required_threads)
    refuse(std::to_string(threads) + " threads in a block; the kernel requires " +
           std::to_string(p.required_threads));
  if (blocks == 0 || grid.x > 0x7fffffff || grid.y > 65535 || grid.z > 65535)
    refuse("a grid of " + std::to_string(grid.x) + " x " + std::to_string(grid.y) + " x " +
           std::to_string(grid.z) + " blocks; expected 1 to 2147483647 x 65535 x 65535");
  if (parameter_bytes != p.info.parameter_bytes)
    refuse(std::to_string(parameter_bytes) + " bytes of parameters; expected " +
           std::to_string(p.info.parameter_bytes));
  if (p.info.static_shared_bytes > 48 * 1024 ||
      dynamic_shared_bytes + uint64_t{p.info.static_shared_bytes} > max_dynamic_shared_bytes())
    refuse(std::to_string(dynamic_shared_bytes) + " + " + std::to_string(p.info.static_shared_bytes) +
           " bytes of shared memory; this GPU has " + std::to_string(max_dynamic_shared_bytes()) +
           " for a block");
  for (const Op& op : p.ops) op.cache = nullptr;

  Launch launch;
  launch.options = &impl_->options;
  launch.memory = &impl_->memory;
  launch.program = &p;
  launch.grid = grid;
  launch.block = block;
  launch.threads = static_cast<uint32_t>(threads);
  launch.dynamic_shared = dynamic_shared_bytes;
  launch.shared_bytes = dynamic_shared_base(p) + dynamic_shared_bytes;
  launch.parameters.assign(static_cast<const uint8_t*>(parameters),
                           static_cast<const uint8_t*>(parameters) + parameter_bytes);
  launch.random.seed(impl_->random());

  struct Forget {
    Memory& memory;
    ~Forget() { memory.forget_writers(); }
  } forget{impl_->memory};
  Block running;
  running.start(&launch);
  std::vector<uint64_t> order;
  if (impl_->options.schedule == Schedule::Random) {
    order.resize(blocks);
    std::iota(order.begin(), order.end(), 0);
    std::shuffle(order.begin(), order.end(), launch.random);
  }
  for (uint64_t i = 0; i < blocks; ++i) {
    const uint64_t number = !order.empty() ? order[i] : launch.late() ? blocks - 1 - i : i;
    const Dim3 at{static_cast<uint32_t>(number % grid.x), static_cast<uint32_t>(number / grid.x % grid.y),
                  static_cast<uint32_t>(number / grid.x / grid.y)};
    running.run(at, number);
  }
  return launch.counts;
}

}  // namespace simulator
