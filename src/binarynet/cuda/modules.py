"""Kernels on a device: loaded once, their arguments packed once, started any number of times."""

from __future__ import annotations

import ctypes
import threading
from typing import TYPE_CHECKING, Any

import numpy as np

from binarynet.cuda import cache
from binarynet.cuda.blocks import Launch, TensorMap
from binarynet.cuda.compiler import Code, Defines
from binarynet.cuda.driver import check, described, failure

if TYPE_CHECKING:
    from binarynet.cuda.device import Device

CODE: Code = "cubin"
"""What is compiled and loaded."""
_REFUSED = frozenset(
    {
        "CUDA_ERROR_INVALID_IMAGE",
        "CUDA_ERROR_NO_BINARY_FOR_GPU",
        "CUDA_ERROR_INVALID_PTX",
        "CUDA_ERROR_UNSUPPORTED_PTX_VERSION",
        "CUDA_ERROR_INVALID_SOURCE",
    }
)
"""The image is at fault: one from the cache is worth compiling again."""
_FREE_SHARED_BYTES = 48 << 10
"""Dynamic shared memory that a kernel gets without asking for more (CUDA C++ programming guide, shared memory)."""
_TENSOR_MAP_BYTES, _TENSOR_MAP_ALIGNMENT = 128, 64


class Kernel:
    """One loaded kernel; its module stays loaded as long as the process."""

    def __init__(self, device: Device, function: Any, name: str) -> None:
        self.device, self.function, self.name = device, function, name
        self._shared_bytes = _FREE_SHARED_BYTES
        self._lock = threading.Lock()

    def allow_shared(self, nbytes: int) -> None:
        """Let its blocks have so much dynamic shared memory; DeviceError where the GPU has not as much."""
        if nbytes <= self._shared_bytes:
            return
        d = self.device._driver
        with self._lock, self.device:
            if nbytes > self._shared_bytes:
                check(
                    d.cuFuncSetAttribute(
                        self.function, d.CUfunction_attribute.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, nbytes
                    ),
                    f"give {self.name} {nbytes:,} bytes of shared memory per block on {self.device}",
                )
                self._shared_bytes = nbytes


class PreparedLaunch:
    """A launch with its kernel found and its arguments packed.

    Attributes:
        launch: what it starts.
    """

    __slots__ = ("_arguments", "_call", "_function", "_pointers", "_shape", "kernel", "launch")

    def __init__(self, kernel: Kernel, launch: Launch) -> None:
        self.kernel, self.launch = kernel, launch
        kernel.allow_shared(launch.shared_bytes)
        self._call = kernel.device._driver.cuLaunchKernel
        self._function = kernel.function
        self._shape = (*launch.grid, launch.threads, 1, 1, launch.shared_bytes)
        self._arguments = _packed(kernel.device, launch)
        self._pointers = self._arguments[1].ctypes.data if launch.arguments else 0

    def start(self, stream: int) -> None:
        """Start it on a stream of the current context; returns before it has run.

        Raises:
            DeviceError: the driver refuses it, or something failed on the GPU before.
        """
        status = self._call(self._function, *self._shape, stream, self._pointers, 0)[0]
        if status != 0:
            launch = self.launch
            raise failure(
                status,
                f"start the kernel {self.kernel.name} (grid {' x '.join(map(str, launch.grid))}, {launch.threads} "
                f"threads, {launch.shared_bytes:,} bytes of shared memory) on {self.kernel.device}",
            )


