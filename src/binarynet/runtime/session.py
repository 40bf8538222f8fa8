"""A compiled network: images in, values out, on one engine."""

from __future__ import annotations

import operator
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, overload

import numpy as np
import numpy.typing as npt

from binarynet.encoding import pack_bits
from binarynet.errors import BackendUnavailableError, BinaryNetError, UsageError
from binarynet.graph import (
    Affine,
    Convolution,
    Dense,
    Flatten,
    Graph,
    Input,
    MaxPool,
    Node,
    Threshold,
    check_images,
    evaluate,
)
from binarynet.runtime.engines import (
    CPU,
    FORCE_VARIABLE,
    REFERENCE,
    check_engine,
    forced_instruction_set,
    resolve_device,
)
from binarynet.runtime.out import check_out_array
from binarynet.runtime.plan import Plan, Step, StepTime

if TYPE_CHECKING:
    from binarynet.runtime.cuda_session import CudaSession

Array = npt.NDArray[Any]
MAX_THREADS = 1024
"""Most threads that a session takes, as in the native core."""
_MOST = 1 << 31
_ARRAY = np.ndarray


class Session:
    """A graph compiled for one engine. Immutable: any number of threads may run it at the same time.

    A copy, or a session that was pickled and sent to another process, is compiled anew from the same arguments.

    Args:
        graph: the network.
        taps: names of values to return besides the result: any layer's bits (packed, ``encoding.unpack_bits``
            opens them) or sums. A tap keeps its value from being fused away.
        engine: name of an engine (:func:`binarynet.runtime.engines`); default: the best one of the device; on the CPU,
            the instruction set that the environment variable BINARYNET_FORCE_ISA names.
        num_threads: threads of the native core, 1 to 1024; default: one per core that this process may use.
        device: "cpu", "cuda" (the first GPU) or "cuda:1"; default: that of the engine, without one the CPU.

    Raises:
        UsageError: an unknown device, engine or value, a device and an engine of another one, a number of threads that
            is none or is given for a GPU, or a BINARYNET_FORCE_ISA that is unknown (whatever ``engine`` is).
        BackendUnavailableError: the device or engine, or the one that BINARYNET_FORCE_ISA names, cannot be used here;
            says why, and what to do.
    """

    def __init__(
        self,
        graph: Graph,
        *,
        taps: Sequence[str] = (),
        engine: str | None = None,
        num_threads: int | None = None,
        device: str | None = None,
    ) -> None:
        threads = None if num_threads is None else _checked_threads(num_threads)
        forced = forced_instruction_set()
        where = resolve_device(device, engine)
        if where != CPU and threads is not None:
            raise UsageError(f"a number of threads is for the CPU, this session runs on {where}; leave it out")
        if engine is not None:
            check_engine(engine, where)
        for tap in taps:
            if tap not in graph.types:
                raise UsageError(f"no value is called {tap!r}; there are: {', '.join(graph.types)}")
        self.graph = graph
        self.taps = tuple(taps)
        self._values = tuple(dict.fromkeys((graph.output, *taps)))
        self._asked = (engine, threads, device)
        on_cpu = engine != REFERENCE and where == CPU
        self._native = _compile(graph, self._values, engine or forced, threads) if on_cpu else None
        self._cuda = None if where == CPU else _compile_for_gpu(graph, self._values, where, engine)
        if engine is not None:
            self._why_engine = "asked for"
        elif self._cuda is not None:
            self._why_engine = f"the best of {where} ({self._cuda.device.name})"
        else:
            self._why_engine = "the best that can be used here" if forced is None else f"named by {FORCE_VARIABLE}"

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuilt, (type(self), self.graph, self.taps, *self._asked)

    @property
    def engine(self) -> str:
        """Name of the engine in use."""
        if self._cuda is not None:
            return self._cuda.engine
        return REFERENCE if self._native is None else str(self._native.isa)

    @property
    def device(self) -> str:
        """Where it runs: "cpu" or "cuda:0"."""
        return CPU if self._cuda is None else str(self._cuda.device)

    @property
    def num_threads(self) -> int:
        """Threads of the CPU that one run may use."""
        return 1 if self._native is None else int(self._native.num_threads)

    @overload
    def run(self, images: Array, out: Array | None = None) -> Array: ...
    @overload
    def run(self, images: Any, out: Any = None) -> Any: ...
    def run(self, images: Any, out: Any = None) -> Any:
        """The network's result for uint8 ``[n, *input shape]``: usually float32 scores ``[n, classes]``.

        Where the graph's input is packed bits, images are uint64 ``[n, ..., words(channels)]``.

        A session on a GPU also takes arrays in that GPU's memory: of torch, CuPy, JAX or whatever else knows DLPack or
        ``__cuda_array_interface__``, C-contiguous; or a result of another session. Nothing is copied then. The work is
        started on the stream that comes with them (torch: the current one), nobody waits for it, and the result is a
        :class:`binarynet.cuda.arrays.DeviceArray` on that stream. The images must not be overwritten on another stream
        before the work is done. Padding bits of packed bits are the caller's to keep 0 there.

        Args:
            images: the batch; C-contiguous ones are not copied (those of the host come to a GPU in copies).
            out: memory for the result (its dtype and shape, C-contiguous, apart from the images), which is returned;
                default: new memory. For images in a GPU's memory, memory there.

        Raises:
            ShapeError: wrong dtype or shape of the images.
            UsageError: padding bits of packed bits that are not 0; an ``out`` that is not what it should be; images in
                the memory of another device.
            DeviceError: the GPU, its driver or its memory failed. What fails while a result in a GPU's memory is still
                computed is found where it is read.
            BinaryNetError: images or results that do not fit into memory.
        """
        return self._arrays(images, out)[0]

    @overload
    def run_tapped(self, images: Array) -> dict[str, Array]: ...
    @overload
    def run_tapped(self, images: Any) -> dict[str, Any]: ...
    def run_tapped(self, images: Any) -> dict[str, Any]:
        """Result and taps by name, in the layout of :mod:`binarynet.graph.ir`; arguments and errors as :meth:`run`."""
        return dict(zip(self._values, self._arrays(images, None), strict=True))

    def plan(self, batch: int = 1) -> Plan:
        """What :meth:`run` does with a batch of this size, step by step.

        Raises:
            UsageError: a batch below 1, or the reference, which has no plan.
        """
        if self._cuda is not None:
            return self._cuda.plan(_checked_count("batch", batch), self._why_engine)
        native = self._planned()
        with _translated_errors():
            whole, rows = native.plan(_checked_count("batch", batch))
        names = list(self.graph.types)
        steps = (Step(**{**row, "values": tuple(names[value] for value in row["values"])}) for row in rows)
        why = self._why_engine
        return Plan(
            **whole, engine=self.engine, why_engine=why, num_threads=self.num_threads, batch=batch, steps=tuple(steps)
        )

    def profile(self, images: Array, repeats: int = 10) -> tuple[StepTime, ...]:
        """Wall-clock time of each step, in order, over so many runs one after the other (the first ones of a session
        find cold caches). The clock is read around each step, natively, on a GPU by the GPU; other runs are not slowed
        down by it. Signals are handled between chunks: Ctrl-C ends it. Images are NumPy arrays.

        Raises:
            UsageError: no images, ``repeats`` below 1, or the reference, which has no steps; else as :meth:`run`.
        """
        native = self._planned() if self._cuda is None else self._cuda
        repeats = _checked_count("repeats", repeats)
        with _named_memory(images), _translated_errors():
            check_images(self.graph, images)
            steps = self.plan(len(images)).steps
            times = native.profile(_plain(images), repeats)
        return tuple(
            StepTime(step, nanoseconds) for step, nanoseconds in zip(steps, zip(*times, strict=True), strict=True)
        )

    def _arrays(self, images: Any, out: Any) -> list[Any]:
        """Result and taps. The native core checks what it is given; where it refuses, the reason is looked for here."""
        if self._cuda is not None:
            if not isinstance(images, np.ndarray):
                return self._cuda.run_device(images, out)
            with _named_memory(images):
                check_images(self.graph, images)
                if out is not None:
                    _check_out(images, out)
                return self._cuda.run_host(np.asarray(images), out)
        native = self._native
        if native is None or type(images) is not _ARRAY or (out is not None and type(out) is not _ARRAY):
            return self._checked_arrays(images, out)
        try:
            return native.run(images, out)  # type: ignore[no-any-return]
        except (RuntimeError, MemoryError):  # NativeError, whose module is not imported without need
            return self._checked_arrays(images, out)

    def _checked_arrays(self, images: Array, out: Array | None) -> list[Array]:
        """As :meth:`_arrays`, everything checked here and the same for all engines. Of what is right but not contiguous
        or not aligned, a copy is taken."""
        with _named_memory(images):
            check_images(self.graph, images)
            if out is not None:
                _check_out(images, out)
            if self._native is not None:
                with _translated_errors():
                    return self._native.run(_plain(images), out)  # type: ignore[no-any-return]
            arrays = list(evaluate(self.graph, _plain(images), self._values).values())
            return arrays if out is None else [_copied(arrays[0], out), *arrays[1:]]

    def _planned(self) -> Any:
        if self._native is None:
            raise UsageError(
                f"the engine {REFERENCE!r} has no plan and no steps to time: it computes node after node with NumPy; "
                "use another engine"
            )
        return self._native


