"""A graph compiled for a GPU: what :class:`binarynet.runtime.Session` does there."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt

from binarynet.cuda import choice
from binarynet.cuda.arrays import DeviceArray, ResultPool, View, view
from binarynet.cuda.blocks import Launch, Method
from binarynet.cuda.device import Device
from binarynet.cuda.memory import Memory
from binarynet.cuda.modules import PreparedLaunch
from binarynet.cuda.streams import Event, identity, is_recorded
from binarynet.errors import UsageError
from binarynet.graph import Graph
from binarynet.graph.reference import check_batch
from binarynet.runtime import cuda_operations
from binarynet.runtime.cuda_steps import DTYPES, DeviceStep, array_shape, bytes_per_image, make_layout
from binarynet.runtime.cuda_workspace import Startable, Workspace, Workspaces, start_all
from binarynet.runtime.out import check_out_array
from binarynet.runtime.plan import Plan, Step

Array = npt.NDArray[Any]
_MOST_LAUNCHES = 1024
"""Prepared launches that a session keeps."""
_MOST_CHUNK = 1 << 16
"""Most images that are computed at a time."""
_CHUNK_BYTES = 1 << 30
"""Values between layers of one chunk take at most this, and a quarter of what is free ..."""
_STAGING_BYTES = 1 << 25
"""... and images and results on their way between host and GPU at most this."""
_UPLOAD_ALIGNMENT = 256
_SOME_ADDRESS = 1 << 32
"""Where plans have values lie."""


def _let_wait(device: Device, waiting: int, first: int) -> None:
    """Let a stream wait for all that was started on another one. The context must be current."""
    event = Event(device)
    event.record(first)
    event.delay(waiting)


class _Weights:
    """What one method prepared for one step, in the GPU's memory."""

    def __init__(self, device: Device, arrays: dict[str, Array], what: str) -> None:
        places, size = {}, 0
        for name, array in arrays.items():
            places[name] = size
            size += -(-array.nbytes // _UPLOAD_ALIGNMENT) * _UPLOAD_ALIGNMENT
        together = np.zeros(size, np.uint8)
        for name, array in arrays.items():
            together[places[name] : places[name] + array.nbytes] = (
                np.ascontiguousarray(array).reshape(-1).view(np.uint8)
            )
        self.memory: Memory = device.upload(together, what)
        self.addresses = {name: self.memory.address + place for name, place in places.items()}
        self.nbytes = sum(array.nbytes for array in arrays.values())


class CudaSession:
    """See :class:`binarynet.runtime.Session`.

    Args:
        graph: the network.
        values: names of the result and the taps.
        device: where it runs.
        engine: one of this device's (:mod:`binarynet.cuda.choice`).

    Raises:
        BackendUnavailableError: a layer that the engine cannot compute.
    """

    def __init__(self, graph: Graph, values: Sequence[str], device: Device, engine: str) -> None:
        self.graph, self.device, self.engine = graph, device, engine
        self._layout = make_layout(graph, values)
        for step in self._layout.steps:
            if step.block is not None:
                choice.choose(engine, step.block, 1, device.capability)
        self._weights: dict[tuple[int, str], _Weights] = {}
        self._launches: OrderedDict[tuple[int, int, int, int], PreparedLaunch] = OrderedDict()
        self._lock = threading.Lock()
        self._workspaces = Workspaces(device, self._layout)
        self._results = ResultPool(device)
        self._most_images: dict[bool, int] = {}  # by staged, see chunk
        types = self._layout.output_types
        self._dtypes = tuple(DTYPES[kind.kind] for kind in types)
        self._shapes = tuple(map(array_shape, types))

    # --- arrays of the host ---

    def run_host(self, images: Array, out: Array | None) -> list[Array]:
        """Result and taps for a NumPy array that was checked; ``out`` was not."""
        kinds = [(dtype, (len(images), *shape)) for dtype, shape in zip(self._dtypes, self._shapes, strict=True)]
        if out is not None:
            check_out_array(out, *kinds[0])
        results = [np.asarray(out)] if out is not None else []
        results += [np.empty(shape, dtype) for dtype, shape in kinds[len(results) :]]
        chunk = self.chunk(staged=True)
        waiting: list[tuple[Workspace, int, int]] = []
        free: list[Workspace] = []
        with self.device, self._drained(waiting):
            for start in range(0, len(images), chunk):
                count = min(chunk, len(images) - start)
                if len(waiting) == 2:
                    free.append(self._collect(waiting, results))
                workspace = free.pop() if free else self._workspaces.take(min(chunk, len(images)))
                pinned, _ = workspace.pinned()
                part = images[start : start + count]
                target = pinned.bytes[: part.nbytes].view(images.dtype).reshape(part.shape)
                np.copyto(target, part)
                waiting.append((workspace, start, count))
                workspace.run_staged(count, self._make_launches)
            while waiting:
                free.append(self._collect(waiting, results))
        for workspace in free:
            self._workspaces.give(workspace)
        return results if out is None else [out, *results[1:]]

    def _collect(self, waiting: list[tuple[Workspace, int, int]], results: list[Array]) -> Workspace:
        """Wait for the oldest chunk and take its results from the pinned memory."""
        workspace, start, count = waiting[0]
        workspace.done.wait(f"finish a run of {count:,} images with {self.engine} on {self.device}")
        _, outputs = workspace.pinned()
        for memory, result in zip(outputs, results, strict=True):
            part = result[start : start + count]
            np.copyto(part, memory.bytes[: part.nbytes].view(part.dtype).reshape(part.shape))
        del waiting[0]
        return workspace

    @contextmanager
    def _drained(self, waiting: list[tuple[Workspace, int, int]]) -> Iterator[None]:
        """On an error nothing may still read or write the memory that is freed then."""
        try:
            yield
        except BaseException:
            for workspace, _, _ in waiting:
                self.device._driver.cuStreamSynchronize(workspace.stream.handle)
            raise

    # --- arrays of the GPU ---

    def run_device(self, images: Any, out: Any) -> list[Any]:
        """Result and taps as :class:`DeviceArray` for an array of the GPU; ``out`` stands for the result."""
        device = self.device
        given = view(images, device, "images")
        check_batch(self.graph, given.dtype, given.shape)
        total, stream = given.shape[0], given.stream
        shapes = [(total, *shape) for shape in self._shapes]
        with device:
            target = None if out is None else self._checked_target(out, given, shapes[0])
            for what, used in (("images", given), ("out", target)):
                if used is not None and is_recorded(device, used.stream):
                    raise UsageError(
                        f"{what}: its stream is being recorded into a CUDA graph by somebody else, and a session uses "
                        "its memory again for the next run; call it outside of the recording (small batches are "
                        "replayed as a graph anyway)"
                    )
            number = identity(device, stream)
            loans = [
                self._results.take(nbytes * total, stream, number, f"results of {total:,} images")
                for nbytes in self._layout.output_bytes[0 if target is None else 1 :]
            ]
            addresses = [*([] if target is None else [target.address]), *(loan.memory.address for loan in loans)]
            self._start_chunks(given, number, addresses, target)
            for loan in loans:
                loan.ready.record(stream)
            if isinstance(out, DeviceArray):
                out.made_anew()
        arrays: list[Any] = [] if target is None else [out]
        for loan, shape, dtype in zip(loans, shapes[len(arrays) :], self._dtypes[len(arrays) :], strict=True):
            arrays.append(DeviceArray(device, loan, loan.memory.address, shape, dtype))
        return arrays

    def _start_chunks(self, given: View, number: int, addresses: Sequence[int], target: View | None) -> None:
        """Start all of it on the stream of ``given``, which has this number."""
        stream, total, chunk, layout = given.stream, given.shape[0], self.chunk(staged=False), self._layout
        joined = target is not None and target.stream != stream
        if total == 0:
            return
        workspace = self._workspaces.take(min(chunk, total), number)
        if joined and target is not None:
            _let_wait(self.device, stream, target.stream)
        try:
            for start in range(0, total, chunk):
                count = min(chunk, total - start)
                source = given.address + start * layout.input_bytes
                results = [
                    address + start * nbytes for address, nbytes in zip(addresses, layout.output_bytes, strict=True)
                ]
                workspace.run(count, source, results, self._make_launches, stream, number)
        finally:
            if not given.ordered:
                workspace.keep(given.owner, stream)
            if target is not None and not target.ordered:
                workspace.keep(target.owner, stream)
        if joined and target is not None:
            _let_wait(self.device, target.stream, stream)
        self._workspaces.give(workspace)

    def _checked_target(self, out: Any, given: View, shape: tuple[int, ...]) -> View:
        """``out`` as a view; refused where it is not what it should be."""
        if isinstance(out, np.ndarray):
            raise UsageError(
                f"out: expected memory of {self.device}, where the images lie, got a NumPy array; leave it out, and "
                "copy the result with its method numpy()"
            )
        target = view(out, self.device, "out", copied=False)
        dtype = self._dtypes[0]
        if (target.dtype, target.shape) != (dtype, shape):
            raise UsageError(f"out: expected an array {dtype} {list(shape)}, got {target.dtype} {list(target.shape)}")
        if target.read_only:
            raise UsageError("out: expected an array that may be written, this one is read-only")
        ends = [each.address + int(np.prod(each.shape, dtype=object)) * each.dtype.itemsize for each in (given, target)]
        if given.address < ends[1] and target.address < ends[0]:
            raise UsageError("out: expected memory of its own, it overlaps the images")
        return target

    # --- what a run does, and how long it takes ---

    def plan(self, batch: int, why_engine: str) -> Plan:
        """See :meth:`binarynet.runtime.Session.plan`."""
        layout, chunk = self._layout, self.chunk(staged=True)
        images = min(batch, chunk)
        placement = layout.placement(images)
        steps = tuple(self._planned(i, images) for i in range(len(layout.steps)))
        staged = layout.input_bytes + sum(layout.output_bytes)
        return Plan(
            engine=self.engine,
            why_engine=why_engine,
            num_threads=1,
            batch=batch,
            num_chunks=-(-batch // chunk),
            chunk=min(batch, chunk),
            weight_bytes=sum(step.weight_bytes for step in steps),
            arena_bytes=placement.arena_bytes,
            scratch_bytes=0,
            workspace_bytes=layout.placement(chunk).arena_bytes + chunk * staged,
            steps=steps,
            device=str(self.device),
        )

    def _planned(self, index: int, images: int) -> Step:
        step = self._layout.steps[index]
        launch = self._described(index, images, _SOME_ADDRESS, _SOME_ADDRESS)
        blocks = int(np.prod(launch.grid, dtype=object))
        if step.block is None:
            method, work = launch.kernel, images * step.result_type.num_elements // 64 + 1
        else:
            method = self._method(step, images).name
            tap_words = -(-step.block.channels // (64 if step.block.input == "bits" else 8))
            work = (
                step.block.rows(images)
                * step.block.out_channels
                * step.block.kernel[0]
                * step.block.kernel[1]
                * tap_words
            )
        return Step(
            kind=step.kind,
            values=step.values,
            method=method,
            units=blocks,
            tasks=blocks,
            threads=launch.threads,
            why_threads="threads of a block",
            weight_bytes=self._prepared(index, images).nbytes,
            scratch_bytes=0,
            in_bytes=images * bytes_per_image(step.source_type),
            out_bytes=images * bytes_per_image(step.result_type),
            work=work,
            kernel=f"{launch.kernel} ({launch.source})",
            grid=" x ".join(map(str, launch.grid)),
            shared_bytes=launch.shared_bytes,
        )

    def profile(self, images: Array, repeats: int) -> list[list[int]]:
        """Nanoseconds on the GPU's clock: for each repetition, those of each step over all chunks."""
        chunk = self.chunk(staged=True)
        times: list[list[int]] = []
        with self.device as device:
            workspace = self._workspaces.take(min(chunk, len(images)))
            workspace.done.wait(f"finish the run before on {device}")
            results = [workspace.output_address(i) for i in range(len(self._layout.outputs))]
            source, handle = workspace.input_address(), workspace.stream.handle
            for _ in range(repeats):
                sums = [0] * len(self._layout.steps)
                for start in range(0, len(images), chunk):
                    part = np.ascontiguousarray(images[start : start + chunk])
                    device.copy_to_device(source, part, "images")
                    before, *steps, behind = workspace.operations(len(part), source, results, self._make_launches)
                    events = [Event(device, timed=True) for _ in range(len(steps) + 1)]
                    start_all(before, handle)
                    for event, step in zip(events, [*steps, behind], strict=True):
                        event.record(handle)
                        start_all(step, handle)
                    workspace.done.record(handle)
                    workspace.done.wait(f"finish a timed run with {self.engine} on {device}")
                    for i in range(len(steps)):
                        sums[i] += events[i + 1].nanoseconds_since(events[i])
                times.append(sums)
        self._workspaces.give(workspace)
        return times

    # --- launches ---

    def chunk(self, staged: bool) -> int:
        """Most images that are computed at a time, a power of two. Staged: between host and GPU."""
        if staged not in self._most_images:
            layout = self._layout
            staging_bytes = layout.input_bytes + sum(layout.output_bytes) if staged else 0
            budget = min(_CHUNK_BYTES, self.device.free_memory() // 4)
            rows = max((step.block.rows(1) for step in layout.steps if step.block is not None), default=1)
            chunk = _MOST_CHUNK
            while chunk > 1 and (
                chunk * staging_bytes > _STAGING_BYTES
                or chunk * rows >= 1 << 31
                or layout.placement(chunk).arena_bytes > budget
            ):
                chunk //= 2
            self._most_images[staged] = chunk
        return self._most_images[staged]

    def _make_launches(self, images: int, address_of: Callable[[str], int]) -> list[Startable]:
        return [
            self._launch(i, images, address_of(step.source), address_of(step.result))
            for i, step in enumerate(self._layout.steps)
        ]

    def _launch(self, index: int, images: int, source: int, result: int) -> PreparedLaunch:
        key = (index, images, source, result)
        with self._lock:
            found = self._launches.get(key)
            if found is not None:
                self._launches.move_to_end(key)
                return found
        prepared = self.device.prepare(self._described(index, images, source, result))
        with self._lock:
            self._launches[key] = prepared
            while len(self._launches) > _MOST_LAUNCHES:
                self._launches.popitem(last=False)
        return prepared

    def _described(self, index: int, images: int, source: int, result: int) -> Launch:
        step = self._layout.steps[index]
        weights = self._prepared(index, images).addresses
        if step.block is not None:
            return self._method(step, images).launch(step.block, images, source, result, weights)
        return cuda_operations.launch(step, images, source, result, weights)

    def _method(self, step: DeviceStep, images: int) -> Method:
        assert step.block is not None
        return choice.choose(self.engine, step.block, images, self.device.capability)

    def _prepared(self, index: int, images: int) -> _Weights:
        """Weights and constants of a step, uploaded when they are first needed."""
        step = self._layout.steps[index]
        method = self._method(step, images) if step.block is not None else None
        key = (index, "" if method is None else method.name)
        with self._lock:
            found = self._weights.get(key)
            if found is None:
                if method is not None and step.block is not None:
                    arrays = method.prepare(step.block)
                else:
                    arrays = cuda_operations.constants(step)
                found = self._weights[key] = _Weights(self.device, arrays, f"the weights of {step.values[0]!r}")
        return found
