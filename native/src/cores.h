// How many cores this process may use.
#pragma once

#include <cstdint>
#include <string>

namespace binarynet {

// Affinity mask and, on Linux, the quotas of the control groups (version 2) that the process is in; at
// least 1.
int32_t usable_cores();

// The smallest quota, in cores (rounded up), of the group `path` ("/a/b", as /proc/self/cgroup has it) and
// the groups around it, whose files lie under `root`; `otherwise` if there is none.
int64_t quota_cores(const std::string& root, const std::string& path, int64_t otherwise);

}  // namespace binarynet
