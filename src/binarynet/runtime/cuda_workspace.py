"""The memory of a run on a GPU, and the launches and graphs that are made for it."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from binarynet.cuda.device import Device
from binarynet.cuda.memory import Memory, PinnedMemory
from binarynet.cuda.streams import Copy, Event, Graph, Stream, identity
from binarynet.runtime.cuda_steps import Layout

GRAPH_IMAGES = 256
"""Most images of a run that is recorded as a graph: larger ones take so long that starting kernels does not count."""
_PROGRAMS = 16
"""Programs that a workspace keeps, the graphs among them: batches and addresses change little in a loop."""
_IDLE = 4
"""Workspaces that a session keeps while nobody uses them."""
ALIGNMENT = 16
"""Of what kernels read and write, in bytes."""


class Startable(Protocol):
    """A launch or a copy."""

    def start(self, stream: int) -> None: ...


MakeLaunches = Callable[[int, Callable[[str], int]], list[Startable]]
"""Number of images and address by storage to what is started, step by step."""


@dataclass
class _Program:
    operations: list[Startable]
    starts: int = 0
    graph: Graph | None = None


class Workspace:
    """Memory for runs of at most ``capacity`` images, one at a time. A run on another stream than the one before waits
    for that, on the GPU."""

    def __init__(self, device: Device, layout: Layout, capacity: int) -> None:
        self.device, self.capacity = device, capacity
        self._layout = layout
        self._placement = layout.placement(capacity)
        self._arena = device.allocate(self._placement.arena_bytes, f"values of {capacity} images between layers")
        self._input_bytes = capacity * layout.input_bytes
        self._output_bytes = [capacity * nbytes for nbytes in layout.output_bytes]
        self._input: Memory | None = None
        self._outputs: dict[int, Memory] = {}
        self._pinned: tuple[PinnedMemory, list[PinnedMemory]] | None = None
        self._programs: OrderedDict[tuple[int, int, tuple[int, ...]], _Program] = OrderedDict()
        self._owners: list[tuple[Event, object]] = []
        self.stream = Stream(device)
        self.done = Event(device)
        self.last = self._number = identity(device, self.stream.handle)

    def pinned(self) -> tuple[PinnedMemory, list[PinnedMemory]]:
        """Host memory for the input and every output of ``capacity`` images."""
        if self._pinned is None:
            make = self.device.pinned
            self._pinned = (
                make(self._input_bytes, "images on their way to the GPU"),
                [make(nbytes, "results on their way from the GPU") for nbytes in self._output_bytes],
            )
        return self._pinned

    def input_address(self) -> int:
        """Device memory for the input of ``capacity`` images."""
        if self._input is None:
            self._input = self.device.allocate(self._input_bytes, f"{self.capacity} images")
        return self._input.address

    def output_address(self, index: int) -> int:
        """Device memory for an output of ``capacity`` images."""
        if index not in self._outputs:
            nbytes = self._output_bytes[index]
            self._outputs[index] = self.device.allocate(nbytes, f"results of {self.capacity} images")
        return self._outputs[index].address

    def operations(
        self, images: int, source: int, results: Sequence[int], launches: MakeLaunches
    ) -> list[list[Startable]]:
        """What computes results of images at these addresses: copies first, then one list per step, then copies."""
        layout = self._layout
        before: list[Startable] = []
        behind: list[Startable] = []
        read, written = source, list(results)
        if source % ALIGNMENT:
            read = self.input_address()
            before.append(Copy(self.device, "on the GPU", read, source, images * layout.input_bytes))
        for i, address in enumerate(results):
            if address % ALIGNMENT:
                written[i] = self.output_address(i)
                nbytes = images * layout.output_bytes[i]
                behind.append(Copy(self.device, "on the GPU", address, written[i], nbytes))

        def address_of(storage: str) -> int:
            place = self._placement.places[storage]
            if place.kind == "input":
                return read
            return written[place.at] if place.kind == "output" else self._arena.address + place.at

        copies: list[Startable] = [
            Copy(
                self.device,
                "on the GPU",
                written[i],
                address_of(storage),
                images * layout.output_bytes[i],
            )
            for storage, i in layout.copies
        ]
        return [before, *([launch] for launch in launches(images, address_of)), [*copies, *behind]]

    def run(
        self, images: int, source: int, results: Sequence[int], launches: MakeLaunches, stream: int, number: int
    ) -> None:
        """Start the computation of results (device addresses) on a stream of this :func:`identity`; the context must be
        current."""
        key = (images, source, tuple(results))
        self._start(key, stream, number, lambda: self.operations(images, source, results, launches))

    def run_staged(self, images: int, launches: MakeLaunches) -> None:
        """The same on this workspace's own stream, from its pinned input to its pinned outputs."""
        pinned, outputs = self.pinned()

        def operations() -> list[list[Startable]]:
            source = self.input_address()
            results = [self.output_address(i) for i in range(len(outputs))]
            layout = self._layout
            there = Copy(self.device, "to the GPU", source, pinned.address, images * layout.input_bytes)
            back: list[Startable] = [
                Copy(self.device, "from the GPU", memory.address, result, images * nbytes)
                for memory, result, nbytes in zip(outputs, results, layout.output_bytes, strict=True)
            ]
            return [[there], *self.operations(images, source, results, launches), back]

        self._start((images, 0, ()), self.stream.handle, self._number, operations)

    def _start(
        self, key: tuple[int, int, tuple[int, ...]], stream: int, number: int, make: Callable[[], list[list[Startable]]]
    ) -> None:
        program = self._programs.get(key)
        if program is None:
            program = self._programs[key] = _Program([each for step in make() for each in step])
            while len(self._programs) > _PROGRAMS:
                self._programs.popitem(last=False)
        self._programs.move_to_end(key)
        if number != self.last:
            self.done.delay(stream)
            self.last = number
        program.starts += 1
        if program.graph is None and program.starts > 1 and key[0] <= GRAPH_IMAGES:
            program.graph = Graph(self.device, self.stream, lambda on: start_all(program.operations, on))
        if program.graph is not None:
            program.graph.start(stream)
        else:
            start_all(program.operations, stream)
        self.done.record(stream)

    def keep(self, owner: object, stream: int) -> None:
        """Keep somebody's memory until what was started on the stream is done."""
        self._owners = [(event, kept) for event, kept in self._owners if not event.reached()]
        event = Event(self.device)
        event.record(stream)
        self._owners.append((event, owner))


