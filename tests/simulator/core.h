// The running parts of the simulator: decoded programs, warps, blocks.
#pragma once

#include <array>
#include <cstdint>
#include <cstring>
#include <deque>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "memory.h"
#include "ptx.h"
#include "shared.h"
#include "simulator.h"

namespace simulator {

constexpr int kLanes = 32;
constexpr uint32_t kFull = ~uint32_t{0};
constexpr uint32_t kNone = ~uint32_t{0};
constexpr uint32_t kNever = ~uint32_t{0};

// Generic addresses of the spaces that are not global; global ones are the addresses themselves.
constexpr uint64_t kSharedWindow = uint64_t{0x6e0000000000};
constexpr uint64_t kLocalWindow = uint64_t{0x6d0000000000};
constexpr uint64_t kParamWindow = uint64_t{0x6c0000000000};
constexpr uint64_t kWindowBytes = uint64_t{1} << 24;

struct Block;
struct Op;
struct Warp;

// What went wrong in which lane (-1: all); the scheduler adds kernel, block, thread and PTX line.
struct Fault {
  ErrorKind kind;
  std::string text;
  int lane = -1;
};

enum class Kind : uint8_t {
  Simple,       // run, then the next one
  Branch,       // to value
  BranchTable,  // to list[a]
  Exit,
  Wait,  // wait says which lanes are done; the others stall
};

using Handler = void (*)(Warp&, const Op&, uint32_t mask);
using WaitHandler = uint32_t (*)(Warp&, const Op&, uint32_t mask);

// Slots are byte offsets in a warp's registers: 32 lanes of 4 bytes (up to 32 bits), 32 lanes of 8, or one
// 32-bit mask for a predicate. Constants and special registers are slots too.
struct Op {
  Handler run = nullptr;
  WaitHandler wait = nullptr;
  Kind kind = Kind::Simple;
  bool guard_negated = false;
  bool converge = false;               // all lanes of a mask execute it together
  uint8_t p = 0, q = 0, r = 0, s = 0;  // small parameters of the handler
  uint32_t guard = kNone;
  uint32_t d = kNone, e = kNone;             // results
  uint32_t a = kNone, b = kNone, c = kNone;  // operands
  uint32_t m = kNone;                        // member mask; kNone: all lanes that have not exited (.aligned)
  uint32_t list = 0, count = 0;              // of Program::lists
  int64_t value = 0;                         // displacement, target, ...
  mutable Allocation* cache = nullptr;       // where the last access went
};

struct Special {
  enum Name : uint8_t {
    Tid,
    Ntid,
    Ctaid,
    Nctaid,
    Lane,
    Warp,
    Warps,
    LaneMask,
    DynamicShared,
    TotalShared,
    Constant
  };
  Name name;
  uint8_t part;  // x, y, z; of LaneMask: eq, le, lt, ge, gt
  uint32_t slot;
  bool wide;
  uint64_t value;  // Constant
};

struct Program {
  KernelInfo info;
  uint32_t required_threads = 0;
  std::vector<Op> ops;
  std::vector<uint32_t> lines;  // of each op
  std::vector<uint32_t> lists;
  std::vector<std::pair<uint32_t, uint32_t>> reads, writes;  // of each op: a part of slots
  std::vector<uint32_t> slots;
  std::vector<Special> specials;
  uint32_t register_bytes = 0;
  uint32_t dynamic_align = 16;
  uint32_t shared_base = 1024;        // where static shared memory starts: the first bytes are the system's
  std::vector<std::string> messages;  // of instructions that are not simulated
  const std::vector<std::string>* text = nullptr;
};

uint32_t dynamic_shared_base(const Program& program);

struct Launch {
  const Options* options = nullptr;
  Memory* memory = nullptr;
  const Program* program = nullptr;
  Dim3 grid, block;
  uint32_t threads = 0, dynamic_shared = 0, dynamic_base = 0, shared_bytes = 0;
  std::vector<uint8_t> parameters;
  std::mt19937_64 random;
  LaunchCounts counts;
  uint64_t clock = 0;

