"""From a graph to the steps of a GPU: what is computed by one launch, and where values lie between them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

import numpy as np
import numpy.typing as npt

from binarynet.cuda.blocks import Block
from binarynet.cuda.operations import flatten_moves
from binarynet.encoding import num_words
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
    ValueType,
    Window,
)

Bools = npt.NDArray[np.bool_]
N = TypeVar("N", bound=Node)
ALIGNMENT = 256
"""Of values in the arena, in bytes: that of the driver's own allocations."""
DTYPES: dict[str, np.dtype[Any]] = {
    "u8": np.dtype(np.uint8),
    "bits": np.dtype("<u8"),
    "i32": np.dtype(np.int32),
    "f32": np.dtype(np.float32),
}


@dataclass(frozen=True, eq=False)
class DeviceStep:
    """One launch.

    Attributes:
        kind: "block" for a convolution or dense layer with what is fused into it.
        values: names of the graph's values that it computes; of a block whose threshold moved in front of its pooling,
            the threshold's name, too.
        source, result: storages that it reads and writes.
        source_type, result_type: what lies there.
        block: of a block.
        node: of all others, the node that it computes.
        falling: of a pooling of bits that took the threshold's place, its falling channels: there the AND is taken.
    """

    kind: Literal["block", "max_pool", "threshold", "affine", "flatten"]
    values: tuple[str, ...]
    source: str
    result: str
    source_type: ValueType
    result_type: ValueType
    block: Block | None = None
    node: Node | None = None
    falling: Bools | None = None


@dataclass(frozen=True)
class Place:
    """Where a storage lies: in the arena at an offset, or in the caller's input, or output of this index."""

    kind: Literal["arena", "input", "output"]
    at: int = 0


@dataclass(frozen=True)
class Placement:
    """Places of all storages for some number of images.

    Attributes:
        places: by storage.
        arena_bytes: of all those in the arena.
    """

    places: dict[str, Place]
    arena_bytes: int


