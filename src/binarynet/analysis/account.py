"""The account of a .bnn file: every byte, every layer, operations, memory, energy, filter repetition."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from typing import Any

from binarynet import fileformat
from binarynet.analysis.energy import ASSUMPTIONS, Energy, EnergyEstimate, estimate_energy
from binarynet.analysis.layers import ActivationMemory, Layer, activation_memory, layers
from binarynet.analysis.repetition import FilterRepetition, filter_repetition
from binarynet.errors import FileFormatError
from binarynet.fileformat import PackedNetwork, Section
from binarynet.zoo import resolve


@dataclass(frozen=True)
class LayerAccount:
    """A layer with the bytes that it takes in the file, by role ("weights", "thresholds", "falling", ...)."""

    layer: Layer
    stored_bytes: dict[str, int]

    @property
    def total_bytes(self) -> int:
        return sum(self.stored_bytes.values())


@dataclass(frozen=True)
class Account:
    """What :func:`account` found. Operations, memory and energy are per image.

    Attributes:
        file_bytes: size of the file; equal to the sum over ``sections``.
        sections: runs of bytes in the order of the file, without gaps: length of the header, header, tensors.
        header_bytes: header with its length.
        layers: convolutions and dense layers in the network's order.
        network: what the file holds.
    """

    file_bytes: int
    sections: tuple[Section, ...]
    header_bytes: int
    layers: tuple[LayerAccount, ...]
    memory: ActivationMemory
    energy: EnergyEstimate
    repetition: tuple[FilterRepetition, ...]
    network: PackedNetwork

    @property
    def num_weights(self) -> int:
        return sum(item.layer.weights for item in self.layers)

    @property
    def float32_bytes(self) -> int:
        """The same layers in float32: 4 bytes per weight and per bias."""
        return sum(item.layer.float32_bytes for item in self.layers)

    def macs(self, arithmetic: str) -> int:
        """Multiply-accumulates per image of one arithmetic: "xnor-popcount" or "8-bit"."""
        return sum(item.layer.macs for item in self.layers if item.layer.arithmetic == arithmetic)

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain JSON values."""
        graph = self.network.graph
        return {
            "file_bytes": self.file_bytes,
            "header_bytes": self.header_bytes,
            "sections": [asdict(section) for section in self.sections],
            "input": {"kind": graph.types[graph.input.name].kind, "shape": list(graph.input.shape)},
            "output": {"kind": graph.output_type.kind, "shape": list(graph.output_type.shape)},
            "classes": list(self.network.classes),
            "image_policy": self.network.image_policy,
            "provenance": self.network.provenance,
            "weights": self.num_weights,
            "float32_bytes": self.float32_bytes,
            "macs": {arithmetic: self.macs(arithmetic) for arithmetic in ("xnor-popcount", "8-bit")},
            "layers": [_layer_dict(item) for item in self.layers],
            "activation_memory": asdict(self.memory),
            "energy": {
                "assumptions": list(ASSUMPTIONS),
                "packed": _energy_dict(self.energy.packed),
                "float32": _energy_dict(self.energy.float32),
            },
            "filter_repetition": [asdict(item) for item in self.repetition],
        }


def account(path: str | os.PathLike[str]) -> Account:
    """Account for every byte of a .bnn file, or of a network of the zoo (``zoo:NAME``).

    Raises:
        FileFormatError: the file is not a valid .bnn file, or its parts do not add up to its size.
    """
    network, sections = fileformat.read_with_sections(path)
    file_bytes = os.stat(resolve(path)).st_size
    listed = sum(section.num_bytes for section in sections)
    if listed != file_bytes:
        raise FileFormatError(f"{path}: its parts add up to {listed} bytes, the file has {file_bytes}: it has changed")
    owners = {node: layer.name for layer in layers(network.graph) for node in layer.nodes}
    stored: dict[str, dict[str, int]] = {name: {} for name in owners.values()}
    header_bytes = 0
    for section in sections:
        node, _, role = section.name.rpartition(".")
        if node in owners:
            by_role = stored[owners[node]]
            by_role[role] = by_role.get(role, 0) + section.num_bytes
        else:
            header_bytes += section.num_bytes
    return Account(
        file_bytes=file_bytes,
        sections=sections,
        header_bytes=header_bytes,
        layers=tuple(LayerAccount(layer, stored[layer.name]) for layer in layers(network.graph)),
        memory=activation_memory(network.graph),
        energy=estimate_energy(network.graph),
        repetition=filter_repetition(network.graph),
        network=network,
    )


def _layer_dict(item: LayerAccount) -> dict[str, Any]:
    layer = item.layer
    return {
        "name": layer.name,
        "kind": layer.kind,
        "operations": list(layer.operations),
        "input": {"kind": layer.input.kind, "shape": list(layer.input.shape)},
        "output": {"kind": layer.output.kind, "shape": list(layer.output.shape)},
        "arithmetic": layer.arithmetic,
        "not_binary": list(layer.not_binary),
        "weights": layer.weights,
        "macs": layer.macs,
        "stored_bytes": item.stored_bytes,
        "float32_bytes": layer.float32_bytes,
    }


def _energy_dict(energy: Energy) -> dict[str, Any]:
    return {
        "arithmetic_pj": energy.arithmetic_pj,
        "memory_pj": list(energy.memory_pj),
        "total_pj": list(energy.total_pj),
    }
