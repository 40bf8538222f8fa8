"""What each layer of a graph is, holds and costs, whether it runs in binary, and why not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

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
    num_taps,
)

FLOAT32_BYTES = 4


@dataclass(frozen=True)
class Layer:
    """A convolution or dense layer with what follows it up to the next one. Counts are per image.

    Attributes:
        name: of the convolution or dense node.
        kind: "convolution" or "dense".
        operations: what it does in order, in words ("convolution 3x3", "max pool 2x2", "sign").
        nodes: names of the graph's nodes that belong to it, itself first.
        input, output: type of the value that it takes, and of the last value that it makes.
        arithmetic: how its sums are computed: "xnor-popcount", or "8-bit" (a binary weight adds or subtracts an
            8-bit input).
        weights: number of binary weights.
        channels: output channels.
        macs: multiply-accumulates, taps on the zero padding included.
        not_binary: why something in it does not run in binary, one reason per entry; empty where all does.
    """

    name: str
    kind: Literal["convolution", "dense"]
    operations: tuple[str, ...]
    nodes: tuple[str, ...]
    input: ValueType
    output: ValueType
    arithmetic: Literal["xnor-popcount", "8-bit"]
    weights: int
    channels: int
    macs: int
    not_binary: tuple[str, ...]

    @property
    def float32_bytes(self) -> int:
        """Bytes of the same layer in float32: its weights and one bias per channel (normalization folded in)."""
        return FLOAT32_BYTES * (self.weights + self.channels)


def layers(graph: Graph) -> tuple[Layer, ...]:
    """The layers of a graph in its order; a node belongs to the last convolution or dense layer before it."""
    owner: dict[str, str] = {}
    members: dict[str, list[Node]] = {}
    for node in graph:
        if isinstance(node, Convolution | Dense):
            owner[node.name] = node.name
            members[node.name] = [node]
        elif node.sources and node.sources[0] in owner:
            owner[node.name] = owner[node.sources[0]]
            members[owner[node.name]].append(node)
    return tuple(_layer(graph, nodes) for nodes in members.values())


def _layer(graph: Graph, nodes: list[Node]) -> Layer:
    first = nodes[0]
    assert isinstance(first, Convolution | Dense)
    source, sums = graph.types[first.source], graph.types[first.name]
    taps = num_taps(first, source)
    return Layer(
        name=first.name,
        kind="dense" if isinstance(first, Dense) else "convolution",
        operations=tuple(_words(node) for node in nodes if not isinstance(node, Flatten)),
        nodes=tuple(node.name for node in nodes),
        input=source,
        output=graph.types[nodes[-1].name],
        arithmetic="8-bit" if source.kind == "u8" else "xnor-popcount",
        weights=taps * sums.channels,
        channels=sums.channels,
        macs=taps * sums.num_elements,
        not_binary=tuple(_not_binary(graph, nodes, source)),
    )


def _not_binary(graph: Graph, nodes: list[Node], source: ValueType) -> list[str]:
    reasons = []
    if source.kind == "u8":
        reasons.append("its input is 8-bit: each binary weight adds or subtracts the integer 2u - 255, exactly")
    for node in nodes:
        if isinstance(node, Affine):
            count = graph.types[node.name].num_elements
            reasons.append(f"its scores are real numbers: float32(sum) * scale + shift, {count} per image")
    if graph.output in {node.name for node in nodes} and graph.output_type.kind == "i32":
        reasons.append("its integer sums are the network's result")
    return reasons


def _words(node: Node) -> str:
    if isinstance(node, Convolution):
        return "convolution " + _window_words(node.window)
    if isinstance(node, Dense):
        return "dense"
    if isinstance(node, MaxPool):
        return "max pool " + _window_words(node.window, default_stride=node.window.kernel)
    if isinstance(node, Threshold):
        return "sign"
    if isinstance(node, Affine):
        return "scores"
    raise AssertionError(f"no words for {type(node).__name__}")


def _window_words(window: Window, default_stride: tuple[int, int] = (1, 1)) -> str:
    text = "{}x{}".format(*window.kernel)
    if window.stride != default_stride:
        text += f" stride {window.stride[0] if window.stride[0] == window.stride[1] else window.stride}"
    if window.padding != (0, 0):
        text += f" pad {window.padding[0] if window.padding[0] == window.padding[1] else window.padding}"
    return text


@dataclass(frozen=True)
class ActivationMemory:
    """Bytes per image that the values between layers take at the worst moment, packed and in float32.

    Sums are not counted where an engine turns them into bits or scores as they are made.
    """

    packed_bytes: int
    float32_bytes: int
    at: str
    """Name of the node at which the packed peak occurs."""


def activation_memory(graph: Graph) -> ActivationMemory:
    """Peak over the graph's order: a value lives from the node that makes it to the last one that reads it."""
    stored = _stored_sources(graph)
    last_use = {graph.output: len(graph.nodes)}
    for position, node in enumerate(graph):
        for source in stored[node.name]:
            last_use[source] = max(last_use.get(source, 0), position)
    live: set[str] = set()
    packed_peak, float_peak, at = 0, 0, graph.input.name
    for position, node in enumerate(graph):
        if is_stored(graph, node):
            live.add(node.name)
        packed = sum(value_bytes(graph.types[name]) for name in live)
        if packed > packed_peak:
            packed_peak, at = packed, node.name
        float_peak = max(float_peak, sum(FLOAT32_BYTES * graph.types[name].num_elements for name in live))
        live = {name for name in live if last_use.get(name, 0) > position}
    return ActivationMemory(packed_peak, float_peak, at)


def is_stored(graph: Graph, node: Node) -> bool:
    """Whether a node's value takes memory of its own: sums are fused away, a flatten is only a view."""
    if isinstance(node, Flatten):
        return False
    return graph.types[node.name].kind != "i32" or node.name == graph.output


def value_bytes(value: ValueType) -> int:
    """Bytes of one image's value as engines keep it: bits in whole 64-bit words per pixel."""
    if value.kind == "bits":
        return value.num_elements // value.channels * num_words(value.channels) * 8
    return value.num_elements * (1 if value.kind == "u8" else 4)


def _stored_sources(graph: Graph) -> dict[str, tuple[str, ...]]:
    """For every node, the stored values that computing it reads, through sums and views."""
    found: dict[str, tuple[str, ...]] = {}
    for node in graph:
        if isinstance(node, Input):
            found[node.name] = ()
        else:
            found[node.name] = tuple(
                stored
                for source in node.sources
                for stored in ((source,) if is_stored(graph, graph.node(source)) else found[source])
            )
    return found
