// What the library exports: the way to its entry points, and the control interface of the tests (sim_...).
#include <algorithm>
#include <cstring>

#include "state.h"

using namespace simulated_driver;

namespace {

int get_proc_address(const char* name, void** function, int version, uint64_t flags, int* status);

const std::vector<Entry>& entries() {
  static const std::vector<Entry>* all = [] {
    auto* result = new std::vector<Entry>;
    for (const auto& part :
         {device_entries(), context_entries(), memory_entries(), copy_entries(), module_entries(),
          launch_entries(), stream_entries(), event_entries(), graph_entries()}) {
      result->insert(result->end(), part.begin(), part.end());
    }
    result->push_back(entry("cuGetProcAddress", 12000, get_proc_address));
    return result;
  }();
  return *all;
}

// The newest form that is not newer than the caller's version. Status: 0 found, 1 no such entry point, 2 too
// new.
int get_proc_address(const char* name, void** function, int version, uint64_t, int* status) {
  const Entry* best = nullptr;
  for (const Entry& entry : entries()) {
    if (std::strcmp(entry.name, name) == 0 && entry.version <= version &&
        (!best || entry.version > best->version)) {
      best = &entry;
    }
  }
  *function = best ? best->function : nullptr;
  if (status) *status = best ? 0 : 1;
  return best ? SUCCESS : NOT_FOUND;
}

int64_t copy_text(const std::string& text, char* buffer, int64_t size) {
  if (buffer && size > 0) {
    const size_t length = std::min(text.size(), static_cast<size_t>(size) - 1);
    std::memcpy(buffer, text.data(), length);
    buffer[length] = 0;
  }
  return static_cast<int64_t>(text.size());
}

}  // namespace

#define EXPORT extern "C" __attribute__((visibility("default")))

EXPORT int cuGetProcAddress_v2(const char* name, void** function, int version, uint64_t flags, int* status) {
  return get_proc_address(name, function, version, flags, status);
}

// Some look for it by name, to know the version before anything else.
EXPORT int cuDriverGetVersion(int* version) {
  void* function = nullptr;
  get_proc_address("cuDriverGetVersion", &function, Driver::get().version, 0, nullptr);
  return reinterpret_cast<int (*)(int*)>(function)(version);
}

// Settings: visible_devices, driver_version, memory_bytes, schedule (-1 early, -2 late, otherwise a seed),
// strict_reads, capability_0 (of the first device, 90 for 9.0) and so on. Returns 0, or 1 for an unknown name
// or value.
EXPORT int sim_configure(const char* name, int64_t value) {
  Driver& driver = Driver::get();
  const std::lock_guard<std::recursive_mutex> guard(driver.lock);
  const std::string what = name;
  if (what == "visible_devices" && value >= 0 && value <= static_cast<int64_t>(driver.devices.size())) {
    driver.visible = static_cast<int>(value);
    if (value == 0) driver.initialized = false;
  } else if (what == "driver_version") {
    driver.version = static_cast<int>(value);
  } else if (what == "memory_bytes" && value >= 0) {
    driver.memory_bytes = static_cast<uint64_t>(value);
  } else if (what == "schedule" && value >= -2) {
    driver.schedule = value;
    if (value >= 0) driver.random.seed(static_cast<uint64_t>(value));
    for (Device& device : driver.devices) driver.apply_schedule(device);
  } else if (what.rfind("capability_", 0) == 0 && value >= 50 && what.size() == 12 &&
             static_cast<size_t>(what[11] - '0') < driver.devices.size()) {
    Device& device = driver.devices[what[11] - '0'];
    if (device.context.active) return 1;
    driver.become(device, static_cast<int>(value));
  } else if (what == "strict_reads") {
    driver.strict_reads = value != 0;
  } else {
    return 1;
  }
  return 0;
}

