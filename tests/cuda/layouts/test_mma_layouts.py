"""Index arithmetic of mma_tile.cuh and mma_block.cuh in NumPy, their lines repeated as they are meant: where chunks lie
in shared memory, what ldmatrix makes of them, which banks are used, which pixels are inside of the image."""

from __future__ import annotations

import fragment_layouts as fl
import numpy as np
import pytest
import shared_layouts as sl

from binarynet.cuda.methods import _mma_tiles
from binarynet.cuda.methods._mma_tiles import TILES, Tile

LANES = np.arange(32)
PANEL = _mma_tiles.PANEL_BYTES
SHAPES = ((16, 8, 256), (16, 8, 32))


def chunk_at(rows, row, chunk):
    """Byte of 16-byte chunk `chunk`, counted through the panels of a stage, of a row of an operand of `rows` rows."""
    return (chunk >> 2) * (rows * PANEL) + row * PANEL + (((chunk & 3) ^ (row >> 1 & 3)) << 4)


def lying(operand, panels):
    """An operand ``[rows, panels * 64]`` of a stage as it lies in shared memory."""
    rows = len(operand)
    result = np.zeros(operand.size, dtype=np.uint8)
    for row, chunk in np.ndindex(rows, 4 * panels):
        result[chunk_at(rows, row, chunk) :][:16] = operand[row, 16 * chunk :][:16]
    return result


def load_matrices(shared, addresses):
    """Registers ``[32 lanes, 4]`` of ldmatrix .x4: lane l names row l % 8 of matrix l / 8."""
    rows = shared[addresses[:, None] + np.arange(16)].reshape(4, 8, 16).copy().view(np.uint16)
    layout = fl.ldmatrix(False)
    return np.stack([fl.gather(rows[i], layout).copy().view(np.uint32)[:, 0] for i in range(4)], axis=1)


