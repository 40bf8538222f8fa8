"""The identity by which one AND and popcount give exact sums of +-1, with zero padding, and its proof by brute force.

For taps inside of the image, with a and w as 0/1 bits: sum of (2a - 1)(2w - 1) = Kv - 2 pa - 2 pb + 4 popc(a & w), Kv
the number of those taps, pa and pb the ones of activations and weights there. Taps outside hold zero activations, so
that they add to neither pa nor the popcount; Kv - 2 pb depends on which taps are inside: the border class.
"""

from __future__ import annotations

import numpy as np


def windows(images, kernel, stride, padding):
    """``[n, h, w, c]`` to ``[n, h', w', kh, kw, c]``; taps outside are zero."""
    padded = np.pad(images, ((0, 0), (padding[0],) * 2, (padding[1],) * 2, (0, 0)))
    view = np.lib.stride_tricks.sliding_window_view(padded, kernel, axis=(1, 2))
    return view[:, :: stride[0], :: stride[1]].transpose(0, 1, 2, 4, 5, 3)


def inside(size, kernel, stride, padding):
    """Whether each tap of each output pixel lies in the image: ``[h', w', kh, kw]``."""
    ones = np.ones((1, *size, 1), dtype=bool)
    return windows(ones, kernel, stride, padding)[0, ..., 0]


def direct(images, weights, stride, padding):
    """Sums of +-1 products (or of 2u - 255 with +-1) of taps inside; images and weights are the numbers themselves."""
    kernel = weights.shape[1:3]
    return np.einsum("nhwijc,oijc->nhwo", windows(images, kernel, stride, padding), weights)


def class_table(size, weights, stride, padding):
    """Kv - 2 pb of every output pixel ``[h', w', out]``, and the number of different border classes among them.

    Args:
        weights: bits as 0/1, ``[out, kh, kw, c]``.
    """
    kernel = weights.shape[1:3]
    valid = inside(size, kernel, stride, padding)
    taps = valid.sum(axis=(2, 3)) * weights.shape[3]
    ones = np.einsum("hwij,oijc->hwo", valid.astype(np.int64), weights.astype(np.int64))
    classes = len(np.unique(valid.reshape(-1, kernel[0] * kernel[1]), axis=0))
    return taps[..., None] - 2 * ones, classes


def by_and(bits, weights, stride, padding):
    """The same sums as :func:`direct` of the +-1 numbers, from bits as 0/1 by AND and popcount alone."""
    kernel = weights.shape[1:3]
    taken = windows(bits.astype(np.int64), kernel, stride, padding)
    both = np.einsum("nhwijc,oijc->nhwo", taken, weights.astype(np.int64))
    ones = taken.sum(axis=(3, 4, 5))[..., None]
    table, _ = class_table(bits.shape[1:3], weights, stride, padding)
    return table - 2 * ones + 4 * both


def by_bytes(images, weights, stride, padding):
    """Sums of (2u - 255) w from u and w alone: 2 sum(u w) - 255 sum(w inside)."""
    kernel = weights.shape[1:3]
    signs = 2 * weights.astype(np.int64) - 1
    products = np.einsum("nhwijc,oijc->nhwo", windows(images.astype(np.int64), kernel, stride, padding), signs)
    table, _ = class_table(images.shape[1:3], weights, stride, padding)
    return 2 * products + 255 * table
