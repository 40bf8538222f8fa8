"""Normalization followed by sign, as one integer comparison per channel.

In eval mode the network computes, for an integer sum s, ``y = float32(float32(s) * scale) + shift`` and then the bit
``y >= 0``. Both roundings are monotone, so the bit is a monotone function of s: rising where scale > 0, falling
where scale < 0, constant where scale = 0. Hence one threshold per channel says the same as the float expression for
every integer within reach, and bisection over *that very expression* finds it: no formula such as
``mean - beta * sigma / gamma`` comes near the last bit.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from binarynet.errors import NonFiniteError

Float32s = npt.NDArray[np.float32]


def fold_thresholds(
    scale: Float32s, shift: Float32s, bound: int
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.bool_]]:
    """Thresholds that equal ``sign(sum * scale + shift)`` for every integer sum of magnitude up to ``bound``.

    Args:
        scale, shift: float32 ``[c]``, the affine map of the normalization.
        bound: largest magnitude of the sums, at most 2^24.

    Returns:
        thresholds int32 ``[c]`` within [-bound, bound + 1], and falling bool ``[c]``:
        ``bit = (sum >= threshold) != falling``.

    Raises:
        NonFiniteError: a scale or shift is not finite; names the channel.
    """
    for label, values in (("scale", scale), ("shift", shift)):
        if not np.isfinite(values).all():
            channel = int(np.flatnonzero(~np.isfinite(values))[0])
            raise NonFiniteError(f"{label} of channel {channel} is {values[channel]}, expected a finite number")
    falling = scale < 0
    # Invariant of the bisection: the comparison `bit != falling` is False at `low` and True at `high`.
    low = np.full(scale.shape, -bound - 2, dtype=np.int64)
    high = np.full(scale.shape, bound + 2, dtype=np.int64)
    while np.any(high - low > 1):
        middle = (low + high) // 2
        reached = (_normalized(middle, scale, shift) >= 0) != falling
        high = np.where(reached, middle, high)
        low = np.where(reached, low, middle)
    return np.clip(high, -bound, bound + 1).astype(np.int32), falling


def _normalized(sums: npt.NDArray[np.int64], scale: Float32s, shift: Float32s) -> Float32s:
    with np.errstate(over="ignore", under="ignore"):
        scaled: Float32s = sums.astype(np.float32) * scale
        normalized: Float32s = scaled + shift
    return normalized
