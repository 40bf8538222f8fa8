"""Index arithmetic of the wgmma kernels in NumPy alone, their lines repeated as they are meant: tiles and their stages,
which element each accumulator is, bank conflicts, limits."""

from __future__ import annotations

import border_sums as bs
import fragment_layouts as fl
import numpy as np
import pytest
import shared_layouts as sl

from binarynet.cuda import blocks
from binarynet.cuda.blocks import Block
from binarynet.cuda.methods import wgmma
from binarynet.encoding import pack_bits

INPUT, WEIGHTS = 1 << 40, 1 << 41  # device addresses
LANES = np.arange(32)


def boxed(map_: blocks.TensorMap, memory, base, coordinates):
    """The bytes of a box in the order of the copy; coordinates fastest first, as in the kernels."""
    assert map_.element_bytes == 1
    assert all(b <= 256 for b in map_.box)
    assert map_.box[0] % 16 == 0
    assert map_.address % 16 == 0
    assert all(s % 16 == 0 for s in map_.strides)
    flat = memory.ravel()[map_.address - base :]
    reach = sum((n - 1) * s for n, s in zip(map_.sizes, (1, *map_.strides), strict=True))
    assert reach < len(flat)
    array = np.lib.stride_tricks.as_strided(flat, map_.sizes[::-1], (*map_.strides[::-1], 1))
    return sl.box(array, coordinates[::-1], map_.box[::-1]).ravel()


def bits_of(rows):
    return np.unpackbits(rows, axis=-1, bitorder="little").astype(np.int64)


def layer(rng, size, channels, kernel, padding, out, batch, output="i32"):
    a = rng.integers(0, 2, (batch, *size, channels))
    w = rng.integers(0, 2, (out, *kernel, channels))
    constants = {}
    if output == "bits":
        constants = {
            "thresholds": rng.integers(-40, 40, out).astype(np.int32),
            "falling": rng.integers(0, 2, out).astype(bool),
        }
    weights = pack_bits(w.astype(bool))
    block = Block("bits", *size, channels, kernel, (1, 1), padding, weights, output, **constants)
    return a, w, block


# ---- dense layers


