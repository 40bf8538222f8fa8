// simulator.h for ctypes (machine.py). Functions give 0, or 1 + the ErrorKind and keep the text.
#include <cstring>
#include <string>

#include "simulator.h"
#include "tensor_ops.h"

#define API extern "C" __attribute__((visibility("default")))

using simulator::Error;
using simulator::Machine;

namespace {

thread_local std::string message;

template <class F>
int guarded(F f) {
  try {
    f();
    return 0;
  } catch (const Error& error) {
    message = error.what();
    return 1 + static_cast<int>(error.kind);
  } catch (const std::exception& error) {
    message = error.what();
    return 1 + static_cast<int>(simulator::ErrorKind::InvalidValue);
  }
}

}  // namespace

API const char* sim_message() { return message.c_str(); }

// schedule: 0 early, 1 late, 2 by the seed
API Machine* sim_create(int major, int minor, int schedule, uint64_t seed, uint64_t memory_bytes,
                        uint64_t budget) {
  simulator::Options options;
  options.major = major;
  options.minor = minor;
  options.schedule = static_cast<simulator::Schedule>(schedule);
  options.seed = seed;
  options.memory_bytes = memory_bytes;
  options.instruction_budget = budget;
  return new Machine(options);
}
API void sim_destroy(Machine* m) { delete m; }

API int sim_allocate(Machine* m, uint64_t bytes, uint64_t* address) {
  return guarded([&] { *address = m->allocate(bytes); });
}
API int sim_free(Machine* m, uint64_t address) {
  return guarded([&] { m->free(address); });
}
API int sim_write(Machine* m, uint64_t address, const void* source, uint64_t bytes) {
  return guarded([&] { m->write(address, source, bytes); });
}
API int sim_read(Machine* m, uint64_t address, void* result, uint64_t bytes, int allow_uninitialized) {
  return guarded([&] { m->read(address, result, bytes, allow_uninitialized != 0); });
}
API int sim_memset(Machine* m, uint64_t address, int value, uint64_t bytes) {
  return guarded([&] { m->memset(address, static_cast<uint8_t>(value), bytes); });
}
API int sim_load(Machine* m, const char* ptx, int* module) {
  return guarded([&] { *module = m->load_module(ptx); });
}
// offsets, sizes: up to `room` parameters
API int sim_kernel(Machine* m, int module, const char* name, int room, uint32_t* offsets, uint32_t* sizes,
                   int* count, uint32_t* bytes) {
  return guarded([&] {
    const simulator::KernelInfo& info = m->kernel(module, name);
    *count = static_cast<int>(info.parameters.size());
    *bytes = info.parameter_bytes;
    for (int i = 0; i < *count && i < room; ++i) {
      offsets[i] = info.parameters[i].offset;
      sizes[i] = info.parameters[i].size;
    }
  });
}
API int sim_variable(Machine* m, int module, const char* name, uint64_t* address, uint64_t* bytes) {
  return guarded([&] { *address = m->global_variable(module, name, bytes); });
}
API int sim_launch(Machine* m, int module, const char* kernel, const uint32_t* grid, const uint32_t* block,
                   uint32_t shared, const void* parameters, uint64_t bytes, uint64_t* counts) {
  return guarded([&] {
    const simulator::LaunchCounts made = m->launch(module, kernel, {grid[0], grid[1], grid[2]},
                                                   {block[0], block[1], block[2]}, shared, parameters, bytes);
    counts[0] = made.warp_instructions;
    counts[1] = made.lane_instructions;
  });
}

API int sim_tensor_map(uint64_t address, int element_bytes, int rank, const uint64_t* sizes,
                       const uint64_t* strides, const uint32_t* box, int swizzle, uint8_t* bytes) {
  return guarded([&] {
    simulator::TensorMap map;
    map.address = address;
    map.element_bytes = element_bytes;
    map.rank = rank;
    map.swizzle = swizzle;
    for (int i = 0; i < rank && i < 5; ++i) {
      map.sizes[i] = sizes[i];
      map.strides[i] = strides[i];
      map.box[i] = box[i];
      map.element_strides[i] = 1;
    }
    simulator::encode_tensor_map(map, bytes);
  });
}
