// Threads for the training operations: one pool for the process, as large as the caller says (torch's number
// of threads), so that trainers, which make thousands of calls per second, start no threads.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>

#include "memory.h"
#include "thread_pool.h"

namespace binarynet::training {

// ThreadPool::run() on the process's pool.
void run_on_threads(int32_t num_threads, int64_t count, ThreadPool::Task task, const void* context);

// Scratch memory of the calling thread, 64-byte aligned, of undefined contents, until its next call. Small
// ones are kept: fresh memory costs more than many a product.
void* scratch(size_t bytes);

// body(unit, workspace) once for each unit of [0, units); threads take them one by one. `workspace` is
// 64-byte aligned scratch memory of the thread's own, `workspace_bytes` long. body must not throw, nor come
// back here.
template <class Body>
void parallel(int32_t num_threads, int64_t units, size_t workspace_bytes, const Body& body) {
  struct Call {
    const Body& body;
    int64_t units;
    size_t workspace_bytes;
    char* workspaces;
    std::atomic<int64_t> next;
  };
  const int64_t helpers = std::max<int64_t>(1, std::min<int64_t>(num_threads, units));
  workspace_bytes = round_up(workspace_bytes);
  void* workspaces = scratch(workspace_bytes * static_cast<size_t>(helpers));
  Call call{body, units, workspace_bytes, static_cast<char*>(workspaces), {0}};
  const auto help = [](const void* context, int64_t helper, int32_t) {
    Call& shared = *const_cast<Call*>(static_cast<const Call*>(context));
    void* workspace = shared.workspaces + static_cast<size_t>(helper) * shared.workspace_bytes;
    for (int64_t unit = shared.next++; unit < shared.units; unit = shared.next++) {
      shared.body(unit, workspace);
    }
  };
  run_on_threads(num_threads, helpers, help, &call);
}

}  // namespace binarynet::training
