"""Streams, events and graphs: what is done on a device in which order."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

from binarynet.cuda.driver import check, failure

if TYPE_CHECKING:
    from binarynet.cuda.device import Device

DEFAULT_STREAM = 1
"""The legacy default stream, by the name that the driver, DLPack and ``__cuda_array_interface__`` have for it."""


class Stream:
    """A stream of our own, which waits for no other one.

    Attributes:
        handle: for driver calls.
    """

    def __init__(self, device: Device) -> None:
        self.device = device
        with device as d:
            flags = d._driver.CUstream_flags.CU_STREAM_NON_BLOCKING
            self._stream = check(d._driver.cuStreamCreate(flags), f"make a stream on {device}")
        self.handle = int(self._stream)

    def __del__(self) -> None:
        if hasattr(self, "_stream"):
            self.device.release("cuStreamDestroy", self._stream)


class Event:
    """A point in a stream that others can wait for; ``timed`` ones know when they were reached."""

    def __init__(self, device: Device, *, timed: bool = False) -> None:
        self.device = device
        with device as d:
            kinds = d._driver.CUevent_flags
            flags = kinds.CU_EVENT_DEFAULT if timed else kinds.CU_EVENT_DISABLE_TIMING
            self._event = check(d._driver.cuEventCreate(flags), f"make an event on {device}")

    def record(self, stream: int) -> None:
        """Set it behind all that was started on the stream so far. The context must be current."""
        status = self.device._driver.cuEventRecord(self._event, stream)[0]
        if status != 0:
            raise failure(status, f"record an event on {self.device}")

    def delay(self, stream: int) -> None:
        """Let what is started on the stream from now on wait for it; the host does not. The context must be current."""
        check(self.device._driver.cuStreamWaitEvent(stream, self._event, 0), f"let a stream of {self.device} wait")

    def wait(self, attempt: str) -> None:
        """Wait on the host. DeviceError where anything before it failed, ``attempt`` says what it was."""
        with self.device as device:
            check(device._driver.cuEventSynchronize(self._event), attempt)

    def reached(self) -> bool:
        """True if nothing before it is left to do. The context must be current."""
        status = self.device._driver.cuEventQuery(self._event)[0]
        return bool(status == 0)

    def nanoseconds_since(self, earlier: Event) -> int:
        """Time between two timed events that were both reached."""
        with self.device as device:
            milliseconds = float(
                check(device._driver.cuEventElapsedTime(earlier._event, self._event), f"read a time on {device}")
            )
        return round(milliseconds * 1e6)

    def __del__(self) -> None:
        if hasattr(self, "_event"):
            self.device.release("cuEventDestroy", self._event)


class Graph:
    """Launches and copies that the GPU repeats at one command.

    Args:
        device: where.
        stream: to record on; nothing else may use it meanwhile.
        record: starts, on that stream, what the graph is to hold; it runs nothing now.
    """

    def __init__(self, device: Device, stream: Stream, record: Callable[[int], None]) -> None:
        self.device = device
        d = device._driver
        with device:
            # relaxed: Python may free memory at any moment, which the other modes take for a fault
            check(
                d.cuStreamBeginCapture(stream.handle, d.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_RELAXED),
                f"record a graph on {device}",
            )
            try:
                record(stream.handle)
            except BaseException:
                status, graph = d.cuStreamEndCapture(stream.handle)
                if status == 0:
                    d.cuGraphDestroy(graph)
                raise
            graph = check(d.cuStreamEndCapture(stream.handle), f"record a graph on {device}")
            try:
                self._executable = check(d.cuGraphInstantiate(graph, 0), f"make a graph ready on {device}")
            finally:
                d.cuGraphDestroy(graph)

    def start(self, stream: int) -> None:
        """Start all of it on a stream of the current context; returns before it has run."""
        status = self.device._driver.cuGraphLaunch(self._executable, stream)[0]
        if status != 0:
            raise failure(status, f"start a graph on {self.device}")

    def __del__(self) -> None:
        if hasattr(self, "_executable"):
            self.device.release("cuGraphExecDestroy", self._executable)


class Copy:
    """A copy of bytes that can be started any number of times; host addresses are those of pinned memory."""

    def __init__(
        self,
        device: Device,
        way: Literal["to the GPU", "from the GPU", "on the GPU"],
        target: int,
        source: int,
        nbytes: int,
    ) -> None:
        d = device._driver
        self._call = {
            "to the GPU": d.cuMemcpyHtoDAsync,
            "from the GPU": d.cuMemcpyDtoHAsync,
            "on the GPU": d.cuMemcpyDtoDAsync,
        }[way]
        self._arguments = (target, source, nbytes)
        self._attempt = f"copy {nbytes:,} bytes {way} ({device})"

    def start(self, stream: int) -> None:
        """Start it on a stream of the current context; returns before it is done."""
        check(self._call(*self._arguments, stream), self._attempt)


def wait(device: Device, stream: int, attempt: str) -> None:
    """Wait on the host for all that was started on a stream; DeviceError where anything failed."""
    with device:
        check(device._driver.cuStreamSynchronize(stream), attempt)


def is_recorded(device: Device, stream: int) -> bool:
    """True if the stream's owner records a graph on it: what is started on it does not run now."""
    d = device._driver
    status, state = d.cuStreamIsCapturing(stream)
    if status != 0:
        raise failure(status, f"ask a stream of {device} for its state")
    return bool(state != 0)  # CU_STREAM_CAPTURE_STATUS_NONE


def identity(device: Device, stream: int) -> int:
    """A number that no other stream of this process has or will have, unlike its handle."""
    status, number = device._driver.cuStreamGetId(stream)
    if status != 0:
        raise failure(status, f"ask a stream of {device} for its number")
    return int(number)
