"""The trained torch network as a source for verification: every layer of the trace, in the graph's layout."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import fx

from binarynet.encoding import pack_bits
from binarynet.errors import VerificationError
from binarynet.lowering.lower import Lowered
from binarynet.lowering.trace import eval_mode
from binarynet.runtime import Source

Array = npt.NDArray[Any]


def torch_source(lowered: Lowered) -> Source:
    """Values of the graph as torch computes them, eagerly, on the CPU, in eval mode.

    A value that torch does not have by itself (signs before a pooling that torch does before the sign) is left to
    the reference evaluator: the pooled signs behind it are compared.
    """

    def source(images: Array, values: Sequence[str]) -> Mapping[str, Array]:
        wanted = {lowered.origins[name][0]: name for name in values if name in lowered.origins}
        recorder = _Recorder(lowered.traced, set(wanted))
        tensor = torch.from_numpy(np.ascontiguousarray(images))
        if tensor.ndim == 4:
            tensor = tensor.permute(0, 3, 1, 2).contiguous()
        with torch.no_grad(), eval_mode(lowered.traced):
            recorder.run(tensor)
        return {name: _to_graph_layout(lowered, name, recorder.recorded[origin]) for origin, name in wanted.items()}

    return source


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
    array: Array = tensor.detach().cpu().numpy()
    if array.ndim == 4:
        array = array.transpose(0, 2, 3, 1)
    order = lowered.origins[name][1]
    if order is not None:
        array = array[:, order]
    kind = lowered.graph.types[name].kind
    if kind == "bits":
        return pack_bits(array > 0)
    converted = np.ascontiguousarray(array, dtype={"u8": np.uint8, "i32": np.int32, "f32": np.float32}[kind])
    if kind == "i32" and not np.array_equal(converted, array):
        raise VerificationError(f"torch: the sums of {name!r} are not integers")
    return converted
