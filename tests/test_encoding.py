"""What a bit means: against literal words and against plain Python."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from binarynet.encoding import (
    EXACT_FLOAT32_LIMIT,
    INPUT_MAX,
    WORD_DTYPE,
    num_words,
    pack_bits,
    padding_is_zero,
    to_signs,
    unpack_bits,
)
from binarynet.errors import ShapeError


def test_words_are_little_endian_and_least_significant_bit_first():
    assert pack_bits([True]).tolist() == [1]
    assert pack_bits([False, True, False, False, True]).tolist() == [0b10010]
    bits = [False] * 130
    bits[63] = bits[64] = bits[129] = True
    assert pack_bits(bits).tolist() == [1 << 63, 1, 1 << 1]
    assert pack_bits(bits).tobytes() == bytes([0] * 7 + [0x80] + [1] + [0] * 7 + [2] + [0] * 7)
    assert np.dtype("<u8") == WORD_DTYPE


@pytest.mark.parametrize(("bits", "words"), [(0, 0), (1, 1), (63, 1), (64, 1), (65, 2), (128, 2), (129, 3)])
def test_number_of_words(bits, words):
    assert num_words(bits) == words
    assert pack_bits(np.ones((2, bits), bool)).shape == (2, words)


@given(st.lists(st.lists(st.booleans(), min_size=67, max_size=67), max_size=3), st.integers(0, 67))
def test_packing_equals_plain_python_and_comes_back(rows, length):
    rows = [row[:length] for row in rows]
    array = np.array(rows, bool).reshape(len(rows), length)
    packed = pack_bits(array)
    for row, words in zip(rows, packed, strict=True):
        number = sum(1 << i for i, bit in enumerate(row) if bit)
        assert [int(word) for word in words] == [(number >> (64 * i)) & (2**64 - 1) for i in range(num_words(length))]
    assert np.array_equal(unpack_bits(packed, length), array)
    assert padding_is_zero(packed, length)


@given(st.integers(1, 200), st.integers(0, 2**32))
def test_dot_product_by_xor_and_popcount(length, seed):
    a, b = np.random.default_rng(seed).integers(0, 2, (2, length)).astype(bool)
    different = sum(int(word).bit_count() for word in pack_bits(a) ^ pack_bits(b))
    assert length - 2 * different == int(to_signs(a, np.int64) @ to_signs(b, np.int64))


def test_signs():
    signs = to_signs(np.array([True, False]))
    assert (signs.tolist(), signs.dtype) == ([1, -1], np.int8)
    assert to_signs(np.array([[False]]), np.float32).tolist() == [[-1.0]]


def test_packing_takes_integers_and_views():
    array = np.arange(24).reshape(4, 6)[::2, ::-1] % 2
    assert np.array_equal(unpack_bits(pack_bits(array), 6), array.astype(bool))
    words = pack_bits(np.ones((4, 70), bool))[::2]
    assert unpack_bits(words, 70).all()


@pytest.mark.parametrize("bit", [5, 6, 63])
def test_padding_is_noticed(bit):
    assert padding_is_zero(np.array([0b11111], np.uint64), 5)
    assert not padding_is_zero(np.array([1 << bit], np.uint64), 5)
    assert padding_is_zero(np.array([2**64 - 1], np.uint64), 64)
    assert padding_is_zero(np.zeros((0, 1), np.uint64), 5)
    assert not padding_is_zero(np.array([[0, 0], [0, 1 << bit]], np.uint64), 69)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: pack_bits(True), "at least one axis, got a scalar"),
        (lambda: unpack_bits(np.zeros(2, np.uint64), 64), r"64 bits need uint64 \[\.\.\., 1\], got uint64 \[2\]"),
        (lambda: unpack_bits(np.zeros(1, np.int64), 64), r"got int64 \[1\]"),
        (lambda: unpack_bits(np.array(np.uint64(1)), 1), r"got uint64 \[\]"),
    ],
)
def test_wrong_arrays_are_refused(call, message):
    with pytest.raises(ShapeError, match=message):
        call()


def test_float32_holds_every_integer_up_to_the_limit_and_no_further():
    assert int(np.float32(EXACT_FLOAT32_LIMIT)) == EXACT_FLOAT32_LIMIT
    assert int(np.float32(EXACT_FLOAT32_LIMIT - 1)) == EXACT_FLOAT32_LIMIT - 1
    assert int(np.float32(EXACT_FLOAT32_LIMIT + 1)) != EXACT_FLOAT32_LIMIT + 1
    assert EXACT_FLOAT32_LIMIT // INPUT_MAX == 65_793
