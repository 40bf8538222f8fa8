"""`mma` and `bytes_mma`: what is prepared, which tile is chosen, and every tile at its edges."""

import dataclasses

import machine_code as mc
import numpy as np
import pytest
from block_cases import Case, convolution, dense
from border_sums import windows
from machine import Machine
from test_methods import equal, launched

from binarynet.cuda.blocks import Block
from binarynet.cuda.methods import METHODS, _mma_tiles
from binarynet.cuda.methods._mma_tiles import TILES, Tile
from binarynet.encoding import to_signs, unpack_bits

LARGEST, LARGE, MEDIUM, SMALL = TILES
SCHEDULES = ("late", "early", 1)


def bits_block(size, channels, kernel, out_channels, stride=(1, 1), padding=(0, 0), kind="bits") -> Block:
    return convolution(kind, size, channels, kernel, out_channels, 1, "i32", stride, padding).block()


# ---- what is prepared


def chunk_at(row, chunk):
    """Byte of a 16-byte chunk in a panel, as mma_tile.cuh says."""
    return row * 64 + ((chunk ^ (row // 2 % 4)) * 16)


@pytest.mark.parametrize(("channels", "out_channels"), [(64, 10), (576, 128), (1000, 130), (8, 256)])
def test_weights_are_found_where_fragments_are_read(channels, out_channels):
    """A stage is one piece of the array; ldmatrix reads chunk c of a row where chunk_at says."""
    rng = np.random.default_rng(channels)
    weights = rng.integers(0, 256, (out_channels, channels), dtype=np.uint8)
    padded = _mma_tiles.round_up(out_channels, _mma_tiles.CHANNELS_UNIT)
    found = _mma_tiles.panels_of(weights, padded).reshape(-1, padded * 64)
    whole = np.zeros((padded, len(found) * 64), np.uint8)
    whole[:out_channels, :channels] = weights
    for panel, row, chunk in np.ndindex(len(found), padded, 4):
        at = chunk_at(row, chunk)
        first = panel * 64 + chunk * 16
        assert np.array_equal(found[panel, at : at + 16], whole[row, first : first + 16])


@pytest.mark.parametrize("chunk", range(4))
@pytest.mark.parametrize("first_row", range(0, 32, 8))
def test_a_matrix_of_eight_rows_takes_all_banks(first_row, chunk):
    assert {chunk_at(first_row + row, chunk) % 128 // 16 for row in range(8)} == set(range(8))


@pytest.mark.parametrize("first_row", range(0, 8, 2))
def test_copies_of_two_rows_take_all_banks(first_row):
    """Eight lanes that write 16 bytes each at once: all chunks of two rows."""
    written = {chunk_at(first_row + row, chunk) % 128 // 16 for row in range(2) for chunk in range(4)}
    assert written == set(range(8))


@pytest.mark.parametrize(
    ("pixel_bytes", "copy_bytes", "size", "kernel", "stride", "padding"),
    [
        (8, 8, (5, 4), (3, 3), (1, 1), (1, 1)),
        (48, 16, (4, 6), (2, 3), (2, 1), (0, 2)),
        (24, 8, (7, 3), (7, 1), (1, 2), (3, 0)),
        (3, 1, (6, 6), (3, 3), (2, 2), (2, 2)),
        (12, 4, (1, 1), (1, 1), (1, 1), (0, 0)),
        (272, 16, (1, 1), (1, 1), (1, 1), (0, 0)),
    ],
)
def test_taps_gather_the_window(pixel_bytes, copy_bytes, size, kernel, stride, padding):
    """Rows plus taps, as Bounds and Loader add them, against windows cut out by NumPy."""
    block = bits_block(size, pixel_bytes * 8, kernel, 1, stride, padding)
    images = np.random.default_rng(1).integers(1, 256, (1, *size, pixel_bytes), dtype=np.uint8)
    expected = windows(images, kernel, stride, padding).reshape(block.rows(1), -1)
    pieces = images.reshape(-1, copy_bytes)
    taps = _mma_tiles.taps_of(block, pixel_bytes, copy_bytes)
    most = 256  # bytes of a stage; there is one more than a window needs
    assert len(taps) * copy_bytes % most == 0
    assert most <= len(taps) * copy_bytes - expected.shape[1] < 2 * most
    for row in range(block.rows(1)):
        y, x = row // block.out_width * stride[0], row % block.out_width * stride[1]
        corner = ((y - padding[0]) * size[1] + x - padding[1]) * (pixel_bytes // copy_bytes)
        pixels = (y << 16 | x) + taps[:, 1].astype(np.int64)
        first = padding[0] << 16 | padding[1]
        last = (padding[0] + size[0] - 1) << 16 | (padding[1] + size[1] - 1)
        valid = ((pixels - first) | (last - pixels)) & 0x80008000 == 0
        found = np.zeros((len(taps), copy_bytes), np.uint8)
        found[valid] = pieces[(corner + taps[:, 0])[valid]]
        assert np.array_equal(found.ravel()[: expected.shape[1]], expected[row])
        assert not found.ravel()[expected.shape[1] :].any()


def test_bytes_are_signs():
    block = bits_block((4, 4), 3, (3, 3), 5, kind="u8")
    prepared = METHODS["bytes_mma"].prepare(block)
    padded = _mma_tiles.padded_channels(block)
    rows = _mma_tiles.permuted(prepared["weights"].reshape(-1, padded, 4, 16)[0]).reshape(padded, 64).view(np.int8)
    assert np.array_equal(rows[:5, :27], to_signs(unpack_bits(block.weights, 3)).reshape(5, 27))
    assert not rows[5:].any()
    assert not rows[:, 27:].any()


def test_limits_take_the_place_of_thresholds_and_corrections():
    case = dense("bits", 100, 20, 1, "bits")
    block = case.block()
    prepared = METHODS["mma"].prepare(block)
    assert set(prepared) == {"weights", "taps", "limits", "offsets", "second"}
    plain = _mma_tiles.corrections(block, 128)["corrections"].astype(np.int64)
    limits = np.concatenate((block.thresholds, np.full(108, 2**31 - 1))) - plain
    assert np.array_equal(prepared["limits"], np.clip(limits, -(2**31), 2**31 - 1))
    assert set(METHODS["mma"].prepare(dense("bits", 100, 20, 1, "f32").block())) == {
        *("weights", "taps", "corrections", "offsets", "first", "second")
    }


# ---- choice


@pytest.mark.parametrize(
    ("rows", "channels", "steps", "tile"),
    [
        (1, 4096, 16, SMALL),
        (64, 512, 18, SMALL),
        (1024, 512, 9, MEDIUM),
        (4096, 512, 9, LARGE),
        (8192, 8192, 32, LARGEST),
        (1 << 22, 128, 5, LARGE),
        (1 << 22, 128, 100, LARGEST),
        (1 << 20, 64, 9, MEDIUM),
        (1 << 20, 10, 4, MEDIUM),
    ],
)
def test_tiles_fit_the_product(rows, channels, steps, tile):
    assert _mma_tiles.choose(TILES, rows, channels, steps) == tile


def test_tiles_fit_into_every_multiprocessor():
    """The smallest that any of the method's GPUs have is that of 8.6 and 8.9."""
    least = mc.MULTIPROCESSORS[8, 9]
    assert all(tile.shared_bytes <= least.block_shared_bytes for tile in TILES)
    assert 2 * (LARGE.shared_bytes + 1024) <= least.shared_bytes


@pytest.mark.parametrize(
    ("method", "capability", "changes", "reason"),
    [
        ("mma", (7, 5), {}, "8.0"),
        ("mma", (10, 0), {}, "emulated"),
        ("mma", (9, 0), {"input": "u8"}, "multiplies bits, not u8"),
        ("bytes_mma", (9, 0), {}, "8-bit inputs, not bits"),
        ("bytes_mma", (7, 5), {"input": "u8"}, "8.0"),
        ("mma", (9, 0), {"height": 16400, "padding": (3, 3)}, "images of 16406 x 14"),
        ("mma", (9, 0), {"height": 16000, "width": 16000, "kernel": (16000, 16000)}, "more than a tile can address"),
    ],
)
def test_what_is_refused(method, capability, changes, reason):
    block = dataclasses.replace(bits_block((8, 8), 64, (3, 3), 64), **changes)
    assert reason in METHODS[method].why_not(block, capability)


# ---- every tile at its edges


@pytest.fixture
def forced(monkeypatch):
    """Have one tile chosen, whatever the shape."""

    def force(tile: Tile):
        monkeypatch.setattr(_mma_tiles, "choose", lambda tiles, rows, channels, steps: tile)

    return force


def edges(tile: Tile):
    """One less and one more than a tile of rows, channels and taps of a stage; and more stages than the ring has.

    With an even and an odd number of words, which are copied in pieces of 16 and of 8 bytes.
    """
    stage = tile.panels * 512
    outputs = ("bits", "i32", "f32")
    sizes = [
        (tile.rows - 1, tile.channels + 1, stage - 1),
        (tile.rows + 1, tile.channels - 1, stage + 65),
        (tile.rows + 1, tile.channels - 1, stage + 1),
        (1, 1, stage * (tile.stages + 1) - 191),
        (2 * tile.rows, tile.channels, 256),
    ]
    for i, (rows, channels, taps) in enumerate(sizes):
        yield dense("bits", taps, channels, rows, outputs[i % 3])
        yield dense("u8", -(-taps // 8), channels, rows, outputs[(i + 1) % 3])
    images = -(-tile.rows // 24) + 1
    window = {"padding": (1, 1)}
    yield convolution(
        "bits", (4, 6), 64 if tile is SMALL else 128, (3, 3), tile.channels + 33, images, "bits", **window
    )
    yield convolution("u8", (4, 6), 3, (3, 3), tile.channels + 2, images, "bits", **window)
    yield convolution("u8", (5, 4), 4, (2, 2), 7, images, "i32", **window)


def copy_bytes(case: Case) -> int:
    method = METHODS[METHOD[case.input]]
    prepared = dict.fromkeys(method.prepare(case.block()), 0)
    return dict(method.launch(case.block(), case.batch, 0, 0, prepared).defines)["COPY_BYTES"]


METHOD = {"bits": "mma", "u8": "bytes_mma"}
EDGES = [(tile, case) for tile in TILES for case in edges(tile) if tile in _mma_tiles.tiles_for(copy_bytes(case))]


@pytest.mark.parametrize(
    ("tile", "case", "schedule"),
    [
        pytest.param(tile, case, SCHEDULES[i % 3], id=f"{tile.rows}x{tile.channels}-{case.name}")
        for i, (tile, case) in enumerate(EDGES)
    ],
)
def test_tiles_at_their_edges(forced, tile: Tile, case: Case, schedule):
    forced(tile)
    equal(launched(Machine((9, 0), schedule), METHODS[METHOD[case.input]], case), case)


def test_tiles_in_groups_cover_the_output(forced):
    """More than eight tiles down and two across, the last group not full."""
    forced(SMALL)
    case = dense("bits", 64, 70, 11 * 32 + 5, "bits")
    equal(launched(Machine((8, 0), "late"), METHODS["mma"], case), case)
