"""Simulated GPUs behind the real bindings: a libcuda.so.1 whose kernels are run by the simulator (README.md).

The library is loaded once per process, before ``cuda.bindings`` looks for a driver, and stays. Outside of
:func:`simulated_gpus` it has no devices: initializing it answers CUDA_ERROR_NO_DEVICE. Where a real driver is
installed, tests are skipped: neither may take the other's place. BINARYNET_SIMULATED_GPU=1 has the simulation there
too.
"""

from __future__ import annotations

import ctypes
import gc
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import pytest
from machine import shared_library

HERE = Path(__file__).parent
VARIABLE = "BINARYNET_SIMULATED_GPU"
CAPABILITIES = ((9, 0), (8, 0), (7, 5))
"""Of the devices, in their order."""
MEMORY_BYTES = 1 << 30
"""Of each device, unless a test asks for another size."""
DRIVER_VERSION = 13050
ALIVE = ("allocations", "bytes", "host", "streams", "events", "modules", "graphs", "captures", "contexts")
_SCHEDULES = {"early": -1, "late": -2}

SUCCESS = 0
INVALID_VALUE = 1
OUT_OF_MEMORY = 2
NOT_INITIALIZED = 3
NO_DEVICE = 100
NO_BINARY_FOR_GPU = 209
ECC_UNCORRECTABLE = 214
UNSUPPORTED_PTX_VERSION = 222
INVALID_HANDLE = 400
ILLEGAL_ADDRESS = 700
LAUNCH_OUT_OF_RESOURCES = 701
LAUNCH_FAILED = 719
SYSTEM_NOT_READY = 802


class Control:
    """What tests set and ask of the simulated driver; the functions are described in driver/library.cc."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self._library = library
        for name in ("sim_forget_faults", "sim_count", "sim_messages", "sim_log"):
            getattr(library, name).restype = ctypes.c_int64

    def configure(self, name: str, value: int) -> None:
        if self._library.sim_configure(name.encode(), ctypes.c_int64(value)):
            raise ValueError(f"the simulated driver refuses {name} = {value}")

    def schedule(self, schedule: str | int) -> None:
        """When queued work is done: "early" at once, "late" when something waits for it, a seed: in between."""
        self.configure("schedule", schedule if isinstance(schedule, int) else _SCHEDULES[schedule])

    def fault(self, pattern: str, result: int, after: int = 0) -> None:
        """Let a call fail: the first whose name matches, or a later one. "execution": a kernel, while it runs."""
        self._library.sim_fault(pattern.encode(), ctypes.c_int64(after), result)

    def forget_faults(self) -> int:
        """How many have not come up."""
        return int(self._library.sim_forget_faults())

    def count(self, name: str) -> int:
        number = int(self._library.sim_count(name.encode()))
        if number < 0:
            raise ValueError(f"the simulated driver counts no {name}")
        return number

    def alive(self) -> dict[str, int]:
        """Everything that was made and not released yet."""
        counts = {name: self.count(f"alive_{name}") for name in ALIVE}
        return {name: count for name, count in counts.items() if count}

    def messages(self) -> str:
        """What the simulator's checks found."""
        return self._text(self._library.sim_messages)

    def log(self) -> list[str]:
        """Calls and what they answered."""
        return self._text(self._library.sim_log).splitlines()

    def forget_reports(self) -> None:
        self._library.sim_forget_reports()

    def close_contexts(self) -> None:
        """Destroy what lives on the devices, broken contexts too, as the end of the process would; no context stays
        current in this thread."""
        self._library.sim_close_contexts()

    @staticmethod
    def _text(function: ctypes._CFuncPtr) -> str:  # type: ignore[name-defined]
        size = function(None, ctypes.c_int64(0)) + 1
        buffer = ctypes.create_string_buffer(size)
        function(buffer, ctypes.c_int64(size))
        return buffer.value.decode(errors="replace")


def real_driver() -> bool:
    """Whether this machine has an NVIDIA driver; found out by another process."""
    probe = "import ctypes; ctypes.CDLL('libcuda.so.1')"
    return subprocess.run([sys.executable, "-c", probe], capture_output=True, check=False).returncode == 0


@cache
def control() -> Control:
    """The library, loaded into this process. Skips the test where it cannot be, or must not."""
    if sys.platform != "linux":
        pytest.skip("the simulated driver is made for Linux")
    pytest.importorskip("cuda.bindings.driver", reason="simulated GPUs need cuda-bindings: pip install '.[cuda]'")
    if os.environ.get(VARIABLE) != "1" and real_driver():
        pytest.skip(
            f"an NVIDIA driver is installed, and must not be disturbed; {VARIABLE}=1 has the simulation instead"
        )
    path = shared_library(
        "driver", sorted((HERE / "driver").glob("*.cc")), ["-Wl,-soname,libcuda.so.1", "-fvisibility=hidden"]
    )
    library = ctypes.CDLL(str(path), mode=ctypes.RTLD_GLOBAL)
    # Whoever asks for libcuda.so.1 from now on gets it, unless another one was there first.
    version = ctypes.c_int(0)
    ctypes.CDLL("libcuda.so.1").cuDriverGetVersion(ctypes.byref(version))
    if not hasattr(ctypes.CDLL("libcuda.so.1"), "sim_configure"):
        pytest.skip("this process has loaded an NVIDIA driver already")
    return Control(library)


@contextmanager
def simulated_gpus(
    devices: int | None = None,
    schedule: str | int = "early",
    memory_bytes: int = MEMORY_BYTES,
    driver_version: int = DRIVER_VERSION,
    strict_reads: bool = True,
    capabilities: Sequence[tuple[int, int]] = CAPABILITIES,
) -> Iterator[Control]:
    """Make simulated GPUs visible to this process; afterwards there are none, and nothing is left on them.

    Args:
        devices: how many; default: all.
        schedule: see :meth:`Control.schedule`.
        memory_bytes: of each device.
        driver_version: 13050 for 13.5; PTX that is newer is refused.
        strict_reads: copying uninitialized device memory to the host is an error.
        capabilities: of the devices, at most three.
    """
    found = control()
    found.configure("driver_version", driver_version)
    found.configure("memory_bytes", memory_bytes)
    found.configure("strict_reads", strict_reads)
    found.schedule(schedule)
    found.forget_reports()
    for ordinal, (major, minor) in enumerate(capabilities):
        found.configure(f"capability_{ordinal}", 10 * major + minor)
    found.configure("visible_devices", len(capabilities) if devices is None else devices)
    try:
        yield found
    finally:
        found.forget_faults()
        gc.collect()  # owners of device memory free it while they can
        found.close_contexts()
        found.configure("visible_devices", 0)
