"""What all methods prepare and pass alike: corrections per border class, constants per channel, kernel parameters.

``source/common.cuh`` is the other side: it says what the kernels do with them.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from binarynet.cuda.blocks import Argument, Array, Block
from binarynet.encoding import INPUT_MAX, WORD_BITS, Words, num_words, pack_bits
from binarynet.errors import UsageError

OUTPUTS = {"i32": 0, "bits": 1, "f32": 2}
"""Kinds of output as the kernels number them."""

NEVER = np.iinfo(np.int32).max
"""Threshold of padding channels: no sum reaches it."""

THREADS = 256
"""Threads of a block of ``tiles.cuh``."""

TILE_CHANNELS = 64
"""Output channels of a tile of ``tiles.cuh``."""

STREAM_CHANNELS = 32
"""Output channels of a block of threads of a stream of ``tiles.cuh``."""

ENOUGH_BLOCKS = 264
"""Blocks of threads that keep a large GPU busy: two per multiprocessor of an H100. With fewer, tiles shrink."""

MAX_CORRECTIONS = 1 << 26
"""Largest number of entries of a table of corrections."""

_ONES = np.unpackbits(np.arange(1 << 16, dtype="<u2").view(np.uint8)).reshape(-1, 16).sum(axis=1, dtype=np.uint8)
"""Ones in every 16-bit number."""

Ints = npt.NDArray[np.int32]


def ceil_div(number: int, divisor: int) -> int:
    return -(-number // divisor)


def round_up(number: int, multiple: int) -> int:
    return ceil_div(number, multiple) * multiple


def address(value: int) -> np.uint64:
    """A device address as a kernel argument."""
    return np.uint64(value)


def addresses(*values: int) -> tuple[Argument, ...]:
    """Device addresses as kernel arguments."""
    return tuple(address(value) for value in values)


def int32s(*values: int) -> tuple[Argument, ...]:
    """Sizes as kernel arguments."""
    return tuple(np.int32(value) for value in values)


def rows_of(block: Block, batch: int) -> int:
    """Output pixels of a batch; UsageError where kernels could not count them."""
    rows = block.rows(batch)
    if rows >= 1 << 31:
        raise UsageError(f"{batch} images have {rows} output pixels; kernels take fewer than 2^31: split the batch")
    return rows


def rows_are_pixels(block: Block) -> bool:
    """Whether every output pixel sees the one input pixel of the same number, as in a dense layer."""
    return block.kernel == block.stride == (1, 1) and block.padding == (0, 0)


def window_parts(
    size: int, kernel: int, stride: int, padding: int, out_size: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Which rows (or columns) of the window are inside of the image, for every output row: first and one past last."""
    corner = np.arange(out_size, dtype=np.int64) * stride - padding
    return np.maximum(-corner, 0), np.minimum(size - corner, kernel)


def why_no_corrections(block: Block, channels: int) -> str:
    """Empty where :func:`corrections` for so many channels is a table of reasonable size."""
    classes = _num_classes(block)
    if classes * channels <= MAX_CORRECTIONS:
        return ""
    return f"{classes} border classes of {channels} channels are more than {MAX_CORRECTIONS} corrections"


def corrections(block: Block, channels: int) -> dict[str, Ints]:
    """The part of every sum that depends on the weights alone, once per border class.

    A border class is a pair of window rows and window columns that are inside of the image. With Kv valid taps and pb
    ones among the weights there, the part is ``Kv - 2 pb`` for bits and ``255 (Kv - 2 pb)`` for u8.

    Args:
        block: the layer.
        channels: columns of the table, at least the output channels; those beyond hold zeros.

    Returns:
        "corrections": int32 ``[classes * channels]``;
        "offsets": int32 ``[out_height + out_width]``: the class of output pixel (y, x) begins at
        ``offsets[y] + offsets[out_height + x]``.
    """
    (row_parts, row_class), (column_parts, column_class) = border_classes(block)
    ones = count_ones(block.weights)  # [out, kernel rows, kernel columns]
    part = (block.channels - 2 * ones).cumsum(axis=1).cumsum(axis=2)
    integral = np.zeros((block.out_channels, block.kernel[0] + 1, block.kernel[1] + 1), dtype=np.int64)
    integral[:, 1:, 1:] = part
    (top, bottom), (left, right) = row_parts.T, column_parts.T
    rows = integral[:, bottom] - integral[:, top]
    table = rows[:, :, right] - rows[:, :, left]  # [out, row classes, column classes]
    if block.input == "u8":
        table *= INPUT_MAX
    padded = np.zeros((len(row_parts), len(column_parts), channels), dtype=np.int32)
    padded[:, :, : block.out_channels] = table.transpose(1, 2, 0)
    offsets = np.concatenate((row_class * (len(column_parts) * channels), column_class * channels))
    return {"corrections": padded.ravel(), "offsets": offsets.astype(np.int32)}


