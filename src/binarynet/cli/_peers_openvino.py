"""OpenVINO as a peer: float32 and int8, from the same ONNX networks that onnxruntime gets."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from binarynet.cli import _onnx_network
from binarynet.cli._float_network import ZERO, FloatNetwork
from binarynet.cli._peers_common import Array, Kind, Loaded
from binarynet.cli._signal_stack import signal_stack_kept

if TYPE_CHECKING:
    import openvino

FLOAT, INT8 = "openvino float32", "openvino int8"


def version() -> str:
    import onnx  # noqa: F401  (both are needed; the error names the one that is missing)
    import openvino

    return f"openvino {openvino.__version__.split('-')[0]}"


def names(network: FloatNetwork) -> dict[str, Kind]:
    """The peers that this library has for a network."""
    return {FLOAT: "float32", INT8: "int8"}


def save(name: str, network: FloatNetwork, folder: Path) -> Array:
    """Write the model's files; returns the peer's input, as 8-bit codes for int8.

    Raises:
        UsageError: the network is larger than an ONNX file can be.
    """
    import openvino

    path = folder / "model.onnx"
    if name == FLOAT:
        _onnx_network.save_float32(network, path)
    else:
        _onnx_network.save_int8(network, path)
    model = openvino.Core().read_model(path)
    if name == INT8 and network.is_layer:
        model.set_rt_info(repr(network.activation_step), "codes")
    openvino.save_model(model, folder / "model.xml", compress_to_fp16=False)
    path.unlink()
    return network.inputs if name == FLOAT else network.codes


def load(name: str, folder: Path, inputs: Array, num_threads: int) -> Loaded:
    core, model = read(folder)
    scale = float(model.get_rt_info("codes").astype(str)) if model.has_rt_info("codes") else None
    compiled = compile_model(core, model, num_threads, streams=1)
    run = caller(compiled, inputs)

    def values(result: Array) -> Array:
        return result if scale is None else scale * (result.astype(np.float64) - ZERO)

    return Loaded(run, values, kernels(compiled, ("Convolution", "FullyConnected", "MatMul")))


def read(folder: Path) -> tuple[openvino.Core, openvino.Model]:
    """The model in a folder, and what compiles it."""
    import openvino

    core = openvino.Core()
    return core, core.read_model(folder / "model.xml")


def compile_model(core: openvino.Core, model: openvino.Model, num_threads: int, streams: int) -> openvino.CompiledModel:
    """For the CPU: float32 stays float32 (the default is bfloat16 where the processor has it).

    ``streams``: calls that run at a time and share the threads.
    """
    with signal_stack_kept():
        return core.compile_model(
            model,
            "CPU",
            {
                "INFERENCE_NUM_THREADS": num_threads,
                "NUM_STREAMS": streams,
                "PERFORMANCE_HINT": "LATENCY",
                "INFERENCE_PRECISION_HINT": "f32",
            },
        )


def caller(compiled: openvino.CompiledModel, inputs: Array) -> Any:
    """A call that gives its result as an array which the next call overwrites; input and output are not copied.

    Where the model was made for a part of the batch, it is called for one part after the other, or for several at a
    time where it has several streams.
    """
    import openvino

    parts = len(inputs) // compiled.input(0).shape[0]
    made = compiled.output(0)
    result: Array = np.empty((parts * made.shape[0], *list(made.shape)[1:]), made.element_type.to_dtype())
    requests = []
    for given, wanted in zip(np.split(inputs, parts), np.split(result, parts), strict=True):
        request = compiled.create_infer_request()
        request.set_input_tensor(openvino.Tensor(given, shared_memory=True))
        request.set_output_tensor(openvino.Tensor(wanted, shared_memory=True))
        # OpenVINO does not keep NumPy's arrays alive, this does.
        requests.append((request, given))
    at_a_time = compiled.get_property("NUM_STREAMS") > 1

    def run() -> Array:
        if at_a_time:
            for request, _ in requests:
                request.start_async()
            for request, _ in requests:
                request.wait()
        else:
            for request, _ in requests:
                request.infer(share_outputs=True)
        return result

    return run


def kernels(compiled: openvino.CompiledModel, types: tuple[str, ...]) -> str:
    """The kernels that it uses for certain types of layers, such as ``Convolution brgconv_avx512_f32``."""
    found = []
    for node in compiled.get_runtime_model().get_ordered_ops():
        info = node.get_rt_info()
        layer = info["layerType"].astype(str)
        if layer in types:
            found.append(f"{layer} {info['primitiveType'].astype(str)}")
    return ", ".join(dict.fromkeys(found))