def _rebuilt(
    kind: type[Session],
    graph: Graph,
    taps: tuple[str, ...],
    engine: str | None,
    num_threads: int | None,
    device: str | None,
) -> Session:
    """A session from what it was made of: the native one cannot be copied, nor one of a GPU."""
    return kind(graph, taps=taps, engine=engine, num_threads=num_threads, device=device)


def _checked_threads(number: Any) -> int:
    try:
        threads = operator.index(number)
    except TypeError:
        threads = 0
    if not 1 <= threads <= MAX_THREADS or isinstance(number, bool):
        raise UsageError(f"num_threads must be an integer from 1 to {MAX_THREADS}, got {number!r}")
    return threads


def _checked_count(name: str, number: Any) -> int:
    try:
        count = operator.index(number)
    except TypeError:
        count = 0
    if not 1 <= count <= _MOST or isinstance(number, bool):
        raise UsageError(f"{name} must be an integer from 1 to {_MOST:,}, got {number!r}")
    return count


def _check_out(images: Array, out: Any) -> None:
    """Refuses memory that no engine should write to."""
    if not isinstance(out, np.ndarray) or isinstance(out, np.ma.MaskedArray):
        raise UsageError(f"out: expected a NumPy array without a mask, got {type(out).__name__}")
    if np.may_share_memory(images, out):
        raise UsageError("out: expected memory of its own, it overlaps the images")


