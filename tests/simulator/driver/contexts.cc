// Primary contexts and which one is current.
#include "state.h"

namespace simulated_driver {

namespace {

int primary_retain(Handle* result, int ordinal) {
  return call("cuDevicePrimaryCtxRetain", true, [&](Driver& driver) {
    Context& context = driver.device(ordinal).context;
    driver.check(context);
    context.active = true;
    ++context.references;
    *result = context.handle;
  });
}

int primary_release(int ordinal) {
  return call("cuDevicePrimaryCtxRelease", true, [&](Driver& driver) {
    Context& context = driver.device(ordinal).context;
    if (context.references == 0) fail(INVALID_CONTEXT, "released more often than retained");
    if (--context.references == 0) driver.close(context);
  });
}

int primary_reset(int ordinal) {
  return call("cuDevicePrimaryCtxReset", true,
              [&](Driver& driver) { driver.close(driver.device(ordinal).context); });
}

int primary_set_flags(int ordinal, unsigned flags) {
  return call("cuDevicePrimaryCtxSetFlags", true,
              [&](Driver& driver) { driver.device(ordinal).context.flags = flags; });
}

int primary_get_state(int ordinal, unsigned* flags, int* active) {
  return call("cuDevicePrimaryCtxGetState", true, [&](Driver& driver) {
    const Context& context = driver.device(ordinal).context;
    *flags = context.flags;
    *active = context.active;
  });
}

int set_current(Handle handle) {
  return call("cuCtxSetCurrent", true, [&](Driver& driver) {
    if (handle != 0 && !driver.context(handle)) fail(INVALID_CONTEXT, "no such context");
    std::vector<Handle>& stack = driver.context_stack();
    if (!stack.empty()) stack.pop_back();
    if (handle != 0) stack.push_back(handle);
  });
}

int get_current(Handle* handle) {
  return call("cuCtxGetCurrent", true, [&](Driver& driver) {
    const std::vector<Handle>& stack = driver.context_stack();
    *handle = stack.empty() ? 0 : stack.back();
  });
}

int push_current(Handle handle) {
  return call("cuCtxPushCurrent", true, [&](Driver& driver) {
    if (!driver.context(handle)) fail(INVALID_CONTEXT, "no such context");
    driver.context_stack().push_back(handle);
  });
}

int pop_current(Handle* handle) {
  return call("cuCtxPopCurrent", true, [&](Driver& driver) {
    std::vector<Handle>& stack = driver.context_stack();
    if (stack.empty()) fail(INVALID_CONTEXT, "no context to pop");
    if (handle) *handle = stack.back();
    stack.pop_back();
  });
}

int get_device(int* ordinal) {
  return call("cuCtxGetDevice", true, [&](Driver& driver) { *ordinal = driver.current().device->ordinal; });
}

int get_device_of(int* ordinal, Handle handle) {
  return call("cuCtxGetDevice", true, [&](Driver& driver) {
    if (handle == 0) {
      *ordinal = driver.current().device->ordinal;
      return;
    }
    const Context* context = driver.context(handle);
    if (!context) fail(INVALID_CONTEXT, "no such context");
    *ordinal = context->device->ordinal;
  });
}

void synchronize_context(Driver& driver, Context& context) {
  driver.refuse_while_capturing("cuCtxSynchronize");
  driver.run(context);
  driver.check(context);
}

int synchronize() { return call_in_context("cuCtxSynchronize", synchronize_context); }

int synchronize_this(Handle handle) {
  return call("cuCtxSynchronize", true, [&](Driver& driver) {
    Context* context = handle == 0 ? &driver.current() : driver.context(handle);
    if (!context || !context->active) fail(INVALID_CONTEXT, "no such context");
    driver.check(*context);
    synchronize_context(driver, *context);
  });
}

int get_flags(unsigned* flags) {
  return call_in_context("cuCtxGetFlags", [&](Driver&, Context& context) { *flags = context.flags; });
}

int get_id(Handle handle, unsigned long long* id) {
  return call("cuCtxGetId", true, [&](Driver& driver) {
    const Context* context = handle == 0 ? &driver.current() : driver.context(handle);
    if (!context) fail(INVALID_CONTEXT, "no such context");
    *id = context->handle;
  });
}

int get_api_version(Handle, unsigned* version) {
  return call("cuCtxGetApiVersion", true, [&](Driver&) { *version = 3020; });
}

int get_priority_range(int* least, int* greatest) {
  return call_in_context("cuCtxGetStreamPriorityRange", [&](Driver&, Context&) {
    if (least) *least = 0;
    if (greatest) *greatest = -5;
  });
}

}  // namespace

std::vector<Entry> context_entries() {
  return {
      entry("cuDevicePrimaryCtxRetain", 7000, primary_retain),
      entry("cuDevicePrimaryCtxRelease", 11000, primary_release),
      entry("cuDevicePrimaryCtxReset", 11000, primary_reset),
      entry("cuDevicePrimaryCtxSetFlags", 11000, primary_set_flags),
      entry("cuDevicePrimaryCtxGetState", 7000, primary_get_state),
      entry("cuCtxSetCurrent", 4000, set_current),
      entry("cuCtxGetCurrent", 4000, get_current),
      entry("cuCtxPushCurrent", 4000, push_current),
      entry("cuCtxPopCurrent", 4000, pop_current),
      entry("cuCtxGetDevice", 2000, get_device),
      entry("cuCtxGetDevice", 13000, get_device_of),
      entry("cuCtxSynchronize", 2000, synchronize),
      entry("cuCtxSynchronize", 13000, synchronize_this),
      entry("cuCtxGetFlags", 7000, get_flags),
      entry("cuCtxGetId", 12000, get_id),
      entry("cuCtxGetApiVersion", 3020, get_api_version),
      entry("cuCtxGetStreamPriorityRange", 5050, get_priority_range),
  };
}

}  // namespace simulated_driver
