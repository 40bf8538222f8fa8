"""Which element of a matrix each lane holds in which place: the formulas of the PTX ISA, one by one.

Section "Matrix fragments" of every mma shape, "Register fragments" of wgmma, and ldmatrix. A layout is an int array
``[lanes, elements, 2]`` of rows and columns; element i of a lane lies in its registers from low to high.
"""

from __future__ import annotations

import numpy as np

Layout = np.ndarray


def _tabulate(lanes, elements, place) -> Layout:
    return np.array([[place(lane, i) for i in range(elements)] for lane in range(lanes)])


# For (m, n, k): row and column of element i, given groupID and threadID_in_group.
_A = {
    (16, 8, 256): (
        128,
        lambda g, t, i: (
            g if i < 32 or 64 <= i < 96 else g + 8,
            t * 32 + (i & 31) if i < 64 else t * 32 + (i & 31) + 128,
        ),
    ),
    (16, 8, 128): (64, lambda g, t, i: (g if i < 32 else g + 8, t * 32 + (i & 31))),
    (8, 8, 128): (32, lambda g, t, i: (g, t * 32 + i)),
    (16, 8, 32): (
        16,
        lambda g, t, i: (
            g if i < 4 or 8 <= i < 12 else g + 8,
            t * 4 + (i & 3) if i < 8 else t * 4 + (i & 3) + 16,
        ),
    ),
    (16, 8, 16): (8, lambda g, t, i: (g if i < 4 else g + 8, t * 4 + (i & 3))),
    (8, 8, 16): (4, lambda g, t, i: (g, t * 4 + i)),
}
_B = {
    (16, 8, 256): (64, lambda g, t, i: (t * 32 + (i & 31) + (0 if i < 32 else 128), g)),
    (16, 8, 128): (32, lambda g, t, i: (t * 32 + i, g)),
    (8, 8, 128): (32, lambda g, t, i: (t * 32 + i, g)),
    (16, 8, 32): (8, lambda g, t, i: (t * 4 + (i & 3) + (0 if i < 4 else 16), g)),
    (16, 8, 16): (4, lambda g, t, i: (t * 4 + i, g)),
    (8, 8, 16): (4, lambda g, t, i: (t * 4 + i, g)),
}
SHAPES = tuple(_A)
ELEMENT_BITS = {256: 1, 128: 1, 32: 8, 16: 8}
"""By k of a shape."""


def mma_a(shape) -> Layout:
    elements, place = _A[shape]
    return _tabulate(32, elements, lambda lane, i: place(lane >> 2, lane % 4, i))


def mma_b(shape) -> Layout:
    elements, place = _B[shape]
    return _tabulate(32, elements, lambda lane, i: place(lane >> 2, lane % 4, i))


def mma_c(shape) -> Layout:
    return _tabulate(32, shape[0] // 4, lambda lane, i: ((lane >> 2) + (8 if i >= 2 else 0), (lane % 4) * 2 + (i & 1)))


def wgmma_a(bits) -> Layout:
    """A of m64nNk256 (1 bit) or m64nNk32 (8 bits) in registers: warp w holds rows 16 w to 16 w + 15."""
    run = 32 // bits

    def place(lane, i):
        quarter, within = divmod(i, run)
        row = 16 * (lane // 32) + (lane % 32) // 4 + (8 if quarter in (1, 3) else 0)
        return row, run * (lane % 4) + within + (4 * run if quarter >= 2 else 0)

    return _tabulate(128, 4 * run, place)


def wgmma_d(n) -> Layout:
    """Accumulators of m64nN: groups of eight columns, in each two neighbours of a row and two of the row 8 below."""

    def place(lane, i):
        group, within = divmod(i, 4)
        row = 16 * (lane // 32) + (lane % 32) // 4 + (8 if within >= 2 else 0)
        return row, 8 * group + 2 * (lane % 4) + within % 2

    return _tabulate(128, n // 2, place)


def ldmatrix(transposed) -> Layout:
    """The two 16-bit elements that a lane holds of one 8x8 matrix."""
    layout = _tabulate(32, 2, lambda lane, i: (lane // 4, 2 * (lane % 4) + i))
    return layout[:, :, ::-1] if transposed else layout


def gather(matrix, layout):
    """Elements ``[lanes, elements]`` of a matrix."""
    return matrix[layout[..., 0], layout[..., 1]]


def scatter(elements, layout):
    """The matrix that the lanes hold together; every place must be held exactly once."""
    rows, columns = layout.reshape(-1, 2).max(axis=0) + 1
    matrix = np.zeros((rows, columns), dtype=elements.dtype)
    matrix[layout[..., 0], layout[..., 1]] = elements
    return matrix


def to_registers(elements, bits):
    """Elements of 1 or 8 bits, ``[lanes, elements]``, to uint32 registers, first element lowest."""
    if bits == 1:
        packed = np.packbits(elements.astype(np.uint8), axis=1, bitorder="little")
    else:
        packed = elements.astype(np.uint8)
    return np.ascontiguousarray(packed).view("<u4")


def is_bijection(layout, rows, columns):
    places = layout[..., 0] * columns + layout[..., 1]
    inside = (layout >= 0).all() and (layout[..., 0] < rows).all() and (layout[..., 1] < columns).all()
    return bool(inside) and np.array_equal(np.sort(places.ravel()), np.arange(rows * columns))
