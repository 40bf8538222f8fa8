"""onnxruntime as a peer: float32, and int8 in the QDQ form (uint8 activations, int8 weights) that it fuses."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from binarynet.cli import _onnx_network
from binarynet.cli._float_network import FloatNetwork
from binarynet.cli._peers_common import Array, Kind, Loaded

FLOAT, INT8, MATMUL = "onnxruntime float32", "onnxruntime int8", "onnxruntime int8, int32 sums"


def version() -> str:
    import onnx  # noqa: F401  (both are needed; the error names the one that is missing)
    import onnxruntime

    return f"onnxruntime {onnxruntime.__version__}"


def names(network: FloatNetwork) -> dict[str, Kind]:
    """The peers that this library has for a network."""
    found: dict[str, Kind] = {FLOAT: "float32", INT8: "int8"}
    if network.is_layer and network.steps[0].kind == "dense":
        found[MATMUL] = "int8"
    return found


def save(name: str, network: FloatNetwork, folder: Path) -> Array:
    """Write the model's file; returns the peer's input, as 8-bit codes for int8.

    Raises:
        UsageError: the network is larger than an ONNX file can be.
    """
    path = folder / "model.onnx"
    if name == FLOAT:
        _onnx_network.save_float32(network, path)
        return network.inputs
    if name == MATMUL:
        _onnx_network.save_product(network, path)
        return network.codes
    # A convolution of int8 runs on channels-last images; inside of a network that costs nothing, so neither here.
    channels_last = network.is_layer and network.codes.ndim == 4
    _onnx_network.save_int8(network, path, channels_last)
    return np.ascontiguousarray(network.codes.transpose(0, 2, 3, 1)) if channels_last else network.codes


def load(name: str, folder: Path, inputs: Array, num_threads: int) -> Loaded:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = num_threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(folder / "model.onnx"), options, providers=["CPUExecutionProvider"])
    feed = {"x": inputs}
    metadata = session.get_modelmeta().custom_metadata_map
    scale, zero = float(metadata["scale"]), int(metadata["zero"])

    def values(result: Array) -> Array:
        if scale != 1.0:
            result = scale * (result.astype(np.float64) - zero)
        return result.transpose(0, 3, 1, 2) if metadata["channels_last"] == "1" else result

    return Loaded(lambda: session.run(None, feed)[0], values)