class Modules:
    """The loaded kernels of one device."""

    def __init__(self, device: Device) -> None:
        self._device = device
        self._kernels: dict[tuple[str, str, Defines], Kernel] = {}
        self._modules: dict[tuple[str, Defines], Any] = {}
        self._lock = threading.Lock()

    def kernel(self, launch: Launch) -> Kernel:
        """See :meth:`Device.kernel`. Whoever comes while another thread compiles waits for it."""
        key = (launch.source, launch.kernel, launch.defines)
        found = self._kernels.get(key)
        if found is None:
            with self._lock:
                found = self._kernels.get(key)
                if found is None:
                    found = self._kernels[key] = self._loaded(launch)
        return found

    def _loaded(self, launch: Launch) -> Kernel:
        key = (launch.source, launch.defines)
        with self._device as device:
            if key not in self._modules:
                self._modules[key] = self._module(launch.source, launch.defines)
            function = check(
                device._driver.cuModuleGetFunction(self._modules[key], launch.kernel.encode()),
                f"find the kernel {launch.kernel!r} in {launch.source}",
            )
        return Kernel(device, function, f"{launch.kernel!r} of {launch.source}")

    def _module(self, source: str, defines: Defines) -> Any:
        load = self._device._driver.cuModuleLoadData
        architecture = self._device.architecture
        image, kept = cache.compiled(source, architecture, defines, CODE)
        status, module = load(image + b"\0")
        if kept and status != 0 and described(status)[0] in _REFUSED:
            image, _ = cache.compiled(source, architecture, defines, CODE, anew=True)
            status, module = load(image + b"\0")
        return check(
            (status, module), f"load the kernels of {source}, compiled for sm_{architecture}, on {self._device}"
        )


def _packed(device: Device, launch: Launch) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Arguments one behind the other, each aligned to its size, and where each one lies."""
    values = [
        _encoded(device, each, launch) if isinstance(each, TensorMap) else each.tobytes() for each in launch.arguments
    ]
    places, size = [], 0
    for value in values:
        alignment = min(len(value), _TENSOR_MAP_ALIGNMENT)
        size = -(-size // alignment) * alignment
        places.append(size)
        size += len(value)
    buffer = np.zeros(size + _TENSOR_MAP_ALIGNMENT, np.uint8)
    start = -buffer.ctypes.data % _TENSOR_MAP_ALIGNMENT
    for place, value in zip(places, values, strict=True):
        buffer[start + place : start + place + len(value)] = np.frombuffer(value, np.uint8)
    return buffer, np.array([buffer.ctypes.data + start + place for place in places], np.uint64)


def _encoded(device: Device, given: TensorMap, launch: Launch) -> bytes:
    """The 128 bytes that the bulk tensor copy engine reads (CUDA driver API, tensor map object)."""
    d = device._driver
    kinds = {
        1: d.CUtensorMapDataType.CU_TENSOR_MAP_DATA_TYPE_UINT8,
        4: d.CUtensorMapDataType.CU_TENSOR_MAP_DATA_TYPE_UINT32,
    }
    swizzles = {
        0: d.CUtensorMapSwizzle.CU_TENSOR_MAP_SWIZZLE_NONE,
        32: d.CUtensorMapSwizzle.CU_TENSOR_MAP_SWIZZLE_32B,
        64: d.CUtensorMapSwizzle.CU_TENSOR_MAP_SWIZZLE_64B,
        128: d.CUtensorMapSwizzle.CU_TENSOR_MAP_SWIZZLE_128B,
    }
    rank = len(given.sizes)
    with device:
        encoded = check(
            d.cuTensorMapEncodeTiled(
                kinds[given.element_bytes],
                rank,
                given.address,
                [d.cuuint64_t(size) for size in given.sizes],
                [d.cuuint64_t(stride) for stride in given.strides],
                [d.cuuint32_t(size) for size in given.box],
                [d.cuuint32_t(1)] * rank,
                d.CUtensorMapInterleave.CU_TENSOR_MAP_INTERLEAVE_NONE,
                swizzles[given.swizzle],
                d.CUtensorMapL2promotion.CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
                d.CUtensorMapFloatOOBfill.CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE,
            ),
            f"describe {given} of the kernel {launch.kernel!r} to {device}",
        )
    return ctypes.string_at(encoded.getPtr(), _TENSOR_MAP_BYTES)
