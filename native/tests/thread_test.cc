// Threads: steps large enough to be shared out, several callers at once, and a process that forks.
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "check.h"
#include "cores.h"
#include "network.h"
#include "thread_pool.h"

#if defined(__SANITIZE_THREAD__)
#define BINARYNET_TESTS_TSAN 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define BINARYNET_TESTS_TSAN 1
#endif
#endif

namespace binarynet_tests {
namespace {

// The pool runs each index once, whoever asks and however many there are.
void test_pool() {
  binarynet::ThreadPool pool(3);
  struct Counts {
    std::atomic<int> seen[64];
    std::atomic<int> busy[3];  // by participant
  };
  const auto use = [&pool] {
    for (int round = 0; round < 300; ++round) {
      Counts counts{};
      const int64_t count = round % 65;
      pool.run(
          count,
          [](const void* context, int64_t index, int32_t participant) {
            Counts& shared = *const_cast<Counts*>(static_cast<const Counts*>(context));
            CHECK(participant >= 0 && participant < 3, "one of the threads");
            CHECK(shared.busy[participant].fetch_add(1) == 0, "nobody else has this number");
            shared.seen[index].fetch_add(1);
            shared.busy[participant].fetch_sub(1);
          },
          &counts, round % 2 == 0 ? binarynet::ThreadPool::Wake::yes : binarynet::ThreadPool::Wake::no);
      for (int64_t i = 0; i < 64; ++i) CHECK(counts.seen[i] == (i < count ? 1 : 0), "each index once");
      if (round % 100 == 99) usleep(3000);  // long enough for the threads to go to sleep
    }
  };
  std::vector<std::thread> callers;
  for (int i = 0; i < 3; ++i) callers.emplace_back(use);
  for (std::thread& caller : callers) caller.join();
  callers.clear();
  for (int i = 0; i < 20; ++i) callers.emplace_back(use);  // more than can get help
  for (std::thread& caller : callers) caller.join();
}

// Control groups as files: the smallest quota on the way up, rounded up.
void test_quotas() {
  CHECK(binarynet::usable_cores() >= 1, "at least one core");
  char root[] = "/tmp/binarynet_quotas_XXXXXX";
  CHECK(mkdtemp(root) != nullptr, "a folder");
  const std::string base = root;
  const auto quota = [](const std::string& folder, const std::string& text) {
    std::ofstream(folder + "/cpu.max") << text;
  };
  const auto cores = [&](const std::string& path) { return binarynet::quota_cores(base, path, 16); };
  mkdir((base + "/a").c_str(), 0700);
  mkdir((base + "/a/b").c_str(), 0700);
  CHECK(cores("/a/b") == 16 && cores("/") == 16 && cores("") == 16 && cores("/gone") == 16, "no quota");
  quota(base + "/a/b", "max 100000\n");
  CHECK(cores("/a/b") == 16, "none either");
  quota(base + "/a", "250000 100000\n");
  CHECK(cores("/a/b") == 3 && cores("/a") == 3 && cores("/") == 16, "of the group around it, rounded up");
  quota(base + "/a/b", "50000 100000\n");
  CHECK(cores("/a/b") == 1 && cores("/a") == 3, "at least one");
  quota(base, "150000 100000\n");
  CHECK(cores("/a") == 2 && cores("/") == 2 && cores("") == 2, "of the root, as containers see it");
  quota(base + "/a/b", "nonsense");
  CHECK(cores("/a/b") == 2, "what cannot be read says nothing");
  for (const char* file : {"/a/b/cpu.max", "/a/b", "/a/cpu.max", "/a", "/cpu.max", ""}) {
    CHECK(std::remove((base + file).c_str()) == 0, file);
  }
}

// Tasks that take long enough for every thread to come, and to be still at work when the caller has nothing
// left.
void test_slow_tasks() {
  binarynet::ThreadPool pool(4);
  struct Counts {
    std::atomic<int> done;
    std::atomic<int> busy[4];
  };
  for (int round = 0; round < 20; ++round) {
    Counts counts{};
    pool.run(
        7,
        [](const void* context, int64_t, int32_t participant) {
          Counts& shared = *const_cast<Counts*>(static_cast<const Counts*>(context));
          CHECK(shared.busy[participant].fetch_add(1) == 0, "nobody else has this number");
          usleep(1000);
          shared.busy[participant].fetch_sub(1);
          shared.done.fetch_add(1);
        },
        &counts);
    CHECK(counts.done == 7, "all are done");
  }
}

// A network whose every kind of step is worth sharing out among threads.
std::unique_ptr<Network> large_network(Random* random) {
  auto network = std::make_unique<Network>(4, 24, 23, 2, random);
  const binarynet_value sums = network->convolution(0, {3, 3, 1, 1, 1, 1}, 130, Weights::random);
  network->affine(sums);
  const binarynet_value pooled = network->max_pool(sums, {3, 3, 1, 1, 1, 1});
  network->threshold(pooled);
  const binarynet_value bits = network->threshold(sums);
  const binarynet_value pooled_bits = network->max_pool(bits, {3, 2, 1, 1, 1, 1});
  network->flatten(pooled_bits);
  network->convolution(bits, {2, 2, 2, 2, 0, 0}, 70, Weights::random);
  return network;
}

void test_shared_work(uint64_t seed) {
  Random random(seed * 7000);
  const std::unique_ptr<Network> network = large_network(&random);
  std::vector<binarynet_value> all;
  for (binarynet_value v = 1; v <= network->last(); ++v) all.push_back(v);
  for (const std::string& isa : usable_isas()) {
    for (const int32_t num_threads : {1, 2, 5}) network->check(all, isa, num_threads);
  }
}

void test_concurrent_callers(uint64_t seed) {
  Random random(seed * 8000);
  const std::unique_ptr<Network> network = large_network(&random);
  const std::vector<binarynet_value> outputs = {network->last(), 2};
  for (const std::string& isa : usable_isas()) {
    for (const int32_t num_threads : {1, 2}) {
      const binarynet_session_options options{isa.c_str(), num_threads, outputs.data(), outputs.size()};
      binarynet_session* session = nullptr;
      CHECK_OK(binarynet_session_create(network->graph(), &options, &session));
      std::vector<std::thread> callers;
      for (int i = 0; i < 4; ++i) {
        callers.emplace_back([&] {
          for (int round = 0; round < 4; ++round) network->check_run(session, outputs);
        });
      }
      for (std::thread& caller : callers) caller.join();
      binarynet_session_free(session);
    }
  }
}

// The session outlives its graph, and errors belong to the thread that made them.
void test_lifetimes() {
  binarynet_session* session = nullptr;
  {
    Random random(1);
    Network network(1, 4, 4, 3, &random);
    network.threshold(network.convolution(0, {3, 3, 1, 1, 1, 1}, 9, Weights::random));
    const binarynet_value output = 2;
    const binarynet_session_options options{nullptr, 2, &output, 1};
    CHECK_OK(binarynet_session_create(network.graph(), &options, &session));
  }
  std::vector<uint8_t> images(48, 9);
  std::vector<uint64_t> bits(16);
  void* pointer = bits.data();
  CHECK_OK(binarynet_session_run(session, images.data(), 1, &pointer));
  CHECK(binarynet_session_run(session, nullptr, 1, &pointer) == BINARYNET_INVALID_ARGUMENT, "no images");
  const std::string mine = binarynet_last_error();
  std::thread([&] {
    CHECK(std::string(binarynet_last_error()).empty(), "another thread's error");
    CHECK(binarynet_session_run(session, images.data(), -1, &pointer) == BINARYNET_INVALID_ARGUMENT, "batch");
  }).join();
  CHECK(mine == binarynet_last_error(), "untouched by the other thread");
  binarynet_session_free(session);
}

#if !defined(BINARYNET_TESTS_TSAN)
// A forked child has the session but not its threads: it computes alone, and ends.
void test_fork(uint64_t seed) {
  Random random(seed * 9000);
  const std::unique_ptr<Network> network = large_network(&random);
  const binarynet_value output = network->last();
  const binarynet_session_options options{nullptr, 2, &output, 1};
  binarynet_session* session = nullptr;
  CHECK_OK(binarynet_session_create(network->graph(), &options, &session));
  network->check_run(session, {output});
  const pid_t child = fork();
  if (child == 0) {
    alarm(60);
    network->check_run(session, {output});
    binarynet_session_free(session);
    _exit(0);
  }
  int status = -1;
  CHECK(waitpid(child, &status, 0) == child && status == 0,
        "the child's status is " + std::to_string(status));
  binarynet_session_free(session);
}
#endif

}  // namespace

void test_threads(uint64_t seed) {
  test_pool();
  test_slow_tasks();
  test_quotas();
  test_shared_work(seed);
  test_concurrent_callers(seed);
  test_lifetimes();
#if !defined(BINARYNET_TESTS_TSAN)
  test_fork(seed);
#endif
}

}  // namespace binarynet_tests
