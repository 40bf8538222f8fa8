"""The simulated driver, through ``cuda.bindings``: does it answer as the documents of the driver API say?"""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import simulated_gpu as gpu
from driver_calls import Gpu, check, device, driver, one, ptx

__all__ = ["one"]  # a fixture


def test_without_simulation_there_is_no_device():
    with gpu.simulated_gpus(devices=0):
        check(driver.cuInit(0), gpu.NO_DEVICE)
        check(driver.cuDeviceGetCount(), gpu.NOT_INITIALIZED)
    with gpu.simulated_gpus(devices=2):
        check(driver.cuDeviceGetCount(), gpu.NOT_INITIALIZED)
        check(driver.cuInit(0))
        assert check(driver.cuDeviceGetCount()) == 2
        check(driver.cuDeviceGet(2), 101)
    check(driver.cuInit(0), gpu.NO_DEVICE)


def test_results_have_the_names_of_the_driver_api():
    gpu.control()
    for result in driver.CUresult:
        status, name = driver.cuGetErrorName(result)
        if int(status) == 0:
            assert name.decode() == result.name
            assert check(driver.cuGetErrorString(result))
    for result in (gpu.OUT_OF_MEMORY, gpu.NO_DEVICE, gpu.ILLEGAL_ADDRESS, gpu.LAUNCH_FAILED, 900, 999):
        check(driver.cuGetErrorName(driver.CUresult(result)))


def test_unknown_entry_points_are_not_found():
    gpu.control()
    with pytest.raises(RuntimeError, match="cuArrayCreate"):
        driver.cuArrayCreate(driver.CUDA_ARRAY_DESCRIPTOR())


def test_devices_describe_themselves():
    names = driver.CUdevice_attribute
    with gpu.simulated_gpus():
        check(driver.cuInit(0))
        assert check(driver.cuDriverGetVersion()) == gpu.DRIVER_VERSION
        uuids = set()
        for ordinal, capability in enumerate(gpu.CAPABILITIES):
            found = check(driver.cuDeviceGet(ordinal))
            assert check(driver.cuDeviceGetName(100, found)).startswith(b"Simulated GPU")
            assert check(driver.cuDeviceTotalMem(found)) == gpu.MEMORY_BYTES
            uuids.add(check(driver.cuDeviceGetUuid(found)).bytes)

            def value(name, found=found):
                return check(driver.cuDeviceGetAttribute(getattr(names, f"CU_DEVICE_ATTRIBUTE_{name}"), found))

            assert (value("COMPUTE_CAPABILITY_MAJOR"), value("COMPUTE_CAPABILITY_MINOR")) == capability
            assert value("WARP_SIZE") == 32
            assert value("MAX_THREADS_PER_BLOCK") == 1024
            assert value("MAX_SHARED_MEMORY_PER_BLOCK") == 48 << 10
            optin = {(9, 0): 227, (8, 0): 163, (7, 5): 64}[capability]
            assert value("MAX_SHARED_MEMORY_PER_BLOCK_OPTIN") == optin << 10
            assert value("TENSOR_MAP_ACCESS_SUPPORTED") == (capability[0] == 9)
        assert len(uuids) == 3


def test_a_context_must_be_current():
    with gpu.simulated_gpus():
        check(driver.cuInit(0))
        check(driver.cuMemAlloc(16), 201)
        context = check(driver.cuDevicePrimaryCtxRetain(1))
        check(driver.cuCtxSetCurrent(context))
        assert int(check(driver.cuCtxGetDevice())) == 1
        assert int(check(driver.cuCtxGetCurrent())) == int(context)
        address = check(driver.cuMemAlloc(16))
        check(driver.cuDevicePrimaryCtxRelease(1))  # the last owner: everything in it goes
        check(driver.cuMemFree(address), 709)
        check(driver.cuCtxSetCurrent(driver.CUcontext(0)))
        assert gpu.control().alive() == {}
        check(driver.cuDevicePrimaryCtxRelease(1), 201)


