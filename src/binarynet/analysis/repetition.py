"""Filter repetition: how many of a convolution's binary 2D filters are distinct (paper, section on energy).

A binary 3x3 filter has at most 2^9 = 512 different forms, so a layer holds many copies; a filter and its negation
need one computation, too. The paper reports 42 % distinct filters "per layer" for its CIFAR-10 network without
defining the measure. Counted over a whole layer that figure is out of reach, so the reading here is *per input map*:
the distinct patterns among the filters that see the same input channel, averaged over the channels. Both are given.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from binarynet.encoding import unpack_bits
from binarynet.graph import Convolution, Graph


@dataclass(frozen=True)
class FilterRepetition:
    """Distinct 2D filters of one convolution as fractions of all of them (1.0: no two are the same).

    Attributes:
        layer: name of the convolution.
        kernel: rows and columns of a filter.
        filters, maps: output and input channels; there are ``filters * maps`` 2D filters.
        per_map, per_map_negated: distinct among the ``filters`` on one input map, averaged over the maps; without
            and with a filter and its negation taken as the same.
        whole, whole_negated: the same over the whole layer.
        random_per_map, random_per_map_negated: what random filters would give on average.
    """

    layer: str
    kernel: tuple[int, int]
    filters: int
    maps: int
    per_map: float
    per_map_negated: float
    whole: float
    whole_negated: float
    random_per_map: float
    random_per_map_negated: float


def filter_repetition(graph: Graph) -> tuple[FilterRepetition, ...]:
    """One entry per convolution, in the graph's order; empty where there are none."""
    return tuple(
        _repetition(node, graph.types[node.source].channels) for node in graph if isinstance(node, Convolution)
    )


def _repetition(node: Convolution, channels: int) -> FilterRepetition:
    bits = unpack_bits(node.weights, channels)  # [out, kernel_h, kernel_w, c]
    filters = len(bits)
    taps = node.window.kernel[0] * node.window.kernel[1]
    patterns = np.ascontiguousarray(bits.reshape(filters, taps, channels).transpose(2, 0, 1))  # [c, out, taps]
    plain, negated = _distinct(patterns), _distinct(patterns ^ patterns[..., :1])
    return FilterRepetition(
        layer=node.name,
        kernel=node.window.kernel,
        filters=filters,
        maps=channels,
        per_map=plain[0] / (filters * channels),
        per_map_negated=negated[0] / (filters * channels),
        whole=plain[1] / (filters * channels),
        whole_negated=negated[1] / (filters * channels),
        random_per_map=expected_distinct(filters, taps) / filters,
        random_per_map_negated=expected_distinct(filters, taps - 1) / filters,
    )


def _distinct(patterns: npt.NDArray[np.bool_]) -> tuple[int, int]:
    """Distinct patterns of bool ``[maps, filters, taps]``: sum over the maps of those of each, and of all."""
    maps, filters, _ = patterns.shape
    packed: npt.NDArray[Any] = np.packbits(patterns, axis=-1)
    opaque = packed.view(np.dtype((np.void, packed.shape[-1]))).reshape(-1)
    known, identity = np.unique(opaque, return_inverse=True)
    sorted_ids = np.sort(identity.reshape(maps, filters), axis=1)
    return maps + int(np.count_nonzero(np.diff(sorted_ids, axis=1))), len(known)


def expected_distinct(draws: int, bits: int) -> float:
    """Expected number of distinct values among ``draws`` uniform ones of so many bits."""
    forms = 2.0**bits
    return float(-forms * np.expm1(draws * np.log1p(-1.0 / forms))) if forms > 1 else 1.0
