"""NumPy as a peer: a dense layer in float32, with whatever BLAS NumPy was built with."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from binarynet.cli._float_network import FloatNetwork
from binarynet.cli._peers_common import Array, Kind, Loaded


def version() -> str:
    return f"numpy {np.__version__}"


def names(network: FloatNetwork) -> dict[str, Kind]:
    """The peers that this library has for a network."""
    return {"numpy float32": "float32"} if network.is_layer and network.steps[0].kind == "dense" else {}


def save(name: str, network: FloatNetwork, folder: Path) -> Array:
    """Write the model's file; returns the peer's input."""
    weights = network.steps[0].weights
    assert weights is not None
    # As a user of BLAS would keep them: [in, out], which OpenBLAS multiplies with one row several times faster.
    np.save(folder / "weights.npy", np.ascontiguousarray(weights.T))
    return network.inputs


def load(name: str, folder: Path, inputs: Array, num_threads: int) -> Loaded:
    """The threads of BLAS are limited around all calls (``_peers``)."""
    weights = np.load(folder / "weights.npy")
    return Loaded(lambda: inputs @ weights, lambda result: result)
