"""What a bit means: the one truth, shared with ``native/include/binarynet.h`` and ``fileformat/SPEC.md``.

* bit 1 is +1, bit 0 is -1; ``sign(0) = sign(-0.0) = +1``
* bits fill little-endian 64-bit words, least significant bit first
* padding bits (from the true length up to the next word) are 0 in every operand, so they cancel under XOR
* dot product of two packed vectors of true length K: ``K - 2 * popcount(a XOR b)``
* an 8-bit input u (0..255) stands for the odd integer ``2u - 255``
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from binarynet.errors import ShapeError

WORD_BITS = 64
WORD_DTYPE = np.dtype("<u8")

INPUT_MAX = 255
"""Largest 8-bit input, and the largest magnitude of the odd integer that it stands for."""

EXACT_FLOAT32_LIMIT = 1 << 24
"""float32 holds every integer up to this magnitude; sums beyond it are refused."""

Words = npt.NDArray[np.uint64]


def num_words(num_bits: int) -> int:
    """Number of 64-bit words that hold ``num_bits`` bits."""
    return -(-num_bits // WORD_BITS)


def pack_bits(bits: npt.ArrayLike) -> Words:
    """Pack bits along the last axis into words.

    Args:
        bits: bool (or 0/1 integer) array ``[..., n]``; True is +1.

    Returns:
        uint64 ``[..., num_words(n)]``, padding bits 0.
    """
    array = np.asarray(bits)
    if array.ndim == 0:
        raise ShapeError("pack_bits: expected an array with at least one axis, got a scalar")
    n = array.shape[-1]
    packed_bytes = np.packbits(array.astype(bool, copy=False), axis=-1, bitorder="little")
    padded = np.zeros((*array.shape[:-1], num_words(n) * 8), dtype=np.uint8)
    padded[..., : packed_bytes.shape[-1]] = packed_bytes
    return padded.view(WORD_DTYPE)


def unpack_bits(words: npt.NDArray[Any], num_bits: int) -> npt.NDArray[np.bool_]:
    """Inverse of :func:`pack_bits`: uint64 ``[..., num_words(n)]`` to bool ``[..., n]``."""
    if words.dtype != WORD_DTYPE or words.ndim == 0 or words.shape[-1] != num_words(num_bits):
        raise ShapeError(
            f"unpack_bits: {num_bits} bits need uint64 [..., {num_words(num_bits)}], "
            f"got {words.dtype} {list(words.shape)}"
        )
    as_bytes = np.ascontiguousarray(words).view(np.uint8)
    return np.unpackbits(as_bytes, axis=-1, count=num_bits, bitorder="little").view(np.bool_)


def padding_is_zero(words: Words, num_bits: int) -> bool:
    """True if every bit of the last word beyond ``num_bits`` is 0."""
    used = num_bits % WORD_BITS
    if used == 0 or words.size == 0:
        return True
    return not bool(np.any(words[..., -1] >> np.uint64(used)))


def to_signs(bits: npt.NDArray[np.bool_], dtype: npt.DTypeLike = np.int8) -> npt.NDArray[Any]:
    """Bits to +1 / -1 of the given dtype, same shape."""
    signs = bits.astype(dtype)
    signs *= 2
    signs -= 1
    return signs
