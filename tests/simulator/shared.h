// Shared memory of a block and who touched what when.
//
// Steps count the instructions of a block. An access by an actor at a step is ordered before the present of
// another one if the other one's clocks know of that step: barriers, mbarriers and atomics pass clocks on.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace simulator {

constexpr uint32_t kActors = 64;
// Actors 0 to 31 are warps. Loads by the copy engine are one actor per mbarrier (as far as they go), since
// the end of some says nothing of others.
constexpr uint32_t kLoads = 32, kCopyEngine = 62, kTensorCore = 63;
inline uint32_t loads_of(uint32_t mbarrier) { return kLoads + mbarrier / 8 % (kCopyEngine - kLoads); }

// Per actor the last step that is known to be over.
struct Clocks {
  uint32_t at[kActors] = {};
  void join(const Clocks& other) {
#pragma GCC ivdep
    for (uint32_t i = 0; i < kActors; ++i) at[i] = at[i] > other.at[i] ? at[i] : other.at[i];
  }
};

enum class Access : uint8_t { Plain, Atomic };

// Throws Fault (core.h) where an access is wrong; addresses are checked by the caller.
class SharedMemory {
 public:
  void resize(uint32_t bytes);
  void forget();  // a new block: everything uninitialized
  uint32_t size() const { return size_; }
  uint8_t* data() { return data_.data(); }

  // Checks and notes an access of `bytes` bytes. clocks: what the actor knows; its own entry is kNever.
  void read(uint32_t offset, uint32_t bytes, uint32_t actor, const Clocks& clocks, int lane, Access access);
  void write(uint32_t offset, uint32_t bytes, const void* values, uint32_t actor, const Clocks& clocks,
             int lane, Access access);
  // As read, by the copy engine or the tensor cores: ordinary stores must have been followed by a proxy
  // fence, proxy_fences: of each warp.
  void read_async(uint32_t offset, uint32_t bytes, uint32_t actor, const Clocks& clocks,
                  const uint32_t* fences, uint32_t own_fence, int lane);
  uint32_t step = 1;
  void make_ancient();  // all that happened so far is in order

 private:
  template <uint32_t N>
  void read_n(uint32_t offset, uint32_t actor, const Clocks& clocks, int lane, Access access);
  template <uint32_t N>
  void write_n(uint32_t offset, const uint8_t* values, uint32_t actor, const Clocks& clocks, int lane,
               Access access);
  [[noreturn]] void race(uint32_t offset, uint32_t stamp, const char* was, const char* is, int lane);

  uint32_t size_ = 0;
  std::vector<uint8_t> data_;
  // Per byte: atomic << 31 | actor << 25 | step of the last write and of the last reads of two actors.
  std::vector<uint32_t> writes_, reads_, other_reads_;
};

}  // namespace simulator