def test_memory(one):
    values = np.arange(1000, dtype=np.int32)
    address = one.array(values)
    assert (one.read(address, 1000) == values).all()
    other = int(check(driver.cuMemAlloc(4000)))
    check(driver.cuMemcpyDtoD(other, address, 4000))
    check(driver.cuMemsetD8(other, 0xFF, 40))
    check(driver.cuMemsetD32(other + 40, 7, 10))
    assert (one.read(other, 1000) == [*[-1] * 10, *[7] * 10, *values[20:]]).all()
    kinds = driver.CUpointer_attribute
    attributes = {"MEMORY_TYPE": 2, "DEVICE_ORDINAL": 0, "RANGE_START_ADDR": address, "RANGE_SIZE": 4000}
    for name, value in attributes.items():
        assert (
            int(check(driver.cuPointerGetAttribute(getattr(kinds, f"CU_POINTER_ATTRIBUTE_{name}"), address + 8)))
            == value
        )
    free, total = check(driver.cuMemGetInfo())
    assert total - free == 8000
    refused = (
        lambda: driver.cuMemcpyHtoD(address + 8, values.ctypes.data, 4000),
        lambda: driver.cuMemcpyDtoH(values.ctypes.data, values.ctypes.data, 4),
        lambda: driver.cuMemFree(address + 8),
        lambda: driver.cuMemAlloc(0),
        lambda: driver.cuPointerGetAttribute(kinds.CU_POINTER_ATTRIBUTE_MEMORY_TYPE, values.ctypes.data),
    )
    for bad in refused:
        check(bad(), gpu.INVALID_VALUE)
    check(driver.cuMemFree(address))
    check(driver.cuMemFree(other))
    check(driver.cuMemFree(other), gpu.INVALID_VALUE)
    assert one.control.alive() == {"contexts": 1}


def test_memory_runs_out():
    with device(memory_bytes=10_000) as one:
        address = check(driver.cuMemAlloc(8000))
        check(driver.cuMemAlloc(8000), gpu.OUT_OF_MEMORY)
        check(driver.cuMemFree(address))
        check(driver.cuMemAlloc(8000))
        one.control.fault("cuMemAlloc*", gpu.OUT_OF_MEMORY, after=1)
        check(driver.cuMemAlloc(8))
        check(driver.cuMemAlloc(8), gpu.OUT_OF_MEMORY)
        check(driver.cuMemAlloc(8))


def test_uninitialized_memory_is_not_read():
    with device() as one:
        address = check(driver.cuMemAlloc(64))
        check(driver.cuMemsetD8(address, 1, 32))
        one.read(address, 8)
        check(driver.cuMemcpyDtoH(np.zeros(64).ctypes.data, address, 64), gpu.LAUNCH_FAILED)
        assert "nothing has written byte 32" in one.control.messages()


def test_pinned_memory_is_copied_when_the_stream_comes_to_it():
    with device(schedule="late") as one:
        memory = check(driver.cuMemHostAlloc(400, 0))
        pinned = np.ctypeslib.as_array((ctypes.c_int32 * 100).from_address(int(memory)))
        address, stream = int(check(driver.cuMemAlloc(400))), one.stream()
        pinned[:] = 1
        check(driver.cuMemcpyHtoDAsync(address, int(memory), 400, stream))
        pinned[:] = 2  # too early: the copy is still to come
        check(driver.cuStreamSynchronize(stream))
        assert (one.read(address, 100) == 2).all()
        pageable = np.full(100, 3, np.int32)
        check(driver.cuMemcpyHtoDAsync(address, pageable.ctypes.data, 400, stream))
        pageable[:] = 4  # in time: pageable memory was staged
        check(driver.cuMemcpyDtoHAsync(int(memory), address, 400, stream))
        assert (pinned == 2).all()
        check(driver.cuStreamQuery(stream), 600)
        check(driver.cuStreamSynchronize(stream))
        assert (pinned == 3).all()
        kind = driver.CUpointer_attribute.CU_POINTER_ATTRIBUTE_MEMORY_TYPE
        assert int(check(driver.cuPointerGetAttribute(kind, int(memory)))) == 1
        check(driver.cuMemFreeHost(int(memory)))
        check(driver.cuMemFreeHost(int(memory)), gpu.INVALID_VALUE)


