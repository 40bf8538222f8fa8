// A few threads that help whoever asks. Any number of callers may share one pool.
#pragma once

#include <cstdint>
#include <memory>

namespace binarynet {

// Cores that this process may use: affinity mask and, on Linux, the control group's quota.
int32_t usable_cores();

class ThreadPool {
 public:
  using Task = void (*)(const void* context, int64_t index);

  // num_threads counts the caller: num_threads - 1 threads are started. Throws if the system refuses.
  explicit ThreadPool(int32_t num_threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  // task(context, i) once for each i of [0, count), on this thread and on whichever others are free; returns
  // when all are done. Tasks must not throw. The caller never depends on the other threads: it does whatever
  // they leave.
  void run(int64_t count, Task task, const void* context);

 private:
  void shut_down();

  struct State;
  State* state_;
};

}  // namespace binarynet
