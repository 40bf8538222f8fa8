"""The binary filters of a network's first layer, as pictures (arXiv 1602.02830, Figure 2)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from binarynet.encoding import unpack_bits
from binarynet.graph import Convolution, Dense, Flatten, Graph

Bits = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class FirstLayer:
    """Weights of the layer that sees the image.

    Attributes:
        name: of the layer.
        kind: "convolution", or "dense": then every unit's weights are as large as the image.
        bits: bool ``[filters, channels, rows, columns]``; True is +1.
    """

    name: str
    kind: Literal["convolution", "dense"]
    bits: Bits

    def sample(self, number: int) -> npt.NDArray[np.intp]:
        """Indices of so many filters (or of all, if there are fewer), evenly spread over them."""
        filters = len(self.bits)
        return np.arange(min(number, filters)) * filters // min(number, filters)


def first_layer(graph: Graph) -> FirstLayer | None:
    """The first convolution, or dense layer on an image; None where the input is no image (features)."""
    shape = graph.input.shape
    if len(shape) != 3 or shape[:2] == (1, 1):
        return None
    node = next(node for node in graph if isinstance(node, Convolution | Dense))
    if isinstance(node, Convolution):
        bits = unpack_bits(node.weights, shape[2]).transpose(0, 3, 1, 2)  # from [out, kernel_h, kernel_w, c]
        return FirstLayer(node.name, "convolution", bits)
    assert isinstance(graph.node(node.source), Flatten)
    bits = unpack_bits(node.weights, int(np.prod(shape))).reshape(-1, *shape).transpose(0, 3, 1, 2)
    return FirstLayer(node.name, "dense", bits)


def distinct(bits: Bits) -> tuple[Bits, npt.NDArray[np.intp]]:
    """Distinct two-dimensional patterns of bool ``[..., rows, columns]`` and how often each occurs.

    Returns:
        bool ``[m, rows, columns]``, the most frequent first (of equals, the one with the smaller bits), and their
        counts ``[m]``.
    """
    rows, columns = bits.shape[-2:]
    patterns, counts = np.unique(bits.reshape(-1, rows * columns), axis=0, return_counts=True)
    order = np.argsort(-counts, kind="stable")
    return patterns[order].reshape(-1, rows, columns), counts[order]
