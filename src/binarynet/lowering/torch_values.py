"""The trained torch network as a source for verification: every layer of the trace, in the graph's layout."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import fx, nn

from binarynet.encoding import pack_bits
from binarynet.errors import UnsupportedLayerError, VerificationError
from binarynet.lowering.lower import Lowered
from binarynet.lowering.trace import eval_mode
from binarynet.runtime import Source

Array = npt.NDArray[Any]


def torch_source(lowered: Lowered) -> Source:
    """Values of the graph as torch computes them, eagerly, on the CPU, in eval mode.

    The network's result comes from a call of the module itself, the values inside of it from its trace, and both
    must agree in the result. A value that torch does not have by itself (signs before a pooling that torch does
    before the sign) is left to the reference evaluator: the pooled signs behind it are compared.

    Raises (when called):
        UnsupportedLayerError: the module fails on the images, computes in another dtype than float32, or gives another
            result than its trace: something in it cannot be seen by ``torch.fx``.
    """

    def source(images: Array, values: Sequence[str]) -> Mapping[str, Array]:
        wanted = {lowered.origins[name][0]: name for name in (*values, lowered.graph.output) if name in lowered.origins}
        recorder = _Recorder(lowered.traced, set(wanted))
        tensor = torch.from_numpy(np.array(images))
        if tensor.ndim == 4:
            tensor = tensor.permute(0, 3, 1, 2).contiguous()
        with torch.no_grad(), eval_mode(lowered.module), eval_mode(lowered.traced):
            result = _call(lowered.module, tensor)
            recorder.run(tensor)
        arrays = {name: _to_graph_layout(lowered, name, recorder.recorded[origin]) for origin, name in wanted.items()}
        own = _to_graph_layout(lowered, lowered.graph.output, result)
        traced = arrays[lowered.graph.output]
        if own.shape != traced.shape or own.tobytes() != traced.tobytes():
            raise UnsupportedLayerError(
                f"{type(lowered.module).__name__}: does something that its trace does not show (a branch on the "
                "type of its input, an overridden __call__ or instance attribute, a global hook): calling it gives "
                "another result than its operations one by one; write it as a fixed sequence of layers"
            )
        return {name: arrays[name] for name in values if name in arrays}

    return source


def _call(module: nn.Module, tensor: torch.Tensor) -> torch.Tensor:
    """The module's own result; torch.compile is bypassed, because eager eval mode is the specification."""
    try:
        with torch.compiler.set_stance("force_eager"):
            result = module(tensor)
    except Exception as error:  # forward is the user's code
        raise UnsupportedLayerError(
            f"{type(module).__name__}: fails on uint8 images {list(tensor.shape)}: {error}"
        ) from error
    if not isinstance(result, torch.Tensor):
        raise UnsupportedLayerError(f"{type(module).__name__}: returns {type(result).__name__}, expected one tensor")
    return result


class _Recorder(fx.Interpreter):
    def __init__(self, traced: fx.GraphModule, wanted: set[str]) -> None:
        super().__init__(traced)
        self.wanted = wanted
        self.recorded: dict[str, torch.Tensor] = {}

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        if n.name in self.wanted:
            self.recorded[n.name] = result
        return result


def _to_graph_layout(lowered: Lowered, name: str, tensor: torch.Tensor) -> Array:
    kind = lowered.graph.types[name].kind
    if kind != "u8" and tensor.dtype != torch.float32:
        raise UnsupportedLayerError(
            f"{name}: torch computes it in {tensor.dtype}; packing keeps the float32 expressions of eval mode: "
            "call module.float(), and leave parametrizations in float32"
        )
    array: Array = tensor.detach().cpu().numpy()
    if array.ndim == 4:
        array = array.transpose(0, 2, 3, 1)
    order = lowered.origins[name][1]
    if order is not None:
        array = array[:, order]
    if kind == "bits":
        return pack_bits(array > 0)
    converted = np.ascontiguousarray(array, dtype={"u8": np.uint8, "i32": np.int32, "f32": np.float32}[kind])
    if kind == "i32" and not np.array_equal(converted, array):
        raise VerificationError(f"torch: the sums of {name!r} are not integers")
    return converted
