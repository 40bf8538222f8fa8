"""Exact integer products on CUDA devices, on their tensor cores.

Operands are integers of at most 8 bits and a sign: +-1, masked 0, or a first layer's odd integers up to 255; bfloat16
holds them, and so does the 11-bit mantissa of TF32. Sums are formed and stored in float32, exact up to 2^24:

* dense: bfloat16 operands, float32 result (``torch.mm(..., out_dtype=torch.float32)``; a bfloat16 *result* would make
  1024 of 1028);
* convolutions: float32 operands, in which cuDNN may use TF32 whatever torch's global setting is. cuDNN may also choose
  an algorithm that adds in another basis (Winograd, FFT), whose sums are off by small fractions: they are rounded to
  the integers that they stand for. Where sums can pass 2^18, beyond which that margin is thin, the product is computed
  in float64.

An operand that is no such integer (a layer that gets something else than signs) gives NaN, found where NaN is looked
for. It is not rounded silently, and not looked for by waiting for the device.

Gradients are real numbers: float32 products, TF32 only where torch's own settings allow it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

_WIDEST_ROUNDED_SUM = 1 << 18
_HAS_OUT_DTYPE = hasattr(torch.ops.aten.mm, "dtype")  # torch 2.8 and newer


def linear(x: Tensor, signs: Tensor) -> Tensor:
    """``x @ signs.T``.

    Args:
        x: float32 ``[..., in_features]``, integers from -255 to 255.
        signs: +-1, float32 ``[out_features, in_features]``.

    Returns:
        float32 ``[..., out_features]``, integers.
    """
    result: Tensor = _linear(x.reshape(-1, x.shape[-1]), signs)
    return result.view(*x.shape[:-1], signs.shape[0])


def conv2d(x: Tensor, signs: Tensor, stride: tuple[int, int], padding: tuple[int, int], sum_bound: int) -> Tensor:
    """Convolution with zero padding.

    Args:
        x: float32 ``[batch, in_channels, height, width]``, integers from -255 to 255.
        signs: +-1, float32 ``[out_channels, in_channels, kernel height, kernel width]``.
        stride, padding: (vertical, horizontal).
        sum_bound: largest magnitude that a sum can have.

    Returns:
        float32 ``[batch, out_channels, out_height, out_width]``, integers.
    """
    result: Tensor = _conv2d(x, signs, list(stride), list(padding), sum_bound)
    return result


@torch.library.custom_op("binarynet::cuda_linear", mutates_args=())
def _linear(x: Tensor, signs: Tensor) -> Tensor:
    checked = _integers_or_nan(x)
    if not _HAS_OUT_DTYPE:
        return torch.mm(checked, signs.T)
    return _wide_product(checked.to(torch.bfloat16), signs.to(torch.bfloat16).T)


@_linear.register_fake
def _(x: Tensor, signs: Tensor) -> Tensor:
    return x.new_empty((x.shape[0], signs.shape[0]))


@torch.library.custom_op("binarynet::cuda_conv2d", mutates_args=())
def _conv2d(x: Tensor, signs: Tensor, stride: list[int], padding: list[int], sum_bound: int) -> Tensor:
    checked = _integers_or_nan(x)
    if sum_bound > _WIDEST_ROUNDED_SUM:
        sums = torch.nn.functional.conv2d(checked.double(), signs.double(), stride=stride, padding=padding)
        return sums.round_().to(x.dtype)
    with _tf32():
        return torch.nn.functional.conv2d(checked, signs, stride=stride, padding=padding).round_()


@_conv2d.register_fake
def _(x: Tensor, signs: Tensor, stride: list[int], padding: list[int], sum_bound: int) -> Tensor:
    return torch.nn.functional.conv2d(x, signs, stride=stride, padding=padding)


def _integers_or_nan(x: Tensor) -> Tensor:
    return torch.where((x == x.round()) & (x.abs() < 256), x, torch.nan)


def _wide_product(a: Tensor, b: Tensor) -> Tensor:
    return torch.mm(a, b, out_dtype=torch.float32)


@contextmanager
def _tf32() -> Iterator[None]:
    """Let cuDNN use TF32, for this product only."""
    settings = torch.backends.cudnn.conv if hasattr(torch.backends.cudnn, "conv") else None
    if settings is None:  # torch before 2.9
        before, torch.backends.cudnn.allow_tf32 = torch.backends.cudnn.allow_tf32, True
        try:
            yield
        finally:
            torch.backends.cudnn.allow_tf32 = before
        return
    precision, settings.fp32_precision = settings.fp32_precision, "tf32"
    try:
        yield
    finally:
        settings.fp32_precision = precision


def _save_linear(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _linear_backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, Tensor | None]:
    x, signs = ctx.saved_tensors
    need_x, need_signs = ctx.needs_input_grad
    return g @ signs if need_x else None, g.T @ x if need_signs else None


def _save_conv2d(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, signs, ctx.stride, ctx.padding, _ = inputs
    ctx.save_for_backward(x, signs)


def _conv2d_backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, Tensor | None, None, None, None]:
    x, signs = ctx.saved_tensors
    wanted = [ctx.needs_input_grad[0], ctx.needs_input_grad[1], False]
    found = torch.ops.aten.convolution_backward(
        g, x, signs, None, ctx.stride, ctx.padding, [1, 1], False, [0, 0], 1, wanted
    )
    return found[0], found[1], None, None, None


_linear.register_autograd(_linear_backward, setup_context=_save_linear)
_conv2d.register_autograd(_conv2d_backward, setup_context=_save_conv2d)
