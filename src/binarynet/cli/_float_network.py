"""What a user could run instead: the same layer shapes as an ordinary float32 (or int8) network in other libraries.

A peer has real-valued weights and biases (batch normalization folded in), ReLU in the place of sign, and gets its
input as float32 in the library's own layout: the conversion from 8-bit images is not part of its time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from binarynet.encoding import INPUT_MAX
from binarynet.errors import UsageError
from binarynet.graph import Affine, Convolution, Dense, Flatten, Graph, Input, MaxPool, Node, Threshold, Window

Array = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Peer:
    """A peer that is ready to run.

    Attributes:
        name: library and arithmetic.
        library: library with its version.
        arithmetic: what it computes in.
        run: one call on the prepared input; returns scores float32 ``[n, classes]``.
    """

    name: str
    library: str
    arithmetic: Literal["float32", "int8"]
    run: Callable[[], npt.NDArray[Any]]


@dataclass(frozen=True)
class FloatLayer:
    """One step of the float network. ``weights``: ``[out, in, kernel_h, kernel_w]`` or ``[out, in]``."""

    kind: Literal["convolution", "dense", "relu", "max_pool", "flatten"]
    weights: Array | None = None
    bias: Array | None = None
    window: Window | None = None


def float_network(graph: Graph, seed: int = 0) -> list[FloatLayer]:
    """The graph's topology as an ordinary network with random weights (He initialization).

    Raises:
        UsageError: the graph is not a chain of layers.
    """
    rng = np.random.default_rng(seed)
    nodes = list(graph)
    steps: list[FloatLayer] = []
    for position, node in enumerate(nodes[1:], start=1):
        before = nodes[position - 1].name
        if node.sources != (before,):
            raise UsageError(f"the float networks are chains of layers; {node.name!r} does not follow {before!r}")
        steps += _float_layers(node, nodes[position + 1 :], graph, rng)
    return steps


def _float_layers(node: Node, following: list[Node], graph: Graph, rng: np.random.Generator) -> list[FloatLayer]:
    if isinstance(node, Convolution | Dense):
        window = node.window if isinstance(node, Convolution) else None
        shape = (len(node.weights), graph.types[node.source].channels, *(window.kernel if window else ()))
        deviation = np.float32(np.sqrt(2.0 / np.prod(shape[1:])))
        weights = rng.standard_normal(shape, dtype=np.float32) * deviation
        bias = rng.standard_normal(len(node.weights), dtype=np.float32) * np.float32(0.05)
        steps = [FloatLayer("convolution" if window else "dense", weights, bias, window)]
        return [*steps, FloatLayer("relu")] if _is_signed(following) else steps
    if isinstance(node, MaxPool):
        return [FloatLayer("max_pool", window=node.window)]
    if isinstance(node, Flatten):
        return [FloatLayer("flatten")]
    # The input; a sign, whose ReLU stands right behind its layer; an affine map, folded into weights and bias.
    assert isinstance(node, Input | Threshold | Affine)
    return []


def _is_signed(following: list[Node]) -> bool:
    """Whether a sign comes before the next layer (a maximum commutes with sign and ReLU)."""
    for node in following:
        if isinstance(node, Threshold):
            return True
        if isinstance(node, Convolution | Dense):
            return False
    return False


def float_input(images: npt.NDArray[np.uint8]) -> Array:
    """uint8 ``[n, h, w, c]`` or ``[n, k]`` to float32 in [-1, 1], ``[n, c, h, w]`` or ``[n, k]``."""
    values = (2 * images.astype(np.float32) - INPUT_MAX) / np.float32(INPUT_MAX)
    return np.ascontiguousarray(values.transpose(0, 3, 1, 2) if values.ndim == 4 else values)
