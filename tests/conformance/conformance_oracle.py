"""A second opinion: integers in int64, one output pixel and one tap at a time, nothing shared with the package.

It opens words by shifting instead of ``numpy.unpackbits``, skips taps outside of the image instead of padding, and
takes the affine map in float64 (exact product, innocuous double rounding), so that a mistake in the reference
evaluator does not repeat itself here.
"""

import numpy as np

from binarynet.graph import Affine, Convolution, Dense, Flatten, Input, MaxPool, Threshold


def open_words(words, count):
    """uint64 ``[..., words]`` to +1 / -1 int64 ``[..., count]``; the bits behind must be 0."""
    assert words.dtype == np.uint64, words.dtype
    bits = (words[..., np.newaxis] >> np.arange(64, dtype=np.uint64)) & np.uint64(1)
    bits = bits.reshape(*words.shape[:-1], words.shape[-1] * 64).astype(np.int64)
    assert words.shape[-1] == (count + 63) // 64
    assert not bits[..., count:].any(), "padding bits are not 0"
    return 2 * bits[..., :count] - 1


def evaluate_slowly(graph, images):
    """Every value of the graph by name: u8 as uint8, bits as +1 / -1 int64, sums as int64, scores as float32."""
    values = {}
    for node in graph:
        if isinstance(node, Input):
            values[node.name] = open_words(images, node.shape[-1]) if node.kind == "bits" else images
            continue
        x = values[node.source]
        channels = graph.types[node.source].shape[-1]
        if isinstance(node, Convolution | Dense):
            operand = 2 * x.astype(np.int64) - 255 if graph.types[node.source].kind == "u8" else x
            weights = open_words(node.weights, channels)
            values[node.name] = (
                np.einsum("nk,ok->no", operand, weights)
                if isinstance(node, Dense)
                else _convolve(operand, weights, node.window)
            )
        elif isinstance(node, MaxPool):
            values[node.name] = _pool(x, node.window)
        elif isinstance(node, Threshold):
            rising = np.where(x >= node.thresholds.astype(np.int64), 1, -1)
            values[node.name] = np.where(node.falling, -rising, rising)
        elif isinstance(node, Affine):
            product = (x.astype(np.float64) * node.scale.astype(np.float64)).astype(np.float32)
            values[node.name] = (product.astype(np.float64) + node.shift.astype(np.float64)).astype(np.float32)
        else:
            assert isinstance(node, Flatten)
            values[node.name] = x.reshape(len(x), -1) if len(x) else x.reshape(0, int(np.prod(x.shape[1:])))
    return values


def _positions(size, kernel, stride, padding):
    """For each output position the pairs (tap, input position) that lie inside of the image."""
    count = (size + 2 * padding - kernel) // stride + 1
    return [
        [(tap, at * stride - padding + tap) for tap in range(kernel) if 0 <= at * stride - padding + tap < size]
        for at in range(count)
    ]


def _windows(x, window):
    rows = _positions(x.shape[1], window.kernel[0], window.stride[0], window.padding[0])
    columns = _positions(x.shape[2], window.kernel[1], window.stride[1], window.padding[1])
    return rows, columns


def _convolve(x, weights, window):
    rows, columns = _windows(x, window)
    sums = np.zeros((len(x), len(rows), len(columns), len(weights)), np.int64)
    for y, row_taps in enumerate(rows):
        for z, column_taps in enumerate(columns):
            for i, at_row in row_taps:
                for j, at_column in column_taps:
                    sums[:, y, z] += x[:, at_row, at_column] @ weights[:, i, j].T
    return sums


def _pool(x, window):
    rows, columns = _windows(x, window)
    result = np.empty((len(x), len(rows), len(columns), x.shape[3]), x.dtype)
    for y, row_taps in enumerate(rows):
        for z, column_taps in enumerate(columns):
            taps = [x[:, at_row, at_column] for _, at_row in row_taps for _, at_column in column_taps]
            result[:, y, z] = np.max(taps, axis=0)
    return result


def assert_equal(graph, name, got, expected, who):
    """Compare an engine's value (packed words, int32, float32) with the oracle's, bit for bit."""
    kind = graph.types[name].kind
    place = f"{who}: {name!r} ({graph.types[name]})"
    dtype = {"u8": np.uint8, "bits": np.uint64, "i32": np.int32, "f32": np.float32}[kind]
    assert got.dtype == dtype, f"{place} is {got.dtype}"
    opened = open_words(got, graph.types[name].shape[-1]) if kind == "bits" else got
    assert opened.shape == expected.shape, f"{place} is {opened.shape}, expected {expected.shape}"
    if kind == "f32":
        opened, expected = opened.view(np.uint32), np.ascontiguousarray(expected).view(np.uint32)
    different = np.argwhere(opened != expected)
    if len(different):
        first = tuple(int(i) for i in different[0])
        raise AssertionError(
            f"{place}: {len(different)} of {expected.size} differ, first at {first} (image first, channel last): "
            f"{opened[first]}, expected {expected[first]}"
        )
