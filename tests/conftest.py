"""What all tests share: everything random repeats exactly, whatever ran before and on how many processes."""

import ctypes
import functools
import os
import sys
import zlib
from contextlib import contextmanager, suppress

import pytest
from hypothesis import settings

settings.register_profile("binarynet", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("binarynet")


@functools.cache
def number_of_gpus():
    """GPUs that NVIDIA's driver shows. Asked for while tests are collected, before any of them simulates a driver."""
    with suppress(OSError):
        driver, count = ctypes.CDLL("libcuda.so.1"), ctypes.c_int()
        if driver.cuInit(0) == 0 and driver.cuDeviceGetCount(ctypes.byref(count)) == 0:
            return count.value
    return 0


@functools.cache
def no_gpu(torch):
    """Why tests marked `gpu` cannot run; empty where they can."""
    if not number_of_gpus():
        return "no NVIDIA GPU, or no driver"
    if torch:
        import torch as library

        return "" if library.cuda.is_available() else "this torch cannot use the GPU"
    return ""


def pytest_collection_modifyitems(items):
    for item in items:
        marker = item.get_closest_marker("gpu")
        if marker and (why_not := no_gpu(marker.kwargs.get("torch", False))):
            item.add_marker(pytest.mark.skip(reason=why_not))


@pytest.fixture(autouse=True)
def _seeded(request):
    """torch's global generator starts from the test's name (initial weights are drawn from it)."""
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(zlib.crc32(request.node.nodeid.encode()))


@pytest.fixture
def not_root():
    """A context in which this process has no privileges, so that permissions count in a root container, too."""

    @contextmanager
    def unprivileged():
        if os.geteuid() != 0:
            yield
            return
        os.seteuid(65534)  # nobody
        try:
            yield
        finally:
            os.seteuid(0)

    return unprivileged
