"""Energy of one forward pass, estimated from the table that the paper quotes (Horowitz 2014, 45 nm).

The paper gives the energy of multiplications, additions and memory accesses (its Tables 2 and 3) but none for XNOR
and popcount. :data:`ASSUMPTIONS` says in words what is counted here. This is an estimate, not a measurement.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from binarynet.analysis.layers import (
    FLOAT32_BYTES,
    ActivationMemory,
    Layer,
    activation_memory,
    is_stored,
    layers,
    value_bytes,
)
from binarynet.graph import Graph

MULTIPLY_PJ = {"int8": 0.2, "int32": 3.1, "float16": 1.1, "float32": 3.7}
ADD_PJ = {"int8": 0.03, "int32": 0.1, "float16": 0.4, "float32": 0.9}
CACHE_PJ = ((8 << 10, 10.0), (32 << 10, 20.0), (1 << 20, 100.0))
"""Size in bytes of a memory, and picojoules of one 64-bit access to it."""
DRAM_PJ = (1300.0, 2600.0)
"""Picojoules of one 64-bit access to DRAM, least and most."""
ACCESS_BYTES = 8

FLOAT32_MAC_PJ = MULTIPLY_PJ["float32"] + ADD_PJ["float32"]
INPUT_MAC_PJ = ADD_PJ["int32"]
XNOR_WORD_BITS = 32
XNOR_MAC_PJ = 3 * ADD_PJ["int32"] / XNOR_WORD_BITS

ASSUMPTIONS = (
    "float32 MAC: one MUL and one ADD, 3.7 + 0.9 pJ",
    "8-bit input with a binary weight: one 32-bit integer ADD, 0.1 pJ",
    "XNOR-popcount: XNOR, popcount and accumulate on 32-bit words, each taken as one 32-bit integer ADD: "
    "3 x 0.1 pJ for 32 MACs (the paper has no figure)",
    "memory: every weight is read once per image, every activation written once and read once, 64 bits at a time, "
    "in the smallest of 8 KB (10 pJ), 32 KB (20 pJ), 1 MB (100 pJ) or DRAM (1300-2600 pJ) that holds all weights "
    "(all activations alive at a time)",
    "left out on both sides: thresholds, biases, pooling, scores, leakage, control",
)


@dataclass(frozen=True)
class Energy:
    """Picojoules per image; memory from its least to its most (they differ where DRAM is used)."""

    arithmetic_pj: float
    memory_pj: tuple[float, float]

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
        packed=Energy(sum(mac_energy_pj(layer) for layer in parts), _traffic(graph, packed_weights, memory, True)),
        float32=Energy(
            sum(layer.macs for layer in parts) * FLOAT32_MAC_PJ, _traffic(graph, float_weights, memory, False)
        ),
    )


def mac_energy_pj(layer: Layer) -> float:
    """Arithmetic of one layer as packed, per image."""
    return layer.macs * (INPUT_MAC_PJ if layer.arithmetic == "8-bit" else XNOR_MAC_PJ)


def access_energy_pj(resident_bytes: int) -> tuple[float, float]:
    """One 64-bit access to the smallest memory that holds so many bytes: least and most."""
    for size, energy in CACHE_PJ:
        if resident_bytes <= size:
            return energy, energy
    return DRAM_PJ


def _traffic(graph: Graph, weight_bytes: int, memory: ActivationMemory, packed: bool) -> tuple[float, float]:
    """Memory energy: weights read once; values between layers written once and read once (the result only written)."""
    value_sizes = {
        node.name: value_bytes(graph.types[node.name])
        if packed
        else FLOAT32_BYTES * graph.types[node.name].num_elements
        for node in graph
        if is_stored(graph, node)
    }
    peak = memory.packed_bytes if packed else memory.float32_bytes
    value_accesses = 2 * _accesses(value_sizes.values())
    if graph.output in value_sizes:
        value_accesses -= _accesses([value_sizes[graph.output]])
    low, high = (
        _accesses([weight_bytes]) * of_weights + value_accesses * of_values
        for of_weights, of_values in zip(access_energy_pj(weight_bytes), access_energy_pj(peak), strict=True)
    )
    return low, high


def _accesses(sizes: Iterable[int]) -> int:
    return sum(-(-size // ACCESS_BYTES) for size in sizes)
