// A simulated NVIDIA GPU for tests: runs PTX thread by thread and checks every access (README.md).
//
// This is the whole interface; machine.py (through c_api.cc) and the simulated driver stand on it.
// Not thread-safe: one thread at a time may use a Machine.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

namespace simulator {

// What went wrong. The kinds follow what a driver would have to answer.
enum class ErrorKind {
  InvalidPtx,      // a module that cannot be parsed
  NotFound,        // no such kernel, global variable or module
  InvalidValue,    // arguments of launch, free, ... that make no sense
  IllegalAddress,  // out of bounds, freed, read-only
  MisalignedAddress,
  IllegalInstruction,  // unknown, not of this architecture, or misused
  Uninitialized,       // a read of memory that nothing wrote
  Race,
  Synchronization,  // barriers, divergence, waits
  Deadlock,
  Budget,  // more instructions than allowed
  Trap,
  OutOfMemory,
};

struct Error : std::runtime_error {
  Error(ErrorKind kind, const std::string& text) : std::runtime_error(text), kind(kind) {}
  ErrorKind kind;
};

struct Dim3 {
  uint32_t x = 1, y = 1, z = 1;
};

// When asynchronous copies and wgmma take effect, and in which order warps and blocks run.
enum class Schedule {
  Early,   // at issue; warps and blocks in ascending order
  Late,    // when something waits for them and nothing else can run; descending order
  Random,  // between, by the seed
};

struct Options {
  int major = 9, minor = 0;  // compute capability
  Schedule schedule = Schedule::Early;
  uint64_t seed = 0;
  uint64_t memory_bytes = uint64_t{4} << 30;        // of the simulated device
  uint64_t instruction_budget = uint64_t{1} << 33;  // lane instructions per launch
  uint64_t first_address = 0x700000000000;  // of device memory: devices of one machine share no address
};

struct Parameter {
  uint32_t offset, size, align;  // bytes in the parameter block
};

struct KernelInfo {
  std::string name;
  std::vector<Parameter> parameters;
  uint32_t parameter_bytes = 0;
  uint32_t static_shared_bytes = 0;
  uint32_t local_bytes = 0;     // per thread
  uint32_t max_threads = 1024;  // of a block (.maxntid)
  uint32_t registers = 0;       // 32-bit registers that PTX declares; ptxas needs far fewer
};

struct LaunchCounts {
  uint64_t warp_instructions = 0, lane_instructions = 0;
};

class Machine {
 public:
  explicit Machine(const Options& options = {});
  ~Machine();
  Machine(const Machine&) = delete;
  Machine& operator=(const Machine&) = delete;

  const Options& options() const;
  void set_schedule(Schedule schedule, uint64_t seed = 0);  // of later launches
  uint32_t max_dynamic_shared_bytes() const;  // what the opt-in limit of this capability is, static included

  // Device memory. Addresses are multiples of 256 and never reused. What allocate gives is uninitialized;
  // write and memset initialize it, and read refuses uninitialized bytes unless told otherwise.
  uint64_t allocate(uint64_t bytes);  // OutOfMemory; 0 bytes are refused
  void free(uint64_t address);        // InvalidValue unless it is what allocate gave and still there
  void write(uint64_t address, const void* source, uint64_t bytes);
  void read(uint64_t address, void* result, uint64_t bytes, bool allow_uninitialized = false) const;
  void copy(uint64_t destination, uint64_t source, uint64_t bytes);  // device to device, initialization too
  void memset(uint64_t address, uint8_t value, uint64_t bytes);
  uint64_t memory_used() const;
  // The allocation that holds an address; false if none does.
  bool allocation(uint64_t address, uint64_t* base, uint64_t* bytes) const;

  // Modules: PTX text. The handle is never reused.
  int load_module(const std::string& ptx);  // InvalidPtx
  void unload_module(int module);
  std::vector<std::string> kernels(int module) const;
  const KernelInfo& kernel(int module, const std::string& name) const;  // NotFound
  uint64_t global_variable(int module, const std::string& name, uint64_t* bytes) const;

  // Runs a kernel to its end. parameters: parameter_bytes long, each parameter at its offset.
  LaunchCounts launch(int module, const std::string& kernel, Dim3 grid, Dim3 block,
                      uint32_t dynamic_shared_bytes, const void* parameters, size_t parameter_bytes);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace simulator
