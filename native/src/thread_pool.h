// A few threads that help whoever asks. Any number of callers may share one pool.
#pragma once

#include <cstdint>

namespace binarynet {

class ThreadPool {
 public:
  // `participant`: which of the threads that work on this run() is calling, from 0 (the caller of run()) to
  // at most count - 1 and num_threads - 1: two calls at the same time never have the same number.
  using Task = void (*)(const void* context, int64_t index, int32_t participant);

  // Whether threads that have gone to sleep are woken for a run(): that costs the caller some microseconds
  // and brings help only after some ten.
  enum class Wake { no, yes };

  static constexpr int64_t kMaxCount = 65535;

  // num_threads counts the caller: num_threads - 1 threads are started. Throws if the system refuses.
  explicit ThreadPool(int32_t num_threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  // task(context, i, participant) once for each i of [0, count), count at most kMaxCount, on this thread and
  // on whichever others are free; returns when all are done. Tasks must not throw. Indices are taken one by
  // one, and the caller never depends on the other threads: it does whatever they leave. Neither locks nor
  // allocates, unless threads sleep.
  void run(int64_t count, Task task, const void* context, Wake wake = Wake::yes);

 private:
  void shut_down();

  struct State;
  State* state_;
};

}  // namespace binarynet
