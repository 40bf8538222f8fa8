"""onnxruntime as a peer: float32, and int8 in the QDQ form (uint8 activations, int8 weights) that it fuses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from binarynet.cli._float_network import FloatLayer, Peer
from binarynet.errors import UsageError

OPSET = 17
IR_VERSION = 8
MAX_MODEL_BYTES = 2_000_000_000
"""A protobuf message, and so a model in one piece, ends at 2 GB."""

INPUT_SCALE = 2.0 / 255
ACTIVATION_SCALE = 8.0 / 255
"""Quantization steps: inputs span [-1, 1]; with He initialization ReLU's outputs rarely pass 8."""


def build(steps: list[FloatLayer], inputs: npt.NDArray[np.float32], num_threads: int) -> list[Peer]:
    """Sessions for the network in float32 and in int8."""
    import onnx  # noqa: F401  (both are needed; the error names the one that is missing)
    import onnxruntime

    library = f"onnxruntime {onnxruntime.__version__}"
    return [
        Peer(
            "onnxruntime float32", library, "float32", _session_run(_model(steps, inputs, False), inputs, num_threads)
        ),
        Peer("onnxruntime int8", library, "int8", _session_run(_model(steps, inputs, True), inputs, num_threads)),
    ]


def _session_run(model: bytes, inputs: npt.NDArray[np.float32], num_threads: int) -> Callable[[], npt.NDArray[Any]]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = num_threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])

    def run() -> npt.NDArray[Any]:
        scores: npt.NDArray[Any] = session.run(None, {"x": inputs})[0]
        return scores

    return run


def _model(steps: list[FloatLayer], inputs: npt.NDArray[np.float32], int8: bool) -> bytes:
    from onnx import TensorProto, helper

    if not int8 and sum(step.weights.nbytes for step in steps if step.weights is not None) > MAX_MODEL_BYTES:
        raise UsageError("the float32 network is beyond 2 GB, more than an ONNX file can hold")
    builder = _Int8Builder() if int8 else _Builder()
    value = builder.start("x")
    for position, step in enumerate(steps):
        rectified = position + 1 < len(steps) and steps[position + 1].kind == "relu"
        value = builder.step(value, step, rectified)
    graph = helper.make_graph(
        builder.nodes,
        "peer",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, list(inputs.shape))],
        [helper.make_tensor_value_info(value, TensorProto.FLOAT, None)],
        builder.initializers,
    )
    opsets = [helper.make_opsetid("", OPSET)]
    content: bytes = helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION).SerializeToString()
    return content


class _Builder:
    """Collects the nodes of a float32 network."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.initializers: list[Any] = []

    def start(self, value: str) -> str:
        return value

    def step(self, value: str, step: FloatLayer, rectified: bool) -> str:
        if step.weights is not None and step.bias is not None:
            operands = [value, self.constant(step.weights), self.constant(step.bias)]
            return self.weighted(operands, step)
        return self.plain(value, step)

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

    def constant(self, array: npt.NDArray[Any]) -> str:
        from onnx import numpy_helper

        name = f"c{len(self.initializers)}"
        self.initializers.append(numpy_helper.from_array(array, name))
        return name


class _Int8Builder(_Builder):
    """The same in int8: every value between two operations goes through quantize and dequantize."""

    scale, zero = INPUT_SCALE, 128

    def start(self, value: str) -> str:
        return self.requantized(value)

    def step(self, value: str, step: FloatLayer, rectified: bool) -> str:
        if step.weights is None or step.bias is None:
            value = self.plain(value, step)
            return self.requantized(value)
        weight_scale = float(np.abs(step.weights).max()) / 127
        weights = np.rint(step.weights / np.float32(weight_scale)).astype(np.int8)
        sum_scale = self.scale * weight_scale
        bias = np.rint(step.bias / np.float32(sum_scale)).astype(np.int32)
        operands = [value, self.dequantized(weights, weight_scale), self.dequantized(bias, sum_scale)]
        value = self.weighted(operands, step)
        self.scale, self.zero = ACTIVATION_SCALE, 0 if rectified else 128
        return value if rectified else self.requantized(value)

    def requantized(self, value: str) -> str:
        parameters = [self.constant(np.array(self.scale, np.float32)), self.constant(np.array(self.zero, np.uint8))]
        quantized = self.node("QuantizeLinear", [value, *parameters])
        return self.node("DequantizeLinear", [quantized, *parameters])

    def dequantized(self, array: npt.NDArray[Any], scale: float) -> str:
        parameters = [self.constant(np.array(scale, np.float32)), self.constant(np.array(0, array.dtype))]
        return self.node("DequantizeLinear", [self.constant(array), *parameters])


def _window(step: FloatLayer) -> dict[str, Any]:
    assert step.window is not None
    (rows, columns) = step.window.padding
    return {
        "kernel_shape": list(step.window.kernel),
        "strides": list(step.window.stride),
        "pads": [rows, columns, rows, columns],
    }