@dataclass
class Layout:
    """The steps of a graph, in order.

    Attributes:
        steps: what is launched.
        outputs: values that are asked for.
        input_type, output_types: of the input and of those.
        storages: of each value, the storage that its bytes lie in; several share one where nothing moves.
        input: the storage of the input.
        copies: (storage, output): outputs that lie in a storage which is already placed.
        input_bytes, output_bytes: of one image.
    """

    steps: list[DeviceStep]
    outputs: tuple[str, ...]
    input_type: ValueType
    output_types: tuple[ValueType, ...]
    storages: dict[str, str]
    input: str
    copies: list[tuple[str, int]] = field(default_factory=list)
    _fixed: dict[str, Place] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.input_bytes = bytes_per_image(self.input_type)
        self.output_bytes = tuple(map(bytes_per_image, self.output_types))

    def placement(self, images: int) -> Placement:
        """Where values lie: first fit, in the order of computation; bytes are shared by values of different times."""
        last = {step.source: i for i, step in enumerate(self.steps)}
        for storage, _ in self.copies:  # read behind all steps
            last[storage] = len(self.steps)
        places = dict(self._fixed)
        taken: list[tuple[int, int, int]] = []  # (offset, end, last step that needs it), sorted by offset
        arena = 0
        for i, step in enumerate(self.steps):
            if step.result in places:
                continue
            size = -(-bytes_per_image(step.result_type) * images // ALIGNMENT) * ALIGNMENT
            taken = [piece for piece in taken if piece[2] >= i]
            offset = 0
            for start, end, _ in taken:
                if offset + size <= start:
                    break
                offset = max(offset, end)
            places[step.result] = Place("arena", offset)
            taken = sorted([*taken, (offset, offset + size, last.get(step.result, i))])
            arena = max(arena, offset + size)
        return Placement(places, arena)


def array_shape(kind: ValueType) -> tuple[int, ...]:
    """Shape of one image as an array: words are counted on the last axis of bits."""
    return (*kind.shape[:-1], num_words(kind.shape[-1])) if kind.kind == "bits" else kind.shape


def bytes_per_image(kind: ValueType) -> int:
    """Of one image's value, dense."""
    return int(np.prod(array_shape(kind), dtype=object)) * DTYPES[kind.kind].itemsize


def make_layout(graph: Graph, outputs: Sequence[str]) -> Layout:
    """The steps that compute these values of a graph; a value that is asked for is never fused away."""
    return _Planner(graph, tuple(outputs)).layout()


class _Planner:
    def __init__(self, graph: Graph, outputs: tuple[str, ...]) -> None:
        self._graph, self._outputs = graph, outputs
        self._users: dict[str, list[Node]] = {name: [] for name in graph.types}
        for node in graph:
            for source in node.sources:
                self._users[source].append(node)
        self._done: set[str] = set()
        self._steps: list[DeviceStep] = []
        self._storages: dict[str, str] = {}

    def layout(self) -> Layout:
        for node in self._graph:
            if node.name not in self._done:
                self._add(node)
        types = self._graph.types
        outputs = tuple(types[name] for name in self._outputs)
        layout = Layout(
            self._steps, self._outputs, types[self._graph.input.name], outputs, self._storages, self._graph.input.name
        )
        layout._fixed[layout.input] = Place("input")
        for i, name in enumerate(self._outputs):
            storage = self._storages[name]
            if storage in layout._fixed:
                layout.copies.append((storage, i))
            else:
                layout._fixed[storage] = Place("output", i)
        return layout

    def _add(self, node: Node) -> None:
        if isinstance(node, Input):
            self._storages[node.name] = node.name
        elif isinstance(node, Flatten) and self._is_view(node):
            self._storages[node.name] = self._storages[node.source]
        elif isinstance(node, Convolution | Dense):
            self._add_block(node)
        elif isinstance(node, MaxPool):
            self._step("max_pool", (node.name,), node.source, node.name, node=node)
        elif isinstance(node, Threshold):
            self._step("threshold", (node.name,), node.source, node.name, node=node)
        elif isinstance(node, Affine):
            self._step("affine", (node.name,), node.source, node.name, node=node)
        else:
            assert isinstance(node, Flatten)
            self._step("flatten", (node.name,), node.source, node.name, node=node)

    def _step(self, kind: Any, values: tuple[str, ...], source: str, result: str, **more: Any) -> None:
        types = self._graph.types
        self._storages[result] = result
        self._steps.append(
            DeviceStep(kind, values, self._storages[source], result, types[source], types[result], **more)
        )
        self._done.update(values)

    def _is_view(self, node: Flatten) -> bool:
        """Bits move only where pixels have padding bits between them."""
        source = self._graph.types[node.source]
        return source.kind != "bits" or not flatten_moves(source.shape[0] * source.shape[1], source.channels)

    def _only_user(self, value: str, kind: type[N]) -> N | None:
        """The one node that reads a value which nobody asks for, if it is of this kind."""
        users = self._users[value]
        return users[0] if value not in self._outputs and len(users) == 1 and isinstance(users[0], kind) else None

    def _add_block(self, node: Convolution | Dense) -> None:
        pools: list[MaxPool] = []
        last: Node = node
        while (pool := self._only_user(last.name, MaxPool)) is not None:
            pools.append(pool)
            last = pool
        if (threshold := self._only_user(last.name, Threshold)) is not None:
            self._add_signs(node, pools, threshold)
        elif not pools and (affine := self._only_user(node.name, Affine)) is not None:
            block = self._block(node, output="f32", scale=affine.scale, shift=affine.shift)
            self._step("block", (node.name, affine.name), node.source, affine.name, block=block)
        else:
            self._step("block", (node.name,), node.source, node.name, block=self._block(node))

    def _add_signs(self, node: Convolution | Dense, pools: list[MaxPool], threshold: Threshold) -> None:
        """Threshold first, then the poolings on bits: max(s) >= t is the OR of s >= t, and its negation, where the
        channel falls, the AND of the negations."""
        block = self._block(node, output="bits", thresholds=threshold.thresholds, falling=threshold.falling)
        types, source = self._graph.types, self._storages[node.source]
        value, kind = node.name, ValueType("bits", types[node.name].shape)
        names = [f"{threshold.name} of {stage.name}" for stage in (node, *pools)]  # no graph has names with spaces
        names[-1] = threshold.name
        self._steps.append(
            DeviceStep("block", (value, threshold.name), source, names[0], types[node.source], kind, block=block)
        )
        for pool, before, after in zip(pools, names[:-1], names[1:], strict=True):
            pooled = ValueType("bits", types[pool.name].shape)
            step = DeviceStep(
                "max_pool", (pool.name,), before, after, kind, pooled, node=pool, falling=threshold.falling
            )
            self._steps.append(step)
            kind = pooled
        self._storages[threshold.name] = threshold.name
        self._done.update((node.name, threshold.name, *(pool.name for pool in pools)))

    def _block(self, node: Convolution | Dense, output: Any = "i32", **more: Any) -> Block:
        source = self._graph.types[node.source]
        if isinstance(node, Convolution):
            (height, width, channels), window = source.shape, node.window
            weights = node.weights
        else:
            height, width, channels, window = 1, 1, source.channels, Window((1, 1))
            weights = node.weights[:, np.newaxis, np.newaxis]
        assert source.kind in ("u8", "bits")
        return Block(
            input=source.kind,
            height=height,
            width=width,
            channels=channels,
            kernel=window.kernel,
            stride=window.stride,
            padding=window.padding,
            weights=np.ascontiguousarray(weights),
            output=output,
            **{name: np.ascontiguousarray(array) for name, array in more.items()},
        )
