"""From a trained torch network to the integer graph, operation by operation; what has no exact form is refused.

While it walks the trace, lowering keeps for every torch value one of:

* :class:`_Stored`: a value of the graph (u8, bits or i32);
* :class:`_Normalized`: a normalization of sums that awaits its sign (a threshold then) or the output (an affine map);
* :class:`_BatchSize`, :class:`_Shape`: what ``x.size(0)`` and ``x.shape`` give in a forward function.

torch keeps images as [channels, rows, columns], the graph as [rows, columns, channels]. After a flatten the two
disagree on the order of the features; ``order[i]`` is the torch index of the graph's feature i until the next dense
layer, whose weight columns are permuted, restores agreement.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import fx, nn

from binarynet import ops
from binarynet.encoding import pack_bits
from binarynet.errors import GraphError, NonFiniteError, UnsupportedLayerError, UsageError
from binarynet.graph import (
    Affine,
    Convolution,
    Dense,
    Flatten,
    Graph,
    GraphBuilder,
    Input,
    MaxPool,
    Node,
    Threshold,
    Window,
)
from binarynet.layers import BinaryConv2d, BinaryLayer, BinaryLinear, Normalization, Sign, StochasticSign
from binarynet.lowering.hints import FUNCTION_HINT, module_hint
from binarynet.lowering.thresholds import fold_thresholds
from binarynet.lowering.trace import one_input, trace, unwrap
from binarynet.lowering.weights import weight_bits

Order = npt.NDArray[np.int64]
_NAME_LENGTH = 100


@dataclass(frozen=True)
class Lowered:
    """A graph and the trace that it was made from.

    Attributes:
        graph: the network.
        module: the torch module.
        traced: the same as a sequence of operations.
        origins: graph value to the name of the trace's node that computes the same, and the feature order (or None).
    """

    graph: Graph
    module: nn.Module
    traced: fx.GraphModule
    origins: dict[str, tuple[str, Order | None]]


def lower(module: nn.Module, input_shape: Sequence[int]) -> Lowered:
    """Lower a network to the integer graph, as it computes in eval mode; the module is not changed.

    Args:
        module: a network of binarynet's layers and the torch modules that have an exact form.
        input_shape: ``(rows, columns, channels)`` of an image or ``(features,)``; the module itself takes uint8
            ``[n, channels, rows, columns]`` or ``[n, features]``.

    Raises:
        UsageError: ``input_shape`` is not one or three sizes.
        UnsupportedLayerError: names the module (or function), why it has no exact form, and what to use instead.
        NonFiniteError: a weight or statistic is NaN or infinite.
    """
    try:
        shape = tuple(operator.index(size) for size in input_shape)
    except TypeError:
        shape = ()
    if len(shape) not in (1, 3) or min(shape) < 1:
        raise UsageError(f"input_shape {input_shape!r} must be (rows, columns, channels) or (features,)")
    module = unwrap(module)
    return _Lowering(module, trace(module), shape).run()


@dataclass(frozen=True)
class _Stored:
    name: str
    order: Order | None = None


@dataclass(frozen=True)
class _Normalized:
    """Sums, the affine map on top of them, and what stands between it and the sign without changing the sign."""

    sums: _Stored
    scale: npt.NDArray[np.float32]
    shift: npt.NDArray[np.float32]
    where: str
    pools: tuple[Window, ...] = ()
    clipped_by: str | None = None


class _Shape:
    """``x.shape`` of a forward function."""


class _BatchSize:
    """``x.size(0)`` of a forward function."""


class _Lowering:
    def __init__(self, module: nn.Module, traced: fx.GraphModule, input_shape: tuple[int, ...]) -> None:
        self.module = module
        self.traced = traced
        self.input_shape = input_shape
        self.builder = GraphBuilder()
        self.values: dict[fx.Node, Any] = {}
        self.origins: dict[str, tuple[str, Order | None]] = {}

    def run(self) -> Lowered:
        placeholder = one_input(self.traced)
        for node in self.traced.graph.nodes:
            try:
                if node.op == "placeholder":
                    if node is placeholder:
                        self.values[node] = self.add(Input("input", self.input_shape), node)
                elif node.op == "output":
                    graph = self.builder.finish(self.output(node))
                elif node.users:
                    self.values[node] = self.lower_node(node)
                elif node.op == "call_module" or node.target not in _HARMLESS:
                    raise self.refuse(node, "its result is not used; leave it out (nothing may be changed in place)")
            except GraphError as error:
                raise UnsupportedLayerError(f"{self.describe(node)}: {error}") from None
        return Lowered(graph, self.module, self.traced, self.origins)

    # Helpers

    def add(self, node: Node, origin: fx.Node | None = None, order: Order | None = None) -> _Stored:
        name = self.builder.add(node)
        if origin is not None:
            self.origins[name] = (origin.name, order)
        return _Stored(name, order)

    def unique(self, name: str) -> str:
        """``name`` in the characters that a graph allows, with a number behind it where it is used again."""
        name = re.sub(r"[^A-Za-z0-9_.\-]", "_", name)[:_NAME_LENGTH]
        candidate, count = name, 1
        while candidate in self.builder.types:
            count += 1
            candidate = f"{name}_{count}"
        return candidate

    def describe(self, node: fx.Node) -> str:
        """How the user knows this operation."""
        if node.op in ("placeholder", "output"):
            return f"the {node.op.replace('placeholder', 'input')} of forward"
        if node.op == "call_module":
            return f"{node.target} ({type(self.traced.get_submodule(str(node.target))).__name__})"
        function = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", str(node.target))
        return f"{function} ({node.name} in forward)"

    def refuse(self, node: fx.Node, reason: str) -> UnsupportedLayerError:
        return UnsupportedLayerError(f"{self.describe(node)}: {reason}")

    def operand(self, node: fx.Node) -> Any:
        """What is known of the operand of an operation."""
        arguments = [*node.args, *node.kwargs.values()]
        if not arguments or not isinstance(arguments[0], fx.Node):
            raise self.refuse(node, "its operand is not a value of the network")
        return self.known(node, arguments[0])

    def known(self, node: fx.Node, value: fx.Node) -> Any:
        if value not in self.values:
            raise self.refuse(node, f"uses the optional argument {value.name!r} of forward; only one tensor may enter")
        return self.values[value]

    def stored(self, node: fx.Node, kinds: tuple[str, ...], hint: str) -> _Stored:
        """The operand as a value of the graph of one of these kinds."""
        value = self.operand(node)
        if isinstance(value, _Normalized):
            raise self.refuse(node, f"its input is the real-valued output of {value.where}; {hint}")
        if not isinstance(value, _Stored) or self.builder.types[value.name].kind not in kinds:
            given = self.builder.types[value.name] if isinstance(value, _Stored) else "a size"
            raise self.refuse(node, f"its input is {given}, expected {' or '.join(kinds)}; {hint}")
        return value

    # Operations

    def lower_node(self, node: fx.Node) -> Any:
        entering: list[fx.Node] = []
        fx.node.map_arg((node.args, node.kwargs), entering.append)
        if len(entering) > 1 and node.target not in ("view", "reshape"):
            raise self.refuse(node, "takes several values of the network; sums and concatenations have no packed form")
        if node.op == "call_module":
            module = self.traced.get_submodule(str(node.target))
            for kind, handler in _MODULES.items():
                if isinstance(module, kind):
                    return handler(self, node, module)
            known = ", ".join(kind.__name__ for kind in _MODULES)
            raise self.refuse(node, module_hint(module) or f"has no exact integer form; supported modules: {known}")
        if node.op == "call_function" and node.target in _FUNCTIONS:
            return _FUNCTIONS[node.target](self, node)
        if node.op == "call_method" and node.target in _METHODS:
            return _METHODS[str(node.target)](self, node)
        if node.op == "get_attr":
            raise self.refuse(node, "a tensor of the module used directly in forward has no exact form; use a layer")
        raise self.refuse(node, FUNCTION_HINT)

    def dense(self, node: fx.Node, layer: BinaryLinear) -> _Stored:
        source = self.layer_operand(node, layer)
        weights = weight_bits(str(node.target), layer)
        features = self.builder.types[source.name]
        if len(features.shape) == 1 and features.channels != weights.shape[1]:
            raise self.refuse(node, f"takes {weights.shape[1]} features, its input has {features.channels}")
        if source.order is not None:
            weights = weights[:, source.order]
        return self.add(Dense(self.unique(str(node.target)), source.name, pack_bits(weights)), node)

    def convolution(self, node: fx.Node, layer: BinaryConv2d) -> _Stored:
        source = self.layer_operand(node, layer)
        weights = weight_bits(str(node.target), layer).transpose(0, 2, 3, 1)
        shape = self.builder.types[source.name]
        if len(shape.shape) == 3 and shape.channels != weights.shape[3]:
            raise self.refuse(node, f"takes {weights.shape[3]} channels, its input has {shape.channels}")
        window = Window((weights.shape[1], weights.shape[2]), _pair(layer.stride), _pair(layer.padding))
        name = self.unique(str(node.target))
        return self.add(Convolution(name, source.name, window, pack_bits(weights)), node)

    def layer_operand(self, node: fx.Node, layer: BinaryLayer) -> _Stored:
        if layer.real_input:
            raise self.refuse(node, "real_input=True: sums of real inputs are no integers; use first=True, on bytes")
        source = self.stored(node, ("u8", "bits"), "a binary layer takes 8-bit images or signs: put a Sign before it")
        kind = self.builder.types[source.name].kind
        if layer.first and kind == "bits":
            raise self.refuse(node, "first=True means 8-bit inputs, but its input is signs; drop first=True")
        if not layer.first and kind == "u8":
            raise self.refuse(node, "its input is the 8-bit image; construct it with first=True")
        return source

    def normalization(self, node: fx.Node, norm: Normalization) -> _Normalized:
        sums = self.stored(node, ("i32",), "normalization follows a binary layer (or its max-pooling)")
        scale, shift = (values.detach().cpu().numpy() for values in self.affine_of(node, norm))
        shape = self.builder.types[sums.name].shape
        if norm.num_dimensions != len(shape) + 1:
            right = "BatchNorm2d" if len(shape) == 3 else "BatchNorm1d"
            raise self.refuse(node, f"its input is {self.builder.types[sums.name]}; use binarynet.layers.{right}")
        channels = shape[-1]
        if scale.shape != (channels,):
            raise self.refuse(node, f"normalizes {len(scale)} channels, its input has {channels}")
        if sums.order is not None:
            scale, shift = scale[sums.order], shift[sums.order]
        return _Normalized(sums, scale, shift, self.describe(node))

    def affine_of(self, node: fx.Node, norm: Normalization) -> tuple[torch.Tensor, torch.Tensor]:
        try:
            return norm.affine()
        except NonFiniteError as error:
            raise NonFiniteError(f"{node.target}: {error}") from None

    def sign(self, node: fx.Node, _: nn.Module | None = None) -> _Stored:
        value = self.operand(node)
        name = self.unique(str(node.target) if node.op == "call_module" else node.name)
        if isinstance(value, _Stored):  # the sign of the sums themselves
            sums = self.stored(node, ("i32",), "sign follows a binary layer or its normalization")
            channels = self.builder.types[sums.name].channels
            thresholds, falling = np.zeros(channels, np.int32), np.zeros(channels, np.bool_)
            return self.add(Threshold(name, sums.name, thresholds, falling), node, sums.order)
        if not isinstance(value, _Normalized):
            raise self.refuse(node, "its input is a size, expected the output of a layer")
        bound = self.builder.bounds[value.sums.name]
        thresholds, falling = fold_thresholds(value.scale, value.shift, bound)
        order = value.sums.order
        result = self.add(Threshold(name, value.sums.name, thresholds, falling), None if value.pools else node, order)
        for i, window in enumerate(value.pools):
            last = i == len(value.pools) - 1
            pool = MaxPool(self.unique(f"{name}.pool"), result.name, window)
            result = self.add(pool, node if last else None, order)
        return result

    def max_pool(self, node: fx.Node, window: Window) -> _Stored | _Normalized:
        value = self.operand(node)
        if isinstance(value, _Normalized):  # sign is monotone: the sign of the maximum is the maximum of the signs
            return replace(value, pools=(*value.pools, window))
        source = self.stored(node, ("i32", "bits"), "pool the sums or the signs of a binary layer")
        name = self.unique(str(node.target) if node.op == "call_module" else node.name)
        return self.add(MaxPool(name, source.name, window), node)

    def max_pool_module(self, node: fx.Node, pool: nn.MaxPool2d) -> _Stored | _Normalized:
        if pool.return_indices:
            raise self.refuse(node, "return_indices has no packed form; leave it out")
        return self.max_pool(
            node, self.pool_window(node, pool.kernel_size, pool.stride, pool.padding, pool.dilation, pool.ceil_mode)
        )

    def max_pool_function(self, node: fx.Node) -> _Stored | _Normalized:
        names = ("input", "kernel_size", "stride", "padding", "dilation", "ceil_mode", "return_indices")
        given = dict(zip(names, node.args, strict=False)) | dict(node.kwargs)
        if given.get("return_indices"):
            raise self.refuse(node, "return_indices has no packed form; leave it out")
        window = self.pool_window(
            node,
            given["kernel_size"],
            given.get("stride"),
            given.get("padding", 0),
            given.get("dilation", 1),
            given.get("ceil_mode", False),
        )
        return self.max_pool(node, window)

    def pool_window(
        self, node: fx.Node, kernel: Any, stride: Any, padding: Any, dilation: Any, ceil_mode: Any
    ) -> Window:
        if _pair(dilation) != (1, 1) or ceil_mode:
            raise self.refuse(node, "dilation and ceil_mode have no packed form; use dilation=1, ceil_mode=False")
        return Window(_pair(kernel), _pair(kernel if stride in (None, (), []) else stride), _pair(padding))

    def flatten(self, node: fx.Node, _: nn.Module | None = None) -> _Stored | _Normalized:
        value = self.operand(node)
        if isinstance(value, _Normalized):
            if value.pools or value.clipped_by:
                raise self.refuse(node, "put the sign before the flatten")
            shape = self.builder.types[value.sums.name].shape
            if len(shape) == 1:
                return value
            flat, pixels = self.flatten_stored(node, value.sums, None), shape[0] * shape[1]
            return replace(value, sums=flat, scale=np.tile(value.scale, pixels), shift=np.tile(value.shift, pixels))
        return self.flatten_stored(node, self.stored(node, ("u8", "bits", "i32"), "only images flatten"), node)

    def flatten_stored(self, node: fx.Node, source: _Stored, origin: fx.Node | None) -> _Stored:
        shape = self.builder.types[source.name].shape
        if len(shape) == 1:
            return source
        order = None
        if shape[0] * shape[1] > 1 and shape[2] > 1:
            torch_index = np.arange(np.prod(shape)).reshape(shape[2], shape[0], shape[1])
            order = torch_index.transpose(1, 2, 0).reshape(-1)
        name = self.unique(str(node.target) if node.op == "call_module" else node.name)
        return self.add(Flatten(name, source.name), origin, order)

    def flatten_module(self, node: fx.Node, module: nn.Flatten) -> _Stored | _Normalized:
        return self.flatten_checked(node, module.start_dim, module.end_dim)

    def flatten_function(self, node: fx.Node) -> _Stored | _Normalized:
        given = dict(zip(("input", "start_dim", "end_dim"), node.args, strict=False)) | dict(node.kwargs)
        return self.flatten_checked(node, given.get("start_dim", 0), given.get("end_dim", -1))

    def flatten_checked(self, node: fx.Node, start: Any, end: Any) -> _Stored | _Normalized:
        if start != 1 or end not in (-1, 3):
            raise self.refuse(node, f"start_dim={start}, end_dim={end}; only flatten(1), all but the batch, is exact")
        return self.flatten(node)

    def reshape(self, node: fx.Node) -> _Stored | _Normalized:
        sizes = list(node.args[1:])
        if len(sizes) == 1 and isinstance(sizes[0], tuple | list):
            sizes = list(sizes[0])
        known = [self.known(node, size) if isinstance(size, fx.Node) else size for size in sizes]
        value = self.operand(node)
        source = value.sums if isinstance(value, _Normalized) else value
        features = self.builder.types[source.name].num_elements if isinstance(source, _Stored) else -1
        batch_first = len(known) == 2 and (isinstance(known[0], _BatchSize) or known[0] == -1)
        if not batch_first or known[1] not in (-1, features) or known == [-1, -1]:
            raise self.refuse(node, "only a flatten of everything but the batch is exact: use torch.flatten(x, 1)")
        return self.flatten(node)

    def random_sign(self, node: fx.Node) -> _Stored:
        raise self.refuse(node, "is random in eval mode too; use binarynet.layers.StochasticSign")

    def random_drop(self, node: fx.Node) -> _Stored:
        raise self.refuse(node, "drops in eval mode too; give the binary layer dropout=, or use nn.Dropout")

    def dropout(self, node: fx.Node) -> Any:
        given = dict(zip(("input", "p", "training"), node.args, strict=False)) | dict(node.kwargs)
        if given.get("training", True):
            raise self.refuse(node, "drops in eval mode too; pass training=self.training, or use nn.Dropout")
        return self.operand(node)

    def pass_through(self, node: fx.Node, _: nn.Module | None = None) -> Any:
        return self.operand(node)

    def hard_tanh(self, node: fx.Node, module: nn.Module | None = None) -> _Normalized:
        value = self.operand(node)
        low, high = (module.min_val, module.max_val) if isinstance(module, nn.Hardtanh) else _hard_tanh_range(node)
        if not isinstance(value, _Normalized) or not np.float32(low) < 0 < np.float32(high):
            raise self.refuse(node, "clipping is exact only between a normalization and its sign, around 0")
        if self.is_inplace(node, module) and not self.is_own_result(node.args[0]):
            raise self.refuse(node, "inplace=True changes a value that is used elsewhere, too; leave it out")
        return replace(value, clipped_by=self.describe(node))

    def is_inplace(self, node: fx.Node, module: nn.Module | None) -> bool:
        if module is not None:
            return bool(getattr(module, "inplace", False))
        return bool(node.kwargs.get("inplace", len(node.args) > 3 and node.args[3]))

    def is_own_result(self, value: Any) -> bool:
        """Whether a value is the fresh result of a layer or pooling, seen by one operation only."""
        if not isinstance(value, fx.Node) or len(value.users) != 1:
            return False
        if value.op == "call_module":
            return isinstance(self.traced.get_submodule(str(value.target)), Normalization | nn.MaxPool2d)
        return value.target in (F.max_pool2d, torch.max_pool2d)

    def size(self, node: fx.Node) -> _Shape | _BatchSize:
        if len(node.args) == 1 and not node.kwargs:
            return _Shape()
        if node.args[1:] == (0,) or node.kwargs.get("dim") == 0:
            return _BatchSize()
        raise self.refuse(node, "only the batch size x.size(0) may be used in forward")

    def attribute(self, node: fx.Node) -> _Shape:
        if node.args[1] != "shape":
            raise self.refuse(node, FUNCTION_HINT)
        return _Shape()

    def item(self, node: fx.Node) -> _BatchSize:
        if not isinstance(self.operand(node), _Shape) or node.args[1] != 0:
            raise self.refuse(node, "only the batch size x.shape[0] may be used in forward")
        return _BatchSize()

    def output(self, node: fx.Node) -> str:
        result = node.args[0]
        if not isinstance(result, fx.Node):
            raise UnsupportedLayerError(f"forward returns {type(result).__name__}; it must return one tensor of scores")
        value = self.known(node, result)
        if isinstance(value, _Stored):
            if result.op == "placeholder":
                raise UnsupportedLayerError("forward returns its input; a network has at least one binary layer")
            if value.order is not None:
                raise self.refuse(result, "a flattened image as the result has no agreed order; end with a dense layer")
            return value.name
        if not isinstance(value, _Normalized):
            raise self.refuse(result, "forward must return one tensor of scores")
        if value.pools or value.clipped_by or value.sums.order is not None:
            raise self.refuse(result, "between the last normalization and the result nothing may stand")
        name = self.unique("scores")
        return self.add(Affine(name, value.sums.name, value.scale, value.shift), result).name


def _pair(value: Any) -> tuple[int, int]:
    if isinstance(value, int):
        return value, value
    if len(value) == 1:
        return int(value[0]), int(value[0])
    return int(value[0]), int(value[1])


def _hard_tanh_range(node: fx.Node) -> tuple[float, float]:
    names = ("input", "min_val", "max_val")
    given = {"min_val": -1.0, "max_val": 1.0} | dict(zip(names, node.args, strict=False)) | dict(node.kwargs)
    return given["min_val"], given["max_val"]  # type: ignore[return-value]


_MODULES: dict[type[nn.Module], Callable[[_Lowering, fx.Node, Any], Any]] = {
    BinaryLinear: _Lowering.dense,
    BinaryConv2d: _Lowering.convolution,
    Normalization: _Lowering.normalization,
    Sign: _Lowering.sign,
    StochasticSign: _Lowering.sign,
    nn.MaxPool2d: _Lowering.max_pool_module,
    nn.Flatten: _Lowering.flatten_module,
    nn.Hardtanh: _Lowering.hard_tanh,
    nn.Identity: _Lowering.pass_through,
    nn.Dropout: _Lowering.pass_through,
    nn.Dropout2d: _Lowering.pass_through,
}
_FUNCTIONS: dict[Any, Callable[[_Lowering, fx.Node], Any]] = {
    ops.sign: _Lowering.sign,
    ops.identity_sign: _Lowering.sign,
    ops.approx_sign: _Lowering.sign,
    ops.swish_sign: _Lowering.sign,
    ops.stochastic_sign: _Lowering.random_sign,
    ops.drop: _Lowering.random_drop,
    torch.flatten: _Lowering.flatten_function,
    F.max_pool2d: _Lowering.max_pool_function,
    torch.max_pool2d: _Lowering.max_pool_function,
    F.hardtanh: _Lowering.hard_tanh,
    F.dropout: _Lowering.dropout,
    getattr: _Lowering.attribute,
    operator.getitem: _Lowering.item,
}
_HARMLESS = (getattr, operator.getitem, "size")
_METHODS: dict[str, Callable[[_Lowering, fx.Node], Any]] = {
    "flatten": _Lowering.flatten_function,
    "view": _Lowering.reshape,
    "reshape": _Lowering.reshape,
    "contiguous": _Lowering.pass_through,
    "size": _Lowering.size,
}
