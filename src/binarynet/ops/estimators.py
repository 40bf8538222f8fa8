"""The sign with other gradients than that of :func:`binarynet.ops.sign`. In the forward pass, all are the sign.

============== ================================================ ==========================================
function       gradient factor at x                             source
============== ================================================ ==========================================
sign           1 where ``|x| <= 1``, else 0: the clipped        Hubara et al. 2016, arXiv 1602.02830, eq. 4
               identity, derivative of hard tanh
identity_sign  1                                                Bengio et al. 2013, arXiv 1308.3432
approx_sign    ``2 - 2|x|`` where ``|x| <= 1``, else 0          Liu et al. 2018, arXiv 1808.00278
swish_sign     derivative of a sharpened swish, see there       Darabi et al. 2018, arXiv 1812.11800
============== ================================================ ==========================================
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.overrides import has_torch_function_unary

from binarynet.ops.binarize import _check, _sign_with_zero_up, _traced, _UnmaskedSign

_FLAT = 80.0
"""Beyond this the swish's slope is below 1e-32 of its peak, and cosh nears the end of float32."""


def identity_sign(x: Tensor) -> Tensor:
    """The sign, with the plain straight-through estimator: the gradient passes unchanged everywhere.

    Forward ``q = +1 if x >= 0 else -1``. Backward ``g_x = g_q`` (Bengio et al. 2013, arXiv 1308.3432). Without the
    clipping of :func:`binarynet.ops.sign`, activations may drift away from the threshold; put an ``nn.Hardtanh``
    before it to have the clipped one (some codes write it so).

    Args:
        x: float tensor, any shape.

    Returns:
        +1 / -1, same shape and dtype.

    Raises:
        ShapeError: ``x`` is not a float tensor.
        NonFiniteError: ``x`` holds NaN, and anomaly detection is on.
    """
    if has_torch_function_unary(x):
        return _traced(identity_sign, x)
    _check("identity_sign", x)
    return _UnmaskedSign.apply(x)  # type: ignore[no-any-return, no-untyped-call]


def approx_sign(x: Tensor) -> Tensor:
    """The sign, with the gradient of a piecewise parabola: Bi-Real Net's ApproxSign.

    Forward ``q = +1 if x >= 0 else -1``. Backward ``g_x = g_q * (2 - 2|x|)`` where ``|x| <= 1``, else 0: the slope of
    ``2x + x^2`` for x in [-1, 0) and ``2x - x^2`` for x in [0, 1) (Liu et al. 2018, arXiv 1808.00278, section 3.3).

    Args:
        x: float tensor, any shape.

    Returns:
        +1 / -1, same shape and dtype.

    Raises:
        ShapeError: ``x`` is not a float tensor.
        NonFiniteError: ``x`` holds NaN, and anomaly detection is on.
    """
    if has_torch_function_unary(x):
        return _traced(approx_sign, x)
    _check("approx_sign", x)
    return _ApproxSign.apply(x)  # type: ignore[no-any-return, no-untyped-call]


def swish_sign(x: Tensor, beta: float = 5.0) -> Tensor:
    """The sign, with the gradient of a sharpened swish: BNN+'s SignSwish.

    Forward ``q = +1 if x >= 0 else -1``. Backward, with ``t = beta * x``,
    ``g_x = g_q * beta * (2 - t * tanh(t / 2)) / (1 + cosh(t))``: the slope of
    ``2 sigmoid(t) (1 + t (1 - sigmoid(t))) - 1`` (Darabi et al. 2018, arXiv 1812.11800, section 3). It is ``beta`` at
    0 and slightly negative beyond about ``|t| = 2.4``; where ``|t| > 80`` it is taken as 0.

    Args:
        x: float tensor, any shape.
        beta: sharpness; the paper uses 5 and 10.

    Returns:
        +1 / -1, same shape and dtype.

    Raises:
        ShapeError: ``x`` is not a float tensor.
        NonFiniteError: ``x`` holds NaN, and anomaly detection is on.
    """
    if has_torch_function_unary(x):
        return _traced(swish_sign, x, beta=beta)
    _check("swish_sign", x)
    return _SwishSign.apply(x, beta)  # type: ignore[no-any-return, no-untyped-call]


class _ApproxSign(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return _sign_with_zero_up(x)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        gradient: Tensor = grad_outputs[0] * (2 - 2 * x.abs()).clamp(min=0)
        return gradient


class _SwishSign(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, beta: float) -> Tensor:
        ctx.save_for_backward(x)
        ctx.beta = beta
        return _sign_with_zero_up(x)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None]:
        (x,) = ctx.saved_tensors
        wide = x if x.dtype == torch.float64 else x.float()  # cosh passes the range of float16 at 12
        t = (wide * ctx.beta).clamp(-_FLAT, _FLAT)
        slope = ctx.beta * (2 - t * torch.tanh(t / 2)) / (1 + torch.cosh(t))
        slope = torch.where(t.abs() < _FLAT, slope, 0)
        return grad_outputs[0] * slope.to(x.dtype), None