def _copied(result: Array, out: Array) -> Array:
    """``out`` with the values of ``result``; refuses what the native core refuses."""
    check_out_array(out, result.dtype, result.shape)
    np.copyto(np.asarray(out), result)
    return out


@contextmanager
def _named_memory(images: Array) -> Iterator[None]:
    """Says what was asked for where memory does not suffice."""
    try:
        yield
    except MemoryError:
        raise BinaryNetError(
            f"images: {len(images):,} of {images.dtype} {list(images.shape[1:])}, {images.nbytes / 2**30:,.1f} GiB "
            "altogether, do not fit into memory with their results; run fewer of them at a time"
        ) from None


@contextmanager
def _translated_errors() -> Iterator[None]:
    """Native errors as binarynet's own."""
    from binarynet import _native

    try:
        yield
    except _native.NativeError as error:
        known = {"INVALID_ARGUMENT": UsageError, "UNAVAILABLE": BackendUnavailableError}
        raise known.get(getattr(error, "status", ""), BinaryNetError)(str(error)) from None


def _compile_for_gpu(graph: Graph, values: Sequence[str], device: str, engine: str | None) -> CudaSession:
    """A session on a GPU, with its best engine where none is asked for."""
    from binarynet.cuda.choice import best
    from binarynet.cuda.device import find
    from binarynet.runtime.cuda_session import CudaSession

    found, reason = find(device)
    if found is None:
        raise BackendUnavailableError(f"the device {device!r} cannot be used here: {reason}")
    return CudaSession(graph, values, found, engine or best(found.capability))


def _compile(graph: Graph, values: Sequence[str], engine: str | None, num_threads: int | None) -> Any:
    """The native session of a graph."""
    try:
        from binarynet import _native
    except ImportError as error:
        raise BackendUnavailableError(
            f"the native extension cannot be loaded: {error}; reinstall binarynet, or use engine='reference'"
        ) from None
    with _translated_errors():
        native = _native.Graph()
        index: dict[str, int] = {}
        for node in graph:
            index[node.name] = _add(native, node, index)
        vectors = [index[name] for name, value in graph.types.items() if len(value.shape) == 1]
        return _native.Session(native, [index[name] for name in values], engine, num_threads or 0, vectors)


def _add(native: Any, node: Node, index: dict[str, int]) -> int:
    """Add one node to the native graph; returns its value's index."""
    if isinstance(node, Input):
        h, w, c = node.shape if len(node.shape) == 3 else (1, 1, node.shape[0])
        return int((native.add_bits_input if node.kind == "bits" else native.add_input)(h, w, c))
    source = index[node.sources[0]]
    if isinstance(node, Convolution):
        window, weights = node.window, _plain(node.weights)
        return int(native.add_convolution(source, window.kernel, window.stride, window.padding, len(weights), weights))
    if isinstance(node, Dense):
        weights = _plain(node.weights)[:, np.newaxis, np.newaxis]
        return int(native.add_convolution(source, (1, 1), (1, 1), (0, 0), len(weights), weights))
    if isinstance(node, MaxPool):
        return int(native.add_max_pool(source, node.window.kernel, node.window.stride, node.window.padding))
    if isinstance(node, Threshold):
        return int(native.add_threshold(source, _plain(node.thresholds), pack_bits(node.falling)))
    if isinstance(node, Affine):
        return int(native.add_affine(source, _plain(node.scale), _plain(node.shift)))
    if isinstance(node, Flatten):
        return int(native.add_flatten(source))
    raise BinaryNetError(f"node {node.name!r}: the native core does not know {type(node).__name__}")


def _plain(array: Array) -> Array:
    """Contiguous, aligned and of no subclass: a graph made by hand may hold any view."""
    return np.require(np.asarray(array), requirements=("C", "A"))
