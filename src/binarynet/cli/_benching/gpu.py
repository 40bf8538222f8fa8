"""What a GPU brings to a benchmark: the clock that its work is timed by, its peak, and what there is to say of it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from binarynet.cuda.arrays import DeviceArray, Loan
from binarynet.cuda.streams import DEFAULT_STREAM, Event, identity

if TYPE_CHECKING:
    from binarynet.cuda.device import Device

SAMPLE_NS = 2_000_000
"""Calls shorter than this are timed several at once: they are started one behind the other, and the GPU need not wait
for the host in between."""
CLOCK_NAME = "CUDA events"
ONE_BIT_MACS = {(8, 0): 16384, (9, 0): 32768}
"""Multiply-accumulates of one-bit operands per multiprocessor and cycle, by compute capability: eight times those of
8-bit operands (NVIDIA A100 and H100 architecture white papers: 2,048 and 4,096, dense)."""


@dataclass(frozen=True, eq=False)
class Gpu:
    """The GPU of a benchmark.

    Attributes:
        device: its handle.
        autotune: peers that take minutes to compile take part, too.
    """

    device: Device
    autotune: bool = False

    @cached_property
    def clock(self) -> GpuClock:
        return GpuClock(self.device)

    @property
    def peak_macs_per_ns(self) -> float | None:
        """Of one-bit products: computed, not measured. None where the rate of a multiprocessor is not known here."""
        rate = ONE_BIT_MACS.get(self.device.capability)
        return rate * self.device.multiprocessors * self.device.clock_ghz if rate is not None else None

    def array(self, values: npt.NDArray[Any], what: str) -> DeviceArray:
        """A copy in the GPU's memory, ready on the default stream."""
        device = self.device
        memory = device.upload(np.ascontiguousarray(values), what)
        with device:
            loan = Loan(memory, Event(device), DEFAULT_STREAM, identity(device, DEFAULT_STREAM))
            loan.ready.record(DEFAULT_STREAM)
        return DeviceArray(device, loan, memory.address, values.shape, values.dtype)

    def facts(self) -> dict[str, Any]:
        """Of `binarynet info`'s, those of this GPU, and more."""
        peak = self.peak_macs_per_ns
        return {
            "clock_ghz": self.device.clock_ghz,
            "one_bit_peak_tmacs_per_second": peak / 1e3 if peak is not None else None,
        }


class GpuClock:
    """Nanoseconds of the GPU: what was started on the default stream until now is done when the clock is read.

    The time between two readings is that between two events on the stream, the second one set behind all that was
    started meanwhile: the host's waiting is not part of it.
    """

    def __init__(self, device: Device) -> None:
        self._device = device
        self._last, self._next = Event(device, timed=True), Event(device, timed=True)
        self._total = 0
        self._set(self._last)

    def __call__(self) -> int:
        self._set(self._next)
        self._total += self._next.nanoseconds_since(self._last)
        self._last, self._next = self._next, self._last
        return self._total

    def _set(self, event: Event) -> None:
        with self._device:
            event.record(DEFAULT_STREAM)
        event.wait(f"finish what is timed on {self._device}")
