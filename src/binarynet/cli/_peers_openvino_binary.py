"""OpenVINO's BinaryConvolution as a peer: the very same network or layer, computed exactly.

The first layer, whose input is 8-bit, is computed in float32 or in int8; both are exact.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from binarynet.cli import _openvino_graph as pieces
from binarynet.cli import _peers_openvino
from binarynet.cli._float_network import evaluate, float_layer
from binarynet.cli._peers_common import Array, Kind, LayerShape, Loaded
from binarynet.encoding import INPUT_MAX, to_signs, unpack_bits
from binarynet.errors import UsageError, VerificationError
from binarynet.graph import (
    Affine,
    Convolution,
    Dense,
    Flatten,
    Graph,
    MaxPool,
    Node,
    Threshold,
    Window,
    reference,
)

BINARY = "openvino binary"
FLOAT_FIRST, INT8_FIRST = "openvino binary, float32 first layer", "openvino binary, int8 first layer"

MAX_IMAGES = 8
"""Images that are computed together: with more, the sums of a convolution no longer fit into the caches."""
REPEATS = 8
"""Layers in one call, side by side, so that packing the input hardly counts."""
LARGE_LAYER, FEW_REPEATS = 1 << 38, 2
"""Multiplications of a layer from which on fewer are put side by side, as a call takes long enough."""
FEW_COLUMNS, MAX_WEIGHT_BYTES = 64, 1 << 22
"""With so few rows or pixels as that, a layer's time is that of reading its weights: no more than fit into a cache."""
NUM_CHECKED = 3
ROUNDING = 2.0**-23
"""Scores are rounded once rather than twice, since multiplication and addition are fused: no further off than this."""


@dataclass(frozen=True)
class BinaryNetwork:
    """A network with the images that it runs on, uint8 ``[n, *input shape]``."""

    graph: Graph
    images: npt.NDArray[np.uint8]


@dataclass(frozen=True)
class BinaryLayer:
    """A layer with its input: ``[n, h, w, c]``, uint8 u for a first layer, else +1 / -1."""

    layer: LayerShape
    inputs: npt.NDArray[np.integer[Any]]


def version() -> str:
    import openvino

    return f"openvino {openvino.__version__.split('-')[0]}"


def names(subject: BinaryNetwork | BinaryLayer) -> dict[str, Kind]:
    """The peers that this library has for a network or layer."""
    if isinstance(subject, BinaryLayer) and not subject.layer.first:
        return {BINARY: "binary"}
    return {FLOAT_FIRST: "binary", INT8_FIRST: "binary"}


def save(name: str, subject: BinaryNetwork | BinaryLayer, folder: Path) -> Array:
    """Write the model's files; returns the peer's input.

    Raises:
        UsageError: OpenVINO cannot compute this network, or not exactly.
    """
    import openvino

    int8 = name == INT8_FIRST
    if isinstance(subject, BinaryLayer):
        model, inputs = _layer_model(subject, int8, timed=True), _layer_inputs(subject, int8)
    else:
        model, inputs = _network_model(subject, int8), _network_inputs(subject, int8)
    openvino.save_model(model, folder / "model.xml", compress_to_fp16=False)
    return inputs


