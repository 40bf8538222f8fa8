"""Memory of a GPU, and memory of the host that it copies from and to. Freed with its owner."""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from binarynet.cuda.device import Device


class Memory:
    """An allocation of a GPU's memory; freeing it waits for what the GPU still does.

    Attributes:
        device, address, nbytes: where, and how much.
    """

    __slots__ = ("__weakref__", "address", "device", "nbytes")

    def __init__(self, device: Device, address: int, nbytes: int) -> None:
        self.device, self.address, self.nbytes = device, address, nbytes

    def __del__(self) -> None:
        if self.address:
            self.device.release("cuMemFree", self.address)


class PinnedMemory:
    """Locked memory of the host.

    Attributes:
        address, nbytes: where, and how much.
        bytes: uint8 ``[nbytes]``, a view that is valid as long as this object.
    """

    def __init__(self, device: Device, address: int, nbytes: int) -> None:
        self.device, self.address, self.nbytes = device, address, nbytes
        self.bytes: npt.NDArray[np.uint8] = np.ctypeslib.as_array((ctypes.c_uint8 * nbytes).from_address(address))

    def __del__(self) -> None:
        self.device.release("cuMemFreeHost", self.address)


def in_bytes(number: int) -> str:
    """A number of bytes for people: "1.5 GiB"."""
    value, unit = float(number), "bytes"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if value < 1024:
            break
        value, unit = value / 1024, larger
    return f"{value:,.0f} bytes" if unit == "bytes" else f"{value:,.1f} {unit}"
