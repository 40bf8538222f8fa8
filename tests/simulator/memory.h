// Device memory: allocations with a shadow byte per byte, and who wrote what during a launch.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>

#include "simulator.h"

namespace simulator {

// Pages of zeros that cost nothing until they are touched.
class Pages {
 public:
  Pages() = default;
  explicit Pages(uint64_t bytes);
  ~Pages();
  Pages(Pages&& other) noexcept;
  Pages& operator=(Pages&& other) noexcept;
  void clear();  // all zeros again
  uint8_t* data() const { return data_; }

 private:
  uint8_t* data_ = nullptr;
  uint64_t bytes_ = 0;
};

struct Allocation {
  uint64_t base = 0, bytes = 0;
  bool constant = false;  // kernels may not write it
  bool variable = false;  // of a module: not for free()
  Pages data, written;    // written: 1 where initialized
  Pages writers;          // per byte 8 bytes during a launch: (thread + 1) << 32 | step
  bool has_writers = false;

  uint8_t* at(uint64_t address) const { return data.data() + (address - base); }
  uint8_t* shadow(uint64_t address) const { return written.data() + (address - base); }
  uint64_t* writer(uint64_t address) const {
    return reinterpret_cast<uint64_t*>(writers.data()) + (address - base);
  }
  void track_writers();
};

class Memory {
 public:
  Memory(uint64_t capacity, uint64_t first_address) : capacity_(capacity), next_(first_address) {}

  Allocation* allocate(uint64_t bytes, bool initialized = false);
  void free(uint64_t address, bool variable = false);
  // The allocation that holds all of the bytes, or nullptr.
  Allocation* find(uint64_t address, uint64_t bytes) const;
  // As find, for the host: throws Error(IllegalAddress) naming what was asked for.
  Allocation* host(uint64_t address, uint64_t bytes) const;
  // Why an access fails: "is past the end of a buffer of 64 bytes", for messages.
  std::string describe(uint64_t address, uint64_t bytes) const;
  void forget_writers();
  uint64_t used() const { return used_; }

 private:
  uint64_t capacity_, used_ = 0;
  uint64_t next_;
  std::map<uint64_t, std::unique_ptr<Allocation>> allocations_;
  std::map<uint64_t, uint64_t> freed_;
};

std::string hex(uint64_t value);

}  // namespace simulator