def test_launches(one):
    values = np.arange(1000, dtype=np.int32)
    source, result = one.array(values), one.array(np.zeros(1000, np.int32))
    one.launch("add", result, source, np.int32(5), np.int32(1000), grid=4, block=256)
    assert (one.read(result, 1000) == values + 5).all()
    assert one.control.count("executions") >= 1


def test_launch_through_an_extended_configuration_and_a_library(one):
    values = np.arange(64, dtype=np.int32)
    source, result = one.array(values), one.array(np.zeros(64, np.int32))
    library = check(driver.cuLibraryLoadData(ptx(), None, None, 0, None, None, 0))
    kernel = check(driver.cuLibraryGetKernel(library, b"add"))
    config = driver.CUlaunchConfig()
    config.gridDimX, config.gridDimY, config.gridDimZ = 2, 1, 1
    config.blockDimX, config.blockDimY, config.blockDimZ = 32, 1, 1
    arguments = (result, source, 9, 64), (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int, ctypes.c_int)
    check(driver.cuLaunchKernelEx(config, check(driver.cuKernelGetFunction(kernel)), arguments, 0))
    assert (one.read(result, 64) == values + 9).all()
    check(driver.cuLibraryUnload(library))
    check(driver.cuKernelGetFunction(kernel), gpu.INVALID_HANDLE)
    check(driver.cuLibraryGetKernel(library, b"add"), gpu.INVALID_HANDLE)


def test_limits_of_launches():
    attributes = driver.CUfunction_attribute
    with device() as one:
        result = one.array(np.zeros(1024, np.int32))
        for bad in ({"block": 1025}, {"block": 0}, {"grid": 0}, {"shared": (48 << 10) + 1}):
            one.launch("shares", result, expected=gpu.INVALID_VALUE, **bad)
        one.launch("bounded", result, block=65, expected=gpu.LAUNCH_OUT_OF_RESOURCES)
        one.launch("bounded", result, block=64)
        shares, most = one.function("shares"), attributes.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
        check(driver.cuFuncSetAttribute(shares, most, (227 << 10) + 1), gpu.INVALID_VALUE)
        check(driver.cuFuncSetAttribute(shares, most, 227 << 10))
        assert check(driver.cuFuncGetAttribute(most, shares)) == 227 << 10
        one.launch("shares", result, block=1024, shared=227 << 10)
        assert (one.read(result, 1024) == np.arange(1024)[::-1]).all()
        assert check(driver.cuFuncGetAttribute(attributes.CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK, shares)) == 1024
        assert check(driver.cuOccupancyMaxActiveBlocksPerMultiprocessor(shares, 256, 100 << 10)) == 2
        check(driver.cuModuleGetFunction(one.module, b"absent"), 500)


def test_streams_wait_for_events(one):
    first, second = one.stream(), one.stream()
    source, middle, result = (one.array(np.full(32, value, np.int32)) for value in (1, 2, 3))
    event = check(driver.cuEventCreate(0))
    one.launch("add", middle, source, np.int32(10), np.int32(32), stream=first)
    check(driver.cuEventRecord(event, first))
    check(driver.cuStreamWaitEvent(second, event, 0))
    one.launch("add", result, middle, np.int32(100), np.int32(32), stream=second)
    check(driver.cuStreamSynchronize(second))
    check(driver.cuEventQuery(event))
    assert (one.read(result, 32) == 111).all()
    later = check(driver.cuEventCreate(0))
    check(driver.cuEventRecord(later, second))
    check(driver.cuEventSynchronize(later))
    assert check(driver.cuEventElapsedTime(event, later)) >= 0
    check(driver.cuEventDestroy(event))
    check(driver.cuEventQuery(event), gpu.INVALID_HANDLE)
    check(driver.cuStreamDestroy(first))
    check(driver.cuStreamSynchronize(first), gpu.INVALID_HANDLE)


