"""The specification: a slow, plain NumPy evaluator of a graph. Every engine must equal it bit for bit.

Sums are taken with BLAS in float32, which is exact here: every product is an integer, and no partial sum in any
order exceeds the value's bound, which :class:`Graph` keeps at or below 2^24.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from binarynet.encoding import (
    INPUT_MAX,
    WORD_BITS,
    WORD_DTYPE,
    num_words,
    pack_bits,
    padding_is_zero,
    to_signs,
    unpack_bits,
)
from binarynet.errors import GraphError, ShapeError, UsageError
from binarynet.graph.ir import (
    Affine,
    Convolution,
    Dense,
    Flatten,
    Graph,
    Input,
    MaxPool,
    Node,
    Threshold,
    ValueType,
    Window,
)

Array = npt.NDArray[Any]
_CHUNK_ELEMENTS = 1 << 24


def check_images(graph: Graph, images: Array) -> None:
    """Refuse what is no batch of inputs of the graph: uint8 ``[n, *shape]``, or uint64 ``[n, ..., words(c)]``.

    Raises:
        ShapeError: wrong dtype or shape, or a masked array: no engine knows of masks.
        UsageError: padding bits of packed bits that are not 0.
    """
    expected = _expected(graph.input)
    if not isinstance(images, np.ndarray):
        raise ShapeError(f"images: expected a NumPy array {expected}, got {type(images).__name__}")
    if isinstance(images, np.ma.MaskedArray):
        raise ShapeError(
            f"images: expected a NumPy array {expected} without a mask, got {type(images).__name__}; put values where "
            "there are none (images.filled(0))"
        )
    check_batch(graph, images.dtype, images.shape)
    if graph.input.kind == "bits" and not padding_is_zero(images, graph.input.shape[-1]):
        used = graph.input.shape[-1] % WORD_BITS
        raise UsageError(f"images: padding bits are not 0: of each last word only the lowest {used} bits are used")


def check_batch(graph: Graph, dtype: np.dtype[Any], shape: tuple[int, ...]) -> None:
    """Refuse a dtype and a shape that no batch of inputs of the graph has; ShapeError says what is expected."""
    bits = graph.input.kind == "bits"
    if dtype != _input_dtype(graph.input):
        raise ShapeError(
            f"images: expected packed bits {_expected(graph.input)}, got {dtype}; binarynet.encoding.pack_bits packs "
            "them"
            if bits
            else f"images: expected uint8 values 0..255, got {dtype}; map them once to 0..255 "
            "(for x in [0, 1]: np.round(255 * x).astype(np.uint8))"
        )
    if len(shape) == 0 or tuple(shape[1:]) != input_array_shape(graph.input):
        raise ShapeError(f"images: expected {_expected(graph.input)}, got [{_join(shape)}]")


def _input_dtype(node: Input) -> np.dtype[Any]:
    return WORD_DTYPE if node.kind == "bits" else np.dtype(np.uint8)


def _expected(node: Input) -> str:
    return f"{_input_dtype(node)} [n, {_join(input_array_shape(node))}]"


def input_array_shape(node: Input) -> tuple[int, ...]:
    """Shape of one image as an array: that of the input, its last axis counted in words where it is packed bits."""
    return node.shape if node.kind == "u8" else (*node.shape[:-1], num_words(node.shape[-1]))


def evaluate(graph: Graph, images: Array, values: Iterable[str] | None = None) -> dict[str, Array]:
    """Compute values of a graph.

    Args:
        graph: the network.
        images: uint8 ``[n, *graph.input.shape]``; for an input of bits, uint64 ``[n, ..., words(channels)]``.
        values: names of the values wanted; default: the graph's output.

    Returns:
        name to array, batch first, in the layout of :mod:`binarynet.graph.ir` (bits as packed words).
    """
    check_images(graph, images)
    images = np.asarray(images)  # np.matrix and the like mean other things by the same operations
    wanted = [graph.output] if values is None else list(values)
    for name in wanted:
        graph.node(name)
    largest = max(value.num_elements for value in graph.types.values())
    step = max(1, _CHUNK_ELEMENTS // largest)
    chunks = [_evaluate_chunk(graph, images[i : i + step], wanted) for i in range(0, max(len(images), 1), step)]
    return {name: np.concatenate([chunk[name] for chunk in chunks]) for name in wanted}


def _evaluate_chunk(graph: Graph, images: Array, wanted: list[str]) -> dict[str, Array]:
    last_use = {source: i for i, node in enumerate(graph) for source in node.sources}
    live: dict[str, Array] = {}
    results: dict[str, Array] = {}
    for i, node in enumerate(graph):
        kind = graph.types[node.name].kind
        if isinstance(node, Input):
            live[node.name] = unpack_bits(images, node.shape[-1]) if node.kind == "bits" else images
        else:
            live[node.name] = _compute(node, live[node.sources[0]], graph.types[node.sources[0]])
        if node.name in wanted:
            value = live[node.name]
            results[node.name] = pack_bits(value) if kind == "bits" else value
        for source in node.sources:
            if last_use[source] == i:
                del live[source]
    return results


def _compute(node: Node, x: Array, x_type: ValueType) -> Array:
    """One node; bits are bool arrays here."""
    if isinstance(node, Dense):
        weights = to_signs(unpack_bits(node.weights, x_type.channels), np.float32)
        sums: Array = _operand(x, x_type) @ weights.T
        return sums.astype(np.int32)
    if isinstance(node, Convolution):
        weights = to_signs(unpack_bits(node.weights, x_type.channels), np.float32)
        return _convolve(_operand(x, x_type), weights, node.window)
    if isinstance(node, MaxPool):
        return _max_pool(x, node.window)
    if isinstance(node, Threshold):
        bits: Array = (x >= node.thresholds) != node.falling
        return bits
    if isinstance(node, Affine):
        scores: Array = x.astype(np.float32) * node.scale
        scores += node.shift
        return scores
    if isinstance(node, Flatten):
        return x.reshape(len(x), x_type.num_elements)
    raise GraphError(f"node {node.name!r}: unknown node type {type(node).__name__}")


def _operand(x: Array, x_type: ValueType) -> Array:
    """The integers that a layer multiplies, as float32: 2u - 255 for u8, +1 / -1 for bits."""
    if x_type.kind == "u8":
        return 2 * x.astype(np.float32) - np.float32(INPUT_MAX)
    return to_signs(x, np.float32)


def _convolve(x: Array, weights: Array, window: Window) -> Array:
    """float32 ``[n, h, w, c]`` with ``[out, kh, kw, c]`` to int32 ``[n, h', w', out]``."""
    out_h, out_w = window.output_size((x.shape[1], x.shape[2]))
    padded = _pad(x, window, 0)
    sums = np.zeros((len(x), out_h, out_w, len(weights)), dtype=np.float32)
    for i in range(window.kernel[0]):
        for j in range(window.kernel[1]):
            sums += _taps(padded, window, i, j, (out_h, out_w)) @ weights[:, i, j].T
    return sums.astype(np.int32)


def _max_pool(x: Array, window: Window) -> Array:
    out = window.output_size((x.shape[1], x.shape[2]))
    lowest = False if x.dtype == np.bool_ else np.iinfo(np.int32).min
    padded = _pad(x, window, lowest)
    result = np.full((len(x), *out, x.shape[3]), lowest, dtype=x.dtype)
    for i in range(window.kernel[0]):
        for j in range(window.kernel[1]):
            np.maximum(result, _taps(padded, window, i, j, out), out=result)
    return result


def _pad(x: Array, window: Window, value: int) -> Array:
    (ph, pw) = window.padding
    return np.pad(x, ((0, 0), (ph, ph), (pw, pw), (0, 0)), constant_values=value)


def _taps(padded: Array, window: Window, i: int, j: int, out: tuple[int, int]) -> Array:
    """What tap (i, j) of the window sees, for every output pixel: ``[n, h', w', c]``."""
    (sh, sw) = window.stride
    return padded[:, i : i + sh * (out[0] - 1) + 1 : sh, j : j + sw * (out[1] - 1) + 1 : sw]


def _join(shape: tuple[int, ...]) -> str:
    return ", ".join(map(str, shape))
