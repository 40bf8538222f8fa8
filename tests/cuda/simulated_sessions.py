"""The whole product on simulated GPUs: sessions and errors through the real bindings, kernels as PTX from NVRTC."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import numpy as np
from native_build import REPOSITORY
from simulated_gpu import Control, simulated_gpus

from binarynet.cuda import cache, device, driver, modules


@contextmanager
def simulated_product(**settings: Any) -> Iterator[Control]:
    """Simulated GPUs (see :func:`simulated_gpus`) that binarynet finds as if the process had just begun.

    Kernels are loaded as PTX, which is all that a simulated GPU can run, and kept in the build directory.
    """
    kernels = {cache.CACHE_VARIABLE: str(REPOSITORY / "build" / "simulator" / "kernels")}
    with (
        simulated_gpus(**settings) as control,
        mock.patch.object(modules, "CODE", "ptx"),
        mock.patch.dict("os.environ", kernels),
    ):
        forget()
        try:
            yield control
        finally:
            forget()
            gc.collect()


def forget() -> None:
    """binarynet as it is before a GPU was looked for."""
    driver._initialized_in = None
    device._all.cache_clear()


class GpuArray:
    """Somebody else's array: memory of a device, shown by ``__cuda_array_interface__`` alone.

    Args:
        values: copied to the device.
        ordinal: which device.
        stream: what the interface says: None, 1, 2 or a handle.
        changes: entries of the interface that are other than they should be.
    """

    def __init__(self, values: Any, ordinal: int = 0, stream: int | None = None, **changes: Any) -> None:
        from cuda.bindings import driver as d

        values = np.ascontiguousarray(values)
        d.cuInit(0)
        self._driver, self._context = d, d.cuDevicePrimaryCtxRetain(ordinal)[1]
        d.cuCtxPushCurrent(self._context)
        status, address = d.cuMemAlloc(max(values.nbytes, 1))
        assert int(status) == 0, status
        self.address, self.nbytes = int(address), values.nbytes
        assert int(d.cuMemcpyHtoD(self.address, values.ctypes.data, max(values.nbytes, 1))[0]) == 0
        assert int(d.cuCtxSynchronize()[0]) == 0
        d.cuCtxPopCurrent()
        self.shape, self.dtype = values.shape, values.dtype
        self.__cuda_array_interface__ = {
            "shape": values.shape,
            "typestr": values.dtype.str,
            "data": (self.address, False),
            "strides": None,
            "version": 3,
            "stream": stream,
            **changes,
        }

    def numpy(self) -> np.ndarray[Any, Any]:
        result = np.empty(self.shape, self.dtype)
        self._driver.cuCtxPushCurrent(self._context)
        assert int(self._driver.cuMemcpyDtoH(result.ctypes.data, self.address, self.nbytes)[0]) == 0
        self._driver.cuCtxPopCurrent()
        return result

    def free(self) -> None:
        self._driver.cuCtxPushCurrent(self._context)
        self._driver.cuMemFree(self.address)
        self._driver.cuCtxPopCurrent()
