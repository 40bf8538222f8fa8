"""Signals arrive on the stack that they arrived on before."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager


class _SignalStack(ctypes.Structure):
    """``stack_t`` of Linux."""

    _fields_ = (("address", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t))


@contextmanager
def signal_stack_kept() -> Iterator[None]:
    """Put this thread's alternate signal stack back as it was before.

    OpenVINO's compile_model leaves one behind whose memory it takes back. Python's handlers run on it, so the next
    signal, Ctrl-C for instance, would end the process with a segmentation fault.
    """
    if sys.platform != "linux":
        yield
        return
    before = _SignalStack()
    system = ctypes.CDLL(None)
    system.sigaltstack(None, ctypes.byref(before))
    try:
        yield
    finally:
        system.sigaltstack(ctypes.byref(before), None)
