"""The wgmma kernels on the simulated GPU: edges and loops of tiles, rings that go round, all outputs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from machine import Machine

from binarynet.cuda.blocks import Block
from binarynet.cuda.methods import wgmma
from binarynet.cuda.methods.wgmma import Wgmma
from binarynet.encoding import num_words, pack_bits, to_signs, unpack_bits

pytest.importorskip("cuda.bindings.nvrtc", reason="kernels are compiled with NVRTC (extra cuda)")


def random_bits(rng, *shape):
    return pack_bits(rng.integers(0, 2, shape))


def with_output(block, kind, rng):
    """A block with thresholds near its sums, some out of reach, or with scores."""
    channels = block.out_channels
    if kind == "bits":
        spread = int(3 * block.taps**0.5)
        thresholds = rng.integers(-spread, spread + 1, channels).astype(np.int32)
        thresholds[rng.integers(0, channels, 3)] = [-(2**31), 2**31 - 1, block.taps]
        return replace(block, output="bits", thresholds=thresholds, falling=rng.integers(0, 2, channels).astype(bool))
    if kind == "f32":
        scale, shift = rng.normal(size=(2, channels)).astype(np.float32)
        return replace(block, output="f32", scale=scale, shift=shift)
    return block


def expected(block, images):
    """What the block makes of packed images ``[n, height, width, words]``, in plain NumPy."""
    weights = to_signs(unpack_bits(block.weights, block.channels), np.float32)
    (top, left), (kh, kw) = block.padding, block.kernel
    signs = to_signs(unpack_bits(images, block.channels), np.float32)
    padded = np.pad(signs, ((0, 0), (top, top), (left, left), (0, 0)))
    sums = np.zeros((len(images), block.out_height, block.out_width, block.out_channels), dtype=np.float32)
    for i, j in np.ndindex(kh, kw):
        sums += padded[:, i : i + block.out_height, j : j + block.out_width] @ weights[:, i, j].T
    sums = sums.astype(np.int32)
    if block.output == "bits":
        return pack_bits((sums >= block.thresholds) != block.falling)
    if block.output == "f32":
        return sums.astype(np.float32) * block.scale + block.shift
    return sums


def run(block, images, schedule, multiprocessors):
    machine = Machine(capability=(9, 0), schedule=schedule)
    method = Wgmma()
    assert method.why_not(block, (9, 0)) == ""
    prepared = {name: machine.upload(array) for name, array in method.prepare(block).items()}
    kind, last = {
        "i32": (np.int32, block.out_channels),
        "bits": (np.uint64, block.out_words),
        "f32": (np.float32, block.out_channels),
    }[block.output]
    shape = (len(images), block.out_height, block.out_width, last)
    result = machine.upload(np.full(shape, 0xEE, dtype=np.uint8).repeat(np.dtype(kind).itemsize, -1))
    launch = method.launch(block, len(images), machine.upload(images), result, prepared)
    machine.run(launch.fitted(multiprocessors))
    return machine.download(result, shape, kind)


def check(block, batch, rng, schedule, multiprocessors):
    images = random_bits(rng, batch, block.height, block.width, block.channels)
    found = run(block, images, schedule, multiprocessors)
    assert np.array_equal(found, expected(block, images))


@pytest.mark.parametrize(
    ("rows", "channels", "out_channels", "output", "schedule", "multiprocessors"),
    [
        (128, 1024, 128, "bits", "early", 1),
        (129, 1088 + 64, 129, "i32", "late", 132),
        (127, 896, 127, "f32", "late", 132),
        (1, 128, 1, "bits", 1, 132),
        (63, 6144, 65, "bits", "late", 1),  # the ring goes round
        (300, 2176, 200, "bits", 2, 2),  # several tiles for each block
        (300, 640, 260, "f32", 3, 3),
        (257, 128, 130, "i32", "early", 1),
    ],
)
def test_dense(rows, channels, out_channels, output, schedule, multiprocessors):
    rng = np.random.default_rng(rows + channels)
    weights = random_bits(rng, out_channels, 1, 1, channels)
    block = Block("bits", 1, 1, channels, (1, 1), (1, 1), (0, 0), weights)
    check(with_output(block, output, rng), rows, rng, schedule, multiprocessors)


@pytest.mark.parametrize("output", ["bits", "i32", "f32"])
@pytest.mark.parametrize(
    ("columns", "resident", "stages", "schedule"),
    [(256, True, 3, "late"), (256, False, 4, 4), (128, True, 8, 5), (128, False, 3, "late"), (256, False, 3, "early")],
)
def test_plans_of_dense_layers(monkeypatch, columns, resident, stages, schedule, output):
    """Four stages of K, the last one partial; two tiles each of rows and channels for two blocks of threads."""
    monkeypatch.setattr(wgmma, "_plan", lambda *sizes: wgmma._Plan(columns, resident, stages, 0))
    rng = np.random.default_rng(5)
    out_channels, rows, channels = columns + 44, 190, 3456
    block = Block("bits", 1, 1, channels, (1, 1), (1, 1), (0, 0), random_bits(rng, out_channels, 1, 1, channels))
    check(with_output(block, output, rng), rows, rng, schedule, 2)


@pytest.mark.parametrize("resident", [True, False])
def test_a_block_that_keeps_its_rows_counts_their_ones_once(monkeypatch, resident):
    """Eighteen tiles of rows and two of channels: rows change within a band and between bands."""
    monkeypatch.setattr(wgmma, "_plan", lambda *sizes: wgmma._Plan(128, resident, 3, 0))
    rng = np.random.default_rng(6)
    block = Block("bits", 1, 1, 128, (1, 1), (1, 1), (0, 0), random_bits(rng, 200, 1, 1, 128))
    check(with_output(block, "bits", rng), 17 * 128 + 5, rng, "late", 4)


@pytest.mark.parametrize(("height", "width", "kernel"), [(4, 5, (4, 5)), (6, 7, (1, 1))])
def test_windows_that_are_rows_of_words(height, width, kernel):
    """The window is the whole image (a flatten and a dense layer), or one pixel."""
    rng = np.random.default_rng(7)
    channels = 64 if kernel == (4, 5) else 192 + 64
    weights = random_bits(rng, 70, *kernel, channels)
    block = Block("bits", height, width, channels, kernel, (1, 1), (0, 0), weights)
    check(with_output(block, "bits", rng), 3, rng, "late", 132)


@pytest.mark.parametrize(
    ("size", "channels", "kernel", "padding", "out_channels", "output", "schedule", "multiprocessors"),
    [
        ((8, 8), 128, (3, 3), (1, 1), 128, "bits", "late", 1),
        ((9, 17), 128, (3, 3), (1, 1), 100, "i32", "early", 2),
        ((16, 16), 256, (3, 3), (1, 1), 256, "bits", 1, 3),
        ((7, 6), 384, (3, 3), (1, 1), 5, "f32", "late", 132),
        ((8, 8), 512, (3, 3), (1, 1), 512, "bits", "late", 2),
        ((12, 11), 128, (5, 5), (2, 2), 129, "i32", 2, 132),
        ((10, 10), 256, (2, 3), (0, 2), 300, "f32", 3, 4),
        ((5, 5), 256, (1, 1), (1, 1), 64, "bits", "late", 1),
    ],
)
def test_convolution(size, channels, kernel, padding, out_channels, output, schedule, multiprocessors):
    rng = np.random.default_rng(sum(size) + channels)
    block = Block("bits", *size, channels, kernel, (1, 1), padding, random_bits(rng, out_channels, *kernel, channels))
    check(with_output(block, output, rng), 3, rng, schedule, multiprocessors)


def test_more_patches_than_stages():
    """Every consumer goes round the ring several times."""
    rng = np.random.default_rng(8)
    block = Block("bits", 17, 24, 128, (3, 3), (1, 1), (1, 1), random_bits(rng, 64, 3, 3, 128))
    block = with_output(block, "bits", rng)
    for schedule in ("early", "late", 9):
        check(block, 3, rng, schedule, 1)


def test_padding_bits_are_zero():
    rng = np.random.default_rng(9)
    block = Block("bits", 1, 1, 128, (1, 1), (1, 1), (0, 0), random_bits(rng, 70, 1, 1, 128))
    thresholds = np.full(70, -(2**31), dtype=np.int32)
    block = replace(block, output="bits", thresholds=thresholds, falling=np.zeros(70, dtype=bool))
    found = run(block, random_bits(rng, 2, 1, 1, 128), "early", 132)
    assert found.shape[-1] == num_words(70)
    assert found[0, 0, 0].tolist() == [2**64 - 1, 2**6 - 1]
