"""Products of warpgroups with bulk copies, for large layers on Hopper (sm_90a): ``source/wgmma_*.cu``.

One-bit wgmma does 32,768 multiply-accumulates per cycle and multiprocessor if it takes as long as 8-bit wgmma on as
many bytes (not measured): then m64n256k256 takes 128 cycles and reads 10 KiB of shared memory.

* Dense layers: a stage of 1024 bits of 128 rows and 256 channels is 1024 cycles of products, which read 80 KiB, beside
  48 KiB that arrive: with 128 bytes per cycle shared memory is as busy as the tensor cores. The ones of activations are
  another 16 KiB and a quarter of the popcount pipe, for the first of the tiles that a block of threads has of the same
  rows. 48 KiB per 1024 cycles are also much for the second-level cache with all multiprocessors at work, the likely
  bound; clusters that share what arrives would halve it. Up to 5120 bits per row the weights stay in shared memory
  instead: 16 KiB arrive per 1024 cycles, 112 KiB are read or written, and the tensor cores are the bound.
* Convolutions: weights stay, a patch of 64 output pixels arrives once for all taps, 100 pixels for 3x3. What is left is
  the tensor cores, and writing the output of small layers, which overlaps with the products of other warpgroups.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from binarynet.cuda.blocks import Array, Block, Capability, Launch, TensorMap, Variant
from binarynet.cuda.methods._common import (
    OUTPUTS,
    address,
    ceil_div,
    channel_constants,
    corrections,
    round_up,
    rows_of,
    why_no_corrections,
)

HOPPER = (9, 0)
WARPGROUP = 128
SHARED_BYTES = 232448
"""Shared memory that a block of threads may ask for on compute capability 9.0."""

TILE_CHANNELS = 256
"""Tables of constants are padded to the widest tile."""

DENSE, CONVOLUTION = "wgmma_dense.cu", "wgmma_convolution.cu"
DENSE_CONSUMERS = 2
DENSE_ROWS = 64 * DENSE_CONSUMERS
WIDTH = 128
PATTERN = 1024

CYCLES = {(256, True): 1024, (256, False): 1229, (128, True): 640, (128, False): 820}
"""Of a tile's stage, by channels and whether weights are resident. On paper: the greatest of the products' cycles, the
bytes of shared memory read and written by 128, and the bytes that arrive by 40."""

CONSUMERS = {128: 4, 256: 2}
"""Consumer warpgroups of convolutions by the channels of a tile: as many as registers suffice for."""
SIDE, PIECE = 8, 16
PIECE_CHANNELS = 8 * PIECE
MIN_STAGES, MAX_STAGES = 3, 8
MAX_GROUPS = 16
ALIGNMENT = 128

REACH = 1 << 30
"""Beyond any 2 popc(a AND w) - pa: sums are less than 2^24 (graph.ir), or at least fit an int32 when doubled."""


MULTIPROCESSORS = 132
"""Of an H100 or H200 (SXM). What is chosen by it is right, if not best, with any other number."""

MANY = 66
"""Tiles of work that such a GPU should have at least."""


def _defines(columns: int, consumers: int) -> tuple[tuple[str, int], ...]:
    return (("COLUMNS", columns), ("CONSUMERS", consumers))


VARIANTS = (
    *(Variant(DENSE, _defines(columns, DENSE_CONSUMERS), HOPPER, HOPPER) for columns in CONSUMERS),
    *(Variant(CONVOLUTION, _defines(columns, consumers), HOPPER, HOPPER) for columns, consumers in CONSUMERS.items()),
)


class Wgmma:
    """Dense layers, and convolutions of stride 1 whose channels are a multiple of 128 and whose weights fit."""

    name = "wgmma"

    def why_not(self, block: Block, capability: Capability) -> str:
        if capability != HOPPER:
            return f"wgmma exists on compute capability 9.0 alone, not on {capability[0]}.{capability[1]}"
        if block.input != "bits":
            return "inputs of 8 bits"
        if not _is_dense(block):
            return why_no_corrections(block, TILE_CHANNELS) or _why_no_convolution(block)
        if _row_words(block) % 2:
            return f"rows of {8 * _row_words(block)} bytes: bulk copies need multiples of 16 (128 channels)"
        return ""

    def suits(self, block: Block, batch: int) -> bool:
        """Whether so many images keep the multiprocessors busy: on paper, not measured.

        Half of them should have a tile. Tiles that are mostly padding, of K or of pixels, do not count.
        """
        if _is_dense(block):
            tiles = ceil_div(block.rows(batch), DENSE_ROWS) * ceil_div(block.out_channels, 128)
            return tiles >= MANY and _row_words(block) * 8 >= WIDTH // 2
        filled = block.rows(batch) / (SIDE * SIDE)
        return filled * ceil_div(block.out_channels, _columns(block)) >= MANY and 2 * filled >= _patches(block, batch)

    def prepare(self, block: Block) -> dict[str, Array]:
        channels = round_up(block.out_channels, TILE_CHANNELS)
        tables = corrections(block, channels)
        constants = channel_constants(block, channels)
        if block.output == "bits":
            limits = _limits(constants["first"], tables["corrections"])
            prepared: dict[str, Array] = {"limits": limits, "first": constants["second"]}
        else:
            prepared = {"corrections": tables["corrections"], **constants}
        if _is_dense(block):
            return {"weights": np.ascontiguousarray(block.weights), **prepared}
        return {
            "weights": _tiled_weights(block, _columns(block)),
            "descriptors": _descriptors(block),
            "offsets": tables["offsets"],
            **prepared,
        }

    def launch(self, block: Block, batch: int, source: int, result: int, prepared: dict[str, int]) -> Launch:
        make = _dense_launch if _is_dense(block) else _convolution_launch
        return make(block, batch, source, result, prepared)


def _is_dense(block: Block) -> bool:
    """Whether every output pixel sees contiguous words of its own: the window is the image, or one pixel."""
    whole = block.kernel == (block.height, block.width)
    single = block.kernel == (1, 1) and block.stride == (1, 1)
    return block.padding == (0, 0) and (whole or single)


def _row_words(block: Block) -> int:
    return block.kernel[0] * block.kernel[1] * block.words


def _limits(thresholds: Array, table: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
    """Smallest 2 popc(a AND w) - pa for which correction - 2 pa + 4 popc(a AND w) reaches the threshold."""
    above = thresholds.astype(np.int64) - table.reshape(-1, len(thresholds))
    limits: npt.NDArray[np.int32] = np.clip(-(-above // 2), -REACH, REACH).astype(np.int32).ravel()
    return limits


def _constants(block: Block, prepared: dict[str, int]) -> tuple[np.uint64, ...]:
    table = "limits" if block.output == "bits" else "corrections"
    return tuple(address(prepared.get(name, 0)) for name in (table, "first", "second"))


# ---- dense layers


@dataclass(frozen=True)
class _Plan:
    """How a dense layer is tiled.

    Attributes:
        columns: channels of a tile.
        resident: whether a block of threads keeps the weights of its channels, and has no other channels.
        stages: of the ring.
        cycles: that the busiest of :data:`MULTIPROCESSORS` blocks takes per stage, as :data:`CYCLES` has it.
    """

    columns: int
    resident: bool
    stages: int
    cycles: int


def _plan(rows: int, words: int, out_channels: int) -> _Plan:
    """The plan that takes least."""
    row_tiles, steps = ceil_div(rows, DENSE_ROWS), ceil_div(8 * words, WIDTH)
    plans = []
    for columns in (256, 128):
        tiles, fixed = ceil_div(out_channels, columns), PATTERN + 16 * MAX_STAGES
        for resident in (True, False):
            weights = columns * WIDTH * steps if resident else 0
            stage = WIDTH * (DENSE_ROWS + (0 if resident else columns))
            stages = min((SHARED_BYTES - fixed - weights) // stage, MAX_STAGES)
            blocks = MULTIPROCESSORS // tiles if resident else MULTIPROCESSORS
            if stages >= MIN_STAGES and blocks:
                turns = ceil_div(row_tiles if resident else row_tiles * tiles, blocks)
                plans.append(_Plan(columns, resident, stages, turns * CYCLES[columns, resident]))
    return min(plans, key=lambda plan: plan.cycles)


def _dense_launch(block: Block, batch: int, source: int, result: int, prepared: dict[str, int]) -> Launch:
    rows, words = rows_of(block, batch), _row_words(block)
    plan = _plan(rows, words, block.out_channels)
    tiles = ceil_div(block.out_channels, plan.columns)
    stage = WIDTH * (DENSE_ROWS + (0 if plan.resident else plan.columns))
    weights = plan.columns * WIDTH * ceil_div(8 * words, WIDTH) if plan.resident else 0
    sizes = (rows, words, block.out_channels, OUTPUTS[block.output], plan.stages, plan.resident)
    return Launch(
        source=DENSE,
        kernel="wgmma_dense",
        arguments=(
            _matrix(source, rows, words, DENSE_ROWS),
            _matrix(prepared["weights"], block.out_channels, words, plan.columns),
            address(result),
            *_constants(block, prepared),
            *map(np.int32, sizes),
        ),
        grid=(ceil_div(rows, DENSE_ROWS) * tiles, 1, 1),
        threads=WARPGROUP * (DENSE_CONSUMERS + 1),
        shared_bytes=PATTERN + weights + plan.stages * (stage + 16),
        defines=_defines(plan.columns, DENSE_CONSUMERS),
        shared_by=tiles if plan.resident else 1,
    )


def _matrix(at: int, rows: int, words: int, box_rows: int) -> TensorMap:
    return TensorMap(
        address=at,
        element_bytes=1,
        sizes=(8 * words, rows),
        strides=(8 * words,),
        box=(WIDTH, box_rows),
        swizzle=128,
    )


# ---- convolutions


def _patch(block: Block) -> tuple[int, int]:
    """Rows and columns of a patch: 8 x 8 output pixels and halo."""
    return SIDE + block.kernel[0] - 1, SIDE + block.kernel[1] - 1


def _patches(block: Block, batch: int) -> int:
    return batch * ceil_div(block.out_height, SIDE) * ceil_div(block.out_width, SIDE)


def _plane_bytes(block: Block) -> int:
    """128 channels of a patch; bulk tensor copies begin at multiples of 128 bytes."""
    height, width = _patch(block)
    return round_up(height * width * PIECE, ALIGNMENT)


def _patch_bytes(block: Block) -> int:
    return block.channels // PIECE_CHANNELS * _plane_bytes(block)


def _steps(block: Block) -> int:
    """Products of 256 taps."""
    return ceil_div(block.taps, 2 * PIECE_CHANNELS)


def _shared_bytes(block: Block, columns: int, stages: int) -> int:
    height, width = _patch(block)
    return (
        ALIGNMENT
        + 8 * (2 * MAX_STAGES + MAX_GROUPS)
        + _steps(block) * (columns * 2 * PIECE + 8)
        + stages * _patch_bytes(block)
        + CONSUMERS[columns] * 2 * height * width * 4
    )


def _columns(block: Block) -> int:
    """Channels of a tile; 0 where no tile fits."""
    wide_is_full = round_up(block.out_channels, 256) == round_up(block.out_channels, 128)
    for columns in (256, 128) if wide_is_full else (128, 256):
        if _shared_bytes(block, columns, 2) <= SHARED_BYTES and _steps(block) <= 4 * MAX_GROUPS:
            return columns
    return 0


def _why_no_convolution(block: Block) -> str:
    if block.stride != (1, 1):
        return f"stride {block.stride}: only 1"
    if block.channels % PIECE_CHANNELS:
        return f"{block.channels} channels: only multiples of {PIECE_CHANNELS}"
    if block.taps < 2 * PIECE_CHANNELS:
        return f"{block.taps} taps: at least {2 * PIECE_CHANNELS}"
    if max(_patch(block)) > 16:
        return f"window {block.kernel}: at most 9 x 9"
    if not _columns(block):
        return f"{block.taps} taps: the weights of 128 channels do not fit in shared memory"
    return ""


def _slots(block: Block) -> list[int]:
    """Address within a patch of every tap's and piece's first core matrix, ascending: pieces, then taps."""
    width = _patch(block)[1]
    return [
        piece * _plane_bytes(block) + (y * width + x) * PIECE
        for piece in range(block.channels // PIECE_CHANNELS)
        for y in range(block.kernel[0])
        for x in range(block.kernel[1])
    ]


def _pairs(slots: int) -> list[tuple[int, int]]:
    """Slots of every step. An odd last one has its predecessor beside it, whose weights are zero there."""
    pairs = [(i, i + 1) for i in range(0, slots - 1, 2)]
    return [*pairs, (slots - 2, slots - 1)] if slots % 2 else pairs


def _descriptors(block: Block) -> npt.NDArray[np.uint64]:
    """Matrix descriptors of operand A for a patch at address 0 (PTX ISA, wgmma, matrix descriptor format)."""
    slots = _slots(block)
    next_rows = _patch(block)[1] * PIECE
    return np.array(
        [slots[i] >> 4 | (slots[j] - slots[i]) >> 4 << 16 | next_rows >> 4 << 32 for i, j in _pairs(len(slots))],
        dtype=np.uint64,
    )


def _tiled_weights(block: Block, columns: int) -> npt.NDArray[np.uint8]:
    """uint8 ``[tiles, steps, 2, columns, 16]``: contiguous core matrices, channels beyond the last one zero."""
    pieces = block.channels // PIECE_CHANNELS
    weights = np.ascontiguousarray(block.weights).view(np.uint8).reshape(block.out_channels, -1, pieces, PIECE)
    by_slot = weights.transpose(2, 1, 0, 3).reshape(-1, block.out_channels, PIECE)
    pairs = _pairs(len(by_slot))
    channels = round_up(block.out_channels, columns)
    steps = np.zeros((len(pairs), 2, channels, PIECE), dtype=np.uint8)
    steps[:, :, : block.out_channels] = by_slot[np.array(pairs)]
    if len(by_slot) % 2:
        steps[-1, 0] = 0
    tiles = steps.reshape(len(pairs), 2, -1, columns, PIECE).transpose(2, 0, 1, 3, 4)
    return np.ascontiguousarray(tiles)


def _images(block: Block, batch: int, source: int) -> TensorMap:
    """The input. With 128 channels a row of pixels is contiguous and copied as one dimension."""
    height, width = _patch(block)
    pixel = 8 * block.words
    line, image = block.width * pixel, block.height * block.width * pixel
    if pixel == PIECE:
        sizes, strides, box = (line, 1, block.height, batch), (line, line, image), (width * PIECE, 1, height, 1)
    else:
        sizes = (pixel, block.width, block.height, batch)
        strides, box = (pixel, line, image), (PIECE, width, height, 1)
    return TensorMap(address=source, element_bytes=1, sizes=sizes, strides=strides, box=box)


def _convolution_launch(block: Block, batch: int, source: int, result: int, prepared: dict[str, int]) -> Launch:
    rows_of(block, batch)
    columns = _columns(block)
    consumers = CONSUMERS[columns]
    tiles = ceil_div(block.out_channels, columns)
    free = SHARED_BYTES - _shared_bytes(block, columns, 0)
    stages = min(free // _patch_bytes(block), MAX_STAGES)
    sizes = (
        *(batch, block.channels, block.out_height, block.out_width, *block.kernel, *block.padding),
        *(_steps(block), stages, block.out_channels, OUTPUTS[block.output]),
    )
    return Launch(
        source=CONVOLUTION,
        kernel="wgmma_convolution",
        arguments=(
            _images(block, batch, source),
            *(address(prepared[name]) for name in ("weights", "descriptors", "offsets")),
            address(result),
            *_constants(block, prepared),
            *map(np.int32, sizes),
        ),
        grid=(_patches(block, batch) * tiles, 1, 1),
        threads=WARPGROUP * (consumers + 1),
        shared_bytes=_shared_bytes(block, columns, stages),
        defines=_defines(columns, consumers),
        shared_by=tiles,
    )
