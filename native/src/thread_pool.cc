#include "thread_pool.h"

#include <pthread.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <system_error>
#include <thread>
#include <vector>

#include "error.h"

namespace binarynet {
namespace {

using Clock = std::chrono::steady_clock;

// How long to look for work before going to sleep. A network's steps and a program's calls one after the
// other are microseconds apart, waking a thread takes some ten: but nobody pays for threads that have nothing
// to do.
constexpr auto kSpinning = std::chrono::microseconds(100);
constexpr int kPausesPerGlance = 64;  // between two looks at the clock
constexpr int kJobs = 16;             // runs that can get help at the same time; further ones work alone

void pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  __asm__ volatile("yield");
#endif
}

// Wait for a condition without sleeping; false if it took too long.
template <class Condition>
bool spin_until(const Condition& condition) {
  Clock::time_point end{};
  while (true) {
    for (int i = 0; i < kPausesPerGlance; ++i) {
      if (condition()) return true;
      pause();
    }
    const Clock::time_point now = Clock::now();
    if (end == Clock::time_point{}) end = now + kSpinning;
    if (now >= end) return false;
  }
}

// Counts forks: a child has the memory of its parent, but none of its threads. (Comparing process ids would
// cost a system call in every run.)
std::atomic<uint32_t> num_forks{0};

void count_forks() {
  static const int registered =
      pthread_atfork(nullptr, nullptr, [] { num_forks.fetch_add(1, std::memory_order_relaxed); });
  static_cast<void>(registered);
}

// One run(). Jobs belong to the pool, not to the stack of the caller, so that a thread that comes too late
// reads memory that is there. `tickets` is what threads take indices from: run number << 32 | count << 16 |
// next index. A thread that has taken an index holds the run up until it counts it as finished: only then are
// the other fields written anew.
struct alignas(64) Job {
  std::atomic<uint64_t> tickets{0};
  ThreadPool::Task task = nullptr;
  const void* context = nullptr;
  std::atomic<int32_t> participants{0};
  std::atomic<bool> taken{false};
  alignas(64) std::atomic<int64_t> unfinished{0};  // indices whose task has not returned

  // The next index, or -1.
  int64_t take_index() {
    uint64_t ticket = tickets.load(std::memory_order_acquire);
    while ((ticket & 0xffff) < ((ticket >> 16) & 0xffff)) {
      if (tickets.compare_exchange_weak(ticket, ticket + 1, std::memory_order_acq_rel,
                                        std::memory_order_acquire)) {
        return static_cast<int64_t>(ticket & 0xffff);
      }
    }
    return -1;
  }
};

}  // namespace

struct ThreadPool::State {
  Job jobs[kJobs];
  alignas(64) std::atomic<uint64_t> num_posted{0};
  std::atomic<int32_t> num_sleeping{0};  // threads that wait for work_posted
  std::atomic<int32_t> num_waiting{0};   // callers that wait for job_finished
  std::atomic<bool> stop{false};
  std::mutex mutex;  // only to go to sleep, and to wake
  std::condition_variable work_posted;
  std::condition_variable job_finished;
  const uint32_t forks = num_forks.load(std::memory_order_relaxed);
  std::vector<std::thread> threads;

  // Work on this job as long as it has indices left; false if it had none.
  bool help(Job* job) {
    int64_t index = job->take_index();
    if (index < 0) return false;
    const int32_t participant = job->participants.fetch_add(1, std::memory_order_relaxed);
    const Task task = job->task;
    const void* context = job->context;
    int64_t finished = 0;
    while (index >= 0) {
      task(context, index, participant);
      ++finished;
      index = job->take_index();  // of the same run: it cannot end before `finished` is counted
    }
    if (job->unfinished.fetch_sub(finished) == finished && num_waiting.load() > 0) {
      {
        const std::lock_guard<std::mutex> lock(mutex);
      }  // whoever waits has looked before or sleeps by now
      job_finished.notify_all();
    }
    return true;
  }

