// Copies and fills, as asynchronous as the driver API's documentation allows: a copy that is made later looks
// at pinned memory then, at pageable memory now; a synchronous copy from pageable memory has read it when the
// call returns, but may reach the device later (on the default stream); fills and copies on the device never
// wait.
#include <cstring>

#include "state.h"

namespace simulated_driver {

namespace {

bool is_device(Driver& driver, uint64_t address) {
  const auto it = driver.find(address);
  return it != driver.allocations.end() && !it->second.host;
}

simulator::Machine& machine_of(Driver& driver, uint64_t address, size_t bytes, const char* what) {
  return driver.machine(driver.devices[driver.device_range(address, bytes, what).device]);
}

// The copy itself, by what the two addresses are when it happens.
void copy_now(Driver& driver, uint64_t destination, uint64_t source, size_t bytes) {
  const bool to_device = is_device(driver, destination), from_device = is_device(driver, source);
  if (to_device && from_device) {
    simulator::Machine& to = machine_of(driver, destination, bytes, "destination");
    simulator::Machine& from = machine_of(driver, source, bytes, "source");
    if (&to == &from) {
      to.copy(destination, source, bytes);
    } else {
      std::vector<uint8_t> between(bytes);
      from.read(source, between.data(), bytes, !driver.strict_reads);
      to.write(destination, between.data(), bytes);
    }
  } else if (to_device) {
    machine_of(driver, destination, bytes, "destination")
        .write(destination, reinterpret_cast<const void*>(source), bytes);
  } else if (from_device) {
    machine_of(driver, source, bytes, "source")
        .read(source, reinterpret_cast<void*>(destination), bytes, !driver.strict_reads);
  } else {
    std::memmove(reinterpret_cast<void*>(destination), reinterpret_cast<const void*>(source), bytes);
  }
}

enum class Side { Device, Host, Either };

void check_side(Driver& driver, Side side, uint64_t address, size_t bytes, const char* what) {
  if (side == Side::Device || (side == Side::Either && is_device(driver, address))) {
    driver.device_range(address, bytes, what);
  } else if (is_device(driver, address)) {
    fail(INVALID_VALUE, std::string(what) + " is device memory, not the host's");
  } else if (address == 0) {
    fail(INVALID_VALUE, std::string(what) + " is null");
  }
}

bool is_pinned(Driver& driver, uint64_t address) {
  const auto it = driver.find(address);
  return it != driver.allocations.end() && it->second.host;
}

Action copy_action(Driver& driver, uint64_t destination, uint64_t source, size_t bytes) {
  ++driver.counters["copies"];
  return {1, [&driver, destination, source, bytes] { copy_now(driver, destination, source, bytes); }};
}

int copy_with(const char* name, Side to, Side from, uint64_t destination, uint64_t source, size_t bytes,
              bool synchronous, Handle handle) {
  return call_in_context(name, [&](Driver& driver, Context& context) {
    const std::shared_ptr<Stream> stream = driver.stream_of(context, handle);
    if (bytes == 0) return;
    if (synchronous) driver.refuse_while_capturing(name);
    check_side(driver, to, destination, bytes, "destination");
    check_side(driver, from, source, bytes, "source");
    const bool from_pinned = is_pinned(driver, source), to_pinned = is_pinned(driver, destination);
    if (!stream->capture && !is_device(driver, source) && !from_pinned) {
      const auto* data = reinterpret_cast<const uint8_t*>(source);
      const auto staged = std::make_shared<std::vector<uint8_t>>(data, data + bytes);
      ++driver.counters["copies"];
      driver.submit(*stream, {1, [&driver, destination, staged] {
                                copy_now(driver, destination, reinterpret_cast<uint64_t>(staged->data()),
                                         staged->size());
                              }});
    } else {
      driver.submit(*stream, copy_action(driver, destination, source, bytes));
    }
    if (stream->capture) return;
    // Into pageable memory there is no copy that returns before it is done.
    if (synchronous ? from_pinned || !is_device(driver, destination)
                    : !is_device(driver, destination) && !to_pinned) {
      driver.synchronize(*stream);
    }
  });
}

int copy_sync(const char* name, Side to, Side from, uint64_t destination, uint64_t source, size_t bytes) {
  return copy_with(name, to, from, destination, source, bytes, true, 0);
}

int copy_async(const char* name, Side to, Side from, uint64_t destination, uint64_t source, size_t bytes,
               Handle stream) {
  return copy_with(name, to, from, destination, source, bytes, false, stream);
}

int copy(uint64_t to, uint64_t from, size_t bytes) {
  return copy_sync("cuMemcpy", Side::Either, Side::Either, to, from, bytes);
}
int copy_to_device(uint64_t to, uint64_t from, size_t bytes) {
  return copy_sync("cuMemcpyHtoD", Side::Device, Side::Host, to, from, bytes);
}
int copy_to_host(uint64_t to, uint64_t from, size_t bytes) {
  return copy_sync("cuMemcpyDtoH", Side::Host, Side::Device, to, from, bytes);
}
int copy_on_device(uint64_t to, uint64_t from, size_t bytes) {
  return copy_sync("cuMemcpyDtoD", Side::Device, Side::Device, to, from, bytes);
}
int copy_peer(uint64_t to, Handle, uint64_t from, Handle, size_t bytes) {
  return copy_sync("cuMemcpyPeer", Side::Device, Side::Device, to, from, bytes);
}
int copy_later(uint64_t to, uint64_t from, size_t bytes, Handle stream) {
  return copy_async("cuMemcpyAsync", Side::Either, Side::Either, to, from, bytes, stream);
}
int copy_to_device_later(uint64_t to, uint64_t from, size_t bytes, Handle stream) {
  return copy_async("cuMemcpyHtoDAsync", Side::Device, Side::Host, to, from, bytes, stream);
}
int copy_to_host_later(uint64_t to, uint64_t from, size_t bytes, Handle stream) {
  return copy_async("cuMemcpyDtoHAsync", Side::Host, Side::Device, to, from, bytes, stream);
}
int copy_on_device_later(uint64_t to, uint64_t from, size_t bytes, Handle stream) {
  return copy_async("cuMemcpyDtoDAsync", Side::Device, Side::Device, to, from, bytes, stream);
}
int copy_peer_later(uint64_t to, Handle, uint64_t from, Handle, size_t bytes, Handle stream) {
  return copy_async("cuMemcpyPeerAsync", Side::Device, Side::Device, to, from, bytes, stream);
}

Action fill_action(Driver& driver, uint64_t address, uint32_t value, size_t width, size_t count) {
  ++driver.counters["fills"];
  return {2, [&driver, address, value, width, count] {
            std::vector<uint8_t> data(width * count);
            for (size_t i = 0; i < count; ++i) std::memcpy(&data[i * width], &value, width);  // little-endian
            machine_of(driver, address, data.size(), "destination").write(address, data.data(), data.size());
          }};
}

int fill(const char* name, bool synchronous, uint64_t address, uint32_t value, size_t width, size_t count,
         Handle handle) {
  return call_in_context(name, [&](Driver& driver, Context& context) {
    const std::shared_ptr<Stream> stream = driver.stream_of(context, handle);
    if (count == 0) return;
    driver.device_range(address, width * count, "destination");
    if (address % width) fail(INVALID_VALUE, "misaligned address");
    if (synchronous) driver.refuse_while_capturing(name);
    driver.submit(*stream, fill_action(driver, address, value, width, count));
  });
}

int fill8(uint64_t address, unsigned char value, size_t count) {
  return fill("cuMemsetD8", true, address, value, 1, count, 0);
}
int fill16(uint64_t address, unsigned short value, size_t count) {
  return fill("cuMemsetD16", true, address, value, 2, count, 0);
}
int fill32(uint64_t address, unsigned value, size_t count) {
  return fill("cuMemsetD32", true, address, value, 4, count, 0);
}
int fill8_later(uint64_t address, unsigned char value, size_t count, Handle stream) {
  return fill("cuMemsetD8Async", false, address, value, 1, count, stream);
}
int fill16_later(uint64_t address, unsigned short value, size_t count, Handle stream) {
  return fill("cuMemsetD16Async", false, address, value, 2, count, stream);
}
int fill32_later(uint64_t address, unsigned value, size_t count, Handle stream) {
  return fill("cuMemsetD32Async", false, address, value, 4, count, stream);
}

}  // namespace

std::vector<Entry> copy_entries() {
  return {
      entry("cuMemcpy", 4000, copy),
      entry("cuMemcpyHtoD", 3020, copy_to_device),
      entry("cuMemcpyDtoH", 3020, copy_to_host),
      entry("cuMemcpyDtoD", 3020, copy_on_device),
      entry("cuMemcpyPeer", 4000, copy_peer),
      entry("cuMemcpyAsync", 4000, copy_later),
      entry("cuMemcpyHtoDAsync", 3020, copy_to_device_later),
      entry("cuMemcpyDtoHAsync", 3020, copy_to_host_later),
      entry("cuMemcpyDtoDAsync", 3020, copy_on_device_later),
      entry("cuMemcpyPeerAsync", 4000, copy_peer_later),
      entry("cuMemsetD8", 3020, fill8),
      entry("cuMemsetD16", 3020, fill16),
      entry("cuMemsetD32", 3020, fill32),
      entry("cuMemsetD8Async", 3020, fill8_later),
      entry("cuMemsetD16Async", 3020, fill16_later),
      entry("cuMemsetD32Async", 3020, fill32_later),
  };
}

}  // namespace simulated_driver
