"""What a user could run instead: the same layer shapes as an ordinary float32 (or int8) network in other libraries.

A peer has real-valued weights and biases (batch normalization folded in), ReLU in the place of sign, and gets its
input ready made (float32, or 8-bit for int8) in the library's own layout: no conversion is part of its time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from binarynet.cli._peers_common import LayerShape
from binarynet.encoding import INPUT_MAX
from binarynet.errors import UsageError
from binarynet.graph import Affine, Convolution, Dense, Flatten, Graph, Input, MaxPool, Node, Threshold, Window

Array = npt.NDArray[np.float32]

ZERO = 128
"""The 8-bit code of 0, for values of both signs."""


@dataclass(frozen=True)
class FloatLayer:
    """One step of the float network. ``weights``: ``[out, in, kernel_h, kernel_w]`` or ``[out, in]``."""

    kind: Literal["convolution", "dense", "relu", "max_pool", "flatten"]
    weights: Array | None = None
    bias: Array | None = None
    window: Window | None = None

    @property
    def weight_step(self) -> float:
        """Quantization step of the weights in int8; +1 / -1 stay what they are."""
        assert self.weights is not None
        largest = float(np.abs(self.weights).max())
        return 1.0 if (np.abs(self.weights) == largest).all() and largest == 1.0 else largest / 127


@dataclass(frozen=True)
class FloatNetwork:
    """An ordinary network with its input.

    Attributes:
        steps: its layers.
        inputs: float32 ``[n, c, h, w]`` or ``[n, k]``.
        codes: the same for int8 networks, uint8 of the same shape; the value is ``input_step * (code - ZERO)``.
        input_step: quantization step of the input.
        activation_step: quantization step of everything that a layer makes.
        is_layer: a single layer, whose int8 form gives codes rather than float32 scores.
    """

    steps: tuple[FloatLayer, ...]
    inputs: Array
    codes: npt.NDArray[np.uint8]
    input_step: float
    activation_step: float
    is_layer: bool

    @property
    def quantized_inputs(self) -> npt.NDArray[np.float64]:
        """The input that int8 networks see."""
        return (self.codes.astype(np.float64) - ZERO) * self.input_step

    def rectified(self, position: int) -> bool:
        """Whether the step at ``position`` is followed by ReLU."""
        return position + 1 < len(self.steps) and self.steps[position + 1].kind == "relu"


def float_network(graph: Graph, images: npt.NDArray[np.uint8], seed: int = 0) -> FloatNetwork:
    """The graph's topology as an ordinary network with random weights (He initialization), images as its input.

    Raises:
        UsageError: the graph is not a chain of layers.
    """
    rng = np.random.default_rng(seed)
    nodes = list(graph)
    steps: list[FloatLayer] = []
    for position, node in enumerate(nodes[1:], start=1):
        before = nodes[position - 1].name
        if node.sources != (before,):
            raise UsageError(f"the float networks are chains of layers; {node.name!r} does not follow {before!r}")
        steps += _float_layers(node, nodes[position + 1 :], graph, rng)
    codes = np.ascontiguousarray(images.transpose(0, 3, 1, 2) if images.ndim == 4 else images)
    # With He initialization ReLU's outputs rarely pass 8.
    return FloatNetwork(tuple(steps), float_input(images), codes, 2.0 / INPUT_MAX, 8.0 / 255, is_layer=False)


def float_layer(layer: LayerShape, inputs: npt.NDArray[np.integer]) -> FloatNetwork:
    """One layer with the weights +1 / -1 as real numbers, without bias and ReLU.

    Args:
        layer: the layer.
        inputs: ``[n, h, w, c]``: uint8 u for a first layer, else +1 / -1.
    """
    values = inputs.astype(np.int32).transpose(0, 3, 1, 2)
    weights = layer.weights.astype(np.float32).transpose(0, 3, 1, 2)
    step = FloatLayer("convolution", np.ascontiguousarray(weights), None, _window(layer))
    if layer.is_dense:
        values, step = values[:, :, 0, 0], FloatLayer("dense", np.ascontiguousarray(weights[:, :, 0, 0]))
    if layer.first:
        codes, exact, input_step, deviation = values, 2 * values - INPUT_MAX, 2.0, INPUT_MAX / np.sqrt(3)
    else:
        codes, exact, input_step, deviation = values + ZERO, values, 1.0, 1.0
    # Codes reach four standard deviations of the sums.
    activation_step = float(8 * deviation * np.sqrt(layer.num_taps) / 255)
    return FloatNetwork(
        (step,),
        np.ascontiguousarray(exact, dtype=np.float32),
        np.ascontiguousarray(codes, dtype=np.uint8),
        input_step,
        activation_step,
        is_layer=True,
    )


def _window(layer: LayerShape) -> Window:
    return Window(layer.kernel, layer.stride, layer.padding)


def _float_layers(node: Node, following: list[Node], graph: Graph, rng: np.random.Generator) -> list[FloatLayer]:
    if isinstance(node, Convolution | Dense):
        window = node.window if isinstance(node, Convolution) else None
        shape = (len(node.weights), graph.types[node.source].channels, *(window.kernel if window else ()))
        deviation = np.float32(np.sqrt(2.0 / np.prod(shape[1:])))
        weights = rng.standard_normal(shape, dtype=np.float32) * deviation
        bias = rng.standard_normal(len(node.weights), dtype=np.float32) * np.float32(0.05)
        steps = [FloatLayer("convolution" if window else "dense", weights, bias, window)]
        return [*steps, FloatLayer("relu")] if _is_signed(following) else steps
    if isinstance(node, MaxPool):
        return [FloatLayer("max_pool", window=node.window)]
    if isinstance(node, Flatten):
        return [FloatLayer("flatten")]
    # The input; a sign, whose ReLU stands right behind its layer; an affine map, folded into weights and bias.
    assert isinstance(node, Input | Threshold | Affine)
    return []


def _is_signed(following: list[Node]) -> bool:
    """Whether a sign comes before the next layer (a maximum commutes with sign and ReLU)."""
    for node in following:
        if isinstance(node, Threshold):
            return True
        if isinstance(node, Convolution | Dense):
            return False
    return False


def float_input(images: npt.NDArray[np.uint8]) -> Array:
    """uint8 ``[n, h, w, c]`` or ``[n, k]`` to float32 in [-1, 1], ``[n, c, h, w]`` or ``[n, k]``."""
    values = (2 * images.astype(np.float32) - INPUT_MAX) / np.float32(INPUT_MAX)
    return np.ascontiguousarray(values.transpose(0, 3, 1, 2) if values.ndim == 4 else values)


def evaluate(steps: tuple[FloatLayer, ...], inputs: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
    """The network in float64, in plain NumPy: what peers are checked against. ``inputs`` as in FloatNetwork."""
    x = inputs.astype(np.float64)
    for step in steps:
        if step.kind == "relu":
            x = np.maximum(x, 0)
        elif step.kind == "flatten":
            x = x.reshape(len(x), -1)
        elif step.window is None:
            assert step.weights is not None
            x = x @ step.weights.T.astype(np.float64)
            x = x if step.bias is None else x + step.bias
        else:
            x = _windowed(step, step.window, x)
    return x


def _windowed(step: FloatLayer, window: Window, x: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """A convolution or max-pooling, one tap after the other."""
    (sh, sw), (ph, pw) = window.stride, window.padding
    oh, ow = window.output_size((x.shape[2], x.shape[3]))
    fill = 0.0 if step.weights is not None else -np.inf
    padded = np.pad(x, ((0, 0), (0, 0), (ph, ph), (pw, pw)), constant_values=fill)
    channels = x.shape[1] if step.weights is None else len(step.weights)
    result = np.full((len(x), channels, oh, ow), fill)
    for i in range(window.kernel[0]):
        for j in range(window.kernel[1]):
            taps = padded[:, :, i : i + sh * (oh - 1) + 1 : sh, j : j + sw * (ow - 1) + 1 : sw]
            if step.weights is None:
                np.maximum(result, taps, out=result)
            else:
                result += np.einsum("oc,nchw->nohw", step.weights[:, :, i, j].astype(np.float64), taps, optimize=True)
    return result if step.bias is None else result + step.bias[:, None, None]
