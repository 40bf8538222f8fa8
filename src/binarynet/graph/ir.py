"""The typed graph: what a packed network is, with integers only and without torch.

A graph is a list of nodes in topological order; every node makes one value, named like the node. Values have a type:

======  =======================================  =========================================
kind    meaning                                  NumPy array (batch first)
======  =======================================  =========================================
u8      8-bit input u, standing for 2u - 255     uint8  ``[n, h, w, c]`` or ``[n, k]``
bits    +1 / -1, packed over the last axis       uint64 ``[n, h, w, words(c)]`` or ``[n, words(k)]``
i32     exact sums                               int32  ``[n, h, w, c]`` or ``[n, k]``
f32     scores                                   float32, as above
======  =======================================  =========================================

Shapes leave the batch out. ``reference.py`` says what every node computes; every engine equals it bit for bit.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from binarynet.encoding import EXACT_FLOAT32_LIMIT, INPUT_MAX, Words, num_words, padding_is_zero
from binarynet.errors import GraphError

Kind = Literal["u8", "bits", "i32", "f32"]
Pair = tuple[int, int]

MAX_ELEMENTS = 1 << 28
"""Largest number of elements of one value, per image: bounds what a file may ask for."""
MAX_WEIGHT_WORDS = 1 << 24
"""Largest number of 64-bit words of one weight tensor (2^30 weights)."""
MAX_TOTAL_WORDS = 1 << 26
"""Largest number of words of all weights: a file holds them without padding, where a word may have a single bit."""
MAX_NODES = 4096
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.\-]{0,127}")


@dataclass(frozen=True)
class ValueType:
    """Kind and shape (batch left out) of a value: ``(h, w, c)`` for images, ``(k,)`` for feature vectors."""

    kind: Kind
    shape: tuple[int, ...]

    @property
    def channels(self) -> int:
        return self.shape[-1]

    @property
    def num_elements(self) -> int:
        return int(np.prod(self.shape, dtype=object))

    def __str__(self) -> str:
        return f"{self.kind}[{', '.join(map(str, self.shape))}]"


@dataclass(frozen=True)
class Window:
    """Window of a convolution or pooling, rows first; padding is symmetric and means zero (or, pooling, ignored)."""

    kernel: Pair
    stride: Pair = (1, 1)
    padding: Pair = (0, 0)

    def output_size(self, size: Pair) -> Pair:
        """Output rows and columns for an input of ``size`` rows and columns; <= 0 where the window does not fit."""
        return (
            (size[0] + 2 * self.padding[0] - self.kernel[0]) // self.stride[0] + 1,
            (size[1] + 2 * self.padding[1] - self.kernel[1]) // self.stride[1] + 1,
        )


@dataclass(frozen=True, eq=False)
class Node:
    """One operation; ``name`` is also the name of the value that it makes."""

    name: str

    @property
    def sources(self) -> tuple[str, ...]:
        return ()


@dataclass(frozen=True, eq=False)
class Input(Node):
    """The network's input: uint8 ``[n, *shape]``, or packed bits (for a part of a network behind its first sign).

    ``shape`` counts channels or features, not words; ``kind`` is "u8" or "bits".
    """

    shape: tuple[int, ...]
    kind: Literal["u8", "bits"] = "u8"


@dataclass(frozen=True, eq=False)
class Unary(Node):
    """A node with one operand."""

    source: str

    @property
    def sources(self) -> tuple[str, ...]:
        return (self.source,)


@dataclass(frozen=True, eq=False)
class Convolution(Unary):
    """Sums of a binary convolution: u8 or bits ``(h, w, c)`` to i32 ``(h', w', out)``.

    ``weights``: packed bits, uint64 ``[out, kernel_h, kernel_w, words(c)]``. Taps outside of the image add nothing.
    """

    window: Window
    weights: Words


@dataclass(frozen=True, eq=False)
class Dense(Unary):
    """Sums of a binary dense layer: u8 or bits ``(k,)`` to i32 ``(out,)``; ``weights`` uint64 ``[out, words(k)]``."""

    weights: Words


@dataclass(frozen=True, eq=False)
class MaxPool(Unary):
    """Maximum over a window: i32 to i32, or bits to bits (an OR). Taps outside of the image are ignored."""

    window: Window


@dataclass(frozen=True, eq=False)
class Threshold(Unary):
    """i32 to bits: ``bit = (sum >= thresholds[channel]) != falling[channel]``.

    ``thresholds`` int32 ``[c]``, ``falling`` bool ``[c]``. A channel whose threshold is out of reach is constant.
    """

    thresholds: npt.NDArray[np.int32]
    falling: npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Affine(Unary):
    """i32 to f32: ``float32(sum) * scale[channel] + shift[channel]``, rounded twice; both float32 ``[c]``."""

    scale: npt.NDArray[np.float32]
    shift: npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Flatten(Unary):
    """``(h, w, c)`` to ``(h * w * c,)``, rows slowest, channels fastest; the kind stays."""


class GraphBuilder:
    """Collects nodes in order, each checked as it is added.

    Attributes:
        nodes, types, bounds: as in :class:`Graph`, for the nodes so far.
    """

    def __init__(self) -> None:
        self.nodes: list[Node] = []
        self.types: dict[str, ValueType] = {}
        self.bounds: dict[str, int] = {}
        self._words = 0

    def add(self, node: Node) -> str:
        """Append a node and return its name; GraphError where it does not fit."""
        position = len(self.nodes)
        if position == 0 and not isinstance(node, Input):
            raise GraphError("a graph begins with its input node")
        if position == MAX_NODES:
            raise GraphError(f"more than {MAX_NODES} nodes")
        if not _NAME.fullmatch(node.name):
            raise GraphError(
                f"node {position}: name {node.name[:140]!r} is not allowed (letters, digits, '_', '.', '-'; "
                "at most 128 characters)"
            )
        if node.name in self.types:
            raise GraphError(f"node {position}: the name {node.name!r} is used twice")
        for source in node.sources:
            if source not in self.types:
                raise GraphError(f"node {node.name!r}: its source {source[:140]!r} is not an earlier value")
        inferred, bound = _infer(node, position, self.types, self.bounds)
        if isinstance(node, Convolution | Dense):
            self._words += node.weights.size
            if self._words > MAX_TOTAL_WORDS:
                raise GraphError(f"node {node.name!r}: the network's weights take more than {MAX_TOTAL_WORDS} words")
        self.types[node.name] = inferred
        if bound is not None:
            self.bounds[node.name] = bound
        self.nodes.append(node)
        return node.name

    def finish(self, output: str) -> Graph:
        """The graph whose result is the value ``output``."""
        return Graph(tuple(self.nodes), output)


@dataclass(frozen=True, eq=False)
class Graph:
    """A validated graph. Construction raises :class:`GraphError` where anything is inconsistent.

    Attributes:
        nodes: in topological order, the one :class:`Input` first.
        output: name of the value that is the network's result.
        types: value name to :class:`ValueType` (derived).
        bounds: name of each i32 value to the largest magnitude that its sums can have (derived).
    """

    nodes: tuple[Node, ...]
    output: str
    types: dict[str, ValueType] = field(init=False)
    bounds: dict[str, int] = field(init=False)

    def __post_init__(self) -> None:
        checked = GraphBuilder()
        for node in self.nodes:
            checked.add(node)
        if not self.nodes:
            raise GraphError("a graph begins with its input node")
        if self.output not in checked.types:
            raise GraphError(f"the output {self.output!r} is not a value of the graph")
        used = {source for node in self.nodes for source in node.sources} | {self.output}
        unused = [name for name in checked.types if name not in used]
        if unused:
            raise GraphError(f"the value {unused[0]!r} is neither used nor the output")
        object.__setattr__(self, "types", checked.types)
        object.__setattr__(self, "bounds", checked.bounds)

    def __iter__(self) -> Iterator[Node]:
        return iter(self.nodes)

    @property
    def input(self) -> Input:
        node = self.nodes[0]
        assert isinstance(node, Input)
        return node

    @property
    def output_type(self) -> ValueType:
        return self.types[self.output]

    def node(self, name: str) -> Node:
        """The node called ``name``; GraphError with the known names if there is none."""
        for node in self.nodes:
            if node.name == name:
                return node
        raise GraphError(f"no value is called {name!r}; there are: {', '.join(self.types)}")


def num_taps(node: Convolution | Dense, source: ValueType) -> int:
    """Weights per output channel (K): the number of taps of a window that lies inside of the image."""
    if isinstance(node, Dense):
        return source.channels
    return node.window.kernel[0] * node.window.kernel[1] * source.channels


def _infer(
    node: Node, position: int, types: dict[str, ValueType], bounds: dict[str, int]
) -> tuple[ValueType, int | None]:
    """Type of a node's value and, for sums, their bound; GraphError where the node does not fit its source."""
    where = f"node {node.name!r}"
    if isinstance(node, Input):
        if position != 0:
            raise GraphError(f"{where}: a graph has one input, its first node")
        _check_shape(where, node.shape)
        if node.kind not in ("u8", "bits"):
            raise GraphError(f"{where}: an input is u8 or bits, not {node.kind!r}")
        return ValueType(node.kind, node.shape), None
    if not isinstance(node, Unary):
        raise GraphError(f"{where}: unknown node type {type(node).__name__}")
    source = types[node.source]
    bound = bounds.get(node.source)
    if isinstance(node, Convolution | Dense):
        return _infer_sums(where, node, source)
    if isinstance(node, MaxPool):
        _expect(where, source, kinds=("i32", "bits"), rank=3)
        _check_window(where, node.window)
        if any(2 * p > k for p, k in zip(node.window.padding, node.window.kernel, strict=True)):
            raise GraphError(f"{where}: pooling padding {node.window.padding} exceeds half of the kernel")
        shape = (*_window_size(where, node.window, source), source.channels)
        _check_shape(where, shape)
        return ValueType(source.kind, shape), bound
    if isinstance(node, Threshold):
        _expect(where, source, kinds=("i32",))
        _check_array(where, "thresholds", node.thresholds, np.dtype(np.int32), (source.channels,))
        _check_array(where, "falling", node.falling, np.dtype(np.bool_), (source.channels,))
        return ValueType("bits", source.shape), None
    if isinstance(node, Affine):
        _expect(where, source, kinds=("i32",))
        for label, values in (("scale", node.scale), ("shift", node.shift)):
            _check_array(where, label, values, np.dtype(np.float32), (source.channels,))
            if not np.isfinite(values).all():
                channel = int(np.flatnonzero(~np.isfinite(values))[0])
                raise GraphError(f"{where}: {label} of channel {channel} is {values[channel]}, not a finite number")
        assert bound is not None
        with np.errstate(over="ignore"):
            reach = np.abs(node.scale) * np.float32(bound) + np.abs(node.shift)
        if not np.isfinite(reach).all():
            raise GraphError(f"{where}: scores of channel {int(np.argmax(reach))} can overflow float32")
        return ValueType("f32", source.shape), None
    if isinstance(node, Flatten):
        _expect(where, source, rank=3)
        return ValueType(source.kind, (source.num_elements,)), bound
    raise GraphError(f"{where}: unknown node type {type(node).__name__}")


