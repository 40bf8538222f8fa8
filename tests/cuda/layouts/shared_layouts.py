"""Where the tensor copy engine and wgmma's matrix descriptors put or expect bytes in shared memory.

Swizzles here are the pictures of the PTX ISA, rows of 128 bytes in which 16-byte pieces change places; the simulator
does the same with address bits. Descriptors are CuTe's canonical K-major layouts, from which the document defines them;
the simulator adds up strides. A box is a slice of an array padded with zeros; the simulator walks over elements.
"""

from __future__ import annotations

import numpy as np

PIECE = 16
LINE = 128
LINES = 8  # after which every pattern repeats at the latest

MODES = {0: 0, 128: 1, 64: 2, 32: 3}
"""Of matrix descriptors, by swizzle bytes."""


def pattern(swizzle):
    """For the 8 lines of 8 pieces that begin at a multiple of 1024: in which line's column each piece lies, ``[8, 8]``.

    32 bytes: two pieces change places in every other line. 64 bytes: groups of four pieces, with a period of four
    lines. 128 bytes: all eight, eight lines.
    """
    line, column = np.mgrid[:LINES, :LINES]
    group = max(swizzle // PIECE, 1)  # pieces that change places among themselves
    start = column // group * group
    within = column % group
    moved = within ^ (line % group)
    return start + moved


def placed(data, swizzle):
    """Bytes as they lie in shared memory from a multiple of 1024 on: uint8 ``[n]``, padded to whole patterns."""
    size = -(-len(data) // (LINE * LINES)) * LINE * LINES
    lines = np.zeros(size, dtype=data.dtype)
    lines[: len(data)] = data
    lines = lines.reshape(-1, LINES, LINES, PIECE)
    result = np.empty_like(lines)
    at = pattern(swizzle)
    for line in range(LINES):
        result[:, line, at[line]] = lines[:, line]
    return result.ravel()


def descriptor(start, swizzle, *, leading=0, stride=0, base=0):
    """The 64-bit matrix descriptor; all in bytes."""
    fields = ((start, 0), (leading, 16), (stride, 32))
    value = sum((number & 0x3FFFF) >> 4 << bit for number, bit in fields)
    return value | base << 49 | MODES[swizzle] << 62


def cute_swizzle(bits, offset):
    """Swizzle<bits, 4, 3> of CuTe, in bytes: bits 7.. of the offset XORed into bits 4.. ."""
    mask = ((1 << bits) - 1) << 7
    return offset ^ (offset & mask) >> 3


def canonical(rows, swizzle, *, leading=0, stride=0):
    """Byte offsets of the 16-byte pieces of a K-major operand of `rows` rows and 32 bytes of K, ``[rows, 2]``.

    ((8, m), (T, 2k)) : ((1T, SBO), (1, LBO)) without a swizzle, ((S T, SBO), (1, T)) with one of S pieces, T a piece.
    """
    row, piece = np.mgrid[:rows, :2]
    if swizzle == 0:
        return row % 8 * PIECE + row // 8 * stride + piece * leading
    span = swizzle // PIECE
    offset = row % 8 * span * PIECE + row // 8 * stride + piece * PIECE
    return cute_swizzle({2: 1, 4: 2, 8: 3}[span], offset)


def box(array, coordinates, shape, steps=None):
    """What a tensor copy of a box brings: the part of ``array`` from ``coordinates`` on, zeros outside.

    All tuples slowest dimension first, as NumPy has them; ``shape`` counts elements before steps.
    """
    steps = steps or (1,) * array.ndim
    index, inside = [], np.ones((), dtype=bool)
    for axis, (first, size, step) in enumerate(zip(coordinates, shape, steps, strict=True)):
        positions = first + np.arange(0, size, step)
        valid = (positions >= 0) & (positions < array.shape[axis])
        index.append(np.where(valid, positions, 0))
        inside = inside[..., None] & valid
    return np.where(inside, array[np.ix_(*index)], 0).astype(array.dtype)


def banks(addresses, width):
    """Bank conflicts of one access by a warp: how often the fullest bank is used, over the wavefronts needed at least.

    Args:
        addresses: byte address of every lane, ``[32]``.
        width: bytes per lane: 4, 8 or 16. Wide accesses are served by halves or quarters of the warp.

    Returns:
        Wavefronts: 1, 2 or 4 for 4, 8 or 16 bytes per lane where there is no conflict (fewer where lanes read the same
        word).
    """
    addresses = np.asarray(addresses)
    lanes = 32 * 4 // width
    total = 0
    for first in range(0, len(addresses), lanes):
        words = {int(a) // 4 + w for a in addresses[first : first + lanes] for w in range(width // 4)}
        uses = np.bincount([word % 32 for word in words], minlength=32)
        total += int(uses.max())
    return total
