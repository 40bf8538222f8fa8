#include "cores.h"

#include <algorithm>
#include <fstream>
#include <thread>

#if defined(__linux__)
#include <sched.h>
#endif

namespace binarynet {

int64_t quota_cores(const std::string& root, const std::string& path, int64_t otherwise) {
  int64_t cores = otherwise;
  std::string group = path == "/" ? "" : path;
  while (true) {
    std::ifstream file(root + group +
                       "/cpu.max");  // "50000 100000": microseconds per period; or "max 100000"
    int64_t quota = 0;
    int64_t period = 0;
    if (file >> quota >> period && quota > 0 && period > 0) {
      cores = std::min(cores, std::max<int64_t>(1, (quota + period - 1) / period));
    }
    const size_t slash = group.rfind('/');
    if (slash == std::string::npos) return cores;
    group.resize(slash);
  }
}

int32_t usable_cores() {
  int64_t cores = std::max(1u, std::thread::hardware_concurrency());
#if defined(__linux__)
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof(set), &set) == 0) cores = std::max(1, CPU_COUNT(&set));
  std::ifstream groups("/proc/self/cgroup");
  std::string path;
  for (std::string line; std::getline(groups, line);) {
    if (line.rfind("0::/", 0) == 0) path = line.substr(3);
  }
  cores = quota_cores("/sys/fs/cgroup", path, cores);
#endif
  return static_cast<int32_t>(std::min<int64_t>(cores, 1024));
}

}  // namespace binarynet
