"""Deterministic and stochastic binarization (Hubara et al. 2016, arXiv 1602.02830, eqs. 1 to 5).

Every function maps a float tensor of any shape to +1 / -1 of the same shape, dtype and device, with
``sign(0) = sign(-0.0) = +1``. They appear in a ``torch.fx`` trace as one node whose target is the function itself.

NaN has no sign. Looking for it would cost a host synchronisation per call, so it is looked for where numbers leave
the training step (logging interval, evaluation, packing) and, here, under ``torch.autograd.set_detect_anomaly``.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function_unary

from binarynet.errors import NonFiniteError, ShapeError


def sign(x: Tensor) -> Tensor:
    """+1 where ``x >= 0``, else -1; the gradient passes where ``|x| <= 1``.

    Forward ``q = +1 if x >= 0 else -1`` (eq. 1). Backward ``g_x = g_q * 1[|x| <= 1]``, bound included (eq. 4): the
    derivative of ``clip(x, -1, 1)`` stands in for the derivative of the step.

    Args:
        x: float tensor, any shape.

    Returns:
        +1 / -1, same shape and dtype.

    Raises:
        ShapeError: ``x`` is not a float tensor.
        NonFiniteError: ``x`` holds NaN, and anomaly detection is on.
    """
    if has_torch_function_unary(x):
        return _traced(sign, x)
    _check("sign", x)
    return _ClippedSign.apply(x)  # type: ignore[no-any-return, no-untyped-call]


def stochastic_sign(x: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """+1 with probability ``clip((x + 1) / 2, 0, 1)``, else -1 (eq. 2); the gradient is that of :func:`sign`.

    At ``x >= 1`` the result is always +1, at ``x <= -1`` always -1.

    Args:
        x: float tensor, any shape.
        generator: source of the noise, on the device of ``x``; torch's global generator by default.

    Returns:
        +1 / -1, same shape and dtype.

    Raises:
        ShapeError: ``x`` is not a float tensor.
        NonFiniteError: ``x`` holds NaN, and anomaly detection is on.
    """
    if has_torch_function_unary(x):
        return _traced(stochastic_sign, x, generator=generator)
    _check("stochastic_sign", x)
    if generator is None:  # in a compiled graph, torch.rand with a generator refuses sizes that vary
        noise = torch.rand_like(x, dtype=_noise_dtype(x), memory_format=torch.contiguous_format)
    else:
        noise = torch.rand(x.shape, generator=generator, device=x.device, dtype=_noise_dtype(x))
    return _ClippedStochasticSign.apply(x, noise)  # type: ignore[no-any-return, no-untyped-call]


def binarize_weight(weight: Tensor) -> Tensor:
    """Sign of a latent weight; the gradient with respect to the binary weight goes to the latent one unchanged.

    There is no mask: the latent weight is kept in [-1, 1] by clipping after each update instead
    (arXiv 1602.02830, section 1.3).

    Args:
        weight: float tensor, any shape.

    Returns:
        +1 / -1, same shape and dtype.

    Raises:
        ShapeError: ``weight`` is not a float tensor.
        NonFiniteError: ``weight`` holds NaN, and anomaly detection is on.
    """
    if has_torch_function_unary(weight):
        return _traced(binarize_weight, weight)
    _check("binarize_weight", weight)
    return _UnmaskedSign.apply(weight)  # type: ignore[no-any-return, no-untyped-call]


class _ClippedSign(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return _sign_with_zero_up(x)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return _inside_window(grad_outputs[0], x)


class _ClippedStochasticSign(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, noise: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        probability = ((x.to(noise.dtype) + 1) / 2).clamp(0, 1)
        return (noise < probability).to(x.dtype).mul_(2).sub_(1)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None]:
        (x,) = ctx.saved_tensors
        return _inside_window(grad_outputs[0], x), None


class _UnmaskedSign(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weight: Tensor) -> Tensor:
        return _sign_with_zero_up(weight)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> Tensor:
        return grad_outputs[0]


def _inside_window(gradient: Tensor, x: Tensor) -> Tensor:
    return gradient * (x.abs() <= 1)


def _sign_with_zero_up(x: Tensor) -> Tensor:
    # Three vectorized passes: {-1, 0, 1} + 0.5 = {-0.5, 0.5, 1.5}. On the CPU, torch.where takes nine times as long.
    return x.sign().add_(0.5).sign_()


def _noise_dtype(x: Tensor) -> torch.dtype:
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def _traced(function: Any, x: Tensor, **options: Any) -> Tensor:
    result: Tensor = handle_torch_function(function, (x,), x, **options)
    return result


def _check(name: str, x: Tensor) -> None:
    if not x.is_floating_point():
        raise ShapeError(f"{name}: expected a float tensor, got {x.dtype} {list(x.shape)}; convert it first")
    if not torch.compiler.is_compiling() and torch.is_anomaly_enabled() and bool(torch.isnan(x).any()):
        raise NonFiniteError(f"{name}: the input {list(x.shape)} holds NaN, which has no sign")
