"""Memory that callers give for a result."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from binarynet.errors import UsageError

Array = npt.NDArray[Any]


def check_out_array(out: Array, dtype: np.dtype[Any], shape: tuple[int, ...]) -> None:
    """Refuse an array that cannot take a result of this dtype and shape.

    Raises:
        UsageError: another dtype or shape, or memory that is not contiguous, not aligned or not to be written.
    """
    if (out.dtype, out.shape) != (dtype, shape):
        raise UsageError(f"out: expected a NumPy array {dtype} {list(shape)}, got {out.dtype} {list(out.shape)}")
    if not out.flags.carray:
        raise UsageError("out: expected an array that is C-contiguous, aligned and may be written")
