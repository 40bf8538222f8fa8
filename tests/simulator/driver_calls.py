"""Calls of the simulated driver through ``cuda.bindings``, in short forms that its tests share."""

from __future__ import annotations

from contextlib import contextmanager
from functools import cache

import numpy as np
import pytest
import simulated_gpu as gpu

driver = pytest.importorskip("cuda.bindings.driver", reason="needs cuda-bindings: pip install '.[cuda]'")
nvrtc = pytest.importorskip("cuda.bindings.nvrtc", reason="needs cuda-bindings: pip install '.[cuda]'")

SCHEDULES = ("early", "late", 1, 2)
NON_BLOCKING = driver.CUstream_flags.CU_STREAM_NON_BLOCKING
RELAXED = driver.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_RELAXED
THREAD_LOCAL = driver.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
GLOBAL = driver.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_GLOBAL
KERNELS = """
extern "C" __global__ void add(int* out, const int* in, int value, int n) {
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n) out[i] = in[i] + value;
}
extern "C" __global__ void out_of_bounds(int* out, int n) { out[n + threadIdx.x] = 1; }
extern "C" __global__ void stops(int) { asm volatile("trap;"); }
extern "C" __global__ void shares(int* out) {
  extern __shared__ int words[];
  words[threadIdx.x] = threadIdx.x;
  __syncthreads();
  out[threadIdx.x] = words[blockDim.x - 1 - threadIdx.x];
}
extern "C" __global__ void __launch_bounds__(64) bounded(int* out) { out[threadIdx.x] = 1; }
"""


def check(answer, expected=gpu.SUCCESS):
    """The values of an answer, whose status must be the expected one."""
    status, *values = answer
    assert int(status) == expected, (status, gpu.control().log()[-3:], gpu.control().messages())
    return values[0] if len(values) == 1 else tuple(values)


@cache
def ptx(architecture="compute_75", source=KERNELS):
    program = check(nvrtc.nvrtcCreateProgram(source.encode(), b"kernels.cu", 0, [], []))
    check(nvrtc.nvrtcCompileProgram(program, 1, [f"--gpu-architecture={architecture}".encode()]))
    get, size = (nvrtc.nvrtcGetPTX, nvrtc.nvrtcGetPTXSize)
    if architecture.startswith("sm_"):
        get, size = (nvrtc.nvrtcGetCUBIN, nvrtc.nvrtcGetCUBINSize)
    text = bytearray(check(size(program)))
    check(get(program, text))
    check(nvrtc.nvrtcDestroyProgram(program))
    return bytes(text)


class Gpu:
    """One device with its primary context current, and short forms of the calls that most tests make."""

    def __init__(self, ordinal, control):
        self.ordinal, self.control = ordinal, control
        self.context = check(driver.cuDevicePrimaryCtxRetain(ordinal))
        check(driver.cuCtxPushCurrent(self.context))
        self.module = None

    def function(self, name):
        if self.module is None:
            self.module = check(driver.cuModuleLoadData(ptx()))
        return check(driver.cuModuleGetFunction(self.module, name.encode()))

    def array(self, values):
        values = np.ascontiguousarray(values)
        address = check(driver.cuMemAlloc(values.nbytes))
        check(driver.cuMemcpyHtoD(address, values.ctypes.data, values.nbytes))
        check(driver.cuCtxSynchronize())
        return int(address)

    def read(self, address, shape, dtype=np.int32):
        result = np.zeros(shape, dtype)
        check(driver.cuMemcpyDtoH(result.ctypes.data, address, result.nbytes))
        return result

    def stream(self, flags=NON_BLOCKING):
        return check(driver.cuStreamCreate(flags))

    def launch(self, name, *arguments, stream=0, grid=1, block=32, shared=0, expected=gpu.SUCCESS):
        """Arguments: int for an address, numpy scalars for values."""
        values = [np.array(each, np.uint64 if isinstance(each, int) else None) for each in arguments]
        pointers = np.array([each.ctypes.data for each in values], np.uint64)
        function = name if not isinstance(name, str) else self.function(name)
        answer = driver.cuLaunchKernel(function, grid, 1, 1, block, 1, 1, shared, stream, pointers.ctypes.data, 0)
        for each in values:
            each[...] = 0  # the call has copied what it needs
        check(answer, expected)


@contextmanager
def device(ordinal=0, **settings):
    with gpu.simulated_gpus(**settings) as control:
        check(driver.cuInit(0))
        found = Gpu(ordinal, control)
        try:
            yield found
        finally:
            check(driver.cuCtxPopCurrent())


@pytest.fixture(params=SCHEDULES)
def one(request):
    with device(schedule=request.param) as found:
        yield found
