// Modules, libraries, functions and their attributes. Only PTX can be loaded: there is no binary for a
// simulated GPU.
#include <algorithm>
#include <cstdio>
#include <cstring>

#include "state.h"

namespace simulated_driver {

namespace {

// The number behind a directive such as ".target sm_90a" or ".version 9.3"; empty if it is not there.
std::string directive(const std::string& ptx, const std::string& name, const std::string& prefix) {
  const size_t at = ptx.find(name);
  if (at == std::string::npos) return "";
  const size_t begin = ptx.find_first_not_of(" \t", at + name.size());
  if (begin == std::string::npos || ptx.compare(begin, prefix.size(), prefix) != 0) return "";
  const size_t end = ptx.find_first_of(" \t\r\n,;", begin);
  return ptx.substr(begin + prefix.size(), end - begin - prefix.size());
}

std::string checked_ptx(const Driver& driver, const Device& device, const void* image) {
  const auto* bytes = static_cast<const char*>(image);
  if (!bytes) fail(INVALID_VALUE, "no image");
  const unsigned char first = static_cast<unsigned char>(bytes[0]);
  if (first == 0x7f || first == 0x50 || (first & 0x80)) {
    fail(NO_BINARY_FOR_GPU, "the image is machine code, which a simulated GPU cannot run: give it PTX");
  }
  const std::string ptx(bytes);
  const std::string version = directive(ptx, ".version", ""), target = directive(ptx, ".target", "sm_");
  if (version.empty() || target.empty()) fail(INVALID_IMAGE, "the image is no PTX");
  // A driver 12.x reads PTX 8.x, a driver 13.x PTX 9.x, minor versions alike.
  int major = 0, minor = 0;
  std::sscanf(version.c_str(), "%d.%d", &major, &minor);
  const int newest = (driver.version / 1000 - 4) * 100 + driver.version % 1000 / 10;
  if (major * 100 + minor > newest) {
    fail(UNSUPPORTED_PTX_VERSION,
         "PTX " + version + " is newer than the driver " + std::to_string(driver.version));
  }
  const int wanted = std::atoi(target.c_str()), present = device.major * 10 + device.minor;
  const char last = target.back();
  if (last == 'a' ? wanted != present : last == 'f' ? wanted / 10 != present / 10 : wanted > present) {
    fail(NO_BINARY_FOR_GPU, "PTX for sm_" + target + " on a GPU of capability " + std::to_string(present));
  }
  return ptx;
}

Handle load(Driver& driver, Context& context, const std::string& ptx) {
  const int number = driver.machine(*context.device).load_module(ptx);
  const Handle handle = driver.next_handle();
  driver.modules[handle] = std::make_shared<Module>(Module{context.handle, number});
  ++driver.counters["loads"];
  return handle;
}

std::shared_ptr<Module> module(Driver& driver, Handle handle) {
  const auto it = driver.modules.find(handle);
  if (it == driver.modules.end()) fail(INVALID_HANDLE, "no such module");
  return it->second;
}

void unload(Driver& driver, Context& context, Handle handle) {
  const std::shared_ptr<Module> found = module(driver, handle);
  driver.run(*driver.context(found->context));
  driver.check(context);
  found->loaded = false;
  driver.machine(*driver.context(found->context)->device).unload_module(found->number);
  for (auto it = driver.functions.begin(); it != driver.functions.end();) {
    it = it->second->module == found ? driver.functions.erase(it) : std::next(it);
  }
  driver.modules.erase(handle);
}

Handle get_function(Driver& driver, Handle module_handle, const std::string& name) {
  const std::shared_ptr<Module> found = module(driver, module_handle);
  for (const auto& [handle, function] : driver.functions) {
    if (function->module == found && function->info.name == name) return handle;
  }
  simulator::Machine& machine = driver.machine(*driver.context(found->context)->device);
  const Function function{found->context, module_handle, found, machine.kernel(found->number, name)};
  const Handle handle = driver.next_handle();
  driver.functions[handle] = std::make_shared<Function>(function);
  return handle;
}

// Writes the text into the error log buffer among JIT options, as the compiler in the driver does.
void write_log(unsigned count, const int* options, void** values, const std::string& text) {
  char* buffer = nullptr;
  size_t size = 0;
  for (unsigned i = 0; i < count; ++i) {
    if (options[i] == 5) buffer = static_cast<char*>(values[i]);
    if (options[i] == 6) size = reinterpret_cast<size_t>(values[i]) & 0xffffffff;
  }
  if (buffer && size > 0) std::snprintf(buffer, size, "%s", text.c_str());
}

int load_with(const char* name, Handle* result, const void* image, unsigned count, const int* options,
              void** values) {
  return call_in_context(name, [&](Driver& driver, Context& context) {
    driver.refuse_while_capturing(name);
    try {
      *result = load(driver, context, checked_ptx(driver, *context.device, image));
    } catch (const Failure& failure) {
      write_log(count, options, values, failure.text);
      throw;
    } catch (const simulator::Error& error) {
      write_log(count, options, values, error.what());
      driver.messages += std::string(error.what()) + "\n";
      throw;
    }
  });
}

int module_load_data(Handle* result, const void* image) {
  return load_with("cuModuleLoadData", result, image, 0, nullptr, nullptr);
}

int module_load_data_ex(Handle* result, const void* image, unsigned count, const int* options,
                        void** values) {
  return load_with("cuModuleLoadDataEx", result, image, count, options, values);
}

int module_unload(Handle handle) {
  return call_in_context("cuModuleUnload", [&](Driver& driver, Context& context) {
    driver.refuse_while_capturing("cuModuleUnload");
    unload(driver, context, handle);
  });
}

int module_get_function(Handle* result, Handle handle, const char* name) {
  return call_in_context("cuModuleGetFunction",
                         [&](Driver& driver, Context&) { *result = get_function(driver, handle, name); });
}

int module_get_global(DevicePointer* address, size_t* bytes, Handle handle, const char* name) {
  return call_in_context("cuModuleGetGlobal", [&](Driver& driver, Context&) {
    const std::shared_ptr<Module> found = module(driver, handle);
    uint64_t size = 0;
    const uint64_t at =
        driver.machine(*driver.context(found->context)->device).global_variable(found->number, name, &size);
    if (address) *address = at;
    if (bytes) *bytes = size;
  });
}

int module_get_loading_mode(int* mode) {
  return call("cuModuleGetLoadingMode", true, [&](Driver&) { *mode = 2; });  // lazy
}

int library_load_data(Handle* result, const void* code, const int*, void**, unsigned, const int*, void**,
                      unsigned) {
  return call("cuLibraryLoadData", true, [&](Driver& driver) {
    driver.refuse_while_capturing("cuLibraryLoadData");
    const Handle handle = driver.next_handle();
    // Checked for the current device, if there is one; loaded where a kernel is first asked for.
    const std::vector<Handle>& stack = driver.context_stack();
    const Device& device = stack.empty() ? driver.devices[0] : *driver.current().device;
    driver.libraries[handle].ptx = checked_ptx(driver, device, code);
    *result = handle;
  });
}

int library_unload(Handle handle) {
  return call("cuLibraryUnload", true, [&](Driver& driver) {
    const auto it = driver.libraries.find(handle);
    if (it == driver.libraries.end()) fail(INVALID_HANDLE, "no such library");
    for (const auto& [context, module_handle] : it->second.modules) {
      unload(driver, *driver.context(context), module_handle);
    }
    for (auto kernel = driver.kernels.begin(); kernel != driver.kernels.end();) {
      kernel = kernel->second.library == handle ? driver.kernels.erase(kernel) : std::next(kernel);
    }
    driver.libraries.erase(it);
  });
}

int library_get_kernel(Handle* result, Handle library, const char* name) {
  return call("cuLibraryGetKernel", true, [&](Driver& driver) {
    const auto it = driver.libraries.find(library);
    if (it == driver.libraries.end()) fail(INVALID_HANDLE, "no such library");
    if (it->second.ptx.find(".entry " + std::string(name)) == std::string::npos)
      fail(NOT_FOUND, "no such kernel");
    for (const auto& [handle, kernel] : driver.kernels) {
      if (kernel.library == library && kernel.name == name) {
        *result = handle;
        return;
      }
    }
    *result = driver.next_handle();
    driver.kernels[*result] = {library, name, {}};
  });
}

int kernel_get_function(Handle* result, Handle kernel) {
  return call_in_context("cuKernelGetFunction", [&](Driver& driver, Context& context) {
    *result = function_handle(driver, context, kernel);
  });
}

int occupancy(const Device& device, const Function& function, int threads, size_t dynamic) {
  if (threads < 1) fail(INVALID_VALUE);
  const int shared =
      static_cast<int>(function.info.static_shared_bytes + dynamic) + (device.major >= 8 ? 1024 : 0);
  const int by_threads = device.threads_per_multiprocessor / ((threads + 31) / 32 * 32);
  const int by_shared = shared ? device.shared_per_multiprocessor / shared : device.blocks_per_multiprocessor;
  return std::min({by_threads, by_shared, device.blocks_per_multiprocessor});
}

int attribute_value(const Device& device, const Function& function, int attribute) {
  switch (attribute) {
    case 0:
      return static_cast<int>(function.info.max_threads);
    case 1:
      return static_cast<int>(function.info.static_shared_bytes);
    case 3:
      return static_cast<int>(function.info.local_bytes);
    case 4:  // registers: a compiler's, of which there is none here
      return 32;
    case 5:
    case 6:
      return device.major * 10 + device.minor;
    case 8:
      return function.max_dynamic_shared;
    case 9:
      return -1;
    default:
      if (attribute < 0 || attribute > 15) fail(INVALID_VALUE, "no such attribute");
      return 0;
  }
}

int function_get_attribute(int* value, int attribute, Handle handle) {
  return call_in_context("cuFuncGetAttribute", [&](Driver& driver, Context& context) {
    *value = attribute_value(*context.device, *function(driver, context, handle), attribute);
  });
}

int function_set_attribute(Handle handle, int attribute, int value) {
  return call_in_context("cuFuncSetAttribute", [&](Driver& driver, Context& context) {
    const std::shared_ptr<Function> found = function(driver, context, handle);
    if (attribute == 8) {
      const int most = context.device->shared_optin - static_cast<int>(found->info.static_shared_bytes);
      if (value < 0 || value > most) {
        fail(INVALID_VALUE,
             std::to_string(value) + " bytes of shared memory; at most " + std::to_string(most));
      }
      found->max_dynamic_shared = value;
    } else if (attribute != 9) {
      fail(INVALID_VALUE, "an attribute that cannot be set");
    }
  });
}

int kernel_get_attribute(int* value, int attribute, Handle kernel, int ordinal) {
  return call_in_context("cuKernelGetAttribute", [&](Driver& driver, Context&) {
    Context& context = driver.device(ordinal).context;
    *value = attribute_value(*context.device, *function(driver, context, kernel), attribute);
  });
}

int kernel_set_attribute(int attribute, int value, Handle kernel, int ordinal) {
  return call_in_context("cuKernelSetAttribute", [&](Driver& driver, Context& context) {
    if (driver.device(ordinal).ordinal != context.device->ordinal)
      fail(NOT_SUPPORTED, "another device's kernel");
    const int result = function_set_attribute(function_handle(driver, context, kernel), attribute, value);
    if (result != SUCCESS) fail(result);
  });
}

int function_get_parameter(Handle handle, size_t index, size_t* offset, size_t* bytes) {
  return call_in_context("cuFuncGetParamInfo", [&](Driver& driver, Context& context) {
    const std::shared_ptr<Function> found = function(driver, context, handle);
    if (index >= found->info.parameters.size()) fail(INVALID_VALUE, "no such parameter");
    *offset = found->info.parameters[index].offset;
    if (bytes) *bytes = found->info.parameters[index].size;
  });
}

int function_get_module(Handle* result, Handle handle) {
  return call_in_context("cuFuncGetModule", [&](Driver& driver, Context& context) {
    *result = function(driver, context, handle)->module_handle;
  });
}

int function_get_name(const char** name, Handle handle) {
  return call_in_context("cuFuncGetName", [&](Driver& driver, Context& context) {
    *name = function(driver, context, handle)->info.name.c_str();
  });
}

int function_set_cache_config(Handle handle, int) {
  return call_in_context("cuFuncSetCacheConfig",
                         [&](Driver& driver, Context& context) { function(driver, context, handle); });
}

int occupancy_with_flags(int* blocks, Handle handle, int threads, size_t dynamic, unsigned) {
  return call_in_context(
      "cuOccupancyMaxActiveBlocksPerMultiprocessor", [&](Driver& driver, Context& context) {
        *blocks = occupancy(*context.device, *function(driver, context, handle), threads, dynamic);
      });
}

int occupancy_blocks(int* blocks, Handle handle, int threads, size_t dynamic) {
  return occupancy_with_flags(blocks, handle, threads, dynamic, 0);
}

}  // namespace

Handle function_handle(Driver& driver, Context& context, Handle kernel) {
  const auto it = driver.kernels.find(kernel);
  if (it == driver.kernels.end()) fail(INVALID_HANDLE, "no such kernel");
  Library& library = driver.libraries.at(it->second.library);
  const auto loaded = library.modules.find(context.handle);
  const Handle module_handle =
      loaded != library.modules.end()
          ? loaded->second
          : load(driver, context, checked_ptx(driver, *context.device, library.ptx.c_str()));
  library.modules[context.handle] = module_handle;
  return get_function(driver, module_handle, it->second.name);
}

std::shared_ptr<Function> function(Driver& driver, Context& context, Handle handle) {
  if (driver.kernels.count(handle)) handle = function_handle(driver, context, handle);
  const auto it = driver.functions.find(handle);
  if (it == driver.functions.end())
    fail(INVALID_HANDLE, "no such function: never loaded, or its module is gone");
  if (it->second->context != context.handle)
    fail(INVALID_HANDLE, "the function was loaded in another context");
  return it->second;
}

std::vector<Entry> module_entries() {
  return {
      entry("cuModuleLoadData", 2000, module_load_data),
      entry("cuModuleLoadDataEx", 2010, module_load_data_ex),
      entry("cuModuleUnload", 2000, module_unload),
      entry("cuModuleGetFunction", 2000, module_get_function),
      entry("cuModuleGetGlobal", 3020, module_get_global),
      entry("cuModuleGetLoadingMode", 11070, module_get_loading_mode),
      entry("cuLibraryLoadData", 12000, library_load_data),
      entry("cuLibraryUnload", 12000, library_unload),
      entry("cuLibraryGetKernel", 12000, library_get_kernel),
      entry("cuKernelGetFunction", 12000, kernel_get_function),
      entry("cuKernelGetAttribute", 12000, kernel_get_attribute),
      entry("cuKernelSetAttribute", 12000, kernel_set_attribute),
      entry("cuFuncGetAttribute", 2020, function_get_attribute),
      entry("cuFuncSetAttribute", 9000, function_set_attribute),
      entry("cuFuncSetCacheConfig", 3000, function_set_cache_config),
      entry("cuFuncGetModule", 11000, function_get_module),
      entry("cuFuncGetName", 12030, function_get_name),
      entry("cuFuncGetParamInfo", 12040, function_get_parameter),
      entry("cuOccupancyMaxActiveBlocksPerMultiprocessor", 6050, occupancy_blocks),
      entry("cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags", 7000, occupancy_with_flags),
  };
}

}  // namespace simulated_driver