def start_all(operations: Sequence[Startable], stream: int) -> None:
    """Start one after the other on a stream of the current context."""
    for each in operations:
        each.start(stream)


class Workspaces:
    """The workspaces of a session: whoever runs takes one, or makes one where all are taken."""

    def __init__(self, device: Device, layout: Layout) -> None:
        self._device, self._layout = device, layout
        self._idle: list[Workspace] = []
        self._lock = threading.Lock()

    def take(self, images: int, number: int | None = None) -> Workspace:
        """A workspace for so many images, best one that was used last on the stream of this :func:`identity`, or is
        done. The context must be current. DeviceError where memory does not suffice."""
        with self._lock:
            fitting = [each for each in self._idle if each.capacity >= images]
            found = next((each for each in fitting if each.last == number), None) or next(
                (each for each in fitting if each.done.reached()), None
            )
            if found is None and fitting and len(self._idle) >= _IDLE:
                found = fitting[0]
            if found is None and len(self._idle) >= _IDLE:
                self._idle.pop(0)
            if found is not None:
                self._idle.remove(found)
                return found
        return Workspace(self._device, self._layout, 1 << (images - 1).bit_length())

    def give(self, workspace: Workspace) -> None:
        """Hand it back; it may still be at work on the GPU."""
        with self._lock:
            if len(self._idle) < _IDLE:
                self._idle.append(workspace)
