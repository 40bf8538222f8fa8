#include "workspaces.h"

namespace binarynet {

Workspaces::Workspaces(size_t bytes) : bytes_(bytes) {
  for (std::atomic<AlignedBuffer*>& slot : idle_) slot.store(nullptr, std::memory_order_relaxed);
  idle_[own_slot()].store(new AlignedBuffer(bytes), std::memory_order_release);
}

Workspaces::~Workspaces() {
  for (std::atomic<AlignedBuffer*>& slot : idle_) delete slot.load(std::memory_order_acquire);
}

// Threads are numbered as they come, so that each finds the memory again that is in its cache.
size_t Workspaces::own_slot() {
  static std::atomic<size_t> num_threads{0};
  thread_local const size_t own = num_threads.fetch_add(1, std::memory_order_relaxed) % kSlots;
  return own;
}

Workspaces::Lease Workspaces::take() const {
  const size_t first = own_slot();
  for (size_t i = 0; i < kSlots; ++i) {
    std::atomic<AlignedBuffer*>& slot = idle_[(first + i) % kSlots];
    if (slot.load(std::memory_order_relaxed) == nullptr) continue;
    AlignedBuffer* const buffer = slot.exchange(nullptr, std::memory_order_acquire);
    if (buffer != nullptr) return {this, buffer};
  }
  return {this, new AlignedBuffer(bytes_)};
}

void Workspaces::give(AlignedBuffer* buffer) const {
  const size_t first = own_slot();
  for (size_t i = 0; i < kSlots; ++i) {
    std::atomic<AlignedBuffer*>& slot = idle_[(first + i) % kSlots];
    AlignedBuffer* expected = nullptr;
    if (slot.compare_exchange_strong(expected, buffer, std::memory_order_release,
                                     std::memory_order_relaxed)) {
      return;
    }
  }
  delete buffer;
}

}  // namespace binarynet