  void work() {
    while (!stop.load(std::memory_order_relaxed)) {
      const uint64_t seen = num_posted.load();
      bool helped = false;
      for (Job& job : jobs) helped = help(&job) || helped;
      if (helped) continue;
      const auto news = [&] {
        return num_posted.load(std::memory_order_relaxed) != seen || stop.load(std::memory_order_relaxed);
      };
      if (spin_until(news)) continue;
      std::unique_lock<std::mutex> lock(mutex);
      num_sleeping.fetch_add(1);
      work_posted.wait(lock, [&] { return num_posted.load() != seen || stop.load(); });
      num_sleeping.fetch_sub(1);
    }
  }

  void wake(int64_t helpers) {
    if (num_sleeping.load() == 0) return;
    {
      const std::lock_guard<std::mutex> lock(mutex);
    }
    if (helpers == 1) {
      work_posted.notify_one();
    } else {
      work_posted.notify_all();
    }
  }

  Job* take_job() {
    for (Job& job : jobs) {
      if (!job.taken.load(std::memory_order_relaxed) &&
          !job.taken.exchange(true, std::memory_order_acquire)) {
        return &job;
      }
    }
    return nullptr;
  }
};

ThreadPool::ThreadPool(int32_t num_threads) : state_(nullptr) {
  count_forks();
  state_ = new State;
  try {
    state_->threads.reserve(static_cast<size_t>(num_threads));
    for (int32_t i = 1; i < num_threads; ++i) {
      state_->threads.emplace_back([state = state_] { state->work(); });
    }
  } catch (const std::system_error& error) {
    const size_t started = state_->threads.size() + 1;
    shut_down();
    throw Error(BINARYNET_OUT_OF_MEMORY, text("cannot start thread ", started + 1, " of ", num_threads, ": ",
                                              error.what(), "; ask for fewer threads"));
  } catch (...) {
    shut_down();
    throw;
  }
}

ThreadPool::~ThreadPool() { shut_down(); }

void ThreadPool::shut_down() {
  // After fork() the child has a copy of this object but none of its threads: neither joining them nor
  // destroying what they wait on would return, so the copy is left alone.
  if (state_->forks != num_forks.load(std::memory_order_relaxed)) return;
  {
    const std::lock_guard<std::mutex> lock(state_->mutex);
    state_->stop.store(true);
  }
  state_->work_posted.notify_all();
  for (std::thread& thread : state_->threads) thread.join();
  delete state_;
}

void ThreadPool::run(int64_t count, Task task, const void* context, Wake wake) {
  State& state = *state_;
  const bool alone = count <= 1 || state.forks != num_forks.load(std::memory_order_relaxed);
  Job* const job = alone ? nullptr : state.take_job();
  if (job == nullptr) {
    for (int64_t i = 0; i < count; ++i) task(context, i, 0);
    return;
  }
  job->task = task;
  job->context = context;
  job->participants.store(1, std::memory_order_relaxed);
  job->unfinished.store(count, std::memory_order_relaxed);
  const uint64_t run_number = (job->tickets.load(std::memory_order_relaxed) >> 32) + 1;
  job->tickets.store(run_number << 32 | static_cast<uint64_t>(count) << 16 | 1, std::memory_order_release);
  state.num_posted.fetch_add(1);
  if (wake == Wake::yes) state.wake(count - 1);

  int64_t finished = 0;
  for (int64_t index = 0; index >= 0; index = job->take_index()) {  // 0 is the caller's own
    task(context, index, 0);
    ++finished;
  }
  const auto done = [job] { return job->unfinished.load(std::memory_order_acquire) == 0; };
  if (job->unfinished.fetch_sub(finished, std::memory_order_acq_rel) != finished && !spin_until(done)) {
    std::unique_lock<std::mutex> lock(state.mutex);
    state.num_waiting.fetch_add(1);
    state.job_finished.wait(lock, [job] { return job->unfinished.load() == 0; });
    state.num_waiting.fetch_sub(1);
  }
  job->taken.store(false, std::memory_order_release);
}

}  // namespace binarynet