def warps(tile: Tile):
    """Row, channel and panel of every warp."""
    for warp in range(tile.threads // 32):
        yield (
            warp // tile.warps_channels % tile.warps_rows,
            warp % tile.warps_channels,
            warp // (tile.warps_rows * tile.warps_channels),
        )


def reader(tile, warp_row, warp_channel, warp_panel):
    """Addresses, in the first step, that lanes name in the input and in the weights."""
    row = warp_row * (tile.rows // tile.warps_rows) + (LANES & 15)
    channel = warp_channel * (tile.channels // tile.warps_channels) + (LANES >> 4 << 3) + (LANES & 7)
    return (
        chunk_at(tile.rows, row, warp_panel * 4 + (LANES >> 4)),
        chunk_at(tile.channels, channel, warp_panel * 4 + (LANES >> 3 & 1)),
    )


def phases(addresses):
    """Bank conflicts of ldmatrix .x4, one matrix at a time: 4 wavefronts without."""
    return sum(sl.banks(addresses[first : first + 8], 16) for first in range(0, 32, 8))


@pytest.mark.parametrize("tile", TILES, ids=lambda tile: f"{tile.rows}x{tile.channels}")
def test_warps_read_the_fragments_of_their_rows_and_channels(tile):
    rng = np.random.default_rng(tile.rows)
    width = PANEL * tile.panels
    inputs = rng.integers(0, 256, (tile.rows, width), dtype=np.uint8)
    weights = rng.integers(0, 256, (tile.channels, width), dtype=np.uint8)
    ring = np.concatenate([lying(inputs, tile.panels), lying(weights, tile.panels)])
    input_bytes = inputs.size
    for warp_row, warp_channel, warp_panel in warps(tile):
        input_at, weights_at = reader(tile, warp_row, warp_channel, warp_panel)
        weights_at = weights_at + input_bytes
        assert phases(input_at) == phases(weights_at) == 4
        for step in range(2):
            columns = slice(warp_panel * PANEL + 32 * step, warp_panel * PANEL + 32 * step + 32)
            for i in range(tile.rows // tile.warps_rows // 16):
                found = load_matrices(ring, (input_at ^ (step * 32)) + i * (16 * PANEL))
                first = warp_row * (tile.rows // tile.warps_rows) + 16 * i
                rows = inputs[first : first + 16, columns]
                for shape in SHAPES:
                    elements = np.unpackbits(rows, axis=1, bitorder="little") if shape[2] == 256 else rows
                    bits = fl.ELEMENT_BITS[shape[2]]
                    assert np.array_equal(found, fl.to_registers(fl.gather(elements, fl.mma_a(shape)), bits))
            for i in range(tile.channels // tile.warps_channels // 16):
                found = load_matrices(ring, (weights_at ^ (step * 32)) + i * (16 * PANEL))
                for half in range(2):
                    first = warp_channel * (tile.channels // tile.warps_channels) + 16 * i + 8 * half
                    rows = weights[first : first + 8, columns]
                    for shape in SHAPES:
                        elements = np.unpackbits(rows, axis=1, bitorder="little") if shape[2] == 256 else rows
                        bits = fl.ELEMENT_BITS[shape[2]]
                        expected = fl.to_registers(fl.gather(elements.T, fl.mma_b(shape)), bits)
                        assert np.array_equal(found[:, 2 * half : 2 * half + 2], expected)


@pytest.mark.parametrize("tile", TILES, ids=lambda tile: f"{tile.rows}x{tile.channels}")
def test_warps_share_out_the_tile(tile):
    held = np.zeros((tile.rows, tile.channels, tile.panels), dtype=int)
    height, width = tile.rows // tile.warps_rows, tile.channels // tile.warps_channels
    for row, channel, panel in warps(tile):
        held[row * height : (row + 1) * height, channel * width : (channel + 1) * width, panel] += 1
    assert (held == 1).all()


def test_chunks_have_places_of_their_own_and_copies_no_bank_conflicts():
    for rows in {tile.rows for tile in TILES} | {tile.channels for tile in TILES}:
        at = np.array([[chunk_at(rows, row, chunk) for chunk in range(16)] for row in range(rows)])
        assert np.array_equal(np.sort(at.ravel()), np.arange(0, rows * 4 * PANEL, 16))
    # Four lanes copy the four chunks of a row: eight lanes fill all banks.
    copies = chunk_at(64, LANES // 4, LANES % 4)
    assert sl.banks(copies, 16) == 4
    # Without the permutation one matrix of ldmatrix would fall into two of the eight groups of banks.
    assert sl.banks(np.arange(8) * PANEL, 16) == 4


@pytest.mark.parametrize("size", [16, 200, 64])
def test_weights_lie_in_memory_as_in_shared_memory(size):
    """panels_of: a tile's channels of one panel are contiguous, and what load_weights copies byte by byte."""
    weights = np.random.default_rng(size).integers(0, 256, (70, size), dtype=np.uint8)
    panels = -(-size // PANEL)
    padded = np.zeros((128, panels * PANEL), dtype=np.uint8)
    padded[:70, :size] = weights
    flat = _mma_tiles.panels_of(weights, 128)
    assert flat.size == padded.size
    for tile in TILES:
        for channel in range(0, 128, tile.channels):
            for panel in range(panels):
                start = panel * 128 * PANEL + channel * PANEL
                expected = lying(padded[channel : channel + tile.channels, panel * PANEL : (panel + 1) * PANEL], 1)
                assert np.array_equal(flat[start : start + expected.size], expected)


def test_pixels_inside_of_the_image():
    """Bounds::contain, two comparisons of 16 bits at once, at all corners, with places that are far outside."""
    far, sides = _mma_tiles.FAR, (1, 2, 3, 200, _mma_tiles.SIDE_LIMIT - 1)
    for height in sides:
        for width in sides:
            for top, left in ((0, 0), (1, 2), (7, 0), (0, 5), (100, 60)):
                if max(height + 2 * top, width + 2 * left) >= _mma_tiles.SIDE_LIMIT:
                    continue
                first = np.uint32(top << 16 | left)
                last = np.uint32((top + height - 1) << 16 | (left + width - 1))
                rows = np.unique(
                    np.clip([0, top - 1, top, top + height - 1, top + height, height + 2 * top - 1], 0, None)
                )
                columns = np.unique(
                    np.clip([0, left - 1, left, left + width - 1, left + width, width + 2 * left - 1], 0, None)
                )
                for distance in (0, far, 2 * far):
                    y, x = np.meshgrid(rows, columns)
                    pixel = (y << 16 | x).astype(np.uint32) + np.uint32(distance)
                    found = ((pixel - first) | (last - pixel)) & np.uint32(0x80008000) == 0
                    inside = (y >= top) & (y < top + height) & (x >= left) & (x < left + width)
                    assert np.array_equal(found, inside & (distance == 0))


def test_tiles_are_numbered_without_gaps():
    """Tile of mma_block.cuh: every tile once."""
    for down, across in ((1, 1), (3, 5), (8, 2), (9, 1), (17, 4)):
        seen = set()
        for index in range(down * across):
            group, in_group = divmod(index, 8 * across)
            height = min(8, down - group * 8)
            seen.add((group * 8 + in_group % height, in_group // height))
        assert seen == set(np.ndindex(down, across))


@pytest.mark.parametrize("words", [1, 2])
def test_a_quad_exchanges_its_bits(words):
    """store_bits: of two fragments' rows, each lane of a quad ends with whole words of one."""
    rng = np.random.default_rng(words)
    # Channels of rows: fragments, halves (8 rows apart), of one quad.
    truth = rng.integers(0, 2, (2, 2, 32 * words), dtype=np.uint32)
    bits = np.zeros((4, 4, words), dtype=np.uint32)  # lane, row of the lane, word
    for lane in range(4):
        for r in range(4):
            for j in range(4 * words):
                pair = truth[r // 2, r % 2, 8 * j + 2 * lane : 8 * j + 2 * lane + 2]
                bits[lane, r, j // 4] |= np.uint32(int(pair[0]) << (j % 4 * 8) | int(pair[1]) << (j % 4 * 8 + 1))
    lanes = np.arange(4)
    odd, upper = lanes & 1, lanes >> 1
    for word in range(words):
        shifted = bits[:, :, word] << (2 * lanes.astype(np.uint32)[:, None])
        even = shifted[lanes, odd] | shifted[lanes, 1 - odd][lanes ^ 1]
        following = shifted[lanes, 2 + odd] | shifted[lanes, 3 - odd][lanes ^ 1]
        mine = np.where(upper, following, even) | np.where(upper, even, following)[lanes ^ 2]
        for lane in range(4):
            row = truth[upper[lane], odd[lane], 32 * word : 32 * word + 32]
            assert mine[lane] == np.packbits(row.astype(np.uint8), bitorder="little").view(np.uint32)[0]