// The call number `after` (from 0) from now on whose name matches the pattern answers this result.
// "execution" means kernels as they run: the error breaks the context and is seen by later calls.
EXPORT void sim_fault(const char* pattern, int64_t after, int result) {
  Driver& driver = Driver::get();
  const std::lock_guard<std::recursive_mutex> guard(driver.lock);
  driver.faults.push_back({pattern, after, result});
}

// How many faults have not happened yet; they are forgotten.
EXPORT int64_t sim_forget_faults() {
  Driver& driver = Driver::get();
  const std::lock_guard<std::recursive_mutex> guard(driver.lock);
  const auto count = static_cast<int64_t>(driver.faults.size());
  driver.faults.clear();
  return count;
}

// Counted since the beginning: calls, launches, executions, graph_launches, loads, copies, fills,
// allocations, host_allocations. Alive now: alive_allocations, alive_bytes, alive_host, alive_streams,
// alive_events, alive_modules, alive_graphs (executable ones too), alive_captures, alive_contexts. -1 for
// another name.
EXPORT int64_t sim_count(const char* name) {
  Driver& driver = Driver::get();
  const std::lock_guard<std::recursive_mutex> guard(driver.lock);
  const std::string what = name;
  int64_t device_memory = 0, bytes = 0, contexts = 0, defaults = 0;
  for (const auto& [_, allocation] : driver.allocations) device_memory += !allocation.host;
  for (const Device& device : driver.devices) {
    bytes += static_cast<int64_t>(device.bytes);
    contexts += device.context.active;
    defaults += (device.context.legacy ? 1 : 0) + static_cast<int64_t>(device.context.per_thread.size());
  }
  const std::map<std::string, int64_t> alive = {
      {"alive_allocations", device_memory},
      {"alive_bytes", bytes},
      {"alive_host", static_cast<int64_t>(driver.allocations.size()) - device_memory},
      {"alive_streams", static_cast<int64_t>(driver.streams.size()) - defaults},
      {"alive_events", static_cast<int64_t>(driver.events.size())},
      {"alive_modules", static_cast<int64_t>(driver.modules.size())},
      {"alive_graphs", static_cast<int64_t>(driver.graphs.size() + driver.executables.size())},
      {"alive_captures", static_cast<int64_t>(driver.captures.size())},
      {"alive_contexts", contexts},
  };
  const auto it = alive.find(what);
  if (it != alive.end()) return it->second;
  for (const char* known : {"calls", "launches", "executions", "graph_launches", "loads", "copies", "fills",
                            "allocations", "host_allocations"}) {
    if (what == known) return driver.counters[what];
  }
  return -1;
}

// What the simulator's checks found, since they were last forgotten. Returns the length; the text is cut to
// size - 1.
EXPORT int64_t sim_messages(char* buffer, int64_t size) {
  Driver& driver = Driver::get();
  const std::lock_guard<std::recursive_mutex> guard(driver.lock);
  return copy_text(driver.messages, buffer, size);
}

// The calls and what they answered, one per line.
EXPORT int64_t sim_log(char* buffer, int64_t size) {
  Driver& driver = Driver::get();
  const std::lock_guard<std::recursive_mutex> guard(driver.lock);
  std::string text;
  for (const std::string& line : driver.log) text += line + "\n";
  return copy_text(text, buffer, size);
}

EXPORT void sim_forget_reports() {
  Driver& driver = Driver::get();
  const std::lock_guard<std::recursive_mutex> guard(driver.lock);
  driver.messages.clear();
  driver.log.clear();
}

// Destroys whatever is in the contexts of all devices, as the end of a process does. None is current in this thread.
EXPORT void sim_close_contexts() {
  Driver& driver = Driver::get();
  const std::lock_guard<std::recursive_mutex> guard(driver.lock);
  for (Device& device : driver.devices) driver.close(device.context);
  driver.context_stack().clear();
  driver.graphs.clear();
  driver.libraries.clear();
  driver.kernels.clear();
}