def test_a_missing_wait_shows_with_the_late_schedule():
    """The second stream reads what the first has not written yet."""
    with device(schedule="late") as one:
        first, second = one.stream(), one.stream()
        source, middle, result = (one.array(np.full(32, value, np.int32)) for value in (1, 2, 3))
        one.launch("add", middle, source, np.int32(10), np.int32(32), stream=first)
        one.launch("add", result, middle, np.int32(100), np.int32(32), stream=second)
        check(driver.cuStreamSynchronize(second))
        assert (one.read(result, 32) == 102).all()


def test_blocking_streams_and_the_default_stream_wait_for_each_other():
    with device(schedule="late") as one:
        blocking, free = one.stream(0), one.stream()
        source, result, seen = (one.array(np.zeros(32, np.int32)) for _ in range(3))
        one.launch("add", result, source, np.int32(1), np.int32(32), stream=blocking)
        one.launch("add", result, result, np.int32(2), np.int32(32))
        one.launch("add", result, result, np.int32(3), np.int32(32), stream=blocking)
        check(driver.cuMemcpyDtoDAsync(seen, result, 128, free))
        check(driver.cuStreamSynchronize(free))
        check(driver.cuStreamSynchronize(blocking))
        assert (one.read(result, 32) == 6).all()
        assert (one.read(seen, 32) == 0).all()


@pytest.mark.parametrize(("name", "arguments"), [("out_of_bounds", (np.int32(32),)), ("stops", ())])
@pytest.mark.parametrize("schedule", ["early", "late"])
def test_what_fails_in_a_kernel_breaks_the_context(name, arguments, schedule):
    with device(schedule=schedule) as one:
        memory = one.array(np.zeros(32, np.int32))
        one.launch(name, *((memory, *arguments) if arguments else (np.int32(0),)))  # the launch itself succeeds
        expected = gpu.ILLEGAL_ADDRESS if arguments else gpu.LAUNCH_FAILED
        check(driver.cuCtxSynchronize(), expected)
        assert name in one.control.messages()
        for later in (lambda: driver.cuMemAlloc(16), lambda: driver.cuStreamCreate(0), driver.cuCtxSynchronize):
            check(later(), expected)
        check(driver.cuDevicePrimaryCtxReset(0))
        one.context, one.module = check(driver.cuDevicePrimaryCtxRetain(0)), None
        assert one.array(np.zeros(4, np.int32))
        other = Gpu(1, one.control)
        assert other.array(np.zeros(4, np.int32))
        check(driver.cuCtxPopCurrent())


def test_injected_faults():
    with device() as one:
        memory = one.array(np.zeros(32, np.int32))
        launch = (memory, memory, np.int32(1), np.int32(32))
        one.control.fault("cuLaunchKernel*", gpu.LAUNCH_OUT_OF_RESOURCES, after=1)
        one.launch("add", *launch)
        one.launch("add", *launch, expected=gpu.LAUNCH_OUT_OF_RESOURCES)
        one.launch("add", *launch)  # that error passes
        for result in (gpu.NO_BINARY_FOR_GPU, gpu.UNSUPPORTED_PTX_VERSION):
            one.control.fault("cuModuleLoadData", result)
            check(driver.cuModuleLoadData(ptx()), result)
        one.control.fault("execution", gpu.ECC_UNCORRECTABLE, after=1)
        one.launch("add", *launch)
        one.launch("add", *launch)
        check(driver.cuCtxSynchronize(), gpu.ECC_UNCORRECTABLE)
        check(driver.cuMemFree(memory), gpu.ECC_UNCORRECTABLE)
        one.control.fault("cuNeverCalled", 1)
        assert one.control.forget_faults() == 1


