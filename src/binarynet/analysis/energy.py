"""Energy of one forward pass, estimated from the table that the paper quotes (Horowitz 2014, 45 nm).

The paper gives the energy of multiplications, additions and memory accesses (its Tables 2 and 3) but none for XNOR
and popcount. :data:`ASSUMPTIONS` says in words what is counted here. This is an estimate, not a measurement.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from binarynet.analysis.instructions import WORD_INSTRUCTIONS, words32
from binarynet.analysis.layers import (
    FLOAT32_BYTES,
    ActivationMemory,
    Layer,
    activation_memory,
    is_stored,
    layers,
    value_bytes,
)
from binarynet.analysis.paper import ADD_PJ, CACHE_PJ, DRAM_PJ, MULTIPLY_PJ
from binarynet.graph import Graph

ACCESS_BYTES = 8
INPUT_MAC_PJ = ADD_PJ["int32"]
XNOR_INSTRUCTION_PJ = ADD_PJ["int32"]

ASSUMPTIONS = (
    "float32 MAC: one MUL and one ADD, 3.7 + 0.9 pJ",
    "8-bit input with a binary weight: one 32-bit integer ADD, 0.1 pJ",
    "XNOR-popcount: XNOR, popcount and accumulate on 32-bit words, each taken as one 32-bit integer ADD: "
    "3 x 0.1 pJ for 32 MACs (the paper has no figure)",
    "memory: every weight is read once per image, every activation written once and read once, 64 bits at a time, "
    "in the smallest of 8 KB (10 pJ), 32 KB (20 pJ), 1 MB (100 pJ) or DRAM (1300-2600 pJ) that holds all weights "
    "(all activations alive at a time)",
    "weights include one 32-bit value per unit (its threshold or bias), activations the input and the scores",
    "left out on both sides: the arithmetic of thresholds, biases, pooling and scores; leakage, control",
)


@dataclass(frozen=True)
class EnergyItem:
    """Operations or memory accesses of one kind, per image.

    Attributes:
        name: what is done, in words.
        count: how often.
        each_pj: picojoules of one, least and most (they differ for DRAM only).
    """

    name: str
    count: int
    each_pj: tuple[float, float]

    @property
    def total_pj(self) -> tuple[float, float]:
        return self.count * self.each_pj[0], self.count * self.each_pj[1]


@dataclass(frozen=True)
class Energy:
    """What an image takes: operations, and 64-bit accesses to memory."""

    arithmetic: tuple[EnergyItem, ...]
    memory: tuple[EnergyItem, ...]

    @property
    def arithmetic_pj(self) -> float:
        return sum(item.total_pj[0] for item in self.arithmetic)

    @property
    def memory_pj(self) -> tuple[float, float]:
        """Least and most; they differ where DRAM is used."""
        return sum(item.total_pj[0] for item in self.memory), sum(item.total_pj[1] for item in self.memory)

    @property
    def total_pj(self) -> tuple[float, float]:
        return self.arithmetic_pj + self.memory_pj[0], self.arithmetic_pj + self.memory_pj[1]


@dataclass(frozen=True)
class EnergyEstimate:
    """A network as packed, and the same layers in float32."""

    packed: Energy
    float32: Energy


def estimate_energy(graph: Graph) -> EnergyEstimate:
    """Estimate under :data:`ASSUMPTIONS`."""
    parts = layers(graph)
    memory = activation_memory(graph)
    packed_weights = sum(-(-layer.weights // 8) + FLOAT32_BYTES * layer.channels for layer in parts)
    float_weights = sum(layer.float32_bytes for layer in parts)
    return EnergyEstimate(
        packed=Energy(_packed_operations(parts), _traffic(graph, packed_weights, memory, True)),
        float32=Energy(_float_operations(parts), _traffic(graph, float_weights, memory, False)),
    )


def _packed_operations(parts: Sequence[Layer]) -> tuple[EnergyItem, ...]:
    additions = sum(layer.macs for layer in parts if layer.arithmetic == "8-bit")
    words = sum(words32(layer) for layer in parts if layer.arithmetic == "xnor-popcount")
    return (
        _operation("integer ADD of an 8-bit input", additions, INPUT_MAC_PJ),
        _operation("XNOR, popcount, ADD on 32 bits", WORD_INSTRUCTIONS * words, XNOR_INSTRUCTION_PJ),
    )


def _float_operations(parts: Sequence[Layer]) -> tuple[EnergyItem, ...]:
    macs = sum(layer.macs for layer in parts)
    return (
        _operation("32-bit float MUL", macs, MULTIPLY_PJ["float32"]),
        _operation("32-bit float ADD", macs, ADD_PJ["float32"]),
    )


def _operation(name: str, count: int, each_pj: float) -> EnergyItem:
    return EnergyItem(name, count, (each_pj, each_pj))


def access_energy_pj(resident_bytes: int) -> tuple[float, float]:
    """One 64-bit access to the smallest memory that holds so many bytes: least and most."""
    return _memory_for(resident_bytes)[1]


def _memory_for(resident_bytes: int) -> tuple[str, tuple[float, float]]:
    """Name of that memory, and the energy of an access to it."""
    for size, energy in CACHE_PJ:
        if resident_bytes <= size:
            return f"{size >> 10} KB" if size < 1 << 20 else f"{size >> 20} MB", (energy, energy)
    return "DRAM", DRAM_PJ


def _traffic(graph: Graph, weight_bytes: int, memory: ActivationMemory, packed: bool) -> tuple[EnergyItem, ...]:
    """Weights are read once; values between layers written once and read once (the result only written)."""
    value_sizes = {
        node.name: value_bytes(graph.types[node.name])
        if packed
        else FLOAT32_BYTES * graph.types[node.name].num_elements
        for node in graph
        if is_stored(graph, node)
    }
    value_accesses = 2 * _accesses(value_sizes.values())
    if graph.output in value_sizes:
        value_accesses -= _accesses([value_sizes[graph.output]])
    items = []
    for name, count, resident in (
        ("weights", _accesses([weight_bytes]), weight_bytes),
        ("activations", value_accesses, memory.packed_bytes if packed else memory.float32_bytes),
    ):
        where, each = _memory_for(resident)
        items.append(EnergyItem(f"{name}, {where}", count, each))
    return tuple(items)


def _accesses(sizes: Iterable[int]) -> int:
    return sum(-(-size // ACCESS_BYTES) for size in sizes)
