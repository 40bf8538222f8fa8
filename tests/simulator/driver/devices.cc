// Initialization, devices and their attributes.
#include <unistd.h>

#include <cstring>

#include "state.h"

namespace simulated_driver {

namespace {

int init(unsigned flags) {
  return call("cuInit", false, [&](Driver& driver) {
    if (flags != 0) fail(INVALID_VALUE, "flags must be 0");
    if (driver.visible == 0) fail(NO_DEVICE, "the simulation is switched off");
    driver.initialized = true;
    driver.process = getpid();
  });
}

int driver_get_version(int* version) {
  return call("cuDriverGetVersion", false, [&](Driver& driver) { *version = driver.version; });
}

int device_get_count(int* count) {
  return call("cuDeviceGetCount", true, [&](Driver& driver) { *count = driver.visible; });
}

int device_get(int* device, int ordinal) {
  return call("cuDeviceGet", true, [&](Driver& driver) { *device = driver.device(ordinal).ordinal; });
}

int device_get_name(char* name, int length, int ordinal) {
  return call("cuDeviceGetName", true, [&](Driver& driver) {
    if (length < 1) fail(INVALID_VALUE);
    std::strncpy(name, driver.device(ordinal).name.c_str(), static_cast<size_t>(length) - 1);
    name[length - 1] = 0;
  });
}

int device_get_uuid(Uuid* uuid, int ordinal) {
  return call("cuDeviceGetUuid", true, [&](Driver& driver) {
    std::memset(uuid->bytes, 0x51, sizeof uuid->bytes);
    uuid->bytes[15] = static_cast<unsigned char>(driver.device(ordinal).ordinal);
  });
}

int device_total_memory(size_t* bytes, int ordinal) {
  return call("cuDeviceTotalMem", true, [&](Driver& driver) {
    driver.device(ordinal);
    *bytes = driver.memory_bytes;
  });
}

int device_compute_capability(int* major, int* minor, int ordinal) {
  return call("cuDeviceComputeCapability", true, [&](Driver& driver) {
    *major = driver.device(ordinal).major;
    *minor = driver.device(ordinal).minor;
  });
}

// By the numbers of CUdevice_attribute. What is not listed is a feature that the simulated GPU has not: 0.
int attribute_value(const Device& device, int attribute) {
  const bool hopper = device.major >= 9;
  switch (attribute) {
    case 1:  // threads per block
    case 2:
    case 3:
      return 1024;
    case 4:
      return 64;
    case 5:  // grid
      return 2147483647;
    case 6:
    case 7:
      return 65535;
    case 8:  // shared memory per block
      return 48 * 1024;
    case 9:
      return 65536;
    case 10:  // warp size
      return 32;
    case 11:
      return 2147483647;
    case 12:
    case 82:  // registers
      return 65536;
    case 13:
      return device.clock_khz;
    case 14:
      return 512;
    case 15:
    case 40:  // copy engines
      return 3;
    case 16:
      return device.multiprocessors;
    case 31:  // concurrent kernels
      return 1;
    case 32:  // ECC
      return 1;
    case 33:  // PCI bus
      return device.ordinal + 1;
    case 36:
      return 2619000;
    case 37:
      return hopper ? 5120 : 256;
    case 38:
      return device.l2_bytes;
    case 39:
      return device.threads_per_multiprocessor;
    case 41:  // unified addressing
      return 1;
    case 75:
      return device.major;
    case 76:
      return device.minor;
    case 78:  // stream priorities
    case 79:
    case 80:
      return 1;
    case 81:
      return device.shared_per_multiprocessor;
    case 90:  // preemption
      return 1;
    case 95:  // cooperative launch
      return 1;
    case 97:
      return device.shared_optin;
    case 99:  // host registration
      return 1;
    case 106:
      return device.blocks_per_multiprocessor;
    case 111:  // shared memory that the driver keeps per block
      return device.major >= 8 ? 1024 : 0;
    case 115:  // memory pools
      return 1;
    case 127:  // tensor maps
      return hopper;
    default:
      return 0;
  }
}

int device_get_attribute(int* value, int attribute, int ordinal) {
  return call("cuDeviceGetAttribute", true, [&](Driver& driver) {
    if (attribute < 1 || attribute > 200) fail(INVALID_VALUE, "no such attribute");
    *value = attribute_value(driver.device(ordinal), attribute);
  });
}

int device_get_bus_id(char* text, int length, int ordinal) {
  return call("cuDeviceGetPCIBusId", true, [&](Driver& driver) {
    std::snprintf(text, static_cast<size_t>(length), "0000:%02x:00.0", driver.device(ordinal).ordinal + 1);
  });
}

int device_can_access_peer(int* possible, int ordinal, int peer) {
  return call("cuDeviceCanAccessPeer", true, [&](Driver& driver) {
    driver.device(ordinal);
    driver.device(peer);
    *possible = 0;
  });
}

int get_error_name(int result, const char** text) {
  *text = result_name(result);
  return *text ? SUCCESS : INVALID_VALUE;
}

// The real driver has sentences; these are the names in lower case.
int get_error_string(int result, const char** text) {
  static std::map<int, std::string>* texts = new std::map<int, std::string>;
  static std::mutex lock;
  const char* name = result_name(result);
  *text = nullptr;
  if (!name) return INVALID_VALUE;
  const std::lock_guard<std::mutex> guard(lock);
  std::string& found = (*texts)[result];
  if (found.empty()) {
    found = result == SUCCESS ? "no error" : name + std::strlen("CUDA_ERROR_");
    for (char& c : found) c = c == '_' ? ' ' : static_cast<char>(std::tolower(c));
  }
  *text = found.c_str();
  return SUCCESS;
}

}  // namespace

std::vector<Entry> device_entries() {
  return {
      entry("cuInit", 2000, init),
      entry("cuDriverGetVersion", 2020, driver_get_version),
      entry("cuDeviceGetCount", 2000, device_get_count),
      entry("cuDeviceGet", 2000, device_get),
      entry("cuDeviceGetName", 2000, device_get_name),
      entry("cuDeviceGetUuid", 11040, device_get_uuid),
      entry("cuDeviceTotalMem", 3020, device_total_memory),
      entry("cuDeviceComputeCapability", 2000, device_compute_capability),
      entry("cuDeviceGetAttribute", 2000, device_get_attribute),
      entry("cuDeviceGetPCIBusId", 4010, device_get_bus_id),
      entry("cuDeviceCanAccessPeer", 4000, device_can_access_peer),
      entry("cuGetErrorName", 6000, get_error_name),
      entry("cuGetErrorString", 6000, get_error_string),
  };
}

}  // namespace simulated_driver
