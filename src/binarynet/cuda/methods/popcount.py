"""AND or XOR and popcount on 32-bit words, for every GPU: what is left where no tensor core multiplies bits, and the
way for few rows anywhere, where reading the weights is all the work."""

from __future__ import annotations

from binarynet.cuda.blocks import Array, Block, Capability, Launch, Variant
from binarynet.cuda.methods._common import (
    ENOUGH_BLOCKS,
    THREADS,
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

VARIANTS = (Variant("popcount.cu"),)

_STREAM_ROWS = 8
"""Dense rows up to which weights are streamed: a tile of 16 rows would waste at least half of its products."""
_STREAM_WINDOWS = 64
"""Rows of a convolution up to which its weights are streamed, where tiles leave most of the GPU idle."""


class Popcount:
    """Bits with popcount. Many rows: tiles of 16, 32 or 64 rows x 64 channels. Few: weights are streamed."""

    name = "popcount"

    def why_not(self, block: Block, capability: Capability) -> str:
        if block.input != "bits":
            return "its input is bytes"
        return why_no_corrections(block, padded_words(block))

    def prepare(self, block: Block) -> dict[str, Array]:
        channels = padded_words(block)
        flat = block.weights.reshape(block.out_channels, -1)
        weights = padded_rows(flat, channels, round_up(flat.shape[1], 2))
        return {"weights": weights, **corrections(block, channels), **channel_constants(block, channels)}

    def launch(self, block: Block, batch: int, source: int, result: int, prepared: dict[str, int]) -> Launch:
        rows = rows_of(block, batch)
        arguments = block_arguments(block, batch, source, result, prepared)
        dense = rows_are_pixels(block)
        few_tiles = ceil_div(rows, 16) * block.out_words < ENOUGH_BLOCKS // 2
        if dense and rows <= _STREAM_ROWS:
            each = 1 if rows == 1 else 2 if rows == 2 else 4
            return Launch("popcount.cu", f"popcount_dense_{each}", arguments, stream_grid(block, rows, each), THREADS)
        if not dense and rows <= _STREAM_WINDOWS and few_tiles:
            return Launch("popcount.cu", "popcount_window_4", arguments, stream_grid(block, rows, 4), THREADS)
        for each in (64, 32, 16):
            tiles = ceil_div(rows, each) * block.out_words
            if tiles >= ENOUGH_BLOCKS:
                break
        return Launch("popcount.cu", f"popcount_tile_{each}", arguments, grid(tiles), THREADS)
