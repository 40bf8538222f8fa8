"""torch as a peer: eager float32, for convolutions in both memory layouts."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from binarynet.cli._float_network import FloatLayer, Peer

if TYPE_CHECKING:
    import torch
    from torch import nn


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


def build(steps: list[FloatLayer], inputs: npt.NDArray[np.float32], num_threads: int) -> list[Peer]:
    """The network in eager mode; ``num_threads`` is set by :func:`threads` around all calls."""
    import torch

    layouts = [("torch float32", torch.contiguous_format)]
    if any(step.kind == "convolution" for step in steps):
        layouts.append(("torch float32, channels last", torch.channels_last))
    return [_peer(name, layout, steps, inputs) for name, layout in layouts]


def _peer(name: str, layout: torch.memory_format, steps: list[FloatLayer], inputs: npt.NDArray[np.float32]) -> Peer:
    import torch

    module = torch.nn.Sequential(*(_layer(step, layout) for step in steps)).eval()
    x = torch.from_numpy(inputs)
    if x.ndim == 4:
        x = x.contiguous(memory_format=layout)

    def run() -> npt.NDArray[Any]:
        with torch.inference_mode():
            scores: npt.NDArray[Any] = module(x).numpy()
        return scores

    return Peer(name, f"torch {torch.__version__}", "float32", run)


def _layer(step: FloatLayer, layout: torch.memory_format) -> nn.Module:
    import torch
    from torch import nn

    if step.kind == "relu":
        return nn.ReLU(inplace=True)
    if step.kind == "flatten":
        return nn.Flatten()
    window = step.window
    if step.kind == "max_pool":
        assert window is not None
        return nn.MaxPool2d(window.kernel, window.stride, window.padding)
    assert step.weights is not None
    assert step.bias is not None
    weights, bias = torch.from_numpy(step.weights), torch.from_numpy(step.bias)
    outputs, inputs = step.weights.shape[:2]
    layer: nn.Linear | nn.Conv2d
    if window is None:
        layer = nn.Linear(inputs, outputs, device="meta")
    else:
        layer = nn.Conv2d(inputs, outputs, window.kernel, window.stride, window.padding, device="meta")
        weights = weights.contiguous(memory_format=layout)
    layer.weight = nn.Parameter(weights, requires_grad=False)
    layer.bias = nn.Parameter(bias, requires_grad=False)
    return layer