def _infer_sums(where: str, node: Convolution | Dense, source: ValueType) -> tuple[ValueType, int]:
    shape: tuple[int, ...]
    if isinstance(node, Dense):
        _expect(where, source, kinds=("u8", "bits"), rank=1)
        weights_shape: tuple[int, ...] = (num_words(source.channels),)
        shape = ()
    else:
        _expect(where, source, kinds=("u8", "bits"), rank=3)
        _check_window(where, node.window)
        weights_shape = (*node.window.kernel, num_words(source.channels))
        shape = _window_size(where, node.window, source)
    out = node.weights.shape[0] if node.weights.ndim else 0
    if out < 1:
        raise GraphError(f"{where}: weights {list(node.weights.shape)} have no output channel")
    _check_array(where, "weights", node.weights, np.dtype("<u8"), (out, *weights_shape))
    if node.weights.size > MAX_WEIGHT_WORDS:
        raise GraphError(f"{where}: {node.weights.size} words of weights; at most {MAX_WEIGHT_WORDS} are allowed")
    if not padding_is_zero(node.weights, source.channels):
        raise GraphError(f"{where}: padding bits of the weights are not 0")
    bound = num_taps(node, source) * (INPUT_MAX if source.kind == "u8" else 1)
    if bound > EXACT_FLOAT32_LIMIT:
        raise GraphError(f"{where}: sums reach {bound}, beyond {EXACT_FLOAT32_LIMIT} where float32 is exact")
    _check_shape(where, (*shape, out))
    return ValueType("i32", (*shape, out)), bound


