"""How many XNORs and population counts a network takes, in the paper's words of 32 lanes and in this package's words.

The paper (arXiv 1602.02830, section 4.1) packs 32 connections into a word and spends three instructions on it: XNOR,
population count, accumulate, 6 cycles together, so 32 / 6 = 5.3 times fewer cycles than one connection per cycle.
"""

from __future__ import annotations

from dataclasses import dataclass

from binarynet.analysis.layers import Layer, layers
from binarynet.analysis.paper import CYCLES, LANES
from binarynet.encoding import num_words
from binarynet.graph import Convolution, Dense, Graph

WORD_INSTRUCTIONS = len(CYCLES)
WORD_CYCLES = sum(CYCLES.values())
VECTOR_WORDS = 8
"""64-bit words of a 512-bit vector: one of each of so many output channels."""


@dataclass(frozen=True)
class Instructions:
    """What one layer that runs on bits takes per image. Taps on the zero padding are included.

    Attributes:
        layer: its name.
        macs: multiply-accumulates that they stand for.
        words32: words of 32 lanes; a dot product of K lanes takes ceil(K / 32).
        words64: 64-bit words as engines lay them out: the channels of each tap are padded to whole words.
        vectors512: the same with the words of 8 output channels in one vector.
    """

    layer: str
    macs: int
    words32: int
    words64: int
    vectors512: int

    @property
    def instructions(self) -> int:
        """XNORs, population counts and additions on 32 lanes."""
        return WORD_INSTRUCTIONS * self.words32

    @property
    def cycles(self) -> int:
        """What the paper's processors need for them."""
        return WORD_CYCLES * self.words32

    @property
    def speedup(self) -> float:
        """Over one multiply-accumulate per cycle; 32 / 6 where nothing is left over."""
        return self.macs / self.cycles


def instructions(graph: Graph) -> tuple[Instructions, ...]:
    """One entry per layer whose inputs are bits, in the graph's order (the first layer adds 8-bit inputs instead)."""
    return tuple(_count(graph, layer) for layer in layers(graph) if layer.arithmetic == "xnor-popcount")


def words32(layer: Layer) -> int:
    """Words of 32 lanes of all dot products of a layer, per image."""
    taps = layer.weights // layer.channels
    return layer.macs // taps * -(-taps // LANES)


def total(counts: tuple[Instructions, ...]) -> Instructions:
    """The sum over layers, named "total"."""
    return Instructions(
        "total",
        sum(count.macs for count in counts),
        sum(count.words32 for count in counts),
        sum(count.words64 for count in counts),
        sum(count.vectors512 for count in counts),
    )


def _count(graph: Graph, layer: Layer) -> Instructions:
    node = graph.node(layer.name)
    assert isinstance(node, Convolution | Dense)
    pixels = graph.types[node.name].num_elements // layer.channels
    window = node.window.kernel if isinstance(node, Convolution) else (1, 1)
    words = window[0] * window[1] * num_words(layer.input.channels)
    return Instructions(
        layer=layer.name,
        macs=layer.macs,
        words32=words32(layer),
        words64=pixels * layer.channels * words,
        vectors512=pixels * -(-layer.channels // VECTOR_WORDS) * words,
    )
