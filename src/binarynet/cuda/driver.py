"""The NVIDIA driver: looked for without being disturbed, and no status of it ignored.

Nothing here is imported, loaded or initialized before it is needed: whoever stays on the CPU pays nothing.
"""

from __future__ import annotations

import ctypes
import functools
import os
import re
import sys
import threading
from pathlib import Path
from typing import Any

from binarynet.cuda.compiler import INSTALL
from binarynet.errors import BackendUnavailableError, DeviceError

NEEDED = 13000
"""CUDA version that the driver must have: that of the bindings and of the compiler."""
NEEDED_DRIVER = "580"
"""First release of the driver with that version."""
_LIBRARY = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
_RELEASE = Path("/sys/module/nvidia/version")
_VISIBLE = "CUDA_VISIBLE_DEVICES"

_STICKY = frozenset(
    {
        "CUDA_ERROR_ECC_UNCORRECTABLE",
        "CUDA_ERROR_NVLINK_UNCORRECTABLE",
        "CUDA_ERROR_CONTAINED",
        "CUDA_ERROR_DEVICE_UNAVAILABLE",
        "CUDA_ERROR_ILLEGAL_ADDRESS",
        "CUDA_ERROR_LAUNCH_TIMEOUT",
        "CUDA_ERROR_ASSERT",
        "CUDA_ERROR_HARDWARE_STACK_ERROR",
        "CUDA_ERROR_ILLEGAL_INSTRUCTION",
        "CUDA_ERROR_MISALIGNED_ADDRESS",
        "CUDA_ERROR_INVALID_ADDRESS_SPACE",
        "CUDA_ERROR_INVALID_PC",
        "CUDA_ERROR_LAUNCH_FAILED",
        "CUDA_ERROR_TENSOR_MEMORY_LEAK",
        "CUDA_ERROR_EXTERNAL_DEVICE",
        "CUDA_ERROR_CONTEXT_IS_DESTROYED",
    }
)
"""After these the process has no working context any more (CUDA driver API, type CUresult)."""

_initialized_in: int | None = None
_lock = threading.Lock()


def why_not() -> str:
    """Empty where a GPU can be used; else what is missing and what to do. Makes no context on any GPU.

    The first positive answer initializes the driver in this process; a negative one is found anew each time.
    """
    return _forked() if _initialized_in is not None else _looked_for()


def binding() -> Any:
    """The module ``cuda.bindings.driver``, initialized.

    Raises:
        BackendUnavailableError: see :func:`why_not`.
    """
    reason = why_not()
    if reason:
        raise BackendUnavailableError(f"no GPU can be used here: {reason}")
    return _module()


def version() -> str:
    """The driver's CUDA version, "13.0"."""
    return _dotted(check(_module().cuDriverGetVersion(), "ask the driver for its version"))


def release() -> str | None:
    """The driver's own version, "580.65.06", where the system tells it."""
    try:
        return _RELEASE.read_text(encoding="ascii").strip() or None
    except (OSError, ValueError):
        return None


def check(answer: tuple[Any, ...], attempt: str) -> Any:
    """What a driver function returned, without its status.

    Args:
        answer: status, then values.
        attempt: what was attempted, as an infinitive: "start the kernel 'sums'".

    Raises:
        DeviceError: the status is an error.
    """
    if answer[0] != 0:
        raise failure(answer[0], attempt)
    return answer[1] if len(answer) == 2 else answer[1:]


def failure(status: Any, attempt: str) -> DeviceError:
    """The error for a status: what was attempted, the driver's name and text for it, what to do."""
    name, text = described(status)
    return DeviceError(f"could not {attempt}: {name} ({text}){_remedy(name)}")


def described(status: Any) -> tuple[str, str]:
    """The driver's name and text for a status."""
    name, text = (
        value.decode(errors="replace") if found == 0 and value else None
        for found, value in (_module().cuGetErrorName(status), _module().cuGetErrorString(status))
    )
    return name or f"status {int(status)}", text or "unknown to this driver"


def is_memory_error(status: Any) -> bool:
    """True where memory did not suffice."""
    return bool(status == 2)  # CUDA_ERROR_OUT_OF_MEMORY


def _remedy(name: str) -> str:
    if name in _STICKY:
        return (
            "; this process cannot use the GPU any more: start it again. Where it comes again, report it with the "
            "output of: compute-sanitizer python -m binarynet ..."
        )
    if _initialized_in is not None and (forked := _forked()):
        return f"; {forked}"
    if name == "CUDA_ERROR_INVALID_CONTEXT":
        return "; the GPU's context was destroyed or reset by this process: start it again"
    return ""


def _looked_for() -> str:
    """Why there is no usable driver or GPU; initializes the driver where there are both."""
    global _initialized_in
    try:
        library = ctypes.CDLL(_LIBRARY)
    except OSError as error:
        text = _one_line(error)
        if _LIBRARY not in text or "No such file" in text or sys.platform == "win32":
            return f"no NVIDIA driver: {_LIBRARY} is not found; install the driver, release {NEEDED_DRIVER} or newer"
        return f"the NVIDIA driver cannot be loaded: {text}; install it anew, release {NEEDED_DRIVER} or newer"
    found = ctypes.c_int(0)
    ask = getattr(library, "cuDriverGetVersion", None)
    if ask is None or ask(ctypes.byref(found)) != 0:
        return f"the NVIDIA driver ({_LIBRARY}) does not say its version; install it anew"
    if found.value < NEEDED:
        own = release()
        return (
            f"the NVIDIA driver is too old: {f'{own}, for ' if own else ''}CUDA {_dotted(found.value)}; needed is "
            f"release {NEEDED_DRIVER} or newer, for CUDA {_dotted(NEEDED)}: update the driver"
        )
    try:
        module = _module()
    except ImportError as error:
        return f"{_one_line(error)}; {INSTALL}"
    with _lock:
        if _initialized_in is not None:
            return _forked()
        status = module.cuInit(0)[0]
        visible = os.environ.get(_VISIBLE)
        hint = f"; {_VISIBLE} is {visible!r}: it decides which GPUs this process sees" if visible is not None else ""
        if status != 0:
            name, text = described(status)
            if name == "CUDA_ERROR_NO_DEVICE":
                return f"the driver finds no GPU; nvidia-smi says which ones there are{hint}"
            return f"the driver cannot be initialized: {name} ({text}); see what nvidia-smi says{hint}"
        if check(module.cuDeviceGetCount(), "count the GPUs") == 0:
            return f"the driver finds no GPU; nvidia-smi says which ones there are{hint}"
        _initialized_in = os.getpid()
    return ""


def _forked() -> str:
    if _initialized_in == os.getpid():
        return ""
    return (
        "this process was forked from one that uses the GPU, and CUDA does not survive that; start processes with "
        'the method "spawn" (multiprocessing.get_context("spawn")), or use the GPU in them alone'
    )


@functools.cache
def _module() -> Any:
    from cuda.bindings import driver

    return driver


def _dotted(number: int) -> str:
    return f"{number // 1000}.{number % 1000 // 10}"


def _one_line(error: BaseException) -> str:
    return re.sub(r"\s+", " ", str(error)).strip()
