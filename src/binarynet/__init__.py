"""Binarized Neural Networks: train with weights and activations of +1/-1, run them exactly with XNOR and popcount.

    import binarynet as bn

    model = bn.load("model.bnn")                   # needs no torch
    model.predict(images)                          # uint8 [n, rows, columns, channels]

    bn.pack(network, input_shape=(28, 28, 1)).save("model.bnn")    # network: a torch module of bn.layers

Everything is loaded when it is first used; importing binarynet imports neither torch nor NumPy.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_MODULES = (
    "analysis", "data", "encoding", "errors", "fileformat", "graph", "layers", "lowering", "models", "ops", "optim",
    "runtime", "training", "zoo",
)  # fmt: skip
_NAMES = {
    "BinaryNetError": "errors",
    "Graph": "graph",
    "Model": "runtime",
    "Prediction": "runtime",
    "Session": "runtime",
    "load": "runtime",
    "verify": "runtime",
    "pack": "lowering",
    "train": "training",
}

__all__ = ["__version__", *_MODULES, *_NAMES]

if TYPE_CHECKING:
    from binarynet.errors import BinaryNetError as BinaryNetError
    from binarynet.graph import Graph as Graph
    from binarynet.lowering import pack as pack
    from binarynet.runtime import Model as Model
    from binarynet.runtime import Prediction as Prediction
    from binarynet.runtime import Session as Session
    from binarynet.runtime import load as load
    from binarynet.runtime import verify as verify
    from binarynet.training import train as train


def __getattr__(name: str) -> Any:
    if name not in _MODULES and name not in _NAMES:
        raise AttributeError(f"module 'binarynet' has no attribute {name!r}")
    try:
        module = importlib.import_module(f"binarynet.{_NAMES.get(name, name)}")
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package in ("", "binarynet"):
            raise
        from binarynet.errors import INSTALL_TRAIN

        raise ModuleNotFoundError(
            f"binarynet.{name} needs {package}, which is not installed; {INSTALL_TRAIN}", name=error.name
        ) from None
    return getattr(module, name) if name in _NAMES else module


def __dir__() -> list[str]:
    return sorted(__all__)
