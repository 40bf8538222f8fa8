// Checked access to the memory of the simulated GPU from a lane.
#pragma once

#include "core.h"

namespace simulator {

// The space and the address in it that a generic address means.
Space resolve_generic(uint64_t address, uint64_t* in_space);

// Throws Fault unless `bytes` at an address of a space can be accessed: alignment (0: not asked for), bounds.
void check_bounds(Warp& w, Space space, uint64_t address, uint32_t bytes, uint32_t align, int lane,
                  const char* verb);

// Reads or writes with all checks. strong: volatile, relaxed and so on: never a race, and orders.
void read_memory(Warp& w, const Op& op, Space space, uint64_t address, uint32_t bytes, int lane, bool strong,
                 void* result);
void write_memory(Warp& w, const Op& op, Space space, uint64_t address, uint32_t bytes, int lane, bool strong,
                  const void* values);

// Global memory, for the copy engine and atomics too. plain: conflicts between threads are errors.
Allocation* global_at(Warp& w, const Op* op, uint64_t address, uint32_t bytes, int lane, const char* verb);
void check_initialized(const Allocation& a, uint64_t address, uint32_t bytes, int lane);
void write_global(Warp& w, Allocation& a, uint64_t address, uint32_t bytes, int lane, bool plain,
                  const void* values);

// An object in shared memory through which warps order what they do.
void acquire(Warp& w, uint32_t object);
void release(Warp& w, uint32_t object);
void release(Clocks& into, const Warp& w);

inline uint64_t lane_address(Warp& w, const Op& op, int lane) {
  if (op.a == kNone) return static_cast<uint64_t>(op.value);
  if (op.q & 1) return w.at<uint64_t>(op.a)[lane] + static_cast<uint64_t>(op.value);
  return static_cast<uint32_t>(w.at<uint32_t>(op.a)[lane] + static_cast<uint32_t>(op.value));
}

// The offset in shared memory that an address (of a shared instruction) means.
uint32_t shared_offset(Warp& w, uint64_t address, uint32_t bytes, uint32_t align, int lane, const char* verb);

}  // namespace simulator
