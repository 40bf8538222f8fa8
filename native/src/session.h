// A compiled graph. Immutable after creation but for the list of idle workspaces.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

#include "binarynet.h"
#include "graph.h"
#include "memory.h"
#include "planner.h"
#include "thread_pool.h"

namespace binarynet {

class Session {
 public:
  Session(const Graph& graph, const binarynet_session_options& options);
  ~Session();

  // Any number of threads at the same time.
  void run(const void* images, int64_t batch, void* const* outputs) const;

  const char* isa() const { return kernels_.name; }
  int32_t num_threads() const { return num_threads_; }

 private:
  struct Call;       // one step of one run
  struct Workspace;  // memory of one run

  void check_arguments(const void* images, int64_t batch, void* const* outputs) const;
  void check_bits(const void* images, int64_t batch) const;
  void run_chunk(const char* images, int64_t begin, int64_t count, void* const* outputs,
                 Workspace* workspace) const;
  void run_step(const Step& step, const AlignedBuffer& prepared, const void* in, void* out, int64_t count,
                AlignedBuffer* scratch) const;
  int64_t units_of(const Step& step, int64_t count) const;
  static void run_units(const void* call, int64_t index);

  std::unique_ptr<Workspace> take_workspace() const;
  void give_workspace(std::unique_ptr<Workspace> workspace) const;

  const KernelSet& kernels_;
  int32_t num_threads_;
  Plan plan_;
  int64_t chunk_;                        // images computed together
  std::vector<AlignedBuffer> prepared_;  // by step; empty for steps that are not blocks
  std::unique_ptr<ThreadPool> pool_;     // null: one thread
  mutable std::mutex idle_mutex_;
  mutable std::vector<std::unique_ptr<Workspace>> idle_;
};

}  // namespace binarynet