def load(name: str, folder: Path, inputs: Array, num_threads: int) -> Loaded:
    core, model = _peers_openvino.read(folder)
    together = model.input(0).shape[0]
    layers = int(model.get_rt_info("layers").astype(str)) if model.has_rt_info("layers") else 1
    streams = min(num_threads, len(inputs) // together)
    compiled = _peers_openvino.compile_model(core, model, num_threads, streams)
    kernels = _peers_openvino.kernels(compiled, ("Convolution", "FullyConnected", "BinaryConvolution"))
    run = _peers_openvino.caller(compiled, inputs)
    return Loaded(run, lambda result: result, kernels, layers)


def _network_inputs(network: BinaryNetwork, int8: bool) -> Array:
    """Images ``[n, c, h, w]`` or features ``[n, k]``, as uint8 or as 2u - 255 in float32."""
    images = network.images
    if _flattened_first(network.graph):
        images = images.reshape(len(images), -1)
    values = images if int8 else 2 * images.astype(np.float32) - np.float32(INPUT_MAX)
    return np.ascontiguousarray(values.transpose(0, 3, 1, 2) if values.ndim == 4 else values)


def _flattened_first(graph: Graph) -> bool:
    return any(isinstance(node, Flatten) and node.source == graph.input.name for node in graph)


def _network_model(network: BinaryNetwork, int8: bool) -> Any:
    graph = network.graph
    inputs = _network_inputs(BinaryNetwork(graph, network.images[:1]), int8)
    count = len(network.images)
    if inputs.ndim == 4:
        count = max(divisor for divisor in range(1, MAX_IMAGES + 1) if count % divisor == 0)
    translator = _Translator(graph, count, int8)
    source = pieces.parameter((count, *inputs.shape[1:]), inputs.dtype)
    value = source
    before = graph.input.name
    for node in list(graph)[1:]:
        if node.sources != (before,):
            raise UsageError(
                f"OpenVINO's networks are made for chains of layers; {node.name!r} does not follow {before!r}"
            )
        value = translator.step(value, node)
        before = node.name
    if not any(isinstance(node, Convolution | Dense) and graph.types[node.source].kind == "bits" for node in graph):
        raise UsageError("no layer of it takes bits")
    if not isinstance(node, Affine):
        raise UsageError("OpenVINO's networks are made for scores; this one ends in sums or bits")
    return pieces.model(value, source)


class _Translator:
    """Adds the operations of one node after the other; images are ``[n, c, h, w]``, features ``[1, k, 1, n]``."""

    def __init__(self, graph: Graph, count: int, int8: bool) -> None:
        self.graph, self.count, self.int8 = graph, count, int8
        self.image: tuple[int, ...] | None = None
        self.raw: npt.NDArray[np.int8] | None = None

    def step(self, value: Any, node: Node) -> Any:
        if isinstance(node, Flatten):
            # The next layer's window is then the whole image; 8-bit images were flattened before.
            shape = self.graph.types[node.source].shape
            self.image = shape if self.graph.types[node.source].kind == "bits" else None
            return value
        if isinstance(node, Convolution | Dense):
            return self._sums(value, node)
        if isinstance(node, MaxPool):
            return self._pooled(value, node)
        if isinstance(node, Threshold):
            thresholds: npt.NDArray[Any] = node.thresholds
            bound = self.graph.bounds[node.source]
            if self.raw is not None:
                thresholds, self.raw = pieces.raw_thresholds(node.thresholds, self.raw), None
            return pieces.thresholded(value, thresholds, node.falling, bound)
        assert isinstance(node, Affine)
        return self._scores(value, node)

    def _sums(self, value: Any, node: Convolution | Dense) -> Any:
        source = self.graph.types[node.source]
        weights = to_signs(unpack_bits(node.weights, source.channels))
        if isinstance(node, Convolution):
            if source.kind == "bits":
                return pieces.binary_convolution(value, weights, node.window)
            if self.int8:
                return pieces.int8_convolution(value, weights, node.window, (self.count, *source.shape[:2]))
            return pieces.float_convolution(value, weights, node.window)
        if source.kind == "bits":
            if self.image is None:
                return pieces.binary_convolution(value, weights[:, None, None], pieces.PIXEL)
            rows, columns, channels = self.image
            self.image = None
            window = Window((rows, columns))
            sums = pieces.binary_convolution(value, weights.reshape(-1, rows, columns, channels), window)
        elif self.int8:
            self.raw = weights
            sums = pieces.int8_dense(value, weights)
        else:
            sums = pieces.float_dense(value, weights)
        return pieces.as_columns(sums, self.count, len(weights))

    def _pooled(self, value: Any, node: MaxPool) -> Any:
        from openvino import opset13

        if self.graph.types[node.name].kind == "bits":
            raise UsageError(f"{node.name!r} pools bits, which OpenVINO does not")
        pads = list(node.window.padding)
        pooled = opset13.max_pool(value, list(node.window.stride), [1, 1], pads, pads, list(node.window.kernel))
        return pooled.output(0)

    def _scores(self, value: Any, node: Affine) -> Any:
        from openvino import opset13

        shape = self.graph.types[node.source].shape
        if len(shape) != 1:
            raise UsageError("OpenVINO's networks are made for scores of a dense layer")
        sums = pieces.from_columns(value, self.count, shape[0])
        scale, shift = opset13.constant(node.scale[None]), opset13.constant(node.shift[None])
        return opset13.add(opset13.multiply(sums, scale), shift)


def _layer_inputs(subject: BinaryLayer, int8: bool) -> Array:
    """float32 ``[n, h, w, c]``, of dense layers ``[1, 1, n, c]``; first layers' as those of networks."""
    layer, inputs = subject.layer, subject.inputs
    if not layer.first:
        values = inputs.astype(np.float32)
        return values.reshape(1, 1, -1, layer.in_c) if layer.is_dense else values
    values = inputs.astype(np.uint8) if int8 else 2 * inputs.astype(np.float32) - np.float32(INPUT_MAX)
    return values.reshape(-1, layer.in_c) if layer.is_dense else np.ascontiguousarray(values.transpose(0, 3, 1, 2))


def _layer_model(subject: BinaryLayer, int8: bool, *, timed: bool) -> Any:
    """The layer and a small binary layer behind it, since bits do not leave OpenVINO.

    ``timed``: several of it with the output channels in different orders (OpenVINO would see that equal ones are one),
    and from each of them only one pixel is read; else one layer, read everywhere. Where no layer of bits can follow,
    the result are the layers' sums.
    """
    from openvino import opset13

    layer = subject.layer
    inputs = _layer_inputs(subject, int8)
    source = pieces.parameter(inputs.shape, inputs.dtype)
    value = source
    if not layer.first:
        signs = pieces.thresholded(pieces.channels_first(source), np.zeros(layer.in_c), np.zeros(layer.in_c, bool), 1)
        value = signs
    rows, columns = Window(layer.kernel, layer.stride, layer.padding).output_size((layer.in_h, layer.in_w))
    repeats = _repeats(layer, len(subject.inputs) * rows * columns) if timed else 1
    outputs = [_layer_output(value, subject, int8, turn) for turn in range(repeats)]
    if _gives_bits(layer):
        size = (1, len(subject.inputs)) if layer.is_dense else (rows, columns)
        window = Window((1, 1), size if timed else (1, 1))
        outputs = [pieces.binary_convolution(bits, _reader(layer), window) for bits in outputs]
    model = pieces.model(opset13.concat(outputs, 1), source)
    model.set_rt_info(str(repeats), "layers")
    return model


def _repeats(layer: LayerShape, columns: int) -> int:
    """How many layers are put side by side; ``columns``: rows or pixels of all images."""
    if columns * layer.weights.size >= LARGE_LAYER:
        return FEW_REPEATS
    if columns < FEW_COLUMNS:
        return min(max(MAX_WEIGHT_BYTES * 8 // layer.weights.size, FEW_REPEATS), REPEATS)
    return REPEATS


def _gives_bits(layer: LayerShape) -> bool:
    return layer.out_c % pieces.CHANNEL_MULTIPLE == 0


def _layer_output(value: Any, subject: BinaryLayer, int8: bool, turn: int) -> Any:
    """Bits, or sums: of a first dense layer in int8 those of u."""
    layer = subject.layer
    weights, thresholds = np.roll(layer.weights, turn, axis=0), np.roll(layer.thresholds, turn)
    falling = np.roll(layer.falling, turn)
    window = Window(layer.kernel, layer.stride, layer.padding)
    limits: npt.NDArray[Any] = thresholds
    if not layer.first:
        sums = pieces.binary_convolution(value, weights, window)
    elif not layer.is_dense:
        image = (len(subject.inputs), layer.in_h, layer.in_w)
        by_int8 = functools.partial(pieces.int8_convolution, image=image)
        sums = (by_int8 if int8 else pieces.float_convolution)(value, weights, window)
    else:
        flat = weights[:, 0, 0]
        sums = pieces.int8_dense(value, flat) if int8 else pieces.float_dense(value, flat)
        limits = pieces.raw_thresholds(thresholds, flat) if int8 else thresholds
        sums = pieces.as_columns(sums, len(subject.inputs), layer.out_c)
    if not _gives_bits(layer):
        return sums
    return pieces.thresholded(sums, limits, falling, layer.num_taps * (INPUT_MAX if layer.first else 1))


def _reader(layer: LayerShape) -> npt.NDArray[np.int8]:
    """Weights of the small layer behind: the sums tell any wrong bit."""
    return 2 * np.random.default_rng(0).integers(0, 2, (16, 1, 1, layer.out_c), dtype=np.int8) - 1


def expected(subject: BinaryNetwork | BinaryLayer) -> Callable[[str, Kind, Array], None]:
    """What raises VerificationError where a peer's values are not those of the NumPy reference."""
    return _ExpectedScores(subject) if isinstance(subject, BinaryNetwork) else _ExpectedBits(subject)


def _sample(count: int) -> list[int]:
    return sorted({0, count // 2, count - 1})[:NUM_CHECKED]


class _ExpectedScores:
    """The sums of the last layer must be equal, and scores as near as one rounding less allows."""

    def __init__(self, network: BinaryNetwork) -> None:
        node = network.graph.node(network.graph.output)
        assert isinstance(node, Affine)
        self.affine = node
        self.shape = (len(network.images), network.graph.output_type.channels)
        self.images = _sample(len(network.images))
        values = reference.evaluate(network.graph, network.images[self.images], [node.source, node.name])
        self.sums, self.scores = values[node.source].astype(np.float64), values[node.name].astype(np.float64)

    def __call__(self, name: str, kind: Kind, values: Array) -> None:
        if values.shape != self.shape:
            raise VerificationError(f"{name}: expected scores {list(self.shape)}, got {list(values.shape)}")
        given = values[self.images].astype(np.float64)
        scale, shift = self.affine.scale.astype(np.float64), self.affine.shift.astype(np.float64)
        sums = np.rint((given - shift) / np.where(scale == 0, 1, scale))
        tolerance = ROUNDING * (np.abs(self.sums * scale) + np.abs(shift))
        wrong = (np.abs(given - self.scores) > tolerance) | ((sums != self.sums) & (scale != 0))
        if wrong.any():
            image, channel = (int(index) for index in np.argwhere(wrong)[0])
            raise VerificationError(
                f"{name}: image {self.images[image]}, class {channel}: {given[image, channel]}, but the reference has "
                f"{self.scores[image, channel]} ({np.count_nonzero(wrong)} of {wrong.size} scores differ)"
            )


class _ExpectedBits:
    """Every bit of some images must be equal; the small layer behind would tell (see _layer_model)."""

    def __init__(self, subject: BinaryLayer) -> None:
        self.subject = subject
        layer = subject.layer
        self.images = _sample(len(subject.inputs))
        network = float_layer(layer, subject.inputs[self.images])
        sums = evaluate(network.steps, network.inputs)
        self.sums = sums = sums[:, :, None, None] if layer.is_dense else sums
        thresholds, falling = layer.thresholds.reshape(-1, 1, 1), layer.falling.reshape(-1, 1, 1)
        self.bits = 2.0 * ((sums >= thresholds) != falling) - 1

    def __call__(self, name: str, kind: Kind, values: Array) -> None:
        layer = self.subject.layer
        if not _gives_bits(layer):
            self._compare_sums(name, values)
            return
        reader = _reader(layer)[:, 0, 0].astype(np.float64)
        turned = [np.roll(self.bits[:, :, :1, :1], turn, axis=1) for turn in range(values.shape[1] // len(reader))]
        first_pixels = np.concatenate([np.einsum("oc,ncij->noij", reader, bits) for bits in turned], axis=1)
        # Of a dense layer, whose batch is the columns of one image, only its first row is read.
        rows = slice(0, 1) if layer.is_dense else slice(None)
        self._compare(f"{name}, as timed", values[self.images[rows]], first_pixels[rows])
        given = self._everywhere(name)
        self._compare(name, given[self.images], np.einsum("oc,ncij->noij", reader, self.bits))

    def _compare_sums(self, name: str, values: Array) -> None:
        layer = self.subject.layer
        given = values.transpose(3, 1, 0, 2) if layer.is_dense else values
        sums = self.sums
        if layer.first and layer.is_dense and name == INT8_FIRST:
            sums = (sums + INPUT_MAX * layer.weights.sum(axis=(1, 2, 3)).reshape(-1, 1, 1)) / 2
        turned = [np.roll(sums, turn, axis=1) for turn in range(given.shape[1] // layer.out_c)]
        self._compare(name, given[self.images], np.concatenate(turned, axis=1))

    def _everywhere(self, name: str) -> Array:
        """The small layer's sums of every pixel, ``[n, 16, h, w]``."""
        import openvino

        int8 = name == INT8_FIRST
        model = _layer_model(self.subject, int8, timed=False)
        compiled = _peers_openvino.compile_model(openvino.Core(), model, num_threads=1, streams=1)
        given: Array = _peers_openvino.caller(compiled, _layer_inputs(self.subject, int8))().copy()
        return given.transpose(3, 1, 0, 2) if self.subject.layer.is_dense else given

    def _compare(self, name: str, given: Array, wanted: Array) -> None:
        if given.shape != wanted.shape:
            raise VerificationError(f"{name}: expected sums {list(wanted.shape)}, got {list(given.shape)}")
        wrong = given != wanted
        if wrong.any():
            raise VerificationError(
                f"{name}: differs from the reference in {np.count_nonzero(wrong)} of {wrong.size} sums"
            )
