"""What ``source/mma_block.cuh`` reads: tiles and their choice, weights in panels, taps of a window; for ``mma`` and
``bytes_mma``.

The common axis of the product is the window of an output pixel as bytes: rows, columns, then the bytes of a pixel.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from binarynet.cuda.blocks import Argument, Array, Block, Capability, Launch, Variant
from binarynet.cuda.methods._common import (
    NEVER,
    address,
    block_arguments,
    ceil_div,
    channel_constants,
    corrections,
    grid,
    int32s,
    padded_rows,
    round_up,
    rows_of,
    why_no_corrections,
)
from binarynet.encoding import WORD_BITS

STEP_BYTES = 32
"""Bytes of every row that one tensor core instruction takes."""

PANEL_BYTES = 64
CHUNK_BYTES = 16
PLACE_BYTES = 8
FAR = 0x40000000
"""Pixel of a place that lies outside of every image (``mma_tile.cuh``)."""

SIDE_LIMIT = 1 << 14
"""Images have fewer rows and columns, with their padding."""

MULTIPROCESSORS = 132
"""What the choice of tiles reckons with: an H100. Other GPUs have 16 to 144."""

Bytes = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Tile:
    """What one block of threads computes, and how; ``mma_tile.cuh`` explains the numbers.

    Attributes:
        rows, channels: of the output.
        warps_rows, warps_channels: warps along each.
        panels: of a stage, and warps along the common axis.
        stages: of the ring in shared memory.
        resident: blocks that the registers of a multiprocessor must suffice for.
        efficiency: share of the tensor cores' rate that one busy multiprocessor gets, relative to the largest tile.
        overhead: steps that could be done while pipelines fill and outputs are written, as far as no other block of
            threads does any. Both are reckoned from what the parts of a multiprocessor can deliver, not measured.
    """

    rows: int
    channels: int
    warps_rows: int
    warps_channels: int
    panels: int
    stages: int
    resident: int
    efficiency: float
    overhead: float

    @property
    def threads(self) -> int:
        return 32 * self.warps_rows * self.warps_channels * self.panels

    @property
    def shared_bytes(self) -> int:
        stage = (self.rows + self.channels) * PANEL_BYTES * self.panels
        return stage * self.stages + self.rows * PLACE_BYTES

    def count(self, rows: int, channels: int) -> int:
        """Tiles of an output."""
        return ceil_div(rows, self.rows) * ceil_div(channels, self.channels)

    def defines(self, copy_bytes: int) -> tuple[tuple[str, int], ...]:
        return (
            ("TILE_ROWS", self.rows),
            ("TILE_CHANNELS", self.channels),
            ("WARPS_ROWS", self.warps_rows),
            ("WARPS_CHANNELS", self.warps_channels),
            ("PANELS", self.panels),
            ("STAGES", self.stages),
            ("RESIDENT", self.resident),
            ("COPY_BYTES", copy_bytes),
        )


TILES = (
    Tile(256, 128, 4, 2, 1, 4, 1, 1.0, 4.5),
    Tile(128, 128, 2, 2, 1, 3, 2, 0.95, 3),
    Tile(64, 64, 2, 2, 1, 4, 3, 0.6, 4),
    Tile(32, 32, 1, 1, 4, 3, 3, 0.3, 10),
)
"""All that are ever used, largest first. Shared memory is at most 99 KiB per block, that of sm_86 and sm_89, of which
two blocks of the second tile fit into a multiprocessor."""

CHANNELS_UNIT = max(tile.channels for tile in TILES)
_STAGE_BYTES = max(tile.panels for tile in TILES) * PANEL_BYTES
_ROWS = max(tile.rows for tile in TILES)


def variants(source: str, copies: tuple[int, ...], first: Capability, last: Capability | None) -> tuple[Variant, ...]:
    """All compilations of a source; ``copies``: sizes of pieces, largest first."""
    return tuple(Variant(source, tile.defines(copy), first, last) for copy in copies for tile in tiles_for(copy))


def tiles_for(copy_bytes: int) -> tuple[Tile, ...]:
    """The largest tile is for large products, whose pieces are hardly ever small ones."""
    return TILES if copy_bytes == CHUNK_BYTES else TILES[1:]


def choose(tiles: tuple[Tile, ...], rows: int, channels: int, steps: int) -> Tile:
    """The tile with the least work for the multiprocessor that gets the most tiles; the larger one of equals."""

    def work(tile: Tile) -> float:
        busiest = ceil_div(tile.count(rows, channels), MULTIPROCESSORS)
        return busiest * tile.rows * tile.channels / tile.efficiency * (steps + tile.overhead)

    return min(tiles, key=work)


def padded_channels(block: Block) -> int:
    """Output channels rounded up to what a tile reads without looking."""
    return round_up(block.out_channels, CHANNELS_UNIT)


def why_not_tiles(block: Block, pixel_bytes: int) -> str:
    """Empty where the places of an image fit into 16 and 32 bits, and the table of corrections into memory."""
    sides = [size + 2 * padding for size, padding in zip((block.height, block.width), block.padding, strict=True)]
    if max(sides) >= SIDE_LIMIT:
        return f"images of {sides[0]} x {sides[1]} with their padding; fewer than {SIDE_LIMIT} rows and columns fit"
    images = (_ROWS - 1) // (block.out_height * block.out_width) + 3
    if images * sides[0] * sides[1] * pixel_bytes >= 1 << 31:
        return f"{images} images of {block.height} x {block.width} x {block.channels} are more than a tile can address"
    return why_no_corrections(block, padded_channels(block))


def permuted(rows: Bytes) -> Bytes:
    """Rows of a panel as they lie in shared memory: chunk c of row r at c ^ (r / 2 % 4).

    uint8 ``[rows, ..., 4, 16]`` to the same shape; the permutation is its own inverse.
    """
    result = np.empty_like(rows)
    for chunk in range(4):
        row_class = np.arange(len(rows)) // 2 % 4
        result[np.arange(len(rows)), ..., chunk ^ row_class, :] = rows[..., chunk, :]
    return result


def panels_of(weights: Bytes, channels: int) -> Bytes:
    """Weights as the kernel copies them: uint8 ``[out_channels, bytes]`` to flat ``[panels][channels][64 bytes]``.

    Rows are filled up with zeros to whole panels and to ``channels``; within a panel they are :func:`permuted`.
    """
    panels = ceil_div(weights.shape[1], PANEL_BYTES)
    padded = padded_rows(weights, channels, panels * PANEL_BYTES)
    chunks = permuted(padded.reshape(channels, panels, PANEL_BYTES // CHUNK_BYTES, CHUNK_BYTES))
    return np.ascontiguousarray(chunks.transpose(1, 0, 2, 3)).ravel()


def taps_of(block: Block, pixel_bytes: int, copy_bytes: int) -> npt.NDArray[np.int32]:
    """Where the pieces of a window lie, relative to its corner: int32 ``[pieces, 2]``.

    The first column is the distance in pieces, the second the tap's row times 2^16 plus its column. Pieces that fill
    up the last stage, and those of one more stage, which is looked at but not copied, are :data:`FAR`.
    """
    per_pixel = pixel_bytes // copy_bytes
    y, x, piece = np.indices((*block.kernel, per_pixel), dtype=np.int64).reshape(3, -1)
    stages = ceil_div(len(y) * copy_bytes, _STAGE_BYTES) + 1
    taps = np.zeros((stages * _STAGE_BYTES // copy_bytes, 2), dtype=np.int32)
    taps[: len(y), 0] = (y * block.width + x) * per_pixel + piece
    taps[: len(y), 1] = y << 16 | x
    taps[len(y) :, 1] = FAR
    return taps


def prepare(block: Block, weights: Bytes, pixel_bytes: int, copy_bytes: int) -> dict[str, Array]:
    """All that the kernel reads: "weights", "taps", "corrections", "offsets" and constants of the output.

    Where the output is bits, "limits", thresholds less corrections, take the place of both: the kernel compares once.

    Args:
        block: the layer.
        weights: bytes as the tensor cores multiply them, uint8 ``[out_channels, window bytes]``.
        pixel_bytes: of one input pixel.
        copy_bytes: of one piece.
    """
    channels = padded_channels(block)
    arrays: dict[str, Array] = {
        "weights": panels_of(weights, channels),
        "taps": taps_of(block, pixel_bytes, copy_bytes).ravel(),
        **corrections(block, channels),
        **channel_constants(block, channels),
    }
    if block.output == "bits":
        limits = arrays.pop("first").astype(np.int64) - arrays.pop("corrections").reshape(-1, channels)
        arrays["limits"] = np.clip(limits, np.iinfo(np.int32).min, NEVER).astype(np.int32).ravel()
    return arrays


def launch(
    source: str,
    kernel: str,
    block: Block,
    batch: int,
    addresses: tuple[int, int, dict[str, int]],
    pixel_bytes: int,
    copy_bytes: int,
) -> Launch:
    """The launch with the tile that suits the number of rows; ``addresses``: of input, output, prepared arrays."""
    rows = rows_of(block, batch)
    channels = block.out_words * WORD_BITS if block.output == "bits" else block.out_channels
    steps = ceil_div(block.kernel[0] * block.kernel[1] * pixel_bytes, STEP_BYTES)
    tile = choose(tiles_for(copy_bytes), rows, channels, steps)
    source_address, result, prepared = addresses
    if block.output == "bits":
        prepared = {**prepared, "corrections": prepared["limits"]}
    arguments: tuple[Argument, ...] = (
        *block_arguments(block, batch, source_address, result, prepared),
        address(prepared["taps"]),
        *int32s(steps, pixel_bytes, padded_channels(block)),
    )
    return Launch(
        source=source,
        kernel=kernel,
        arguments=arguments,
        grid=grid(tile.count(rows, channels)),
        threads=tile.threads,
        shared_bytes=tile.shared_bytes,
        defines=tile.defines(copy_bytes),
    )