@pytest.mark.parametrize(("batch", "channels", "out"), [(1, 128, 10), (200, 1152, 300), (130, 2560, 129)])
def test_dense_operands(batch, channels, out):
    rng = np.random.default_rng(channels)
    a, w, block = layer(rng, (1, 1), channels, (1, 1), (0, 0), out, batch)
    prepared = wgmma.Wgmma().prepare(block)
    launch = wgmma.Wgmma().launch(block, batch, INPUT, 0, {"weights": WEIGHTS})
    columns = dict(launch.defines)["COLUMNS"]
    source_map, weights_map = launch.arguments[:2]
    memory = pack_bits(a.astype(bool)).view(np.uint8)
    weights = prepared["weights"].view(np.uint8)
    stage_bytes = (wgmma.DENSE_ROWS + columns) * wgmma.WIDTH
    stages, resident = map(int, launch.arguments[-2:])
    kept = columns * wgmma.WIDTH * -(-block.words * 8 // wgmma.WIDTH) if resident else 0
    ring = stages * (stage_bytes - resident * columns * wgmma.WIDTH + 2 * 8)
    assert wgmma.SHARED_BYTES >= launch.shared_bytes >= wgmma.PATTERN - 1 + kept + ring
    row_tiles, column_tiles = -(-batch // wgmma.DENSE_ROWS), -(-out // columns)
    assert launch.grid == (row_tiles * column_tiles, 1, 1)
    found = np.zeros((row_tiles * wgmma.DENSE_ROWS, column_tiles * columns), dtype=np.int64)
    ones = np.zeros(row_tiles * wgmma.DENSE_ROWS, dtype=np.int64)
    for row_tile, column_tile in np.ndindex(row_tiles, column_tiles):
        for step in range(-(-block.words * 8 // wgmma.WIDTH)):
            first = sl.placed(boxed(source_map, memory, INPUT, (step * 128, row_tile * wgmma.DENSE_ROWS)), 128)
            second = sl.placed(boxed(weights_map, weights, WEIGHTS, (step * 128, column_tile * columns)), 128)
            stage = np.concatenate([first, second])
            assert len(stage) == stage_bytes
            for consumer in range(wgmma.DENSE_CONSUMERS):
                rows = slice(
                    row_tile * wgmma.DENSE_ROWS + 64 * consumer, row_tile * wgmma.DENSE_ROWS + 64 * consumer + 64
                )
                for k in range(4):
                    at_a = 64 * 128 * consumer + sl.canonical(64, 128, stride=1024) ^ 32 * k
                    at_b = wgmma.DENSE_ROWS * 128 + (sl.canonical(columns, 128, stride=1024) ^ 32 * k)
                    x = bits_of(stage[at_a[..., None] + np.arange(16)].reshape(64, 32))
                    y = bits_of(stage[at_b[..., None] + np.arange(16)].reshape(columns, 32))
                    found[rows, column_tile * columns : (column_tile + 1) * columns] += x @ y.T
                    if column_tile == 0:
                        ones[rows] += x.sum(axis=1)
    flat = a.reshape(batch, channels)
    assert np.array_equal(found[:batch, :out], flat @ w.reshape(out, channels).T)
    assert not found[batch:].any()
    assert not found[:, out:].any()
    assert np.array_equal(ones[:batch], flat.sum(axis=1))


def test_counting_ones_reads_each_piece_once_and_without_conflicts():
    """count_half_row: lanes l and l + 16 read the eight pieces of row l between them."""
    for turn in range(4):
        piece = ((LANES >> 4) * 4 + turn) ^ (LANES & 7)
        assert sl.banks((LANES % 16) * 128 + piece * 16, 16) == 4
    pieces = np.array([[((half * 4 + i) ^ (lane & 7)) for half in (0, 1) for i in range(4)] for lane in range(16)])
    assert np.array_equal(np.sort(pieces, axis=1), np.tile(np.arange(8), (16, 1)))


@pytest.mark.parametrize("blocks_at_work", [1, 7, 12, 132])
def test_tiles_are_numbered_without_gaps(blocks_at_work):
    """Order of wgmma_dense.cu: every tile once."""
    for row_tiles, column_tiles in ((1, 1), (5, 3), (64, 32), (17, 1), (33, 7)):
        height = 16
        while height > 4 and blocks_at_work % height:
            height -= 1
        seen = set()
        for index in range(row_tiles * column_tiles):
            first = index // (height * column_tiles) * height
            rest = index - first * column_tiles
            here = min(height, row_tiles - first)
            seen.add((first + rest % here, rest // here))
        assert seen == set(np.ndindex(row_tiles, column_tiles))


# ---- convolutions


def test_accumulators_are_the_pixels_that_threads_write():
    """consume() of wgmma_convolution.cu: thread 32 w + 4 g + t holds pixels (2 w + h, g) of the patch, row 8 of the
    operand being the next line, and accumulator 4 j + 2 h + c is channel 8 j + 2 t + c."""
    for n in (128, 256):
        layout = fl.wgmma_d(n)
        for thread, i in np.ndindex(128, n // 2):
            row, channel = layout[thread, i]
            assert divmod(row, 8) == (thread // 32 * 2 + i % 4 // 2, thread % 32 // 4)
            assert channel == i // 4 * 8 + 2 * (thread % 4) + i % 2


def test_a_core_matrix_has_no_bank_conflicts():
    """Eight neighbouring pixels of 16 bytes, at any multiple of 16, are all 32 banks once; so are pieces of pixels."""
    for start in range(0, 256, 16):
        assert sl.banks(start + np.arange(8) * 16, 16) == 1
    assert sl.banks(LANES * 16, 16) == 4


def test_limits_are_the_threshold():
    """bit = (correction - 2 pa + 4 popc >= threshold), from 2 popc - pa alone."""
    rng = np.random.default_rng(3)
    a, w, block = layer(rng, (6, 6), 128, (3, 3), (1, 1), 40, 2, "bits")
    prepared = wgmma.Wgmma().prepare(block)
    channels = len(prepared["first"]) * 64
    windows = bs.windows(a, (3, 3), (1, 1), (1, 1))
    both = np.einsum("nhwijc,oijc->nhwo", windows, w)
    value = 2 * both - windows.sum(axis=(3, 4, 5))[..., None]
    offsets = prepared["offsets"][:6, None] + prepared["offsets"][None, 6:12]
    limits = prepared["limits"][offsets[..., None] + np.arange(channels)]
    sums = bs.direct(2 * a - 1, 2 * w - 1, (1, 1), (1, 1))
    assert np.array_equal(value >= limits[..., :40], sums >= block.thresholds)
    assert (limits[..., 40:] == wgmma.REACH).all()
    falling = np.unpackbits(prepared["first"].view(np.uint8), bitorder="little")
    assert np.array_equal(falling[:40], block.falling)
    assert not falling[40:].any()
