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
from binarynet.ops import kernels, noise


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


def stochastic_sign(x: Tensor, generator: torch.Generator | None = None, *, key: Tensor | None = None) -> Tensor:
    """+1 with probability ``clip((x + 1) / 2, 0, 1)``, else -1 (eq. 2); the gradient is that of :func:`sign`.

    At ``x >= 1`` the result is always +1, at ``x <= -1`` always -1. The probability is right to 2^-23. The noise is
    that of a key (:mod:`binarynet.ops.noise`): the same key and shape give the same noise on every device.

    Args:
        x: float tensor, any shape.
        generator: what the key is drawn from; by default torch's global generator of x's device.
        key: int64 with one element on x's device, see :func:`binarynet.ops.noise_key`; instead of a generator.

    Returns:
        +1 / -1, same shape and dtype.

    Raises:
        ShapeError: ``x`` is not a float tensor, or the key no key.
        UsageError: both a generator and a key.
        NonFiniteError: ``x`` holds NaN, and anomaly detection is on.
    """
    if has_torch_function_unary(x):
        return _traced(stochastic_sign, x, generator=generator, key=key)
    _check("stochastic_sign", x)
    key = noise.chosen_key("stochastic_sign", x, key, generator)
    return _ClippedStochasticSign.apply(x, key)  # type: ignore[no-any-return, no-untyped-call]


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


def stochastic_weight(weight: Tensor, generator: torch.Generator | None = None, *, key: Tensor | None = None) -> Tensor:
    """+1 with probability ``clip((w + 1) / 2, 0, 1)``, else -1; the gradient goes to the latent weight unchanged.

    Stochastic weights as the paper defines them (section 1.1): binary. (Its Torch7 program subtracts the noise and
    then leaves out the sign, so that its stochastic weights are real numbers; off by default there.)

    Args:
        weight: float tensor, any shape.
        generator, key: where the noise comes from, see :func:`stochastic_sign`.

    Returns:
        +1 / -1, same shape and dtype.

    Raises:
        ShapeError: ``weight`` is not a float tensor, or the key no key.
        UsageError: both a generator and a key.
        NonFiniteError: ``weight`` holds NaN, and anomaly detection is on.
    """
    if has_torch_function_unary(weight):
        return _traced(stochastic_weight, weight, generator=generator, key=key)
    _check("stochastic_weight", weight)
    key = noise.chosen_key("stochastic_weight", weight, key, generator)
    return _UnmaskedStochasticSign.apply(weight, key)  # type: ignore[no-any-return, no-untyped-call]


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
    def forward(ctx: Any, x: Tensor, key: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return noise.random_sign(x, key)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None]:
        (x,) = ctx.saved_tensors
        return _inside_window(grad_outputs[0], x), None


class _UnmaskedStochasticSign(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weight: Tensor, key: Tensor) -> Tensor:
        return noise.random_sign(weight, key)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None]:
        return grad_outputs[0], None


class _UnmaskedSign(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weight: Tensor) -> Tensor:
        return _sign_with_zero_up(weight)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> Tensor:
        return grad_outputs[0]


def _inside_window(gradient: Tensor, x: Tensor) -> Tensor:
    if not torch.compiler.is_compiling() and gradient.stride() != x.stride():  # flatten's, behind a convolution
        gradient = torch.empty_like(x, dtype=gradient.dtype).copy_(gradient)
    if (native := kernels.fast(gradient, x)) is not None:
        result = torch.empty_like(gradient)
        native.inside_window(kernels.flat(gradient), kernels.flat(x), kernels.flat(result), torch.get_num_threads())
        return result
    return gradient * (x.abs() <= 1)


def _sign_with_zero_up(x: Tensor) -> Tensor:
    if (native := kernels.fast(x)) is not None:
        result = torch.empty_like(x)
        native.sign(kernels.flat(x), kernels.flat(result), torch.get_num_threads())
        return result
    # Three vectorized passes: {-1, 0, 1} + 0.5 = {-0.5, 0.5, 1.5}. On the CPU, torch.where takes nine times as long.
    return x.sign().add_(0.5).sign_()


def _traced(function: Any, x: Tensor, **options: Any) -> Tensor:
    result: Tensor = handle_torch_function(function, (x,), x, **options)
    return result


def _check(name: str, x: Tensor) -> None:
    if not x.is_floating_point():
        raise ShapeError(f"{name}: expected a float tensor, got {x.dtype} {list(x.shape)}; convert it first")
    if not torch.compiler.is_compiling() and torch.is_anomaly_enabled() and bool(torch.isnan(x).any()):
        raise NonFiniteError(f"{name}: the input {list(x.shape)} holds NaN, which has no sign")
