// A compiled graph. Immutable after creation but for the list of idle workspaces.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "binarynet.h"
#include "graph.h"
#include "memory.h"
#include "planner.h"
#include "thread_pool.h"
#include "workspaces.h"

namespace binarynet {

class Session {
 public:
  Session(const Graph& graph, const binarynet_session_options& options);
  ~Session();

  // Any number of threads at the same time. `nanoseconds` (null: nobody asks): the time of each step is added
  // to its element.
  void run(const void* images, int64_t batch, void* const* outputs, int64_t* nanoseconds = nullptr) const;

  // What run() does at this batch. `steps`: as many as plan_.steps.
  void describe(int64_t batch, binarynet_plan* plan, binarynet_step* steps) const;

  const char* isa() const { return kernels_.name; }
  int32_t num_threads() const { return num_threads_; }
  int32_t num_steps() const { return static_cast<int32_t>(plan_.steps.size()); }

 private:
  struct Call;  // one step of one run

  // How a step over some images is divided: `tasks` contiguous ranges of units, which at most `threads`
  // threads take one by one, each with scratch memory of its own.
  struct Division {
    const Method* method;  // of a block, else null
    int64_t units;
    int64_t tasks;
    int32_t threads;
    size_t scratch_stride;
    const char* why;
  };

  void prepare_steps();
  size_t scratch_bytes() const;
  Division divide(const Step& step, int64_t count) const;
  // Batches are computed in chunks of equal size (the last one may be smaller).
  int64_t chunk_of(int64_t batch) const;

  void check_batch(int64_t batch, const char* where) const;
  void check_arguments(const void* images, int64_t batch, void* const* outputs) const;
  void check_bits(const void* images, int64_t batch) const;
  void run_chunk(const char* images, int64_t begin, int64_t count, void* const* outputs, char* workspace,
                 int64_t* nanoseconds) const;
  void run_step(size_t index, const void* in, void* out, int64_t count, char* scratch,
                ThreadPool::Wake wake) const;
  static void run_units(const void* call, int64_t index, int32_t participant);

  const KernelSet& kernels_;
  int32_t num_threads_;
  Plan plan_;
  int64_t max_batch_;
  int64_t chunk_;                           // most images computed together
  size_t arena_bytes_;                      // of the largest chunk
  std::vector<AlignedBuffer> prepared_;     // by step; empty for steps that are not blocks
  std::unique_ptr<Workspaces> workspaces_;  // each: the arena, then scratch memory
  std::unique_ptr<ThreadPool> pool_;        // null: one thread
};

}  // namespace binarynet
