"""One binary layer alone: its shape, its graph, its operands, and proof that every engine computes it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from binarynet.analysis.layers import value_bytes
from binarynet.cli._benching.measuring import Task
from binarynet.cli._peers import layer_input
from binarynet.cli._peers_common import LayerShape
from binarynet.encoding import num_words, pack_bits, to_signs, unpack_bits
from binarynet.errors import VerificationError
from binarynet.graph import Convolution, Dense, Graph, GraphBuilder, Input, Threshold, ValueType, Window, evaluate
from binarynet.graph import num_taps as taps_of

Output = Literal["bits", "int32"]
NUM_CHECKED = 16
"""Images (rows) of a layer for which the reference is asked; a matrix product checks the rest."""


@dataclass(frozen=True, eq=False)
class SingleLayer:
    """A layer, its input, and what comes out.

    Attributes:
        name: for people.
        shape: what it is made of.
        batch: images (or rows) per call.
        signed: whether bits come out of the layer where it stands, so that thresholds belong to it.
    """

    name: str
    shape: LayerShape
    batch: int
    signed: bool = True

    @cached_property
    def inputs(self) -> npt.NDArray[Any]:
        """That of the peers: int8 +1 / -1 or, of a first layer, uint8; ``[batch, h, w, c]``."""
        return layer_input(self.shape, self.batch)

    @cached_property
    def packed_inputs(self) -> npt.NDArray[Any]:
        """The same as the layer's graph takes it: a dense layer's is ``[batch, k]`` or ``[batch, words]``."""
        array = self.inputs if self.shape.first else pack_bits(self.inputs > 0)
        return array.reshape(self.batch, -1) if self.shape.is_dense else array

    def graph(self, output: Output) -> Graph:
        """The layer alone."""
        shape = self.shape
        builder = GraphBuilder()
        size = (shape.in_c,) if shape.is_dense else (shape.in_h, shape.in_w, shape.in_c)
        value = builder.add(Input("input", size, "u8" if shape.first else "bits"))
        weights = pack_bits(shape.weights > 0)
        if shape.is_dense:
            value = builder.add(Dense("sums", value, weights.reshape(shape.out_c, -1)))
        else:
            window = Window(shape.kernel, shape.stride, shape.padding)
            value = builder.add(Convolution("sums", value, window, weights))
        if output == "bits":
            value = builder.add(Threshold("bits", value, shape.thresholds, shape.falling))
        return builder.finish(value)

    def task(self, output: Output, cold: bool = False) -> Task:
        """What a call computes; taps on the zero padding are counted, as everybody does."""
        graph = self.graph("int32")
        sums = graph.types["sums"]
        columns = self.batch * sums.num_elements // sums.channels
        out = ValueType("bits" if output == "bits" else "i32", sums.shape)
        moved = self.batch * (value_bytes(graph.types["input"]) + value_bytes(out))
        weights = 8 * self.shape.out_c * num_words(self.shape.num_taps)
        return Task(
            self.name,
            self.batch,
            columns * self.shape.out_c * self.shape.num_taps,
            weights + moved,
            cold,
        )

    def check(self, results: Sequence[tuple[str, Output, npt.NDArray[Any]]]) -> None:
        """Hold results against the reference (the first images) and an exact float product (all of a dense layer).

        Args:
            results: who computed it, what comes out, and the result.

        Raises:
            VerificationError: one of them differs.
        """
        part = self.packed_inputs[:NUM_CHECKED]
        for output in ("bits", "int32"):
            mine = [(who, result) for who, kind, result in results if kind == output]
            if not mine:
                continue
            graph = self.graph(output)
            expected = evaluate(graph, part)[graph.output]
            for who, result in mine:
                require_equal(who, result[: len(part)], expected, "the NumPy reference")
            if self.shape.is_dense:
                sums = self._exact_sums()
                whole = sums if output == "int32" else pack_bits((sums >= self.shape.thresholds) != self.shape.falling)
                for who, result in mine:
                    require_equal(who, result, whole, "an exact product of floats")

    def _exact_sums(self) -> npt.NDArray[np.int32]:
        """Of a dense layer: float32 holds every partial sum."""
        inputs = self.inputs.reshape(self.batch, -1).astype(np.float32)
        if self.shape.first:
            inputs = 2 * inputs - 255
        weights = self.shape.weights.reshape(self.shape.out_c, -1).astype(np.float32)
        return (inputs @ weights.T).astype(np.int32)


def require_equal(who: str, result: npt.NDArray[Any], expected: npt.NDArray[Any], what: str) -> None:
    """VerificationError, with the number of values that differ, unless all bits are equal (-0.0 is not 0.0)."""
    alike = (result.shape, result.dtype) == (expected.shape, expected.dtype)
    bits = f"u{expected.itemsize}"
    count = np.count_nonzero(result.view(bits) != expected.view(bits)) if alike else expected.size
    if count:
        raise VerificationError(f"{who} differs from {what} in {count} of {expected.size} values")


def random_layer(
    name: str,
    size: tuple[int, int, int],
    out_c: int,
    batch: int,
    *,
    kernel: int = 1,
    padding: int = 0,
    first: bool = False,
    seed: int = 0,
) -> SingleLayer:
    """A layer with random weights, thresholds within the usual reach of its sums, and some falling channels."""
    rng = np.random.default_rng(seed)
    weights = to_signs(rng.integers(0, 2, (out_c, kernel, kernel, size[2]), dtype=np.uint8).view(np.bool_))
    deviation = (147.0 if first else 1.0) * float(np.sqrt(kernel * kernel * size[2]))
    thresholds = np.rint(rng.normal(0.0, deviation / 2, out_c)).astype(np.int32)
    shape = LayerShape(
        *size, (kernel, kernel), (1, 1), (padding, padding), first, weights, thresholds, rng.random(out_c) < 0.1
    )
    return SingleLayer(name, shape, batch)


def layers_of(graph: Graph, batch: int) -> Iterator[SingleLayer]:
    """The convolutions and dense layers of a network with their own weights, without the pooling behind them."""
    for node in graph:
        if not isinstance(node, Convolution | Dense):
            continue
        source = graph.types[node.source]
        threshold = _threshold_of(graph, node.name)
        out = len(node.weights)
        window = node.window if isinstance(node, Convolution) else Window((1, 1))
        size = source.shape if len(source.shape) == 3 else (1, 1, source.channels)
        weights = to_signs(unpack_bits(node.weights, source.channels)).reshape(out, *window.kernel, source.channels)
        assert weights[0].size == taps_of(node, source)
        yield SingleLayer(
            node.name,
            LayerShape(
                *size,
                window.kernel,
                window.stride,
                window.padding,
                source.kind == "u8",
                weights,
                threshold.thresholds if threshold is not None else np.zeros(out, np.int32),
                threshold.falling if threshold is not None else np.zeros(out, np.bool_),
            ),
            batch,
            threshold is not None,
        )


def _threshold_of(graph: Graph, name: str) -> Threshold | None:
    """The sign behind a layer, through pooling; None where there is none before the next layer."""
    for node in graph:
        if name in node.sources and not isinstance(node, Convolution | Dense):
            return node if isinstance(node, Threshold) else _threshold_of(graph, node.name)
    return None


def in_words(shape: LayerShape) -> str:
    """ "3x3, 128 -> 128 channels at 32x32", "4096 -> 10"."""
    if shape.is_dense:
        return f"{shape.in_c} -> {shape.out_c}"
    (rows, columns) = shape.kernel
    return f"{rows}x{columns}, {shape.in_c} -> {shape.out_c} channels at {shape.in_h}x{shape.in_w}"
