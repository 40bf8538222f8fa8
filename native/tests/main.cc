// binarynet_tests [suite...] [--seed N] [--rounds N]: without a suite, all of them. Exit status 0 if
// everything holds. --rounds: of the suite "kernels", each of which is a layer (1500 unless told; an emulator
// is slow). binarynet_tests --list: the instruction sets that can be tested here.
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "check.h"

int main(int argc, char** argv) {
  uint64_t seed = 1;
  uint64_t rounds = 1500;
  std::vector<std::string> chosen;
  for (int i = 1; i < argc; ++i) {
    if (std::strcmp(argv[i], "--seed") == 0 && i + 1 < argc) {
      seed = std::strtoull(argv[++i], nullptr, 10);
    } else if (std::strcmp(argv[i], "--rounds") == 0 && i + 1 < argc) {
      rounds = std::strtoull(argv[++i], nullptr, 10);
    } else if (std::strcmp(argv[i], "--list") == 0) {
      for (const std::string& isa : binarynet_tests::usable_isas()) std::printf("%s\n", isa.c_str());
      return 0;
    } else {
      chosen.push_back(argv[i]);
    }
  }
  const std::map<std::string, std::function<void()>> suites = {
      {"api", [] { binarynet_tests::test_api(); }},
      {"kernels", [seed, rounds] { binarynet_tests::test_kernels(seed, rounds); }},
      {"limits", [] { binarynet_tests::test_limits(); }},
      {"networks", [seed] { binarynet_tests::test_networks(seed); }},
      {"sessions", [] { binarynet_tests::test_whole_sessions(); }},
      {"threads", [seed] { binarynet_tests::test_threads(seed); }},
      {"training", [seed] { binarynet_tests::test_training(seed); }},
  };
  if (chosen.empty()) {
    for (const auto& suite : suites) chosen.push_back(suite.first);
  }
  for (const std::string& name : chosen) {
    const auto suite = suites.find(name);
    if (suite == suites.end()) {
      std::fprintf(
          stderr,
          "unknown suite '%s': expected api, kernels, limits, networks, sessions, threads or training\n",
          name.c_str());
      return 2;
    }
    suite->second();
    std::printf("%s: ok\n", name.c_str());
  }
  return 0;
}
