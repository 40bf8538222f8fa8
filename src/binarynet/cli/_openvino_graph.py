"""Pieces of a binary network in OpenVINO's operations: exact, and arranged as its kernels run fastest.

OpenVINO has no exporter for its BinaryConvolution; what it asks for was found by trying:

* its input is a FakeQuantize of two levels with the results 0 and 1 (not -1 and 1), which the kernel before fuses;
* weights are one bit each, least significant bit first, over all axes without a gap;
* channels come in multiples of 8, or the sums are wrong;
* there is no dense operation: a dense layer is a convolution of 1 x 1, fastest with the batch as the image's columns.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from binarynet.encoding import INPUT_MAX
from binarynet.errors import UsageError
from binarynet.graph import Window

if TYPE_CHECKING:
    import openvino

CHANNEL_MULTIPLE = 8
MAX_SUM = 1 << 22
"""Thresholds are float32 and lie half a step below an integer."""
PIXEL = Window((1, 1))

Signs = npt.NDArray[np.integer[Any]]


def parameter(shape: tuple[int, ...], dtype: npt.DTypeLike) -> Any:
    from openvino import Type, opset13

    return opset13.parameter(list(shape), Type(np.dtype(dtype)))


def model(result: Any, source: Any) -> openvino.Model:
    import openvino

    return openvino.Model([result], [source], "binary")


def channels_first(x: Any) -> Any:
    """``[n, h, w, c]`` to ``[n, c, h, w]``: costs nothing, the kernels keep the channels of a pixel together."""
    from openvino import opset13

    return opset13.transpose(x, [0, 3, 1, 2])


def as_columns(features: Any, count: int, channels: int) -> Any:
    """``[n, k]`` (or ``[n, k, 1, 1]``) to ``[1, k, 1, n]``."""
    from openvino import opset13

    return channels_first(opset13.reshape(features, [1, 1, count, channels], False))


def from_columns(x: Any, count: int, channels: int) -> Any:
    """``[1, k, 1, n]`` to ``[n, k]``."""
    from openvino import opset13

    return opset13.reshape(opset13.transpose(x, [0, 2, 3, 1]), [count, channels], False)


def thresholded(sums: Any, thresholds: npt.ArrayLike, falling: npt.NDArray[np.bool_], bound: int) -> Any:
    """Bits ``(sum >= threshold) != falling`` per channel.

    Raises:
        UsageError: sums can pass what float32 thresholds separate.
    """
    from openvino import opset13

    if bound >= MAX_SUM:
        raise UsageError(f"its sums reach {bound:,}; OpenVINO's thresholds tell integers below {MAX_SUM:,} apart")
    limits = np.clip(np.asarray(thresholds, np.float64), -bound - 1, bound + 1) - 0.5
    limits = limits.reshape(1, -1, 1, 1)
    low = falling.astype(np.float32).reshape(1, -1, 1, 1)
    return opset13.fake_quantize(sums, *(opset13.constant(limits.astype(np.float32)),) * 2, low, 1 - low, 2)


def binary_convolution(bits: Any, weights: Signs, window: Window) -> Any:
    """Sums of a layer of bits; ``weights`` +1 / -1 ``[out, kernel_h, kernel_w, in]``; padding adds nothing.

    Raises:
        UsageError: the channels are not a multiple of 8.
    """
    import openvino
    from openvino import opset1, opset13

    if weights.shape[3] % CHANNEL_MULTIPLE:
        raise UsageError(
            f"{weights.shape[3]} channels of bits; OpenVINO's kernel is exact for multiples of {CHANNEL_MULTIPLE} only"
        )
    ordered = np.ascontiguousarray(weights.transpose(0, 3, 1, 2)) > 0
    packed = np.packbits(ordered.reshape(-1), bitorder="little")
    # The constant gets a copy: with shared memory, OpenVINO would read it after Python has freed it.
    constant = opset13.constant(
        openvino.Tensor(packed, openvino.Shape(list(ordered.shape)), openvino.Type.u1), shared_memory=False
    )
    strides, pads = list(window.stride), list(window.padding)
    return opset1.binary_convolution(bits, constant, strides, pads, pads, [1, 1], "xnor-popcount", 0.0)


def float_convolution(values: Any, weights: Signs, window: Window) -> Any:
    from openvino import opset13

    ordered = np.ascontiguousarray(weights.transpose(0, 3, 1, 2)).astype(np.float32)
    strides, pads = list(window.stride), list(window.padding)
    return opset13.convolution(values, opset13.constant(ordered), strides, pads, pads, [1, 1])


def float_dense(values: Any, weights: Signs) -> Any:
    """``values`` ``[n, k]``, ``weights`` ``[out, k]``."""
    from openvino import opset13

    return opset13.matmul(values, opset13.constant(weights.astype(np.float32)), False, True)


def int8_convolution(codes: Any, weights: Signs, window: Window, image: tuple[int, ...]) -> Any:
    """Sums of 2u - 255 from 8-bit u ``[n, c, h, w]``, in int8.

    ``image``: n, h, w. Zero padding means a pixel of 0, which is no u. So a further channel of 255 carries the constant
    part: 2u - 255 with weights w is u with 2w, and 255 with the negative sum of w over the channels; outside of the
    image both are 0.
    """
    from openvino import opset13

    ones = opset13.constant(np.full((image[0], 1, *image[1:]), INPUT_MAX, np.uint8))
    joined = np.concatenate([2 * weights, -weights.sum(axis=3, keepdims=True)], axis=3)
    if np.abs(joined).max() > 127:
        raise UsageError(f"{weights.shape[3]} channels of 8-bit input are more than int8 weights allow here")
    strides, pads = list(window.stride), list(window.padding)
    ordered = np.ascontiguousarray(joined.transpose(0, 3, 1, 2))
    x = _as_codes(opset13.concat([codes, ones], 1))
    return opset13.convolution(x, _int8_weights(ordered), strides, pads, pads, [1, 1])


def int8_dense(codes: Any, weights: Signs) -> Any:
    """Sums of u (not of 2u - 255, see :func:`raw_thresholds`) ``[n, k]``, in int8; ``weights`` ``[out, k]``."""
    from openvino import opset13

    return opset13.matmul(_as_codes(codes), _int8_weights(weights), False, True)


def raw_thresholds(thresholds: npt.NDArray[np.int32], weights: Signs) -> npt.NDArray[np.int64]:
    """Thresholds for sums of u, which are (sum of 2u - 255 + 255 * sum of the weights) / 2."""
    doubled: npt.NDArray[np.int64] = thresholds.astype(np.int64) + INPUT_MAX * weights.sum(axis=1, dtype=np.int64)
    return -(-doubled // 2)


def _as_codes(codes: Any) -> Any:
    """8-bit integers in the form that OpenVINO recognizes as quantized, with a step of 1."""
    from openvino import opset13

    low, high = np.float32(0), np.float32(INPUT_MAX)
    return opset13.fake_quantize(opset13.convert(codes, "f32"), low, high, low, high, INPUT_MAX + 1)


def _int8_weights(weights: Signs) -> Any:
    from openvino import opset13

    steps = np.ones((len(weights), *(1,) * (weights.ndim - 1)), np.float32)
    values = opset13.convert(opset13.constant(np.ascontiguousarray(weights).astype(np.int8)), "f32")
    return opset13.multiply(values, opset13.constant(steps))
