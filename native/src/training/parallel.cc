#include "training/parallel.h"

#include <unistd.h>

#include <algorithm>
#include <memory>
#include <mutex>

namespace binarynet::training {
namespace {

struct Shared {
  std::mutex mutex;
  std::shared_ptr<ThreadPool> pool;
  int32_t num_threads = 0;
  pid_t process = 0;
};

// Never destroyed: at exit some thread may still train.
Shared& shared() {
  static Shared* const instance = new Shared;
  return *instance;
}

// A pool of this size; the last user of a former one ends its threads. A forked child starts its own.
std::shared_ptr<ThreadPool> pool_of(int32_t num_threads) {
  Shared& state = shared();
  const std::lock_guard<std::mutex> lock(state.mutex);
  if (state.pool == nullptr || state.num_threads != num_threads || state.process != getpid()) {
    state.pool = std::make_shared<ThreadPool>(num_threads);
    state.num_threads = num_threads;
    state.process = getpid();
  }
  return state.pool;
}

}  // namespace

void* scratch(size_t bytes) {
  constexpr size_t kKept = size_t{4} << 20;
  thread_local AlignedBuffer buffer;
  const bool too_large = buffer.bytes() > kKept && bytes <= kKept;
  if (buffer.bytes() < bytes || too_large || buffer.data() == nullptr) {
    buffer = AlignedBuffer();  // first, or both would be there at a time
    buffer = AlignedBuffer(std::max(bytes, kAlignment));
  }
  return buffer.data();
}

void run_on_threads(int32_t num_threads, int64_t count, ThreadPool::Task task, const void* context) {
  if (num_threads <= 1 || count <= 1) {
    for (int64_t i = 0; i < count; ++i) task(context, i, 0);
    return;
  }
  pool_of(num_threads)->run(count, task, context);
}

}  // namespace binarynet::training
