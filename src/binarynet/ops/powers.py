"""AP2, the nearest power of two (arXiv 1602.02830, section 1.4): what makes a multiplication a shift."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function_unary

from binarynet.errors import ShapeError
from binarynet.ops import kernels

_ROOT_HALF = math.sqrt(0.5)
"""The smallest float64 above sqrt(1/2) (it rounds up), so that ``m >= _ROOT_HALF`` is exact for float64."""


@dataclass(frozen=True)
class _Layout:
    """Where a float keeps its sign, exponent and mantissa."""

    integer: torch.dtype
    mantissa_bits: int
    bias: int
    root_two: int
    """The mantissa's bits of the smallest float above sqrt(2)."""

    @property
    def carry(self) -> int:
        """Added to a float's bits, it overflows into the exponent exactly where the mantissa is above sqrt(2)."""
        return (1 << self.mantissa_bits) - self.root_two

    @property
    def infinity(self) -> int:
        return (2 * self.bias + 1) << self.mantissa_bits


_LAYOUTS = {
    torch.float32: _Layout(torch.int32, 23, 127, 0x3504F4),  # 0x3504F3.33F9...
    torch.float64: _Layout(torch.int64, 52, 1023, 0x6A09E667F3BCD),  # 0x6A09E667F3BCC.908B...
}


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
    if x.dtype not in _LAYOUTS:
        return round_to_ap2(x.float()).to(x.dtype)
    if (native := kernels.fast(x)) is not None:
        result = torch.empty_like(x)
        native.round_to_ap2(kernels.flat(x), kernels.flat(result), torch.get_num_threads())
        return result
    layout = _LAYOUTS[x.dtype]
    bits = x.view(layout.integer)
    sign = bits & torch.iinfo(layout.integer).min
    magnitude = bits ^ sign
    rounded = (magnitude.clamp(max=layout.infinity) + layout.carry) & layout.infinity
    # A subnormal is an integer times the smallest one: as a float of its own, the integer has an exponent, too.
    counted = magnitude.to(x.dtype).view(layout.integer) + layout.carry
    exponent = ((counted >> layout.mantissa_bits) - layout.bias).clamp(0, layout.mantissa_bits)
    subnormal = torch.where(magnitude == 0, 0, torch.ones_like(bits) << exponent)
    rounded = torch.where(magnitude < 1 << layout.mantissa_bits, subnormal, rounded)
    return torch.where(magnitude > layout.infinity, bits, rounded | sign).view(x.dtype)


class _StraightThroughAp2(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return round_to_ap2(x)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> Tensor:
        return grad_outputs[0]