def test_modules_that_the_device_cannot_run():
    with device(2) as one:
        check(driver.cuModuleLoadData(ptx("sm_75")), gpu.NO_BINARY_FOR_GPU)
        check(driver.cuModuleLoadData(ptx("compute_80")), gpu.NO_BINARY_FOR_GPU)
        check(driver.cuModuleLoadData(b"no module\0"), 200)
        check(driver.cuModuleLoadData(ptx()))
        one.control.configure("driver_version", 12080)
        check(driver.cuModuleLoadData(ptx()), gpu.UNSUPPORTED_PTX_VERSION)
    with device(1):
        check(driver.cuModuleLoadData(ptx("compute_80")))
        check(driver.cuModuleLoadData(ptx("compute_90a")), gpu.NO_BINARY_FOR_GPU)


def test_handles_and_memory_of_another_device():
    with device(0) as first:
        memory, function, stream = first.array(np.zeros(32, np.int32)), first.function("add"), first.stream()
        second = Gpu(1, first.control)
        arguments = memory, memory, np.int32(1), np.int32(32)
        second.launch(function, *arguments, expected=gpu.INVALID_HANDLE)
        second.launch("add", *arguments, stream=stream, expected=gpu.INVALID_HANDLE)
        assert (second.read(memory, 32) == 0).all()  # copies know where an address belongs
        second.launch("add", *arguments)
        check(driver.cuCtxSynchronize(), gpu.ILLEGAL_ADDRESS)
        check(driver.cuCtxPopCurrent())
        assert (first.read(memory, 32) == 0).all()


def test_tensor_maps():
    with device() as one:
        address = one.array(np.zeros((64, 64), np.uint8))
        kinds = driver.CUtensorMapDataType, driver.CUtensorMapInterleave, driver.CUtensorMapSwizzle
        fixed = driver.CUtensorMapL2promotion(0), driver.CUtensorMapFloatOOBfill(0)

        def encode(at, box):
            return driver.cuTensorMapEncodeTiled(
                kinds[0](0), 2, at, [driver.cuuint64_t(64)] * 2, [driver.cuuint64_t(64)],
                [driver.cuuint32_t(box)] * 2, [driver.cuuint32_t(1)] * 2, kinds[1](0), kinds[2](3), *fixed
            )  # fmt: skip

        assert any(ctypes.string_at(check(encode(address, 64)).getPtr(), 128))
        check(encode(address + 8, 64), gpu.INVALID_VALUE)
        check(encode(address, 257), gpu.INVALID_VALUE)


def test_threads_have_their_own_current_context():
    with device(0) as one:
        failures = []

        def work(ordinal):
            try:
                mine = Gpu(ordinal, one.control)
                values = np.arange(256, dtype=np.int32)
                memory, stream = mine.array(values), mine.stream()
                for _ in range(5):
                    mine.launch("add", memory, memory, np.int32(1), np.int32(256), block=256, stream=stream)
                check(driver.cuStreamSynchronize(stream))
                assert (mine.read(memory, 256) == values + 5).all()
                check(driver.cuMemFree(memory))
                check(driver.cuCtxPopCurrent())
            except BaseException as error:
                failures.append(error)

        threads = [threading.Thread(target=work, args=(i % 3,)) for i in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not failures


CHILD = """
import os, sys
sys.path[:0] = {path!r}
import simulated_gpu as gpu
from cuda.bindings import driver
with gpu.simulated_gpus():
    assert int(driver.cuInit(0)[0]) == 0
    driver.cuCtxPushCurrent(driver.cuDevicePrimaryCtxRetain(0)[1])
    address = driver.cuMemAlloc(100)[1]
    child = os.fork()
    if child == 0:
        os._exit(int(driver.cuMemFree(address)[0]))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == gpu.NOT_INITIALIZED
    os.environ["ALIVE"] = "1"
    sys.exit(7)
"""


def test_fork_and_exit():
    """A forked child has no driver; a process may end with things alive."""
    gpu.control()
    here = Path(__file__).parent
    program = CHILD.format(path=[str(here), str(here.parent / "native")])
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, env={**os.environ}
    )
    assert (done.returncode, done.stderr) == (7, "")
