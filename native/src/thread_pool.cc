#include "thread_pool.h"

#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdio>
#include <mutex>
#include <system_error>
#include <thread>
#include <vector>

#if defined(__linux__)
#include <sched.h>
#endif

#include "error.h"

namespace binarynet {
namespace {

// How often to look for work before going to sleep: a layer's end and the next layer's beginning are a few
// microseconds apart, waking a thread takes longer than that.
constexpr int kSpins = 400;

void pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  __asm__ volatile("yield");
#endif
}

// Lives on the stack of the caller. All fields but `unfinished` are guarded by State::mutex.
struct Job {
  ThreadPool::Task task;
  const void* context;
  int64_t count;
  int64_t next;                     // first index that nobody has taken
  std::atomic<int64_t> unfinished;  // indices whose task has not returned
  Job* following;
};

}  // namespace

struct ThreadPool::State {
  std::mutex mutex;
  std::condition_variable work_posted;
  std::condition_variable job_finished;
  Job* first_job = nullptr;  // jobs with indices left, newest first
  int32_t num_sleeping = 0;  // threads waiting for work_posted
  int32_t num_waiting = 0;   // callers waiting for job_finished
  std::atomic<uint64_t> num_posted{0};
  std::atomic<bool> stop{false};
  pid_t process = getpid();
  std::vector<std::thread> threads;

  // Take one index of this job; unlink the job when that was the last. Call with the mutex held.
  int64_t take(Job* job) {
    const int64_t index = job->next++;
    if (job->next == job->count) {
      Job** link = &first_job;
      while (*link != job) link = &(*link)->following;
      *link = job->following;
    }
    return index;
  }

  void work() {
    uint64_t seen = 0;
    while (true) {
      for (int spin = 0; spin < kSpins; ++spin) {
        if (stop.load(std::memory_order_relaxed) || num_posted.load(std::memory_order_relaxed) != seen) break;
        pause();
      }
      std::unique_lock<std::mutex> lock(mutex);
      while (first_job == nullptr && !stop.load(std::memory_order_relaxed)) {
        seen = num_posted.load(std::memory_order_relaxed);
        ++num_sleeping;
        work_posted.wait(lock);
        --num_sleeping;
      }
      if (stop.load(std::memory_order_relaxed)) return;
      seen = num_posted.load(std::memory_order_relaxed);
      while (first_job != nullptr) {
        Job* job = first_job;
        const int64_t index = take(job);
        lock.unlock();
        job->task(job->context, index);
        const bool last = job->unfinished.fetch_sub(1, std::memory_order_release) == 1;
        lock.lock();  // the job may be gone by now
        if (last && num_waiting > 0) job_finished.notify_all();
      }
    }
  }
};

int32_t usable_cores() {
  int64_t cores = std::max(1u, std::thread::hardware_concurrency());
#if defined(__linux__)
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof(set), &set) == 0) cores = std::max(1, CPU_COUNT(&set));
  if (std::FILE* file = std::fopen("/sys/fs/cgroup/cpu.max", "r")) {
    long long quota = 0;
    long long period = 0;
    if (std::fscanf(file, "%lld %lld", &quota, &period) == 2 && quota > 0 && period > 0) {
      cores = std::min<int64_t>(cores, std::max<int64_t>(1, (quota + period - 1) / period));
    }
    std::fclose(file);
  }
#endif
  return static_cast<int32_t>(std::min<int64_t>(cores, 1024));
}

ThreadPool::ThreadPool(int32_t num_threads) : state_(new State) {
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
  if (state_->process != getpid()) return;
  {
    const std::lock_guard<std::mutex> lock(state_->mutex);
    state_->stop.store(true, std::memory_order_relaxed);
  }
  state_->work_posted.notify_all();
  for (std::thread& thread : state_->threads) thread.join();
  delete state_;
}

void ThreadPool::run(int64_t count, Task task, const void* context) {
  if (count <= 1 || state_->process != getpid()) {
    for (int64_t i = 0; i < count; ++i) task(context, i);
    return;
  }
  State& state = *state_;
  Job job{task, context, count, 0, {count}, nullptr};

  std::unique_lock<std::mutex> lock(state.mutex);
  job.following = state.first_job;
  state.first_job = &job;
  state.num_posted.fetch_add(1, std::memory_order_relaxed);
  if (state.num_sleeping > 0) state.work_posted.notify_all();
  while (job.next < job.count) {
    const int64_t index = state.take(&job);
    lock.unlock();
    task(context, index);
    job.unfinished.fetch_sub(1, std::memory_order_release);
    lock.lock();
  }
  lock.unlock();

  for (int spin = 0; spin < kSpins; ++spin) {
    if (job.unfinished.load(std::memory_order_acquire) == 0) return;
    pause();
  }
  lock.lock();
  ++state.num_waiting;
  while (job.unfinished.load(std::memory_order_acquire) != 0) state.job_finished.wait(lock);
  --state.num_waiting;
}

}  // namespace binarynet
