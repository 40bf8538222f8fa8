"""Launches of everything that is no block: pooling, thresholds, affine maps, flattening, packing, unpacking.

Addresses are multiples of 16; arrays are dense, in the layout of :mod:`binarynet.cuda.blocks`. A "row" is everything
but the last axis: images times pixels.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from binarynet.cuda.blocks import Argument, Array, Launch, Pair, Variant
from binarynet.cuda.methods._common import addresses, ceil_div, int32s, padded_falling, padded_thresholds, round_up
from binarynet.encoding import WORD_BITS, num_words
from binarynet.errors import ShapeError

VARIANTS = (Variant("operations.cu"),)

Packed = Literal["float32", "float16", "bfloat16", "int8", "bool"]
"""Element types that can be packed."""
PACKED: tuple[Packed, ...] = ("float32", "float16", "bfloat16", "int8", "bool")
UNPACKED: tuple[Literal["float32", "int8"], ...] = ("float32", "int8")
"""Element types that bits can be unpacked to."""

_THREADS = 256
_MOST_BLOCKS = 1 << 16
"""Of a launch: more than run at the same time on any GPU. Each takes one piece of work after the other."""
_WORDS_PER_WARP = 8  # of operations.cu
_UNPACKED_PER_THREAD = 4


def max_pool_sums(
    batch: int, size: Pair, channels: int, kernel: Pair, stride: Pair, padding: Pair, source: int, result: int
) -> Launch:
    """Maximum over a window, int32 ``[batch, *size, channels]``; taps outside of the image are ignored."""
    arguments, blocks, threads = _pool(batch, size, channels, kernel, stride, padding, source, result)
    return Launch("operations.cu", "max_pool_sums", arguments, (blocks, 1, 1), threads)


def max_pool_bits(
    batch: int,
    size: Pair,
    channels: int,
    kernel: Pair,
    stride: Pair,
    padding: Pair,
    source: int,
    result: int,
    falling: int = 0,
) -> Launch:
    """OR over a window, uint64 ``[batch, *size, words(channels)]``; taps outside of the image are ignored.

    Args:
        falling: device address of uint64 ``[words(channels)]`` (see :func:`falling_words`): where a channel's bit is
            set, the window is joined by AND, as pooling before a falling threshold wants it. 0: nowhere.
    """
    arguments, blocks, threads = _pool(batch, size, num_words(channels), kernel, stride, padding, source, result)
    return Launch("operations.cu", "max_pool_bits", (*arguments, *addresses(falling)), (blocks, 1, 1), threads)


def falling_words(falling: Array) -> Array:
    """Falling channels, bool ``[channels]``, as :func:`max_pool_bits` takes them: uint64 ``[words(channels)]``."""
    return padded_falling(falling, round_up(len(falling), WORD_BITS))


def threshold_constants(thresholds: Array, falling: Array) -> dict[str, Array]:
    """Arrays of :func:`threshold`: "thresholds" int32, padded to whole words, and "falling" uint64.

    Args:
        thresholds: int32 ``[channels]``.
        falling: bool ``[channels]``.
    """
    channels = round_up(len(thresholds), WORD_BITS)
    return {"thresholds": padded_thresholds(thresholds, channels), "falling": padded_falling(falling, channels)}


def threshold(rows: int, channels: int, source: int, result: int, constants: dict[str, int]) -> Launch:
    """int32 ``[rows, channels]`` to bits; ``constants`` are the addresses of :func:`threshold_constants`."""
    pointers = addresses(constants["thresholds"], constants["falling"])
    return _words("threshold", rows, channels, source, result, pointers)


def affine(rows: int, channels: int, source: int, result: int, scale: int, shift: int) -> Launch:
    """int32 ``[rows, channels]`` to float32 ``sum * scale[channel] + shift[channel]``, rounded twice."""
    arguments = (*_rows(rows, channels, source, result), *addresses(scale, shift))
    return Launch("operations.cu", "affine", arguments, _blocks(rows * channels, _THREADS), _THREADS)


def flatten_bits(batch: int, pixels: int, channels: int, source: int, result: int) -> Launch:
    """Bits of ``[batch, pixels, channels]`` to ``[batch, pixels * channels]``. Where channels fill whole words, and for
    every other kind of value, the two are the same memory, and no launch is needed (:func:`flatten_moves`)."""
    _check("flatten", batch, pixels * channels)
    arguments = (*addresses(source, result), np.int64(batch), *int32s(pixels, channels))
    blocks = _blocks(batch * num_words(pixels * channels), _THREADS)
    return Launch("operations.cu", "flatten_bits", arguments, blocks, _THREADS)


def flatten_moves(pixels: int, channels: int) -> bool:
    """Whether flattening bits moves any."""
    return pixels > 1 and channels % WORD_BITS != 0


def pack(rows: int, length: int, dtype: Packed, source: int, result: int) -> Launch:
    """Sign bits over the last axis: ``[rows, length]`` to uint64 ``[rows, words(length)]``, padding bits 0.

    A bit is 1 where ``x >= 0``, so for 0 and -0.0; of bool it is the value itself. NaN has no sign: its bit is 0. Who
    must not pack one looks for it where numbers reach the host, as in training (:mod:`binarynet.encoding`).

    Args:
        rows, length: of the array.
        dtype: type of the elements.
        source, result: device addresses.
    """
    return _words(f"pack_{dtype}", rows, length, source, result, ())


def unpack(rows: int, length: int, dtype: Literal["float32", "int8"], source: int, result: int) -> Launch:
    """Bits uint64 ``[rows, words(length)]`` to +1 / -1 of ``dtype``, ``[rows, length]``."""
    arguments = _rows(rows, length, source, result)
    blocks = _blocks(rows * ceil_div(length, _UNPACKED_PER_THREAD), _THREADS)
    return Launch("operations.cu", f"unpack_{dtype}", arguments, blocks, _THREADS)


def _words(kernel: str, rows: int, length: int, source: int, result: int, more: tuple[Argument, ...]) -> Launch:
    blocks = _blocks(rows * num_words(length), _THREADS // 32 * _WORDS_PER_WARP)
    return Launch("operations.cu", kernel, (*_rows(rows, length, source, result), *more), blocks, _THREADS)


def _rows(rows: int, length: int, source: int, result: int) -> tuple[Argument, ...]:
    _check("an operation", rows, length)
    return (*addresses(source, result), np.int64(rows), np.int32(length))


def _pool(
    batch: int, size: Pair, units: int, kernel: Pair, stride: Pair, padding: Pair, source: int, result: int
) -> tuple[tuple[Argument, ...], int, int]:
    """Arguments, blocks and threads of a launch that pools."""
    out = tuple((size[i] + 2 * padding[i] - kernel[i]) // stride[i] + 1 for i in range(2))
    lines = batch * out[0]
    _check("pooling", lines, out[1] * units)
    sizes = (*size, units, *kernel, *stride, *padding, *out)
    arguments = (*addresses(source, result), np.int64(lines), *int32s(*sizes))
    threads = min(_THREADS, round_up(out[1] * units, 32))
    return arguments, min(lines, _MOST_BLOCKS), threads


def _blocks(items: int, items_per_block: int) -> tuple[int, int, int]:
    return min(ceil_div(items, items_per_block), _MOST_BLOCKS), 1, 1


def _check(what: str, rows: int, length: int) -> None:
    if rows < 1 or not 0 < length < 1 << 31:
        raise ShapeError(f"{what} on [{rows}, {length}]: expected at least one row of 1 to 2^31 - 1 elements")
