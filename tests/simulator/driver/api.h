// The words of the CUDA driver API that the simulated driver answers to. Handles are numbers, never
// addresses: a stale or foreign one is recognized.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace simulated_driver {

using Handle = uint64_t;  // CUcontext, CUstream, CUevent, CUmodule, CUfunction, ...: a pointer's size
using DevicePointer = uint64_t;

enum Result : int {
  SUCCESS = 0,
  INVALID_VALUE = 1,
  OUT_OF_MEMORY = 2,
  NOT_INITIALIZED = 3,
  DEINITIALIZED = 4,
  STUB_LIBRARY = 34,
  DEVICE_UNAVAILABLE = 46,
  NO_DEVICE = 100,
  INVALID_DEVICE = 101,
  INVALID_IMAGE = 200,
  INVALID_CONTEXT = 201,
  NO_BINARY_FOR_GPU = 209,
  ECC_UNCORRECTABLE = 214,
  UNSUPPORTED_LIMIT = 215,
  PEER_ACCESS_UNSUPPORTED = 217,
  INVALID_PTX = 218,
  UNSUPPORTED_PTX_VERSION = 222,
  INVALID_HANDLE = 400,
  ILLEGAL_STATE = 401,
  NOT_FOUND = 500,
  NOT_READY = 600,
  ILLEGAL_ADDRESS = 700,
  LAUNCH_OUT_OF_RESOURCES = 701,
  LAUNCH_TIMEOUT = 702,
  PRIMARY_CONTEXT_ACTIVE = 708,
  CONTEXT_IS_DESTROYED = 709,
  HOST_MEMORY_ALREADY_REGISTERED = 712,
  HOST_MEMORY_NOT_REGISTERED = 713,
  ILLEGAL_INSTRUCTION = 715,
  MISALIGNED_ADDRESS = 716,
  LAUNCH_FAILED = 719,
  NOT_PERMITTED = 800,
  NOT_SUPPORTED = 801,
  SYSTEM_NOT_READY = 802,
  SYSTEM_DRIVER_MISMATCH = 803,
  COMPAT_NOT_SUPPORTED_ON_DEVICE = 804,
  STREAM_CAPTURE_UNSUPPORTED = 900,
  STREAM_CAPTURE_INVALIDATED = 901,
  STREAM_CAPTURE_MERGE = 902,
  STREAM_CAPTURE_UNMATCHED = 903,
  STREAM_CAPTURE_UNJOINED = 904,
  STREAM_CAPTURE_ISOLATION = 905,
  STREAM_CAPTURE_IMPLICIT = 906,
  CAPTURED_EVENT = 907,
  STREAM_CAPTURE_WRONG_THREAD = 908,
  UNKNOWN = 999,
};

// Name without "CUDA_ERROR_"; null for a number that is none of the above.
const char* result_name(int result);

enum CaptureMode : int { CAPTURE_GLOBAL = 0, CAPTURE_THREAD_LOCAL = 1, CAPTURE_RELAXED = 2 };
enum CaptureStatus : int { CAPTURE_NONE = 0, CAPTURE_ACTIVE = 1, CAPTURE_INVALIDATED = 2 };
enum MemoryType : int { MEMORY_HOST = 1, MEMORY_DEVICE = 2 };

constexpr unsigned kNonBlocking = 1;    // CU_STREAM_NON_BLOCKING
constexpr unsigned kDisableTiming = 2;  // CU_EVENT_DISABLE_TIMING
constexpr Handle kLegacyStream = 1;     // also 0
constexpr Handle kPerThreadStream = 2;

struct Uuid {
  unsigned char bytes[16];
};

struct LaunchAttribute {  // CUlaunchAttribute: its value is a union of 64 bytes
  int id;
  int padding;
  union {
    unsigned char bytes[64];
    int cooperative;
    struct {
      unsigned x, y, z;
    } cluster;
  } value;
};
static_assert(sizeof(LaunchAttribute) == 72, "as the driver API lays it out");

struct LaunchConfig {  // CUlaunchConfig
  unsigned grid_x, grid_y, grid_z, block_x, block_y, block_z, shared_bytes;
  Handle stream;
  const LaunchAttribute* attributes;
  unsigned num_attributes;
};

// One entry point: its name without version suffix, and the version of the API in which it has this form.
struct Entry {
  const char* name;
  int version;
  void* function;
};

template <class F>
Entry entry(const char* name, int version, F* function) {
  return {name, version, reinterpret_cast<void*>(function)};
}

}  // namespace simulated_driver
