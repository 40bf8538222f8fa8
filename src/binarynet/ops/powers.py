"""AP2, the nearest power of two (arXiv 1602.02830, section 1.4): what makes a multiplication a shift."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function_unary

from binarynet.errors import ShapeError

_ROOT_HALF = math.sqrt(0.5)
"""The smallest float64 above sqrt(1/2) (it rounds up), so that ``m >= _ROOT_HALF`` is exact for float64."""

_ROOT_HALF_FLOAT32 = 11863284 * 2.0**-24
"""The smallest float32 above sqrt(1/2); a power of two times 11863284, the next integer above 2^24 * sqrt(1/2)."""


def ap2(x: Tensor) -> Tensor:
    """``sign(x) * 2^round(log2|x|)``: the nearest power of two in the log domain; the gradient passes unchanged.

    Exact for every float of every dtype, subnormals included: ``x = m * 2^e`` with ``1/2 <= |m| < 1`` is rounded up
    where ``|m| > sqrt(1/2)``, and no logarithm is taken (that of float32 rounds wrongly next to ``sqrt(2) * 2^k``).
    ``ap2(0) = 0`` and ``ap2(-0.0) = -0.0``, infinities and NaN stay what they are, and a value whose nearest power of
    two lies beyond the dtype's range becomes infinite.

    Args:
        x: float tensor, any shape.

    Returns:
        Signed powers of two and zeros, same shape and dtype.

    Raises:
        ShapeError: ``x`` is not a float tensor.
    """
    if has_torch_function_unary(x):
        result: Tensor = handle_torch_function(ap2, (x,), x)
        return result
    if not x.is_floating_point():
        raise ShapeError(f"ap2: expected a float tensor, got {x.dtype} {list(x.shape)}; convert it first")
    return _StraightThroughAp2.apply(x)  # type: ignore[no-any-return, no-untyped-call]


def ap2_value(x: float) -> float:
    """:func:`ap2` of one Python float, exactly.

    Raises:
        OverflowError: the nearest power of two is 2^1024.
    """
    if x == 0 or not math.isfinite(x):
        return x
    mantissa, exponent = math.frexp(abs(x))
    return math.copysign(math.ldexp(1.0, exponent if mantissa >= _ROOT_HALF else exponent - 1), x)


def round_to_ap2(x: Tensor) -> Tensor:
    """:func:`ap2` outside of autograd, for the formulas that state their own gradients."""
    if x.dtype not in (torch.float32, torch.float64):
        return round_to_ap2(x.float()).to(x.dtype)
    magnitude = x.abs()
    mantissa = torch.frexp(magnitude).mantissa
    # x / 2m is a power of two within range whatever the exponent, hence the quotient is exact.
    below = x / (mantissa * 2)
    root = _ROOT_HALF if x.dtype == torch.float64 else _ROOT_HALF_FLOAT32
    rounded = torch.where(mantissa >= root, below * 2, below)
    return torch.where((magnitude > 0) & (magnitude < math.inf), rounded, x)


class _StraightThroughAp2(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return round_to_ap2(x)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> Tensor:
        return grad_outputs[0]
