// Device and pinned memory, pools, and what a pointer points to.
#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "state.h"

namespace simulated_driver {

namespace {

DevicePointer allocate(Driver& driver, Context& context, size_t bytes) {
  Device& device = *context.device;
  if (bytes == 0) fail(INVALID_VALUE, "0 bytes");
  if (bytes > driver.memory_bytes || device.bytes > driver.memory_bytes - bytes) {
    fail(OUT_OF_MEMORY, std::to_string(bytes) + " bytes, of which the device has not as many left");
  }
  const DevicePointer address = driver.machine(device).allocate(bytes);
  driver.allocations[address] = {bytes, device.ordinal, false, false, driver.next_handle()};
  device.bytes += bytes;
  ++driver.counters["allocations"];
  return address;
}

void release(Driver& driver, DevicePointer address) {
  const auto it = driver.allocations.find(address);
  if (it == driver.allocations.end() || it->second.host) {
    fail(INVALID_VALUE, "no allocation begins at " + std::to_string(address));
  }
  Device& device = driver.devices[it->second.device];
  driver.machine(device).free(address);
  device.bytes -= it->second.bytes;
  driver.allocations.erase(it);
}

int mem_alloc(DevicePointer* result, size_t bytes) {
  return call_in_context("cuMemAlloc", [&](Driver& driver, Context& context) {
    driver.refuse_while_capturing("cuMemAlloc");
    *result = allocate(driver, context, bytes);
  });
}

int mem_free(DevicePointer address) {
  return call_in_context("cuMemFree", [&](Driver& driver, Context&) {
    if (address == 0) return;
    driver.refuse_while_capturing("cuMemFree");
    Context& context = driver.devices[driver.device_range(address, 1, "address").device].context;
    driver.run(context);  // it waits for the device
    release(driver, address);
    driver.check(context);
  });
}

int mem_alloc_async(DevicePointer* result, size_t bytes, Handle handle) {
  return call_in_context("cuMemAllocAsync", [&](Driver& driver, Context& context) {
    if (driver.stream_of(context, handle)->capture) {
      fail(NOT_SUPPORTED, "allocation nodes of graphs are not simulated");
    }
    *result = allocate(driver, context, bytes);
  });
}

int mem_alloc_from_pool_async(DevicePointer* result, size_t bytes, Handle, Handle stream) {
  return mem_alloc_async(result, bytes, stream);
}

int mem_free_async(DevicePointer address, Handle handle) {
  return call_in_context("cuMemFreeAsync", [&](Driver& driver, Context& context) {
    const std::shared_ptr<Stream> stream = driver.stream_of(context, handle);
    if (stream->capture) fail(NOT_SUPPORTED, "freeing nodes of graphs are not simulated");
    driver.device_range(address, 1, "address");
    driver.submit(*stream, {11, [&driver, address] { release(driver, address); }});
  });
}

void* allocate_host(Driver& driver, Context& context, size_t bytes, const char* name) {
  if (bytes == 0) fail(INVALID_VALUE, "0 bytes");
  driver.refuse_while_capturing(name);
  void* memory = std::aligned_alloc(4096, (bytes + 4095) / 4096 * 4096);
  if (!memory) fail(OUT_OF_MEMORY);
  driver.allocations[reinterpret_cast<uint64_t>(memory)] = {bytes, context.device->ordinal, true, false,
                                                            driver.next_handle()};
  ++driver.counters["host_allocations"];
  return memory;
}

int mem_alloc_host(void** result, size_t bytes) {
  return call_in_context("cuMemAllocHost", [&](Driver& driver, Context& context) {
    *result = allocate_host(driver, context, bytes, "cuMemAllocHost");
  });
}

int mem_host_alloc(void** result, size_t bytes, unsigned) {
  return call_in_context("cuMemHostAlloc", [&](Driver& driver, Context& context) {
    *result = allocate_host(driver, context, bytes, "cuMemHostAlloc");
  });
}

int mem_free_host(void* memory) {
  return call_in_context("cuMemFreeHost", [&](Driver& driver, Context& context) {
    const auto it = driver.allocations.find(reinterpret_cast<uint64_t>(memory));
    if (it == driver.allocations.end() || !it->second.host || it->second.registered) {
      fail(INVALID_VALUE, "no pinned memory begins there");
    }
    driver.refuse_while_capturing("cuMemFreeHost");
    driver.run(context);
    driver.allocations.erase(it);
    std::free(memory);
    driver.check(context);
  });
}

int mem_host_register(void* memory, size_t bytes, unsigned) {
  return call_in_context("cuMemHostRegister", [&](Driver& driver, Context& context) {
    if (!memory || bytes == 0) fail(INVALID_VALUE);
    const uint64_t address = reinterpret_cast<uint64_t>(memory);
    const auto next = driver.allocations.lower_bound(address);
    if (driver.find(address) != driver.allocations.end() ||
        (next != driver.allocations.end() && next->first < address + bytes)) {
      fail(HOST_MEMORY_ALREADY_REGISTERED);
    }
    driver.refuse_while_capturing("cuMemHostRegister");
    driver.allocations[address] = {bytes, context.device->ordinal, true, true, driver.next_handle()};
    ++driver.counters["host_allocations"];
  });
}

int mem_host_unregister(void* memory) {
  return call_in_context("cuMemHostUnregister", [&](Driver& driver, Context& context) {
    const auto it = driver.allocations.find(reinterpret_cast<uint64_t>(memory));
    if (it == driver.allocations.end() || !it->second.registered) fail(HOST_MEMORY_NOT_REGISTERED);
    driver.refuse_while_capturing("cuMemHostUnregister");
    driver.run(context);
    driver.allocations.erase(it);
  });
}

int mem_get_info(size_t* left, size_t* total) {
  return call_in_context("cuMemGetInfo", [&](Driver& driver, Context& context) {
    *total = driver.memory_bytes;
    *left = driver.memory_bytes - std::min(driver.memory_bytes, context.device->bytes);
  });
}

int mem_get_address_range(DevicePointer* base, size_t* bytes, DevicePointer address) {
  return call_in_context("cuMemGetAddressRange", [&](Driver& driver, Context&) {
    const auto it = driver.find(address);
    if (it == driver.allocations.end() || it->second.host) fail(NOT_FOUND, "no device memory");
    if (base) *base = it->first;
    if (bytes) *bytes = it->second.bytes;
  });
}

// By the numbers of CUpointer_attribute. False where the pointer has no such attribute.
bool pointer_attribute(Driver& driver, int attribute, DevicePointer address, void* data) {
  const auto it = driver.find(address);
  const bool known = it != driver.allocations.end();
  const auto give = [&](auto value) {
    std::memcpy(data, &value, sizeof value);
    return true;
  };
  switch (attribute) {
    case 1:
      return give(known ? driver.devices[it->second.device].context.handle : Handle{0}) && known;
    case 2:
      return give(known ? static_cast<unsigned>(it->second.host ? MEMORY_HOST : MEMORY_DEVICE) : 0u) && known;
    case 3:
      return give(known && !it->second.host ? address : 0) && known && !it->second.host;
    case 4:
      return give(known && it->second.host ? address : 0) && known && it->second.host;
    case 6:
    case 8:
      return give(false) && known;
    case 7:
      return give(known ? it->second.id : 0) && known;
    case 9:
      return give(known ? it->second.device : -2) && known;
    case 11:
      return give(known ? it->first : 0) && known;
    case 12:
      return give(known ? size_t{it->second.bytes} : size_t{0}) && known;
    case 13:
      return give(known && !it->second.host) && known;
    default:
      fail(INVALID_VALUE, "no such attribute");
  }
}

int pointer_get_attribute(void* data, int attribute, DevicePointer address) {
  return call("cuPointerGetAttribute", true, [&](Driver& driver) {
    if (!pointer_attribute(driver, attribute, address, data))
      fail(INVALID_VALUE, "no memory of the driver's");
  });
}

int pointer_get_attributes(unsigned count, const int* attributes, void** data, DevicePointer address) {
  return call("cuPointerGetAttributes", true, [&](Driver& driver) {
    for (unsigned i = 0; i < count; ++i) pointer_attribute(driver, attributes[i], address, data[i]);
  });
}

// One pool per device, whose handle is the context's and which keeps nothing.
int get_pool(Handle* pool, int ordinal) {
  return call("cuDeviceGetDefaultMemPool", true,
              [&](Driver& driver) { *pool = driver.device(ordinal).context.handle; });
}

int pool_set_attribute(Handle, int, void*) {
  return call("cuMemPoolSetAttribute", true, [](Driver&) {});
}

int pool_get_attribute(Handle pool, int attribute, void* value) {
  return call("cuMemPoolGetAttribute", true, [&](Driver& driver) {
    const Context* context = driver.context(pool);
    if (!context) fail(INVALID_VALUE, "no such pool");
    uint64_t bytes = attribute >= 5 ? context->device->bytes : 0;
    std::memcpy(value, &bytes, attribute <= 3 ? sizeof(int) : sizeof bytes);
  });
}

int pool_trim(Handle, size_t) {
  return call("cuMemPoolTrimTo", true, [](Driver&) {});
}

}  // namespace

std::vector<Entry> memory_entries() {
  return {
      entry("cuMemAlloc", 3020, mem_alloc),
      entry("cuMemFree", 3020, mem_free),
      entry("cuMemAllocAsync", 11020, mem_alloc_async),
      entry("cuMemAllocFromPoolAsync", 11020, mem_alloc_from_pool_async),
      entry("cuMemFreeAsync", 11020, mem_free_async),
      entry("cuMemAllocHost", 3020, mem_alloc_host),
      entry("cuMemHostAlloc", 2020, mem_host_alloc),
      entry("cuMemFreeHost", 2000, mem_free_host),
      entry("cuMemHostRegister", 6050, mem_host_register),
      entry("cuMemHostUnregister", 4000, mem_host_unregister),
      entry("cuMemGetInfo", 3020, mem_get_info),
      entry("cuMemGetAddressRange", 3020, mem_get_address_range),
      entry("cuPointerGetAttribute", 4000, pointer_get_attribute),
      entry("cuPointerGetAttributes", 7000, pointer_get_attributes),
      entry("cuDeviceGetDefaultMemPool", 11020, get_pool),
      entry("cuDeviceGetMemPool", 11020, get_pool),
      entry("cuMemPoolSetAttribute", 11020, pool_set_attribute),
      entry("cuMemPoolGetAttribute", 11020, pool_get_attribute),
      entry("cuMemPoolTrimTo", 11020, pool_trim),
  };
}

}  // namespace simulated_driver
