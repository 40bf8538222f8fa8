"""A compiled network: images in, values out, on one engine."""

from __future__ import annotations

import operator
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

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
from binarynet.runtime.engines import FORCE_VARIABLE, REFERENCE, check_engine, forced_instruction_set
from binarynet.runtime.plan import Plan, Step, StepTime

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
        engine: name of an engine (:func:`binarynet.runtime.engines`); default: the best one here, or the instruction
            set that the environment variable BINARYNET_FORCE_ISA names.
        num_threads: threads of the native core, 1 to 1024; default: one per core that this process may use.

    Raises:
        UsageError: an unknown engine or value, a number of threads that is none, or a BINARYNET_FORCE_ISA that is
            unknown (whatever ``engine`` is).
        BackendUnavailableError: the engine, or the one that BINARYNET_FORCE_ISA names, cannot run here.
    """

    def __init__(
        self,
        graph: Graph,
        *,
        taps: Sequence[str] = (),
        engine: str | None = None,
        num_threads: int | None = None,
    ) -> None:
        threads = None if num_threads is None else _checked_threads(num_threads)
        forced = forced_instruction_set()
        if engine is not None:
            check_engine(engine)
        for tap in taps:
            if tap not in graph.types:
                raise UsageError(f"no value is called {tap!r}; there are: {', '.join(graph.types)}")
        self.graph = graph
        self.taps = tuple(taps)
        self._values = tuple(dict.fromkeys((graph.output, *taps)))
        self._asked = (engine, threads)
        self._native = None if engine == REFERENCE else _compile(graph, self._values, engine or forced, threads)
        if engine is not None:
            self._why_engine = "asked for"
        else:
            self._why_engine = "the best that can be used here" if forced is None else f"named by {FORCE_VARIABLE}"

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuilt, (type(self), self.graph, self.taps, *self._asked)

    @property
    def engine(self) -> str:
        """Name of the engine in use."""
        return REFERENCE if self._native is None else str(self._native.isa)

    @property
    def num_threads(self) -> int:
        """Threads that one run may use."""
        return 1 if self._native is None else int(self._native.num_threads)

    def run(self, images: Array, out: Array | None = None) -> Array:
        """The network's result for uint8 ``[n, *input shape]``: usually float32 scores ``[n, classes]``.

        Where the graph's input is packed bits, images are uint64 ``[n, ..., words(channels)]``.

        Args:
            images: the batch; C-contiguous ones are not copied.
            out: memory for the result (its dtype and shape, C-contiguous, apart from the images), which is returned;
                default: new memory.

        Raises:
            ShapeError: wrong dtype or shape of the images.
            UsageError: padding bits of packed bits that are not 0; an ``out`` that is not what it should be.
            BinaryNetError: images or results that do not fit into memory.
        """
        return self._arrays(images, out)[0]

    def run_tapped(self, images: Array) -> dict[str, Array]:
        """Result and taps by name, in the layout of :mod:`binarynet.graph.ir`. Raises as :meth:`run`."""
        return dict(zip(self._values, self._arrays(images, None), strict=True))

    def plan(self, batch: int = 1) -> Plan:
        """What :meth:`run` does with a batch of this size, step by step.

        Raises:
            UsageError: a batch below 1, or the reference, which has no plan.
        """
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
        find cold caches). The clock is read around each step, natively; other runs are not slowed down by it. Signals
        are handled between chunks: Ctrl-C ends it.

        Raises:
            UsageError: no images, ``repeats`` below 1, or the reference, which has no steps; else as :meth:`run`.
        """
        native = self._planned()
        repeats = _checked_count("repeats", repeats)
        with _named_memory(images), _translated_errors():
            check_images(self.graph, images)
            steps = self.plan(len(images)).steps
            times = native.profile(_plain(images), repeats)
        return tuple(
            StepTime(step, nanoseconds) for step, nanoseconds in zip(steps, zip(*times, strict=True), strict=True)
        )

    def _arrays(self, images: Array, out: Array | None) -> list[Array]:
        """Result and taps. The native core checks what it is given; where it refuses, the reason is looked for here."""
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
    kind: type[Session], graph: Graph, taps: tuple[str, ...], engine: str | None, num_threads: int | None
) -> Session:
    """A session from what it was made of: the native one cannot be copied."""
    return kind(graph, taps=taps, engine=engine, num_threads=num_threads)


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
    if (out.dtype, out.shape) != (result.dtype, result.shape):
        given = f"{out.dtype} {list(out.shape)}"
        raise UsageError(f"out: expected a NumPy array {result.dtype} {list(result.shape)}, got {given}")
    if not out.flags.carray:
        raise UsageError("out: expected an array that is C-contiguous, aligned and may be written")
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