  bool late() const { return options->schedule == Schedule::Late; }
  bool early() const { return options->schedule == Schedule::Early; }
  // true once in `of` times with a random schedule
  bool chance(uint32_t of) { return options->schedule == Schedule::Random && random() % of == 0; }
};

// A copy by cp.async that has not landed.
struct LaneCopy {
  uint8_t lane;
  uint32_t group;
  uint32_t shared, bytes, read;  // bytes beyond `read` are zeros
  uint64_t global;
};

struct Wgmma;  // async.h

struct Warp {
  Block* block = nullptr;
  uint8_t* registers = nullptr;
  uint8_t* local = nullptr;
  uint32_t index = 0;
  uint32_t present = 0;  // lanes that exist
  uint32_t alive = 0;    // and have not exited
  uint32_t pc[kLanes] = {};
  uint32_t stalled = 0;  // lanes that wait for an event later than stamp
  uint64_t stamp[kLanes] = {};
  uint32_t held = 0;             // lanes that a random schedule holds back
  uint32_t barrier_waiting = 0;  // lanes that arrived at a barrier
  uint32_t barrier_phase[kLanes] = {};
  Clocks clocks;             // which steps of the others are ordered before what comes next
  uint32_t proxy_fence = 0;  // step of the last fence.proxy.async
  uint32_t carry = 0;        // add.cc
  uint32_t turns = 0;        // that ended with its lanes at different places
  bool has_pending = false;  // registers that a wgmma will write

  std::deque<LaneCopy> copies;  // cp.async
  uint32_t copy_group[kLanes] = {};

  // wgmma (async.h)
  std::vector<std::shared_ptr<Wgmma>> wgmmas;
  uint32_t wgmma_group = 0;
  uint64_t wgmma_issued = 0;
  std::map<uint32_t, std::pair<std::shared_ptr<Wgmma>, uint32_t>> pending;  // slot: what it will hold
  std::vector<uint8_t> pending_at;  // of slot / 64: whether it is there
  bool wgmma_fenced = false;

  // Bulk stores: groups committed per lane.
  uint32_t bulk_group[kLanes] = {};

  template <class T>
  T* at(uint32_t slot) {
    return reinterpret_cast<T*>(registers + slot);
  }
  uint32_t& predicate(uint32_t slot) { return *at<uint32_t>(slot); }
  uint64_t linear_thread(int lane) const;  // in the grid
};

struct Barrier {
  uint32_t phase = 0;
  uint32_t expected = 0;                // threads; 0: all of the block
  uint32_t counted = 0, lanes = 0;      // arrived, in the units of `expected` and in lanes
  uint32_t all = 0, any = 0, ones = 0;  // barrier.red of this phase
  uint32_t done_all = 0, done_any = 0, done_ones = 0;
  Clocks clocks, done_clocks;
  bool active = false;
};

struct Bulk;  // async.h

struct Block {
  Launch* launch = nullptr;
  Dim3 index;
  uint64_t linear = 0;
  std::vector<Warp> warps;
  SharedMemory shared;
  std::array<Barrier, 16> barriers;
  std::map<uint32_t, Clocks> objects;  // mbarriers and words that atomics touch: what they release
  std::vector<Bulk> bulks;             // copies that have not landed
  std::map<std::pair<uint32_t, uint64_t>, std::shared_ptr<Wgmma>>
      wgmmas;  // (warpgroup, number): not issued by all
  uint64_t events = 1;
  uint32_t alive_threads = 0;
  uint32_t polls = 0;

  Block();
  ~Block();
  void start(Launch* launch);             // registers and memory, once per launch
  void run(Dim3 index, uint64_t linear);  // one block to its end; throws Error
  void barriers_changed();                // after arrivals and exits
  [[noreturn]] void report(const Fault& fault, const Warp& w, uint32_t pc, uint32_t mask);

 private:
  bool run_warp(Warp& w, uint32_t quantum);
  [[noreturn]] void deadlock();
  void reset(Dim3 index, uint64_t linear);
  void set_specials(Warp& w);
  void rebase_steps();

  Pages registers_, local_;
  uint64_t register_bytes_ = 0, local_bytes_ = 0;
};

inline uint64_t Warp::linear_thread(int lane) const {
  return block->linear * block->launch->threads + index * kLanes + lane;
}

// Loops over lanes: the plain one where all run, so that it can be vectorized.
template <class F>
inline __attribute__((always_inline)) void for_lanes(uint32_t mask, F f) {
  if (mask == kFull) {
#pragma GCC ivdep
    for (int l = 0; l < kLanes; ++l) f(l);
  } else {
    for (uint32_t rest = mask; rest; rest &= rest - 1) f(__builtin_ctz(rest));
  }
}

}  // namespace simulator
