// What a session says that it does, and that it does it without allocating.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>
#include <string>
#include <thread>
#include <vector>

#include "check.h"
#include "network.h"
#include "workspaces.h"

namespace {

thread_local int64_t num_allocations = 0;  // of this thread, by any operator new

void* counted(size_t bytes, size_t alignment) {
  ++num_allocations;
  void* memory =
      std::aligned_alloc(alignment, (std::max<size_t>(bytes, 1) + alignment - 1) / alignment * alignment);
  if (memory == nullptr) throw std::bad_alloc();
  return memory;
}

// Not inlined: gcc would see free() where it knows of operator new only, and warn.
__attribute__((noinline)) void release(void* memory) { std::free(memory); }

}  // namespace

void* operator new(size_t bytes) { return counted(bytes, alignof(std::max_align_t)); }
void* operator new(size_t bytes, std::align_val_t alignment) {
  return counted(bytes, static_cast<size_t>(alignment));
}
void operator delete(void* memory) noexcept { release(memory); }
void operator delete(void* memory, size_t) noexcept { release(memory); }
void operator delete(void* memory, std::align_val_t) noexcept { release(memory); }
void operator delete(void* memory, size_t, std::align_val_t) noexcept { release(memory); }

namespace binarynet_tests {
namespace {

constexpr binarynet_window kDense{1, 1, 1, 1, 0, 0};

// Every kind of step. Values: 1 sums, 2 pooled, 3 bits, 4 sums, 5 bits, 6 pooled bits, 7 flat, 8 sums, 9
// scores.
std::unique_ptr<Network> network_of_all(int64_t batch, int64_t size, int64_t channels) {
  Random random(17);
  auto network = std::make_unique<Network>(batch, size, size, 3, &random);
  binarynet_value v = network->convolution(0, {3, 3, 1, 1, 1, 1}, channels, Weights::random);
  v = network->threshold(network->max_pool(v, {2, 2, 2, 2, 0, 0}));
  v = network->threshold(network->convolution(v, {3, 3, 1, 1, 1, 1}, channels, Weights::random));
  v = network->flatten(network->max_pool(v, {2, 2, 2, 2, 0, 0}));
  network->affine(network->convolution(v, kDense, 10, Weights::random));
  return network;
}

binarynet_session* make_session(const Network& network, const std::vector<binarynet_value>& outputs,
                                const char* isa, int32_t num_threads) {
  const binarynet_session_options options{isa, num_threads, outputs.data(), outputs.size()};
  binarynet_session* session = nullptr;
  CHECK_OK(binarynet_session_create(network.graph(), &options, &session));
  return session;
}

struct Description {
  binarynet_plan plan;
  std::vector<binarynet_step> steps;
};

Description describe(const binarynet_session* session, int64_t batch) {
  Description found;
  found.steps.resize(static_cast<size_t>(binarynet_session_num_steps(session)));
  CHECK_OK(binarynet_session_describe(session, batch, &found.plan, found.steps.data(), found.steps.size()));
  return found;
}

// From the first run on, whatever the batch, nothing is allocated: neither here nor by the threads that help,
// which have nothing of their own.
void test_no_allocations() {
  const std::unique_ptr<Network> network = network_of_all(1, 12, 70);
  const std::vector<int64_t> batches = {1, 300, 3, 64, 1000, 2};
  std::vector<uint8_t> images(1000 * 12 * 12 * 3, 9);
  std::vector<float> scores(1000 * 10);
  void* output = scores.data();
  for (const std::string& isa : usable_isas()) {
    for (const int32_t num_threads : {1, 2}) {
      binarynet_session* session = make_session(*network, {9}, isa.c_str(), num_threads);
      const int64_t before = num_allocations;
      for (const int64_t batch : batches) {
        CHECK_OK(binarynet_session_run(session, images.data(), batch, &output));
      }
      CHECK(num_allocations == before,
            isa + ": " + std::to_string(num_allocations - before) + " allocations");
      binarynet_session_free(session);
    }
  }
  const int64_t before = num_allocations;
  ::operator delete(::operator new(4));
  CHECK(num_allocations == before + 1, "allocations are counted");
}

// Callers at the same time make each other memory, once.
void test_allocations_of_concurrent_callers() {
  const std::unique_ptr<Network> network = network_of_all(1, 4, 10);
  binarynet_session* session = make_session(*network, {9}, nullptr, 1);
  const std::vector<uint8_t> images(5 * 4 * 4 * 3, 9);
  std::atomic<int64_t> allocated{0};
  std::vector<std::thread> callers;
  for (int i = 0; i < 4; ++i) {
    callers.emplace_back([&] {
      std::vector<float> scores(5 * 10);
      void* output = scores.data();
      const int64_t before = num_allocations;
      for (int round = 0; round < 1000; ++round) {
        CHECK_OK(binarynet_session_run(session, images.data(), 5, &output));
      }
      allocated += num_allocations - before;
    });
  }
  for (std::thread& caller : callers) caller.join();
  CHECK(allocated <= 2 * 64, std::to_string(allocated) + " allocations in 4000 runs");
  binarynet_session_free(session);
}

// Nobody gets what somebody else has; what is given back is taken again.
void test_workspaces() {
  const binarynet::Workspaces workspaces(100);
  const void* first = nullptr;
  {
    const binarynet::Workspaces::Lease one = workspaces.take();
    const binarynet::Workspaces::Lease two = workspaces.take();
    CHECK(one.data() != two.data(), "two at a time");
    std::memset(one.data(), 1, workspaces.bytes());
    std::memset(two.data(), 2, workspaces.bytes());
    CHECK(one.data()[99] == 1 && two.data()[0] == 2, "apart");
    first = one.data();
  }
  const int64_t before = num_allocations;
  const binarynet::Workspaces::Lease again = workspaces.take();
  CHECK(again.data() != nullptr && num_allocations == before, "one that exists");
  const binarynet::Workspaces::Lease other = workspaces.take();
  CHECK(again.data() == first || other.data() == first, "the same memory");
  CHECK(num_allocations == before, "both exist");
  std::vector<std::unique_ptr<binarynet::Workspaces::Lease>> many;
  for (int i = 0; i < 100; ++i) many.emplace_back(new binarynet::Workspaces::Lease(workspaces.take()));
}

void test_plans() {
  const std::unique_ptr<Network> network = network_of_all(3, 24, 130);
  for (const std::string& isa : usable_isas()) {
    for (const int32_t num_threads : {1, 2, 5}) {
      binarynet_session* fused = make_session(*network, {9}, isa.c_str(), num_threads);
      for (const int64_t batch : {1, 2, 7, 100, 1500}) {
        const Description found = describe(fused, batch);
        const binarynet_plan& plan = found.plan;
        CHECK(plan.chunk >= 1 && plan.num_chunks * plan.chunk >= batch &&
                  (plan.num_chunks - 1) * plan.chunk < batch,
              "chunks make up the batch");
        CHECK(plan.arena_bytes + plan.scratch_bytes <= plan.workspace_bytes, "memory suffices");
        std::vector<binarynet_value> values;
        std::string kinds;
        int64_t weight_bytes = 0;
        for (const binarynet_step& step : found.steps) {
          values.insert(values.end(), step.values, step.values + step.num_values);
          kinds += std::string(step.kind) + " ";
          weight_bytes += step.weight_bytes;
          CHECK(std::strlen(step.method) > 0 && std::strlen(step.why_threads) > 0, "said in words");
          CHECK((step.weight_bytes > 0) == (std::string(step.kind) == "block"), "blocks have weights");
          CHECK(1 <= step.threads && step.threads <= num_threads && step.threads <= step.tasks &&
                    step.tasks <= step.units,
                "threads take tasks, tasks are units");
          CHECK(step.scratch_bytes <= plan.scratch_bytes && step.work > 0 && step.in_bytes > 0, "sizes");
        }
        CHECK((values == std::vector<binarynet_value>{1, 2, 3, 4, 5, 6, 7, 8, 9}),
              "each value once, in order");
        CHECK(kinds == "block block max_pool flatten block affine ", kinds);
        CHECK(weight_bytes == plan.weight_bytes, "the sum");
        CHECK(found.steps.front().in_bytes == plan.chunk * 24 * 24 * 3, "bytes of the images");
        CHECK(found.steps.back().out_bytes == plan.chunk * 10 * 4, "bytes of the scores");
        if (num_threads > 1 && batch >= 100) CHECK(found.steps[0].threads == num_threads, "worth sharing");
        if (num_threads == 1) CHECK(found.steps[0].tasks == 1, "alone");
        CHECK(found.steps.back().threads == 1, "ten numbers are not worth sharing");
      }
      binarynet_session_free(fused);
      binarynet_session* tapped = make_session(*network, {9, 1, 2, 3}, isa.c_str(), num_threads);
      CHECK(describe(tapped, 1).steps.size() == 8, "taps are steps of their own");
      binarynet_session_free(tapped);
    }
  }
}

// The same results as run(), and a time for each step that is part of the whole.
void test_profiles() {
  const std::unique_ptr<Network> network = network_of_all(40, 24, 130);
  const std::vector<uint8_t> images = layout(network->tensor(0), 40);
  const std::vector<uint8_t> expected = layout(network->tensor(9), 40);
  for (const int32_t num_threads : {1, 2}) {
    binarynet_session* session = make_session(*network, {9}, nullptr, num_threads);
    std::vector<float> scores(40 * 10);
    void* output = scores.data();
    std::vector<int64_t> times(static_cast<size_t>(binarynet_session_num_steps(session)), 1000);
    const auto start = std::chrono::steady_clock::now();
    CHECK_OK(binarynet_session_profile(session, images.data(), 40, &output, times.data(), times.size()));
    const int64_t whole = (std::chrono::steady_clock::now() - start).count();
    CHECK(std::memcmp(scores.data(), expected.data(), expected.size()) == 0, "the same scores");
    int64_t sum = 0;
    for (const int64_t time : times) {
      CHECK(time > 1000, "each step takes time, which is added");
      sum += time - 1000;
    }
    CHECK(sum <= whole, "parts of the whole");
    binarynet_session_free(session);
  }
}

void test_wrong_calls() {
  const std::unique_ptr<Network> network = network_of_all(1, 12, 5);
  binarynet_session* session = make_session(*network, {9}, nullptr, 1);
  const size_t num_steps = static_cast<size_t>(binarynet_session_num_steps(session));
  CHECK(num_steps == 6 && binarynet_session_num_steps(nullptr) == 0, "steps are counted");
  binarynet_plan plan;
  std::vector<binarynet_step> steps(num_steps);
  const auto refused = [](binarynet_status status, const std::string& part) {
    CHECK(status == BINARYNET_INVALID_ARGUMENT, "refused");
    CHECK(std::string(binarynet_last_error()).find(part) != std::string::npos, binarynet_last_error());
  };
  refused(binarynet_session_describe(session, 0, &plan, steps.data(), num_steps), "batch is 0");
  refused(binarynet_session_describe(session, -1, &plan, steps.data(), num_steps), "plan: batch is -1");
  refused(binarynet_session_describe(session, 1, nullptr, steps.data(), num_steps), "plan is null");
  refused(binarynet_session_describe(session, 1, &plan, nullptr, num_steps), "steps is null");
  refused(binarynet_session_describe(session, 1, &plan, steps.data(), 5),
          "num_steps is 5, but the session has 6");
  refused(binarynet_session_describe(nullptr, 1, &plan, steps.data(), num_steps), "session is null");
  const std::vector<uint8_t> images(12 * 12 * 3);
  std::vector<float> scores(10);
  void* output = scores.data();
  int64_t times[7] = {};
  refused(binarynet_session_profile(session, images.data(), 1, &output, times, 7), "num_steps is 7");
  refused(binarynet_session_profile(session, images.data(), 1, &output, nullptr, 6), "nanoseconds is null");
  refused(binarynet_session_profile(session, nullptr, 1, &output, times, 6), "images is null");
  binarynet_session_free(session);
}

}  // namespace

void test_whole_sessions() {
  test_no_allocations();
  test_allocations_of_concurrent_callers();
  test_workspaces();
  test_plans();
  test_profiles();
  test_wrong_calls();
}

}  // namespace binarynet_tests
