"""AND and popcount with corrections per border class give the sums of +-1, for any window; so do methods' tables."""

from __future__ import annotations

import border_sums as bs
import numpy as np
import pytest

from binarynet.cuda.blocks import Block
from binarynet.cuda.methods._common import corrections
from binarynet.encoding import pack_bits

# size, kernel, stride, padding, channels
SHAPES = [
    ((1, 1), (1, 1), (1, 1), (0, 0), 300),
    ((5, 7), (3, 3), (1, 1), (1, 1), 64),
    ((5, 7), (3, 3), (2, 3), (1, 1), 65),
    ((2, 2), (5, 5), (1, 1), (3, 3), 1),
    ((1, 9), (1, 4), (1, 2), (0, 3), 63),
    ((9, 1), (4, 1), (3, 1), (3, 0), 127),
    ((3, 3), (7, 7), (7, 7), (6, 6), 2),
    ((6, 6), (2, 2), (2, 2), (0, 0), 128),
    ((4, 3), (3, 5), (1, 1), (2, 4), 33),
]
FILLS = ["random", "ones", "zeros", "opposite", "one bit"]


def operands(rng, fill, size, kernel, channels, out=5, batch=2):
    a = rng.integers(0, 2, (batch, *size, channels))
    w = rng.integers(0, 2, (out, *kernel, channels))
    if fill in ("ones", "opposite"):
        a[:] = 1
        w[:] = fill == "ones"
    elif fill == "zeros":
        a[:], w[:] = 0, 0
    elif fill == "one bit":
        a[:], w[:] = 0, 0
        a[..., -1, -1, -1] = 1
        w[..., -1, -1, -1] = 1
    return a, w


@pytest.mark.parametrize("fill", FILLS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_one_and_is_enough(shape, fill):
    size, kernel, stride, padding, channels = shape
    a, w = operands(np.random.default_rng(channels), fill, size, kernel, channels)
    expected = bs.direct(2 * a - 1, 2 * w - 1, stride, padding)
    assert np.array_equal(bs.by_and(a, w, stride, padding), expected)
    if fill == "ones":
        assert expected.max() == bs.inside(size, kernel, stride, padding).sum(axis=(2, 3)).max() * channels


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_first_layers(shape):
    size, kernel, stride, padding, channels = shape
    rng = np.random.default_rng(channels)
    _, w = operands(rng, "random", size, kernel, channels)
    for u in (rng.integers(0, 256, (2, *size, channels)), np.full((2, *size, channels), 255)):
        expected = bs.direct(2 * u - 255, 2 * w - 1, stride, padding)
        assert np.array_equal(bs.by_bytes(u, w, stride, padding), expected)


def test_padding_as_minus_one_would_be_wrong():
    """The usual shortcut, zero bits that mean -1 with no table, differs at the border and only there."""
    a, w = operands(np.random.default_rng(0), "random", (5, 5), (3, 3), 64)
    expected = bs.direct(2 * a - 1, 2 * w - 1, (1, 1), (1, 1))
    taken = bs.windows(a, (3, 3), (1, 1), (1, 1))
    both = np.einsum("nhwijc,oijc->nhwo", taken, w)
    sums = 9 * 64 - 2 * w.sum(axis=(1, 2, 3)) - 2 * taken.sum(axis=(3, 4, 5))[..., None] + 4 * both
    assert np.array_equal(sums[:, 1:-1, 1:-1], expected[:, 1:-1, 1:-1])
    assert (sums[:, 0] != expected[:, 0]).any()


@pytest.mark.parametrize("kind", ["bits", "u8"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_tables_of_the_methods(shape, kind):
    """What prepare() makes, looked up as kernels do, is Kv - 2 pb of every output pixel, and holds each class once."""
    size, kernel, stride, padding, channels = shape
    _, w = operands(np.random.default_rng(channels), "random", size, kernel, channels)
    block = Block(kind, *size, channels, kernel, stride, padding, pack_bits(w.astype(bool)))
    made = corrections(block, 8)
    rows, columns = block.out_height, block.out_width
    first = made["offsets"][:rows, None] + made["offsets"][None, rows : rows + columns]
    found = made["corrections"][first[..., None] + np.arange(8)]
    table, classes = bs.class_table(size, w, stride, padding)
    assert np.array_equal(found[..., :5], table * (255 if kind == "u8" else 1))
    assert (found[..., 5:] == 0).all()
    assert len(made["corrections"]) >= 8 * classes
