// The memory of runs: one piece for each run at the same time, kept for the next one.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>

#include "memory.h"

namespace binarynet {

// Idle pieces lie in slots; taking and giving back is one atomic exchange as long as a thread finds its own
// slot as it left it, without locks, and without allocating as soon as there are as many pieces as runs at a
// time.
class Workspaces {
 public:
  // Returns the memory when it goes.
  class Lease {
   public:
    Lease(const Workspaces* owner, AlignedBuffer* buffer) : owner_(owner), buffer_(buffer) {}
    ~Lease() { owner_->give(buffer_); }
    Lease(const Lease&) = delete;
    Lease& operator=(const Lease&) = delete;
    char* data() const { return static_cast<char*>(buffer_->data()); }

   private:
    const Workspaces* owner_;
    AlignedBuffer* buffer_;
  };

  // `bytes` each; the first one is allocated here.
  explicit Workspaces(size_t bytes);
  ~Workspaces();
  Workspaces(const Workspaces&) = delete;
  Workspaces& operator=(const Workspaces&) = delete;

  // From any thread; allocates if all are in use.
  Lease take() const;
  size_t bytes() const { return bytes_; }

 private:
  static constexpr size_t kSlots = 64;  // more runs than that at a time: the rest allocate each time

  static size_t own_slot();
  void give(AlignedBuffer* buffer) const;

  size_t bytes_;
  mutable std::array<std::atomic<AlignedBuffer*>, kSlots> idle_;
};

}  // namespace binarynet
