"""Layouts of :mod:`binarynet.cuda.operands` on a device."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from binarynet.cuda.blocks import Launch
    from binarynet.cuda.device import Device
    from binarynet.cuda.operands import Layout


class DeviceLayout:
    """A layout with its constants on a device.

    Raises:
        DeviceError: the device's memory does not suffice.
    """

    def __init__(self, device: Device, layout: Layout) -> None:
        self.layout = layout
        self._constants = {
            name: device.upload(array, "a layout of weights") for name, array in layout.constants.items()
        }

    def launches(self, batch: int, source: int, weights: int, result: int, scratch: int) -> list[Launch]:
        """:meth:`Layout.launches`; the constants live as long as this object."""
        constants = {name: memory.address for name, memory in self._constants.items()}
        return self.layout.launches(batch, source, weights, result, constants, scratch)
