#include "state.h"

#include <fnmatch.h>
#include <unistd.h>

#include <algorithm>

namespace simulated_driver {

namespace {

constexpr size_t kLogLines = 20000;

struct Name {
  int result;
  const char* name;
};

const Name kNames[] = {
    {SUCCESS, "CUDA_SUCCESS"},
    {INVALID_VALUE, "CUDA_ERROR_INVALID_VALUE"},
    {OUT_OF_MEMORY, "CUDA_ERROR_OUT_OF_MEMORY"},
    {NOT_INITIALIZED, "CUDA_ERROR_NOT_INITIALIZED"},
    {DEINITIALIZED, "CUDA_ERROR_DEINITIALIZED"},
    {STUB_LIBRARY, "CUDA_ERROR_STUB_LIBRARY"},
    {DEVICE_UNAVAILABLE, "CUDA_ERROR_DEVICE_UNAVAILABLE"},
    {NO_DEVICE, "CUDA_ERROR_NO_DEVICE"},
    {INVALID_DEVICE, "CUDA_ERROR_INVALID_DEVICE"},
    {INVALID_IMAGE, "CUDA_ERROR_INVALID_IMAGE"},
    {INVALID_CONTEXT, "CUDA_ERROR_INVALID_CONTEXT"},
    {NO_BINARY_FOR_GPU, "CUDA_ERROR_NO_BINARY_FOR_GPU"},
    {ECC_UNCORRECTABLE, "CUDA_ERROR_ECC_UNCORRECTABLE"},
    {UNSUPPORTED_LIMIT, "CUDA_ERROR_UNSUPPORTED_LIMIT"},
    {PEER_ACCESS_UNSUPPORTED, "CUDA_ERROR_PEER_ACCESS_UNSUPPORTED"},
    {INVALID_PTX, "CUDA_ERROR_INVALID_PTX"},
    {UNSUPPORTED_PTX_VERSION, "CUDA_ERROR_UNSUPPORTED_PTX_VERSION"},
    {INVALID_HANDLE, "CUDA_ERROR_INVALID_HANDLE"},
    {ILLEGAL_STATE, "CUDA_ERROR_ILLEGAL_STATE"},
    {NOT_FOUND, "CUDA_ERROR_NOT_FOUND"},
    {NOT_READY, "CUDA_ERROR_NOT_READY"},
    {ILLEGAL_ADDRESS, "CUDA_ERROR_ILLEGAL_ADDRESS"},
    {LAUNCH_OUT_OF_RESOURCES, "CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES"},
    {LAUNCH_TIMEOUT, "CUDA_ERROR_LAUNCH_TIMEOUT"},
    {PRIMARY_CONTEXT_ACTIVE, "CUDA_ERROR_PRIMARY_CONTEXT_ACTIVE"},
    {CONTEXT_IS_DESTROYED, "CUDA_ERROR_CONTEXT_IS_DESTROYED"},
    {HOST_MEMORY_ALREADY_REGISTERED, "CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED"},
    {HOST_MEMORY_NOT_REGISTERED, "CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED"},
    {ILLEGAL_INSTRUCTION, "CUDA_ERROR_ILLEGAL_INSTRUCTION"},
    {MISALIGNED_ADDRESS, "CUDA_ERROR_MISALIGNED_ADDRESS"},
    {LAUNCH_FAILED, "CUDA_ERROR_LAUNCH_FAILED"},
    {NOT_PERMITTED, "CUDA_ERROR_NOT_PERMITTED"},
    {NOT_SUPPORTED, "CUDA_ERROR_NOT_SUPPORTED"},
    {SYSTEM_NOT_READY, "CUDA_ERROR_SYSTEM_NOT_READY"},
    {SYSTEM_DRIVER_MISMATCH, "CUDA_ERROR_SYSTEM_DRIVER_MISMATCH"},
    {COMPAT_NOT_SUPPORTED_ON_DEVICE, "CUDA_ERROR_COMPAT_NOT_SUPPORTED_ON_DEVICE"},
    {STREAM_CAPTURE_UNSUPPORTED, "CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED"},
    {STREAM_CAPTURE_INVALIDATED, "CUDA_ERROR_STREAM_CAPTURE_INVALIDATED"},
    {STREAM_CAPTURE_MERGE, "CUDA_ERROR_STREAM_CAPTURE_MERGE"},
    {STREAM_CAPTURE_UNMATCHED, "CUDA_ERROR_STREAM_CAPTURE_UNMATCHED"},
    {STREAM_CAPTURE_UNJOINED, "CUDA_ERROR_STREAM_CAPTURE_UNJOINED"},
    {STREAM_CAPTURE_ISOLATION, "CUDA_ERROR_STREAM_CAPTURE_ISOLATION"},
    {STREAM_CAPTURE_IMPLICIT, "CUDA_ERROR_STREAM_CAPTURE_IMPLICIT"},
    {CAPTURED_EVENT, "CUDA_ERROR_CAPTURED_EVENT"},
    {STREAM_CAPTURE_WRONG_THREAD, "CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD"},
    {UNKNOWN, "CUDA_ERROR_UNKNOWN"},
};

int result_of(simulator::ErrorKind kind) {
  switch (kind) {
    case simulator::ErrorKind::IllegalAddress:
      return ILLEGAL_ADDRESS;
    case simulator::ErrorKind::MisalignedAddress:
      return MISALIGNED_ADDRESS;
    case simulator::ErrorKind::IllegalInstruction:
      return ILLEGAL_INSTRUCTION;
    case simulator::ErrorKind::Deadlock:
    case simulator::ErrorKind::Budget:
      return LAUNCH_TIMEOUT;
    case simulator::ErrorKind::OutOfMemory:
      return OUT_OF_MEMORY;
    case simulator::ErrorKind::InvalidPtx:
      return INVALID_PTX;
    case simulator::ErrorKind::NotFound:
      return NOT_FOUND;
    case simulator::ErrorKind::InvalidValue:
      return INVALID_VALUE;
    default:
      return LAUNCH_FAILED;
  }
}

}  // namespace

void Driver::become(Device& device, int capability) {
  device.major = capability / 10;
  device.minor = capability % 10;
  device.name = "Simulated GPU, compute capability " + std::to_string(device.major) + "." +
                std::to_string(device.minor);
  const bool hopper = device.major >= 9, turing = device.major == 7;
  device.multiprocessors = hopper ? 132 : turing ? 40 : 108;
  device.threads_per_multiprocessor = turing ? 1024 : 2048;
  device.blocks_per_multiprocessor = turing ? 16 : 32;
  device.shared_per_multiprocessor = (hopper ? 228 : turing ? 64 : 164) * 1024;
  device.shared_optin = (hopper ? 227 : turing ? 64 : 163) * 1024;
  device.l2_bytes = (hopper ? 50 : turing ? 4 : 40) << 20;
  device.clock_khz = hopper ? 1980000 : turing ? 1590000 : 1410000;
}

const char* result_name(int result) {
  for (const Name& name : kNames) {
    if (name.result == result) return name.name;
  }
  return nullptr;
}

void fail(int result, const std::string& text) { throw Failure{result, text}; }

Driver& Driver::get() {
  static Driver* driver = new Driver;  // never destroyed: handles may still be released at the process's end
  return *driver;
}

Driver::Driver() {
  devices.resize(3);
  for (int i = 0; i < 3; ++i) {
    devices[i].ordinal = i;
    devices[i].context.handle = 0x100 + 16 * static_cast<Handle>(i);
    devices[i].context.device = &devices[i];
    become(devices[i], i == 0 ? 90 : i == 1 ? 80 : 75);
  }
}

Device& Driver::device(int ordinal) {
  if (ordinal < 0 || ordinal >= visible) fail(INVALID_DEVICE, "no device " + std::to_string(ordinal));
  return devices[ordinal];
}

Context* Driver::context(Handle handle) {
  for (Device& device : devices) {
    if (device.context.handle == handle) return &device.context;
  }
  return nullptr;
}

std::vector<Handle>& Driver::context_stack() {
  static thread_local std::vector<Handle> stack;
  return stack;
}

int& Driver::thread_capture_mode() {
  static thread_local int mode = CAPTURE_GLOBAL;
  return mode;
}

Context& Driver::current() {
  const std::vector<Handle>& stack = context_stack();
  if (stack.empty() || stack.back() == 0) fail(INVALID_CONTEXT, "no context is current in this thread");
  Context& found = *context(stack.back());
  if (!found.active) fail(CONTEXT_IS_DESTROYED, "the current context was released");
  return found;
}

simulator::Machine& Driver::machine(Device& device) {
  if (!device.machine) {
    simulator::Options options;
    options.major = device.major;
    options.minor = device.minor;
    options.memory_bytes = uint64_t{1} << 38;  // the driver counts: see memory_bytes
    options.first_address =
        (uint64_t{1} << 44) * (device.ordinal + 1) + (uint64_t{1} << 38) * (device.generations++ % 64);
    device.machine = std::make_unique<simulator::Machine>(options);
    apply_schedule(device);
  }
  return *device.machine;
}

void Driver::apply_schedule(Device& device) {
  if (!device.machine) return;
  device.machine->set_schedule(schedule == -1   ? simulator::Schedule::Early
                               : schedule == -2 ? simulator::Schedule::Late
                                                : simulator::Schedule::Random,
                               schedule < 0 ? 0 : static_cast<uint64_t>(schedule));
}

void Driver::close(Context& context) {
  if (context.broken == SUCCESS) run(context);
  const Handle handle = context.handle;
  const auto erase_if_here = [handle](auto& map, auto context_of) {
    for (auto it = map.begin(); it != map.end();) {
      it = context_of(it->second) == handle ? map.erase(it) : std::next(it);
    }
  };
  for (auto it = captures.begin(); it != captures.end();) {
    it = (*it)->context == handle ? captures.erase(it) : std::next(it);
  }
  erase_if_here(streams, [](auto& stream) { return stream->context; });
  erase_if_here(events, [](auto& event) { return event->context; });
  erase_if_here(executables, [](auto& executable) { return executable.first; });
  erase_if_here(functions, [](auto& function) { return function->context; });
  for (auto& [_, module] : modules) {
    if (module->context == handle) module->loaded = false;
  }
  erase_if_here(modules, [](auto& module) { return module->context; });
  for (auto& [_, library] : libraries) library.modules.erase(handle);
  for (auto it = allocations.begin(); it != allocations.end();) {
    if (it->second.device != context.device->ordinal) {
      ++it;
      continue;
    }
    if (it->second.host && !it->second.registered) std::free(reinterpret_cast<void*>(it->first));
    it = allocations.erase(it);
  }
  context.device->bytes = 0;
  context.device->machine.reset();
  context.legacy.reset();
  context.per_thread.clear();
  context.active = false;
  context.references = 0;
  context.broken = SUCCESS;
}

std::map<uint64_t, Allocation>::iterator Driver::find(uint64_t address) {
  auto it = allocations.upper_bound(address);
  if (it == allocations.begin()) return allocations.end();
  --it;
  return address < it->first + it->second.bytes ? it : allocations.end();
}

const Allocation& Driver::device_range(uint64_t address, uint64_t bytes, const char* what) {
  const auto it = find(address);
  if (it == allocations.end() || it->second.host) {
    fail(INVALID_VALUE, std::string(what) + " " + std::to_string(address) + " is no device memory");
  }
  if (bytes > it->first + it->second.bytes - address) {
    fail(INVALID_VALUE,
         std::string(what) + ": " + std::to_string(bytes) + " bytes pass the end of the allocation");
  }
  return it->second;
}

void Driver::check(const Context& context) {
  if (context.broken != SUCCESS) fail(context.broken, "the context is broken by an earlier error");
}

int Driver::fault(const std::string& name) {
  for (auto it = faults.begin(); it != faults.end(); ++it) {
    if (fnmatch(it->where.c_str(), name.c_str(), 0) != 0) continue;
    if (it->after-- > 0) continue;
    const int result = it->result;
    faults.erase(it);
    return result;
  }
  return SUCCESS;
}

void Driver::note(const std::string& line) {
  log.push_back(line);
  if (log.size() > kLogLines) log.pop_front();
}

void Driver::perform(Context& context, const Action& action) {
  if (context.broken != SUCCESS) return;  // what was queued behind an error is dropped
  try {
    if (action.node_type == 0) {
      ++counters["executions"];
      if (const int result = fault("execution")) fail(result, "injected fault");
    }
    action.work();
  } catch (const Failure& failure) {
    context.broken = failure.result;
    messages += failure.text + "\n";
  } catch (const simulator::Error& error) {
    context.broken = result_of(error.kind);
    messages += std::string(error.what()) + "\n";
  } catch (const std::exception& error) {
    context.broken = UNKNOWN;
    messages += std::string(error.what()) + "\n";
  }
}

int call(const char* name, bool needs_initialization, const std::function<void(Driver&)>& body) {
  Driver& driver = Driver::get();
  // Before the lock, which a thread that does not exist in a forked child may hold.
  if (driver.process != 0 && driver.process != getpid()) return NOT_INITIALIZED;
  const std::lock_guard<std::recursive_mutex> guard(driver.lock);
  int result = SUCCESS;
  std::string text;
  if (needs_initialization && !driver.initialized) {
    result = NOT_INITIALIZED;
  } else if ((result = driver.fault(name)) == SUCCESS) {
    try {
      body(driver);
    } catch (const Failure& failure) {
      result = failure.result;
      text = failure.text;
    } catch (const simulator::Error& error) {
      result = result_of(error.kind);
      text = error.what();
    } catch (const std::bad_alloc&) {
      result = OUT_OF_MEMORY;
    } catch (const std::exception& error) {
      result = UNKNOWN;
      text = error.what();
    }
  } else {
    text = "injected fault";
  }
  ++driver.counters["calls"];
  const char* result_text = result_name(result);
  driver.note(std::string(name) + " " + (result_text ? result_text : std::to_string(result)) +
              (text.empty() ? "" : ": " + text));
  return result;
}

int call_in_context(const char* name, const std::function<void(Driver&, Context&)>& body) {
  return call(name, true, [&](Driver& driver) {
    Context& context = driver.current();
    Driver::check(context);
    body(driver, context);
  });
}

}  // namespace simulated_driver
