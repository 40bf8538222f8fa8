"""GPUs: which there are, why one cannot be used, and the handle through which everything on one is done.

A :class:`Device` works in the GPU's primary context, which it shares with torch, CuPy and JAX; it is made when it is
first needed, and made current for the length of a call only. Any number of threads may use a device.
"""

from __future__ import annotations

import functools
import re
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NoReturn

from binarynet.cuda import compiler, driver
from binarynet.cuda.blocks import Capability, Launch
from binarynet.cuda.driver import check
from binarynet.cuda.memory import Memory, PinnedMemory, in_bytes
from binarynet.cuda.modules import Kernel, Modules, PreparedLaunch
from binarynet.cuda.streams import DEFAULT_STREAM
from binarynet.errors import BackendUnavailableError, DeviceError, UsageError

LEAST: Capability = (7, 5)
"""Least compute capability: Turing; NVRTC 13 compiles for no older one."""
_NAME = re.compile(r"cuda(?::(\d{1,9}))?")


class Device:
    """One GPU, as this process sees it. Get it from :func:`device` or :func:`devices`.

    ``with device:`` makes its context current; whatever was current before is so again afterwards.

    Attributes:
        ordinal: its number in this process (see CUDA_VISIBLE_DEVICES).
        name: product name.
        capability: compute capability.
        multiprocessors: number of streaming multiprocessors.
        total_memory: bytes.
    """

    def __init__(self, ordinal: int) -> None:
        d = driver.binding()
        self.ordinal = ordinal
        self._driver = d
        self._handle = check(d.cuDeviceGet(ordinal), f"open the GPU {ordinal}")
        attribute = d.CUdevice_attribute
        self.name = str(
            check(d.cuDeviceGetName(128, self._handle), "ask a GPU for its name")
            .split(b"\0")[0]
            .decode(errors="replace")
        )
        self.capability = (
            self._attribute(attribute.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR),
            self._attribute(attribute.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR),
        )
        self.multiprocessors = self._attribute(attribute.CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)
        self.total_memory = int(check(d.cuDeviceTotalMem(self._handle), "ask a GPU for its memory"))
        self._context: Any = None
        self._lock = threading.Lock()
        self._modules = Modules(self)

    def __str__(self) -> str:
        return f"cuda:{self.ordinal}"

    def __repr__(self) -> str:
        major, minor = self.capability
        return f"<binarynet.cuda.Device {self}: {self.name}, capability {major}.{minor}>"

    @property
    def architecture(self) -> str:
        """What kernels are compiled for: "80"; "90a" where there are features of one architecture alone."""
        major, minor = self.capability
        return f"{major}{minor}" + ("a" if self.capability == (9, 0) else "")

    @property
    def clock_ghz(self) -> float:
        """Highest clock of its multiprocessors, as the driver gives it."""
        return self._attribute(self._driver.CUdevice_attribute.CU_DEVICE_ATTRIBUTE_CLOCK_RATE) / 1e6

    @property
    def why_not(self) -> str:
        """Empty where kernels can run on it."""
        major, minor = self.capability
        if self.capability < LEAST:
            return (
                f"{self} ({self.name}) has compute capability {major}.{minor}; needed is {LEAST[0]}.{LEAST[1]} or more "
                "(Turing, 2018)"
            )
        try:
            known = compiler.architectures()
        except BackendUnavailableError as error:
            return str(error)
        if int(f"{major}{minor}") not in known:
            return (
                f"{self} ({self.name}) has compute capability {major}.{minor}, for which the installed NVRTC "
                f"{compiler.version()} cannot compile (it knows {', '.join(map(str, known))}); install a newer one: "
                "pip install --upgrade nvidia-cuda-nvrtc"
            )
        return ""

    def __enter__(self) -> Device:
        status = self._driver.cuCtxPushCurrent(self._primary())[0]
        if status != 0:
            raise driver.failure(status, f"use {self}")
        return self

    def __exit__(self, *error: object) -> None:
        self._driver.cuCtxPopCurrent()

    def release(self, function: str, handle: Any, _finalizing: Callable[[], bool] = sys.is_finalizing) -> None:
        """Give something back to the driver, from ``__del__``. What fails here failed before, and is told elsewhere;
        the end of the process gives back what is left."""
        if not _finalizing():  # sys itself may be gone by then
            with suppress(DeviceError), self:
                getattr(self._driver, function)(handle)

    def free_memory(self) -> int:
        """Bytes that are free now."""
        with self:
            return int(check(self._driver.cuMemGetInfo(), f"ask {self} for its free memory")[0])

    def allocate(self, nbytes: int, what: str) -> Memory:
        """Memory of the GPU, freed with the object.

        Args:
            nbytes: how much; 0 gives the address 0.
            what: what it is for, in words, for the error.

        Raises:
            DeviceError: it does not suffice; says how much was asked for, and how much there is.
        """
        if nbytes == 0:
            return Memory(self, 0, 0)
        with self:
            status, address = self._driver.cuMemAlloc(nbytes)
            if driver.is_memory_error(status):
                self._no_memory(nbytes, what)
            check((status,), f"allocate {in_bytes(nbytes)} on {self} for {what}")
        return Memory(self, int(address), nbytes)

    def pinned(self, nbytes: int, what: str) -> PinnedMemory:
        """Memory of the host that the GPU copies from and to by itself; arguments and errors as :meth:`allocate`."""
        with self:
            status, address = self._driver.cuMemHostAlloc(max(nbytes, 1), 0)
            if driver.is_memory_error(status):
                raise DeviceError(
                    f"could not lock {in_bytes(nbytes)} of the host's memory for {what}: "
                    f"{driver.described(status)[0]}; run fewer images at a time, or allow more locked memory "
                    "(ulimit -l, the container's memory limit)"
                )
            check((status,), f"lock {in_bytes(nbytes)} of the host's memory for {what}")
        return PinnedMemory(self, int(address), nbytes)

    def upload(self, array: Any, what: str) -> Memory:
        """A copy of a contiguous NumPy array in the GPU's memory; errors as :meth:`allocate`."""
        memory = self.allocate(array.nbytes, what)
        self.copy_to_device(memory.address, array, what)
        return memory

    def copy_to_device(self, address: int, array: Any, what: str) -> None:
        """Fill memory of the GPU from a contiguous NumPy array; done when it returns, for all streams."""
        if array.nbytes:
            attempt = f"copy {what} to {self}"
            with self:
                check(self._driver.cuMemcpyHtoD(address, array.ctypes.data, array.nbytes), attempt)
                # that returns when the array was read; streams of our own do not wait for the rest
                check(self._driver.cuStreamSynchronize(DEFAULT_STREAM), attempt)

    def copy_to_host(self, array: Any, address: int, what: str) -> None:
        """Fill a contiguous, writable NumPy array from the GPU, after all that was started on the default stream."""
        if array.nbytes:
            with self:
                check(self._driver.cuMemcpyDtoH(array.ctypes.data, address, array.nbytes), f"copy {what} from {self}")

    def kernel(self, launch: Launch) -> Kernel:
        """The kernel of a launch, compiled (or found in the cache) and loaded when it is first asked for.

        Raises:
            BackendUnavailableError: it cannot be compiled.
            DeviceError: it cannot be loaded.
        """
        return self._modules.kernel(launch)

    def prepare(self, launch: Launch) -> PreparedLaunch:
        """A launch that can be started any number of times; errors as :meth:`kernel`, and

        Raises:
            DeviceError: the GPU cannot run it: too much shared memory, a tensor map that is refused.
        """
        return PreparedLaunch(self._modules.kernel(launch), launch)

    def launch(self, launch: Launch, stream: int) -> None:
        """Start one kernel on a stream; returns before it has run. Errors as :meth:`prepare`."""
        prepared = self.prepare(launch)
        with self:
            prepared.start(stream)

    def _attribute(self, which: Any) -> int:
        return int(check(self._driver.cuDeviceGetAttribute(which, self._handle), "ask a GPU what it can do"))

    def _primary(self) -> Any:
        if self._context is None:
            with self._lock:
                if self._context is None:
                    self._context = check(
                        self._driver.cuDevicePrimaryCtxRetain(self._handle), f"make a context on {self} ({self.name})"
                    )
        return self._context

    def _no_memory(self, nbytes: int, what: str) -> NoReturn:
        free, total = check(self._driver.cuMemGetInfo(), f"ask {self} for its free memory")
        raise DeviceError(
            f"{self} ({self.name}) is out of memory: asked for {in_bytes(nbytes)} for {what}, {in_bytes(free)} are "
            f"free of {in_bytes(total)}; run fewer images at a time, drop results that are no longer needed, or end "
            "other programs that use the GPU (nvidia-smi shows them)"
        )


