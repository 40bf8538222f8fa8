"""What the wgmma kernels multiply: boxes copied, weights tiled and descriptors made as the method makes them, then read
as the instruction reads them (``tensor_ops``), must be the sums of the layer."""

from __future__ import annotations

import numpy as np
import pytest
import tensor_ops

from binarynet.cuda.blocks import Block, TensorMap
from binarynet.cuda.methods import wgmma
from binarynet.encoding import pack_bits, to_signs, unpack_bits

BASE = 1 << 40  # of device memory
SWIZZLED = 1 << 62


def loaded(map_: TensorMap, memory: np.ndarray, coordinates: tuple[int, ...], shared: np.ndarray, to: int) -> None:
    """One bulk tensor copy."""
    encoded = tensor_ops.Map(map_.address, map_.element_bytes, map_.sizes, map_.strides, map_.box, (), map_.swizzle)
    for at, start, length, is_zero in encoded.copy(coordinates, to)[0]:
        shared[start : start + length] = 0 if is_zero else memory[at - BASE : at - BASE + length]


def read(descriptor: int, rows: int, shared: np.ndarray) -> np.ndarray:
    """An operand of wgmma as bits ``[rows, 256]``."""
    at = tensor_ops.wgmma_operand(descriptor, rows)
    return np.unpackbits(shared[at[..., None] + np.arange(16)].reshape(rows, 32), axis=1)


