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
from binarynet.runtime.engines import REFERENCE, check_engine, forced_instruction_set

Array = npt.NDArray[Any]
MAX_THREADS = 1024
"""Most threads that a session takes, as in the native core."""


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

    def run(self, images: Array) -> Array:
        """The network's result for uint8 ``[n, *input shape]``: usually float32 scores ``[n, classes]``.

        Where the graph's input is packed bits, images are uint64 ``[n, ..., words(channels)]``.

        Raises:
            ShapeError: wrong dtype or shape.
            UsageError: padding bits of packed bits that are not 0.
        """
        return self.run_tapped(images)[self.graph.output]

    def run_tapped(self, images: Array) -> dict[str, Array]:
        """Result and taps by name, in the layout of :mod:`binarynet.graph.ir`. Raises as :meth:`run`."""
        check_images(self.graph, images)
        if self._native is None:
            return evaluate(self.graph, images, self._values)
        with _translated_errors():
            arrays = self._native.run(_as_image(images))
        return {
            name: array if len(self.graph.types[name].shape) == 3 else array.reshape(len(images), array.shape[-1])
            for name, array in zip(self._values, arrays, strict=True)
        }


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


def _as_image(images: Array) -> Array:
    """Contiguous ``[n, h, w, c]``; feature vectors are 1 x 1 images to the native core."""
    if images.ndim == 2:
        images = images[:, np.newaxis, np.newaxis]
    return np.ascontiguousarray(images)


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
        return _native.Session(native, [index[name] for name in values], engine, num_threads or 0)


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
    """Contiguous and aligned: a graph made by hand may hold any view."""
    return np.require(array, requirements=("C", "A"))
