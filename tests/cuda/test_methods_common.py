"""Tables that methods prepare for their kernels."""

import numpy as np
import pytest

from binarynet.cuda.blocks import Block
from binarynet.cuda.methods._common import (
    NEVER,
    block_arguments,
    channel_constants,
    corrections,
    count_ones,
    round_up,
    rows_of,
    why_no_corrections,
)
from binarynet.encoding import num_words, pack_bits, to_signs, unpack_bits
from binarynet.errors import UsageError


def make_block(
    size=(1, 1), channels=70, kernel=(1, 1), stride=(1, 1), padding=(0, 0), out_channels=5, kind="bits", **rest
):
    rng = np.random.default_rng(channels)
    weights = pack_bits(rng.integers(0, 2, (out_channels, *kernel, channels)))
    return Block(kind, *size, channels, kernel, stride, padding, weights, **rest)


@pytest.mark.parametrize(
    "window",
    [
        {"size": (5, 7), "kernel": (3, 3), "padding": (1, 1)},
        {"size": (2, 3), "kernel": (5, 4), "padding": (4, 2), "stride": (1, 2)},
        {"size": (9, 4), "kernel": (2, 4), "padding": (0, 3), "stride": (3, 1)},
        {},
    ],
)
@pytest.mark.parametrize("kind", ["bits", "u8"])
def test_corrections_are_what_zeros_give(window, kind):
    """Inputs that contribute 0 to popc(a AND w), or to sum(u w), leave the correction alone: -1 bits, u = 0."""
    block = make_block(kind=kind, **window)
    made = corrections(block, 64)
    signs = to_signs(unpack_bits(block.weights, block.channels), np.int64).sum(axis=-1)
    factor = -255 if kind == "u8" else -1
    for y in range(block.out_height):
        for x in range(block.out_width):
            top, left = y * block.stride[0] - block.padding[0], x * block.stride[1] - block.padding[1]
            rows = [i for i in range(block.kernel[0]) if 0 <= top + i < block.height]
            columns = [j for j in range(block.kernel[1]) if 0 <= left + j < block.width]
            start = made["offsets"][y] + made["offsets"][block.out_height + x]
            row = made["corrections"][start : start + 64]
            assert row[:5].tolist() == (factor * signs[:, rows][:, :, columns].sum(axis=(1, 2))).tolist()
            assert not row[5:].any()
    assert made["offsets"].shape == (block.out_height + block.out_width,)


def test_interior_pixels_share_one_class():
    block = make_block(size=(32, 32), kernel=(3, 3), padding=(1, 1))
    assert corrections(block, 64)["corrections"].size == 9 * 64
    assert not why_no_corrections(block, 64)
    assert "border classes" in why_no_corrections(block, 1 << 24)


def test_constants_of_padding_channels_never_set_a_bit():
    thresholds = np.array([-(2**31), 2**31 - 1, 0], np.int32)
    falling = np.array([True, False, True])
    block = make_block(out_channels=3, output="bits", thresholds=thresholds, falling=falling)
    made = channel_constants(block, 128)
    assert made["first"].dtype == np.int32
    assert made["first"].tolist() == [*thresholds.tolist(), *[NEVER] * 125]
    assert made["second"].tolist() == [0b101, 0]
    scale, shift = np.array([1.5, -2, 0], np.float32), np.array([-0.0, 1, 3], np.float32)
    made = channel_constants(make_block(out_channels=3, output="f32", scale=scale, shift=shift), 8)
    assert made["first"].tolist() == [*scale.tolist(), *[0] * 5]
    assert made["second"].tobytes() == np.concatenate((shift, np.zeros(5, np.float32))).tobytes()
    assert channel_constants(make_block(), 64) == {}


def test_arguments_and_rows():
    block = make_block(size=(5, 7), kernel=(3, 3), padding=(1, 0), stride=(2, 1))
    given = block_arguments(block, 3, 256, 512, {"weights": 1024})
    assert [int(value) for value in given] == [256, 512, 1024, 0, 0, 0, 0, 45, 5, 7, 70, 3, 3, 2, 1, 1, 0, 3, 5, 5, 0]
    assert {type(value) for value in given[:7]} == {np.uint64}
    assert {type(value) for value in given[7:]} == {np.int32}
    with pytest.raises(UsageError, match="split the batch"):
        rows_of(block, 1 << 31)


def test_count_ones():
    bits = np.random.default_rng(0).integers(0, 2, (3, 5, 200)).astype(bool)
    assert count_ones(pack_bits(bits)).tolist() == bits.sum(axis=-1).tolist()
    assert num_words(200) == 4
    assert round_up(65, 64) == 128
