"""Ordinary networks as ONNX files, in float32 and in int8 (QDQ): what onnxruntime and OpenVINO read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from binarynet.cli._float_network import ZERO, FloatLayer, FloatNetwork
from binarynet.cli._peers_common import Array
from binarynet.errors import UsageError

OPSET = 17
IR_VERSION = 8
MAX_MODEL_BYTES = 2_000_000_000
"""A protobuf message, and so a model in one piece, ends at 2 GB."""


def save_float32(network: FloatNetwork, path: Path) -> None:
    """Write the network in float32.

    Raises:
        UsageError: it is larger than a file in one piece can be.
    """
    if sum(step.weights.nbytes for step in network.steps if step.weights is not None) > MAX_MODEL_BYTES:
        raise UsageError("the float32 network is beyond 2 GB, more than an ONNX file can hold")
    _write(_Builder(), network, path, network.inputs)


def save_int8(network: FloatNetwork, path: Path, channels_last: bool = False) -> None:
    """Write the network in int8: codes as input, for a layer as output, too; ``[n, h, w, c]`` if channels_last."""
    builder = _Int8Builder(network, channels_last)
    _write(builder, network, path, network.codes.transpose(0, 2, 3, 1) if channels_last else network.codes)


def save_product(network: FloatNetwork, path: Path) -> None:
    """Write a dense layer as a product of integers, whose result are int32 sums."""
    _write(_ProductBuilder(network), network, path, network.codes)


def _write(builder: _Builder, network: FloatNetwork, path: Path, inputs: Array) -> None:
    from onnx import helper

    value = builder.start("x")
    for position, step in enumerate(network.steps):
        value = builder.step(value, step, network.rectified(position))
    value = builder.finish(value)
    graph = helper.make_graph(
        builder.nodes,
        "peer",
        [helper.make_tensor_value_info("x", helper.np_dtype_to_tensor_dtype(inputs.dtype), list(inputs.shape))],
        [helper.make_tensor_value_info(value, helper.np_dtype_to_tensor_dtype(builder.result), None)],
        builder.initializers,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
    helper.set_model_props(model, builder.properties())
    path.write_bytes(model.SerializeToString())


class _Builder:
    """Collects the nodes of a float32 network."""

    result: np.dtype[Any] = np.dtype(np.float32)

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.initializers: list[Any] = []

    def properties(self) -> dict[str, str]:
        """What its result means: ``scale * (result - zero)``, and in which layout."""
        return {"scale": "1.0", "zero": "0", "channels_last": "0"}

    def start(self, value: str) -> str:
        return value

    def finish(self, value: str) -> str:
        return value

    def step(self, value: str, step: FloatLayer, rectified: bool) -> str:
        if step.weights is None:
            return self.plain(value, step)
        bias = [] if step.bias is None else [self.constant(step.bias)]
        return self.weighted([value, self.constant(step.weights), *bias], step)

    def weighted(self, operands: list[str], step: FloatLayer) -> str:
        if step.window is None:
            return self.node("Gemm", operands, transB=1)
        return self.node("Conv", operands, **_window(step))

    def plain(self, value: str, step: FloatLayer) -> str:
        if step.kind == "relu":
            return self.node("Relu", [value])
        if step.kind == "flatten":
            return self.node("Flatten", [value], axis=1)
        return self.node("MaxPool", [value], **_window(step))

    def node(self, operation: str, operands: list[str], **attributes: Any) -> str:
        from onnx import helper

        name = f"v{len(self.nodes)}"
        self.nodes.append(helper.make_node(operation, operands, [name], **attributes))
        return name

    def constant(self, array: Array) -> str:
        from onnx import numpy_helper

        name = f"c{len(self.initializers)}"
        self.initializers.append(numpy_helper.from_array(array, name))
        return name


class _Int8Builder(_Builder):
    """The same in int8: every value between two operations goes through quantize and dequantize."""

    def __init__(self, network: FloatNetwork, channels_last: bool) -> None:
        super().__init__()
        self.network = network
        self.channels_last = channels_last
        self.scale, self.zero = network.input_step, ZERO
        if network.is_layer:
            self.result = np.dtype(np.uint8)

    def properties(self) -> dict[str, str]:
        if not self.network.is_layer:
            return super().properties()
        return {"scale": repr(self.scale), "zero": str(self.zero), "channels_last": str(int(self.channels_last))}

    def start(self, value: str) -> str:
        if self.channels_last:
            value = self.node("Transpose", [value], perm=[0, 3, 1, 2])
        return self.node("DequantizeLinear", [value, *self.parameters()])

    def finish(self, value: str) -> str:
        if self.network.is_layer:
            # Back to the codes: the last node has dequantized them.
            (value, *_) = self.nodes.pop().input
        if self.channels_last:
            value = self.node("Transpose", [value], perm=[0, 2, 3, 1])
        return value

    def step(self, value: str, step: FloatLayer, rectified: bool) -> str:
        if step.weights is None:
            value = self.plain(value, step)
            return self.requantized(value)
        weights = np.rint(step.weights / np.float32(step.weight_step)).astype(np.int8)
        operands = [value, self.dequantized(weights, step.weight_step)]
        if step.bias is not None:
            sum_scale = self.scale * step.weight_step
            bias = np.rint(step.bias / np.float32(sum_scale)).astype(np.int32)
            operands.append(self.dequantized(bias, sum_scale))
        value = self.weighted(operands, step)
        self.scale, self.zero = self.network.activation_step, 0 if rectified else ZERO
        return value if rectified else self.requantized(value)

    def parameters(self) -> list[str]:
        return [self.constant(np.array(self.scale, np.float32)), self.constant(np.array(self.zero, np.uint8))]

    def requantized(self, value: str) -> str:
        parameters = self.parameters()
        quantized = self.node("QuantizeLinear", [value, *parameters])
        return self.node("DequantizeLinear", [quantized, *parameters])

    def dequantized(self, array: Array, scale: float) -> str:
        parameters = [self.constant(np.array(scale, np.float32)), self.constant(np.array(0, array.dtype))]
        return self.node("DequantizeLinear", [self.constant(array), *parameters])


class _ProductBuilder(_Builder):
    """A dense layer's sums as int32."""

    result = np.dtype(np.int32)

    def __init__(self, network: FloatNetwork) -> None:
        super().__init__()
        self.scale = network.input_step * network.steps[0].weight_step

    def properties(self) -> dict[str, str]:
        return {"scale": repr(self.scale), "zero": "0", "channels_last": "0"}

    def step(self, value: str, step: FloatLayer, rectified: bool) -> str:
        assert step.weights is not None
        weights = np.rint(step.weights.T / np.float32(step.weight_step)).astype(np.int8)
        zero = self.constant(np.array(ZERO, np.uint8))
        return self.node("MatMulInteger", [value, self.constant(weights), zero])


def _window(step: FloatLayer) -> dict[str, Any]:
    assert step.window is not None
    (rows, columns) = step.window.padding
    return {
        "kernel_shape": list(step.window.kernel),
        "strides": list(step.window.stride),
        "pads": [rows, columns, rows, columns],
    }