def direct(block: Block, images: np.ndarray) -> np.ndarray:
    """Sums ``[n, out_height, out_width, out_channels]`` of bits ``[n, height, width, channels]``."""
    weights = to_signs(unpack_bits(block.weights, block.channels), np.int64)
    (top, left), (kh, kw) = block.padding, block.kernel
    padded = np.pad(2 * images.astype(np.int64) - 1, ((0, 0), (top, top), (left, left), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (kh, kw), axis=(1, 2))
    return np.einsum("nyxcij,oijc->nyxo", windows, weights)


@pytest.mark.parametrize(
    ("size", "channels", "kernel", "padding", "out_channels"),
    [
        ((9, 10), 128, (3, 3), (1, 1), 5),
        ((6, 17), 256, (3, 2), (2, 0), 130),
        ((8, 8), 384, (1, 3), (0, 1), 8),
        ((12, 12), 128, (5, 5), (2, 2), 3),
        ((8, 8), 256, (1, 1), (1, 1), 260),
    ],
)
def test_every_tap_is_the_same_patch_from_another_address(size, channels, kernel, padding, out_channels):
    rng = np.random.default_rng(channels + out_channels)
    weights = pack_bits(rng.integers(0, 2, (out_channels, *kernel, channels)))
    block = Block("bits", *size, channels, kernel, (1, 1), padding, weights)
    assert not wgmma.Wgmma().why_not(block, (9, 0))
    images = rng.integers(0, 2, (2, *size, channels))
    memory = pack_bits(images).view(np.uint8).ravel()
    prepared = wgmma.Wgmma().prepare(block)
    launch = wgmma.Wgmma().launch(block, 2, BASE, BASE, dict.fromkeys(prepared, BASE))
    source, columns = launch.arguments[0], dict(launch.defines)["COLUMNS"]
    (height, width), pieces = wgmma._patch(block), channels // 128
    ones = images.sum(axis=-1)
    found = np.full((2, block.out_height, block.out_width, out_channels), 1 << 20)

    patch_bytes, plane_bytes = wgmma._patch_bytes(block), wgmma._plane_bytes(block)
    shared = np.zeros(patch_bytes + prepared["weights"][0].nbytes, dtype=np.uint8)
    for tile, tile_weights in enumerate(prepared["weights"]):
        shared[patch_bytes:] = tile_weights.ravel()
        for image, y, x in np.ndindex(2, -(-block.out_height // 8), -(-block.out_width // 8)):
            top, left = 8 * y - padding[0], 8 * x - padding[1]
            for piece in range(pieces):
                corner = (16 * left, 0, top, image) if pieces == 1 else (16 * piece, left, top, image)
                loaded(source, memory, corner, shared, piece * plane_bytes)
            planes = shared[:patch_bytes].reshape(pieces, plane_bytes)[:, : height * width * 16]
            counts = np.unpackbits(planes).reshape(pieces, height, width, -1)
            under = np.lib.stride_tricks.sliding_window_view(counts.sum(axis=(0, 3)), kernel).sum(axis=(2, 3))
            products = np.zeros((64, columns), dtype=np.int64)
            for step, descriptor in enumerate(prepared["descriptors"]):
                a = read(int(descriptor), 64, shared)
                b_at = patch_bytes + step * columns * 32
                b = read(b_at >> 4 | columns << 16 | 8 << 32, columns, shared)
                products += a.astype(np.int64) @ b.T
            rest = 4 * products.reshape(8, 8, columns) - 2 * under[..., None]
            for i, j in np.ndindex(min(8, block.out_height - 8 * y), min(8, block.out_width - 8 * x)):
                row, column = 8 * y + i, 8 * x + j
                offset = prepared["offsets"][row] + prepared["offsets"][block.out_height + column]
                corrections = prepared["corrections"][offset + tile * columns :][:columns]
                last = min(columns, out_channels - tile * columns)
                found[image, row, column, tile * columns :][:last] = (corrections + rest[i, j])[:last]
    assert ones.any()
    assert np.array_equal(found, direct(block, images))


def test_stages_of_dense_layers_are_rows_of_both_operands():
    """Two stages of 1024 bits, the second partial, rows and channels fewer than those of a tile."""
    rng = np.random.default_rng(1)
    block = Block("bits", 1, 1, 1280, (1, 1), (1, 1), (0, 0), pack_bits(rng.integers(0, 2, (200, 1, 1, 1280))))
    rows = pack_bits(rng.integers(0, 2, (70, 1280)))
    launch = wgmma.Wgmma().launch(block, len(rows), BASE, BASE, dict.fromkeys(wgmma.Wgmma().prepare(block), BASE))
    columns = dict(launch.defines)["COLUMNS"]
    products = np.zeros((128, columns), dtype=np.int64)
    for step in range(2):
        shared = np.full(128 * (128 + columns), 0xEE, dtype=np.uint8)
        loaded(launch.arguments[0], rows.view(np.uint8).ravel(), (128 * step, 0), shared, 0)
        loaded(launch.arguments[1], block.weights.view(np.uint8).ravel(), (128 * step, 0), shared, 128 * 128)
        for k in range(4):
            b = read((128 * 128 + 32 * k) >> 4 | 64 << 32 | SWIZZLED, columns, shared)
            for half in range(2):
                a = read((half * 64 * 128 + 32 * k) >> 4 | 64 << 32 | SWIZZLED, 64, shared)
                products[64 * half : 64 * half + 64] += a.astype(np.int64) @ b.T
    expected = unpack_bits(rows, 1280).astype(np.int64) @ unpack_bits(block.weights[:, 0, 0], 1280).T
    assert np.array_equal(products[:70], expected[:, :columns])
    assert not products[70:].any()


def test_layers_that_shared_memory_has_no_room_for_are_refused():
    def convolution(channels):
        return Block("bits", 8, 8, channels, (3, 3), (1, 1), (1, 1), np.zeros((128, 3, 3, channels // 64), np.uint64))

    assert not wgmma.Wgmma().why_not(convolution(1024), (9, 0))
    assert "do not fit" in wgmma.Wgmma().why_not(convolution(2048), (9, 0))
    for channels in (128, 512, 1024):
        launch = wgmma.Wgmma().launch(convolution(channels), 1, BASE, BASE, dict.fromkeys(wgmma_names(), BASE))
        assert launch.shared_bytes <= wgmma.SHARED_BYTES


def wgmma_names():
    return ("weights", "descriptors", "offsets", "corrections")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"stride": (2, 1)}, "stride"),
        ({"channels": 192}, "192 channels"),
        ({"kernel": (1, 1), "padding": (1, 1), "channels": 128}, "128 taps"),
        ({"kernel": (3, 10)}, "at most 9 x 9"),
        ({"kernel": (1, 1), "padding": (0, 0), "channels": 192}, "bulk copies need multiples of 16"),
        ({"input": "u8"}, "8 bits"),
    ],
)
def test_what_the_method_does_not_compute_is_said(change, reason):
    sizes = {"input": "bits", "height": 20, "width": 20, "channels": 256, "kernel": (3, 3)}
    sizes |= {"stride": (1, 1), "padding": (1, 1)} | change
    weights = np.zeros((8, *sizes["kernel"], -(-sizes["channels"] // 64)), dtype=np.uint64)
    assert reason in wgmma.Wgmma().why_not(Block(**sizes, weights=weights), (9, 0))


def test_other_architectures_are_refused():
    block = Block("bits", 1, 1, 128, (1, 1), (1, 1), (0, 0), np.zeros((8, 1, 1, 2), dtype=np.uint64))
    assert not wgmma.Wgmma().why_not(block, (9, 0))
    for capability in [(7, 5), (8, 0), (8, 9), (10, 0), (12, 0)]:
        assert "9.0 alone" in wgmma.Wgmma().why_not(block, capability)
