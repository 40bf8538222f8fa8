// Starting kernels, and the tensor maps that they are given.
#include <cstring>

#include "../tensor_ops.h"
#include "state.h"

namespace simulated_driver {

namespace {

struct Shape {
  unsigned grid[3], block[3], shared_bytes;
};

// Copies the parameters: the caller may change them once the call has returned.
std::shared_ptr<std::vector<uint8_t>> collect(const Function& function, void** parameters, void** extra) {
  auto block = std::make_shared<std::vector<uint8_t>>(function.info.parameter_bytes);
  if (extra) {  // pairs, closed by 0: 1 the buffer, 2 a pointer to its size
    const void* buffer = nullptr;
    size_t bytes = 0;
    for (size_t i = 0; extra[i]; i += 2) {
      if (reinterpret_cast<uintptr_t>(extra[i]) == 1) buffer = extra[i + 1];
      if (reinterpret_cast<uintptr_t>(extra[i]) == 2) bytes = *static_cast<const size_t*>(extra[i + 1]);
    }
    if (parameters || !buffer || bytes != block->size()) fail(INVALID_VALUE, "parameters of another size");
    std::memcpy(block->data(), buffer, bytes);
    return block;
  }
  if (!parameters && !function.info.parameters.empty()) fail(INVALID_VALUE, "no parameters");
  for (size_t i = 0; i < function.info.parameters.size(); ++i) {
    const simulator::Parameter& parameter = function.info.parameters[i];
    if (!parameters[i]) fail(INVALID_VALUE, "parameter " + std::to_string(i) + " is null");
    std::memcpy(block->data() + parameter.offset, parameters[i], parameter.size);
  }
  return block;
}

void check_shape(const Device& device, const Function& function, const Shape& shape) {
  const unsigned grid_most[3] = {2147483647, 65535, 65535}, block_most[3] = {1024, 1024, 64};
  for (int i = 0; i < 3; ++i) {
    if (shape.grid[i] < 1 || shape.grid[i] > grid_most[i]) {
      fail(INVALID_VALUE,
           "grid of " + std::to_string(shape.grid[i]) + " blocks in dimension " + std::to_string(i));
    }
    if (shape.block[i] < 1 || shape.block[i] > block_most[i]) {
      fail(INVALID_VALUE,
           "block of " + std::to_string(shape.block[i]) + " threads in dimension " + std::to_string(i));
    }
  }
  const uint64_t threads = uint64_t{shape.block[0]} * shape.block[1] * shape.block[2];
  if (threads > 1024) fail(INVALID_VALUE, "block of " + std::to_string(threads) + " threads");
  if (threads > function.info.max_threads) {
    fail(LAUNCH_OUT_OF_RESOURCES, "block of " + std::to_string(threads) + " threads; compiled for at most " +
                                      std::to_string(function.info.max_threads));
  }
  const int shared = static_cast<int>(shape.shared_bytes),
            fixed = static_cast<int>(function.info.static_shared_bytes);
  if (shared < 0 || shared > function.max_dynamic_shared ||
      (function.max_dynamic_shared == 48 * 1024 && shared + fixed > 48 * 1024) ||
      shared + fixed > device.shared_optin) {
    fail(INVALID_VALUE, std::to_string(shape.shared_bytes) + " bytes of dynamic and " +
                            std::to_string(fixed) + " of static shared memory; allowed: " +
                            std::to_string(function.max_dynamic_shared) + " dynamic");
  }
}

void launch(Driver& driver, Context& context, Handle handle, const Shape& shape, Handle stream_handle,
            void** parameters, void** extra) {
  const std::shared_ptr<Function> found = function(driver, context, handle);
  const std::shared_ptr<Stream> stream = driver.stream_of(context, stream_handle);
  check_shape(*context.device, *found, shape);
  const auto block = collect(*found, parameters, extra);
  ++driver.counters["launches"];
  driver.submit(*stream,
                {0, [&driver, &context, found, shape, block] {
                   if (!found->module->loaded) {
                     fail(ILLEGAL_ADDRESS, "kernel " + found->info.name + ": its module was unloaded");
                   }
                   const auto dim = [](const unsigned* d) { return simulator::Dim3{d[0], d[1], d[2]}; };
                   driver.machine(*context.device)
                       .launch(found->module->number, found->info.name, dim(shape.grid), dim(shape.block),
                               shape.shared_bytes, block->data(), block->size());
                 }});
}

int launch_kernel(Handle handle, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x,
                  unsigned block_y, unsigned block_z, unsigned shared_bytes, Handle stream, void** parameters,
                  void** extra) {
  return call_in_context("cuLaunchKernel", [&](Driver& driver, Context& context) {
    launch(driver, context, handle, {{grid_x, grid_y, grid_z}, {block_x, block_y, block_z}, shared_bytes},
           stream, parameters, extra);
  });
}

int launch_kernel_ex(const LaunchConfig* config, Handle handle, void** parameters, void** extra) {
  return call_in_context("cuLaunchKernelEx", [&](Driver& driver, Context& context) {
    for (unsigned i = 0; i < config->num_attributes; ++i) {
      const LaunchAttribute& attribute = config->attributes[i];
      if (attribute.id == 4 &&
          uint64_t{attribute.value.cluster.x} * attribute.value.cluster.y * attribute.value.cluster.z != 1) {
        fail(NOT_SUPPORTED, "clusters of blocks are not simulated");
      }
      if (attribute.id == 2 && attribute.value.cooperative) {
        fail(NOT_SUPPORTED, "cooperative launches are not simulated");
      }
    }
    launch(driver, context, handle,
           {{config->grid_x, config->grid_y, config->grid_z},
            {config->block_x, config->block_y, config->block_z},
            config->shared_bytes},
           config->stream, parameters, extra);
  });
}

int tensor_map_encode(void* result, int type, uint32_t rank, DevicePointer address, const uint64_t* sizes,
                      const uint64_t* strides, const uint32_t* box, const uint32_t* element_strides,
                      int interleave, int swizzle, int promotion, int fill) {
  return call("cuTensorMapEncodeTiled", true, [&](Driver&) {
    constexpr int kElementBytes[] = {1, 2, 4, 4, 8, 8, 2, 4, 8, 2, 4, 4, 4};  // by CUtensorMapDataType
    if (type < 0 || type >= static_cast<int>(std::size(kElementBytes))) fail(INVALID_VALUE, "data type");
    if (rank < 1 || rank > 5) fail(INVALID_VALUE, "rank " + std::to_string(rank));
    if (interleave != 0 || swizzle < 0 || swizzle > 3 || promotion < 0 || promotion > 3 || fill != 0) {
      fail(INVALID_VALUE, "interleave, swizzle, promotion or fill that is not simulated");
    }
    if (reinterpret_cast<uintptr_t>(result) % 16) fail(INVALID_VALUE, "the map must be aligned to 16 bytes");
    simulator::TensorMap map;
    map.address = address;
    map.element_bytes = kElementBytes[type];
    map.rank = static_cast<int>(rank);
    for (uint32_t i = 0; i < rank; ++i) {
      map.sizes[i] = sizes[i];
      map.strides[i] = i == 0 ? static_cast<uint64_t>(map.element_bytes) : strides[i - 1];
      map.box[i] = box[i];
      map.element_strides[i] = element_strides[i];
    }
    map.swizzle = swizzle == 0 ? 0 : 16 << swizzle;
    const std::string refusal = simulator::tensor_map_refusal(map);
    if (!refusal.empty()) fail(INVALID_VALUE, refusal);
    simulator::encode_tensor_map(map, static_cast<uint8_t*>(result));
  });
}

}  // namespace

std::vector<Entry> launch_entries() {
  return {
      entry("cuLaunchKernel", 4000, launch_kernel),
      entry("cuLaunchKernelEx", 11060, launch_kernel_ex),
      entry("cuTensorMapEncodeTiled", 12000, tensor_map_encode),
  };
}

}  // namespace simulated_driver
