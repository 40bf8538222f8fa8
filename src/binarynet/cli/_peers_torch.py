"""torch as a peer: eager float32, for convolutions in both memory layouts, and int8 by its oneDNN operations.

The int8 operations (uint8 activations, int8 weights, int32 sums, requantization fused) are those that torch's own
quantization lowers a graph to; the quantized tensor types, on which its older modules rest, are deprecated.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from binarynet.cli._float_network import ZERO, FloatNetwork
from binarynet.cli._peers_common import Array, Kind, Loaded
from binarynet.graph import Window

if TYPE_CHECKING:
    import torch
    from torch import nn

    Step = Callable[[torch.Tensor], torch.Tensor]

FLOAT, CHANNELS_LAST, INT8, INT_MM = (
    "torch float32",
    "torch float32, channels last",
    "torch int8",
    "torch int8, int32 sums",
)


@contextmanager
def threads(num_threads: int) -> Iterator[None]:
    """Set the number of torch's threads for a while; does nothing where torch is absent."""
    try:
        import torch
    except ImportError:
        yield
        return
    before = torch.get_num_threads()
    torch.set_num_threads(num_threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def version() -> str:
    import torch

    return f"torch {torch.__version__}"


def names(network: FloatNetwork) -> dict[str, Kind]:
    """The peers that this library has for a network."""
    kinds = {step.kind for step in network.steps}
    found: dict[str, Kind] = {FLOAT: "float32"}
    if "convolution" in kinds:
        found[CHANNELS_LAST] = "float32"
    found[INT8] = "int8"
    if network.is_layer and "dense" in kinds:
        found[INT_MM] = "int8"
    return found


def save(name: str, network: FloatNetwork, folder: Path) -> Array:
    """Write the model's file, tensors and sizes; returns the peer's input, as 8-bit codes for int8."""
    import torch

    quantized = name in (INT8, INT_MM)
    saved: list[dict[str, Any]] = []
    step, zero = network.input_step, ZERO
    for position, layer in enumerate(network.steps):
        entry: dict[str, Any] = {"kind": layer.kind}
        if layer.window is not None:
            entry["window"] = (layer.window.kernel, layer.window.stride, layer.window.padding)
        if layer.weights is not None:
            weights = layer.weights
            if quantized:
                rectified = network.rectified(position)
                entry |= {
                    "step": step,
                    "zero": zero,
                    "weight_step": layer.weight_step,
                    "rectified": rectified,
                    "out_step": network.activation_step,
                    "out_zero": 0 if rectified else ZERO,
                }
                step, zero = entry["out_step"], entry["out_zero"]
                weights = np.rint(weights / np.float32(layer.weight_step)).astype(np.int8)
            entry["weights"] = torch.from_numpy(weights)
            if layer.bias is not None:
                entry["bias"] = torch.from_numpy(layer.bias)
        saved.append(entry)
    torch.save({"steps": saved, "codes": network.is_layer}, folder / "model.pt")
    return network.codes if quantized else network.inputs


def load(name: str, folder: Path, inputs: Array, num_threads: int) -> Loaded:
    """The network in eager mode; ``num_threads`` is set by :func:`threads` around all calls."""
    import torch

    saved = torch.load(folder / "model.pt", weights_only=True)
    x = torch.from_numpy(inputs)
    if name == INT_MM:
        return exact_product(saved["steps"][0], x)
    if name == INT8:
        return _int8(saved["steps"], saved["codes"], x)
    layout = torch.channels_last if name == CHANNELS_LAST else torch.contiguous_format
    if x.ndim == 4:
        x = x.contiguous(memory_format=layout)
    module = network(saved["steps"], layout)

    def run() -> torch.Tensor:
        with torch.inference_mode():
            scores: torch.Tensor = module(x)
        return scores

    return Loaded(run, lambda scores: scores.numpy())


def network(steps: list[dict[str, Any]], layout: torch.memory_format) -> nn.Sequential:
    """The module that was saved, in float32 on the CPU; ``layout``: of its images."""
    from torch import nn

    return nn.Sequential(*(_layer(step, layout) for step in steps)).eval()


def _layer(step: dict[str, Any], layout: torch.memory_format) -> nn.Module:
    from torch import nn

    if step["kind"] == "relu":
        return nn.ReLU(inplace=True)
    if step["kind"] == "flatten":
        return nn.Flatten()
    if step["kind"] == "max_pool":
        return nn.MaxPool2d(*step["window"])
    weights, bias = step["weights"], step.get("bias")
    outputs, inputs = weights.shape[:2]
    layer: nn.Linear | nn.Conv2d
    if step["kind"] == "dense":
        layer = nn.Linear(inputs, outputs, bias is not None, device="meta")
    else:
        kernel, stride, padding = step["window"]
        layer = nn.Conv2d(inputs, outputs, kernel, stride, padding, bias=bias is not None, device="meta")
        weights = weights.contiguous(memory_format=layout)
    layer.weight = nn.Parameter(weights, requires_grad=False)
    if bias is not None:
        layer.bias = nn.Parameter(bias, requires_grad=False)
    return layer


def exact_product(step: dict[str, Any], codes: torch.Tensor) -> Loaded:
    """The sums of a dense layer, unscaled: int8 operands, int32 results; on the device of ``codes``."""
    import torch

    x = (codes.to(torch.int16) - ZERO).to(torch.int8)
    weights = step["weights"].to(codes.device).t()
    scale = step["step"] * step["weight_step"]

    def run() -> torch.Tensor:
        with torch.inference_mode():
            sums: torch.Tensor = torch._int_mm(x, weights)
        return sums

    return Loaded(run, lambda sums: scale * sums.cpu().numpy().astype(np.float64))


def _int8(saved: list[dict[str, Any]], is_layer: bool, codes: torch.Tensor) -> Loaded:
    import torch

    x = codes.contiguous(memory_format=torch.channels_last) if codes.ndim == 4 else codes
    calls: list[Step] = []
    shape = tuple(x.shape)
    last = max(position for position, step in enumerate(saved) if "weights" in step)
    for position, step in enumerate(saved):
        if step["kind"] == "relu":
            continue  # Fused into the step before.
        as_float = position == last and not is_layer
        call = _int8_step(step, shape, as_float)
        with torch.inference_mode():
            shape = tuple(call(torch.zeros(shape, dtype=torch.uint8)).shape)
        calls.append(call)

    def run() -> torch.Tensor:
        value = x
        with torch.inference_mode():
            for call in calls:
                value = call(value)
        return value

    if not is_layer:
        return Loaded(run, lambda scores: scores.numpy())
    out_step, out_zero = saved[last]["out_step"], saved[last]["out_zero"]
    return Loaded(run, lambda made: out_step * (made.numpy().astype(np.float64) - out_zero))


def _maximum(x: torch.Tensor, window: Window) -> torch.Tensor:
    """Max-pooling of codes; torch's own refuses channels-last images of bytes beyond 127 pixels."""
    import torch

    (sh, sw), (ph, pw) = window.stride, window.padding
    oh, ow = window.output_size((x.shape[2], x.shape[3]))
    if ph or pw:
        x = torch.nn.functional.pad(x, (pw, pw, ph, ph))  # With code 0, the lowest.
    rows = [x[:, :, i : i + sh * (oh - 1) + 1 : sh] for i in range(window.kernel[0])]
    x = functools.reduce(torch.maximum, rows)
    columns = [x[:, :, :, j : j + sw * (ow - 1) + 1 : sw] for j in range(window.kernel[1])]
    return functools.reduce(torch.maximum, columns)


def _int8_step(step: dict[str, Any], shape: tuple[int, ...], as_float: bool) -> Step:
    """One step on codes; ``as_float``: the last one of a network gives float32 scores."""
    import torch

    if step["kind"] == "flatten":
        return lambda x: x.flatten(1)
    if step["kind"] == "max_pool":
        window = Window(*step["window"])
        return lambda x: _maximum(x, window)
    weights, bias = step["weights"], step.get("bias")
    scales = torch.full((len(weights),), step["weight_step"])
    zeros = torch.zeros(len(weights), dtype=torch.int32)
    output = (1.0, 0, torch.float32) if as_float else (step["out_step"], step["out_zero"], torch.uint8)
    fused = (*output, "relu" if step["rectified"] else "none", [], "")
    if step["kind"] == "dense":
        packed = torch.ops.onednn.qlinear_prepack(weights, list(shape))

        def dense(x: torch.Tensor) -> torch.Tensor:
            result: torch.Tensor = torch.ops.onednn.qlinear_pointwise(
                x, step["step"], step["zero"], packed, scales, zeros, bias, *fused
            )
            return result

        return dense
    _, stride, padding = step["window"]
    geometry = (list(stride), list(padding), [1, 1], 1)
    packed = torch.ops.onednn.qconv_prepack(weights, scales, step["step"], step["zero"], *geometry, list(shape))

    def convolution(x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = torch.ops.onednn.qconv2d_pointwise(
            x, step["step"], step["zero"], packed, scales, zeros, bias, *geometry, *fused
        )
        return result

    return convolution