def _expect(where: str, source: ValueType, kinds: tuple[str, ...] = (), rank: int | None = None) -> None:
    if kinds and source.kind not in kinds:
        raise GraphError(f"{where}: expected {' or '.join(kinds)}, its source is {source}")
    if rank is not None and len(source.shape) != rank:
        expected = "an image [h, w, c]" if rank == 3 else "a feature vector [k] (flatten comes first)"
        raise GraphError(f"{where}: expected {expected}, its source is {source}")


def _check_window(where: str, window: Window) -> None:
    for label, pair, least in (
        ("kernel", window.kernel, 1),
        ("stride", window.stride, 1),
        ("padding", window.padding, 0),
    ):
        if len(pair) != 2 or any(not least <= v <= 65535 for v in pair):
            raise GraphError(f"{where}: {label} {pair} must be two integers from {least} to 65535")
    if any(p >= k for p, k in zip(window.padding, window.kernel, strict=True)):
        raise GraphError(f"{where}: padding {window.padding} must be smaller than the kernel {window.kernel}")


def _window_size(where: str, window: Window, source: ValueType) -> Pair:
    size = window.output_size((source.shape[0], source.shape[1]))
    if min(size) < 1:
        raise GraphError(f"{where}: the window {window.kernel} does not fit into {source}")
    return size


def _check_shape(where: str, shape: tuple[int, ...]) -> None:
    if len(shape) not in (1, 3) or any(d < 1 for d in shape):
        raise GraphError(f"{where}: shape {list(shape)} must be [h, w, c] or [k], every size at least 1")
    if ValueType("u8", shape).num_elements > MAX_ELEMENTS:
        raise GraphError(f"{where}: shape {list(shape)} has more than {MAX_ELEMENTS} elements")


def _check_array(where: str, label: str, array: Any, dtype: np.dtype[Any], shape: tuple[int, ...]) -> None:
    if not isinstance(array, np.ndarray) or array.dtype != dtype or array.shape != shape:
        given = f"{array.dtype} {list(array.shape)}" if isinstance(array, np.ndarray) else type(array).__name__
        raise GraphError(f"{where}: {label} must be {dtype} {list(shape)}, got {given}")
