"""8-bit inputs with dp4a, four products of bytes per instruction: for every GPU."""

from __future__ import annotations

import numpy as np

from binarynet.cuda.blocks import Array, Block, Capability, Launch, Variant
from binarynet.cuda.methods._common import (
    ENOUGH_BLOCKS,
    THREADS,
    addresses,
    block_arguments,
    ceil_div,
    channel_constants,
    corrections,
    grid,
    padded_rows,
    padded_words,
    round_up,
    rows_are_pixels,
    rows_of,
    stream_grid,
    why_no_corrections,
)
from binarynet.encoding import to_signs, unpack_bits

VARIANTS = (Variant("bytes_dp4a.cu"),)

_STREAM_ROWS = 8
_TAPS_MULTIPLE = 64
_OUTSIDE = 1 << 29  # OUTSIDE of common.cuh


class BytesDp4a:
    """Bytes with dp4a. Many rows: tiles of 16, 64 or 128 rows x 64 channels. Few dense ones: weights are streamed."""

    name = "bytes_dp4a"

    def why_not(self, block: Block, capability: Capability) -> str:
        if block.input != "u8":
            return "its input is bits"
        return why_no_corrections(block, padded_words(block))

    def prepare(self, block: Block) -> dict[str, Array]:
        channels = padded_words(block)
        signs = to_signs(unpack_bits(block.weights, block.channels), np.int8).reshape(block.out_channels, -1)
        weights = padded_rows(signs, channels, round_up(block.taps, 16))
        table = {**corrections(block, channels), **channel_constants(block, channels)}
        return {"weights": weights, "taps": _taps(block), **table}

    def launch(self, block: Block, batch: int, source: int, result: int, prepared: dict[str, int]) -> Launch:
        rows = rows_of(block, batch)
        arguments = block_arguments(block, batch, source, result, prepared)
        if rows_are_pixels(block) and rows <= _STREAM_ROWS:
            each = 1 if rows == 1 else 2 if rows == 2 else 4
            return Launch("bytes_dp4a.cu", f"dp4a_dense_{each}", arguments, stream_grid(block, rows, each), THREADS)
        for each in (128, 64, 16):
            tiles = ceil_div(rows, each) * block.out_words
            if tiles >= ENOUGH_BLOCKS:
                break
        arguments = (*arguments, *addresses(prepared["taps"]))
        return Launch("bytes_dp4a.cu", f"dp4a_tile_{each}", arguments, grid(tiles), THREADS)


def _taps(block: Block) -> Array:
    """Where every tap of a window lies, int32 ``[taps rounded up, 4]``: bytes from the window's first tap, row, column
    and 0; beyond the last tap, a row that is outside of every image."""
    y, x, channel = np.unravel_index(np.arange(block.taps), (*block.kernel, block.channels))
    taps = np.zeros((round_up(block.taps, _TAPS_MULTIPLE), 4), dtype=np.int32)
    taps[:, 1] = _OUTSIDE
    taps[: block.taps, 0] = (y * block.width + x) * block.channels + channel
    taps[: block.taps, 1] = y
    taps[: block.taps, 2] = x
    return taps