def devices() -> tuple[Device, ...]:
    """All GPUs that this process sees, usable or not; none where there is no driver."""
    return () if driver.why_not() else _all()


def device(ordinal: int) -> Device:
    """The GPU of this number.

    Raises:
        BackendUnavailableError: there is no such GPU, or it cannot be used; says why, and what to do.
    """
    found, reason = find(f"cuda:{ordinal}")
    if found is None:
        raise BackendUnavailableError(f"cuda:{ordinal} cannot be used here: {reason}")
    return found


def find(name: str) -> tuple[Device, str] | tuple[None, str]:
    """A GPU by its name, "cuda" or "cuda:1", or why it cannot be used, and what to do.

    Raises:
        UsageError: no GPU is ever called so.
    """
    number = ordinal(name)
    if number is None:
        raise UsageError('expected "cuda" or "cuda:N", got "cpu"')
    if reason := driver.why_not():
        return None, reason
    found = _all()
    if number >= len(found):
        there = ", ".join(f"{each} ({each.name})" for each in found)
        return None, f"there is no GPU of this number; there {'is' if len(found) == 1 else 'are'}: {there}"
    reason = found[number].why_not
    return (None, reason) if reason else (found[number], "")


def ordinal(name: str) -> int | None:
    """Number of the GPU that "cuda" (the first) or "cuda:1" means; None for "cpu".

    Raises:
        UsageError: no device is called so.
    """
    if name == "cpu":
        return None
    match = _NAME.fullmatch(name) if isinstance(name, str) else None
    if match is None:
        raise UsageError(f'unknown device {name!r}; expected "cpu", "cuda" or "cuda:N", N the number of a GPU')
    return int(match[1] or 0)


@functools.cache
def _all() -> tuple[Device, ...]:
    d = driver.binding()
    return tuple(Device(i) for i in range(check(d.cuDeviceGetCount(), "count the GPUs")))