def channel_constants(block: Block, channels: int) -> dict[str, Array]:
    """Constants of the output, padded to ``channels``, a multiple of 64 where the output is bits.

    Returns:
        bits: "first" int32 ``[channels]``, thresholds, padded with :data:`NEVER`; "second" uint64 ``[channels / 64]``,
        the falling channels as bits. f32: "first" and "second" float32 ``[channels]``, scale and shift, padded with
        zeros. i32: nothing.
    """
    if block.output == "i32":
        return {}
    if block.output == "bits":
        assert block.thresholds is not None
        assert block.falling is not None
        return {
            "first": padded_thresholds(block.thresholds, channels),
            "second": padded_falling(block.falling, channels),
        }
    assert block.scale is not None
    assert block.shift is not None
    return {"first": _padded(block.scale, channels, 0), "second": _padded(block.shift, channels, 0)}


def padded_thresholds(thresholds: Array, channels: int) -> Array:
    """int32 ``[channels]``, padded with :data:`NEVER`."""
    return _padded(thresholds, channels, NEVER)


def padded_falling(falling: Array, channels: int) -> Array:
    """bool, as bits of uint64 ``[words(channels)]``, those of padding 0."""
    return _padded(pack_bits(falling), num_words(channels), 0)


def padded_rows(rows: Array, channels: int, pitch: int) -> Array:
    """``[out_channels, length]`` as ``[channels, pitch]``, with zeros where there was nothing."""
    padded = np.zeros((channels, pitch), dtype=rows.dtype)
    padded[: rows.shape[0], : rows.shape[1]] = rows
    return padded


def grid(blocks: int) -> tuple[int, int, int]:
    """A grid of so many blocks of threads; UsageError where there are too many for one launch."""
    if blocks >= 1 << 31:
        raise UsageError(f"a launch takes fewer than 2^31 blocks of threads, this needs {blocks}: split the batch")
    return blocks, 1, 1


def stream_grid(block: Block, rows: int, rows_each: int) -> tuple[int, int, int]:
    """Grid of a stream (``tiles.cuh``): groups of 32 channels, whole words where the output is bits; groups of rows."""
    groups = 2 * block.out_words if block.output == "bits" else ceil_div(block.out_channels, STREAM_CHANNELS)
    return groups, ceil_div(rows, rows_each), 1


def block_arguments(
    block: Block, batch: int, source: int, result: int, prepared: dict[str, int]
) -> tuple[Argument, ...]:
    """BLOCK_PARAMETERS of ``common.cuh``; arrays that a method did not prepare are null."""
    pointers = (source, result, *(prepared.get(k, 0) for k in ("weights", "corrections", "offsets", "first", "second")))
    sizes = (
        *(rows_of(block, batch), block.height, block.width, block.channels),
        *(*block.kernel, *block.stride, *block.padding),
        *(block.out_height, block.out_width, block.out_channels, OUTPUTS[block.output]),
    )
    return (*addresses(*pointers), *int32s(*sizes))


def padded_words(block: Block) -> int:
    """Output channels rounded up to whole words."""
    return round_up(block.out_channels, WORD_BITS)


def count_ones(words: Words) -> npt.NDArray[np.int64]:
    """Bits that are 1, over the last axis: uint64 ``[..., words]`` to int64 ``[...]``."""
    ones: npt.NDArray[np.int64] = _ONES[np.ascontiguousarray(words).view(np.uint16)].sum(axis=-1, dtype=np.int64)
    return ones


def border_classes(block: Block) -> tuple[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]], ...]:
    """For rows and columns: the parts of the window that are inside of the image, each once, ``[classes, 2]``, first
    and one past last; and the class of every output row or column."""
    found = []
    for axis, (size, out_size) in enumerate(((block.height, block.out_height), (block.width, block.out_width))):
        ends = window_parts(size, block.kernel[axis], block.stride[axis], block.padding[axis], out_size)
        parts, classes = np.unique(np.stack(ends, axis=1), axis=0, return_inverse=True)
        found.append((parts, classes.reshape(-1)))
    return tuple(found)


def _num_classes(block: Block) -> int:
    (rows, _), (columns, _) = border_classes(block)
    return len(rows) * len(columns)


def _padded(values: Array, length: int, filler: int) -> Array:
    result = np.full(length, filler, dtype=values.dtype)
    result[: len(values)] = values
    return result
