"""Products with the signs of latent weights, by packed kernels where that pays, else by torch's own.

On the CPU the package's kernels (``native/src/training``) take bits instead of +-1 floats. A product of +-1 operands is
a population count: the same integers as torch's. A product of real gradients with signs is a table look-up per four
terms: float32 throughout, another order of summation than torch's, so gradients differ from torch's by rounding only:
each result, a sum of n terms, by at most ``(min(n, 128) + n / 128 + 1) * 2**-24`` times the sum of their magnitudes.

Which of the two computes is decided by :func:`use`; `binarynet info` shows what this machine has:

* "auto", the default: packed for float32 on the CPU where the machine has fast kernels, the weights are not tiny, and
  the operands turn out to be what the kernels take (+1, -1, and 0 for masked ones; or the odd integers ``2u - 255`` of
  8-bit inputs u, and 0); torch's products otherwise;
* "torch": torch's products always;
* "packed": packed always; what cannot be packed is an error.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function_variadic

from binarynet.encoding import EXACT_FLOAT32_LIMIT, INPUT_MAX
from binarynet.errors import ShapeError, UsageError
from binarynet.ops.binarize import _check, _UnmaskedSign, binarize_weight
from binarynet.ops.kernels import instruction_set

Mode = Literal["auto", "torch", "packed"]

MIN_PACKED_WEIGHTS = 1 << 14
"""Layers with fewer weights go to torch in mode "auto": there the time is that of calls, not of products."""

_FOUND_ZERO, _FOUND_BYTE, _FOUND_OTHER = 1, 2, 4


@dataclass(frozen=True, eq=False)
class _Choice:
    mode: Mode


_choices: list[_Choice] = []
"""Those of the blocks that are open now, the innermost last; with threads, they may close in another order."""


@contextmanager
def use(mode: Mode) -> Iterator[None]:
    """Choose who computes products, for the block (and for the backward pass of what is called in it).

    The choice is the process's, for all of its threads.

    Args:
        mode: "auto", "torch" or "packed", see above.

    Raises:
        UsageError: an unknown mode.
    """
    if mode not in get_args(Mode):
        raise UsageError(f"products.use: there is no mode {mode!r}; there are {', '.join(get_args(Mode))}")
    choice = _Choice(mode)
    _choices.append(choice)
    try:
        yield
    finally:
        _choices.remove(choice)


def current_mode() -> Mode:
    """What :func:`use` has chosen."""
    return _choices[-1].mode if _choices else "auto"


def linear(x: Tensor, weight: Tensor) -> Tensor:
    """``x @ sign(weight).T``: a dense layer with binary weights.

    Gradients (arXiv 1602.02830, algorithm 1): that of ``x`` is ``g @ sign(weight)``; that of the signs goes to the
    latent weights unchanged, ``g.T @ x``. Both can be differentiated again.

    Args:
        x: float ``[..., in_features]``, meant to hold +1 and -1, or ``2u - 255``, and (masked) 0; other values are
            multiplied as they are.
        weight: latent weights, float ``[out_features, in_features]``.

    Returns:
        ``[..., out_features]`` of the dtype of ``x``; integers where ``x`` holds integers.

    Raises:
        ShapeError: shapes or dtypes that do not fit.
        NonFiniteError: the weights hold NaN, and anomaly detection is on.
        UsageError: mode "packed", and the operands cannot be packed.
    """
    if has_torch_function_variadic(x, weight):
        result: Tensor = handle_torch_function(linear, (x, weight), x, weight)
        return result
    if (
        weight.ndim != 2
        or x.ndim == 0
        or x.shape[-1] != weight.shape[1]
        or x.dtype not in (torch.float32, torch.float64)
    ):
        raise ShapeError(
            f"products.linear: expected float32 or float64 [..., in_features] and weights [out_features, in_features], "
            f"got {x.dtype} {list(x.shape)} and {list(weight.shape)}"
        )
    _check("products.linear", weight)
    if not _can_pack("products.linear", x, weight):
        return F.linear(x, binarize_weight(weight).to(x.dtype))
    differentiable = torch.is_grad_enabled()
    sums: Tensor = _linear(
        x.reshape(-1, weight.shape[1]),
        weight,
        differentiable and weight.requires_grad,
        differentiable and x.requires_grad,
    )[0]
    return sums.view(*x.shape[:-1], weight.shape[0])


def _can_pack(name: str, x: Tensor, weight: Tensor) -> bool:
    """What is known before the values are: mode, device, dtype and size."""
    if current_mode() == "torch":
        return False
    for label, tensor in (("operands", x), ("weights", weight)):
        if tensor.device.type != "cpu" or tensor.dtype != torch.float32:
            if current_mode() == "packed":
                raise UsageError(
                    f"{name}: packed kernels take float32 on the CPU, got {label} {tensor.dtype} on {tensor.device}; "
                    'use mode "auto"'
                )
            return False
    return current_mode() == "packed" or weight.numel() >= MIN_PACKED_WEIGHTS


def _wants_packed() -> bool:
    """At run time of the operation: is there anything to gain, or is it asked for?"""
    if current_mode() == "torch":
        return False
    try:
        name = instruction_set()
    except ImportError:
        if current_mode() == "packed":
            raise
        return False
    return current_mode() == "packed" or name != "portable"


# ---- The operations, opaque to torch.compile. Packed forms travel from forward to backward as int32 tensors. `how`,
# ---- uint8 [2], says which product the backward pass takes for [operands, weights].

_OPERANDS, _WEIGHTS = 0, 1
_TORCH, _SIGNS, _REAL = 0, 1, 2


def _columns_size(rows: int, cols: int) -> int:
    """Words of the column bits of a matrix [rows, cols]. One axis: export would take a length of 1 for a constant."""
    return -(-rows // 128) * -(-cols // 16) * 64


def _columns(words: Tensor, cols: int) -> Any:
    """Column bits as the kernels see them (native/src/training/kernels.h)."""
    return words.numpy().reshape(-1, -(-cols // 16), 4, 16)


def _array(tensor: Tensor) -> Any:
    return tensor.detach().numpy()


@torch.library.custom_op("binarynet::linear", mutates_args=())
def _linear(
    x: Tensor, weight: Tensor, pack_operands: bool, pack_weights: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Sums [batch, out]; column bits of x and of the weights (empty if not wanted); how."""
    (batch, fan_in), fan_out = x.shape, weight.shape[0]
    x, weight = x.contiguous(), weight.contiguous()
    operand_columns = torch.empty(_columns_size(batch if pack_operands else 0, fan_in), dtype=torch.int32)
    weight_columns = torch.empty(_columns_size(fan_out if pack_weights else 0, fan_in), dtype=torch.int32)
    how = torch.zeros(2, dtype=torch.uint8)
    if not _wants_packed():
        return F.linear(x, binarize_weight(weight.detach())), operand_columns, weight_columns, how

    from binarynet._native import training

    threads = torch.get_num_threads()
    words = -(-fan_in // 64)
    bits = np.empty((batch, words), np.uint64)
    columns = _columns(operand_columns, fan_in) if pack_operands else None
    found = training.pack_signs(_array(x), False, True, bits, columns, threads)
    largest = fan_in * (INPUT_MAX if found & _FOUND_BYTE else 1)
    if found & _FOUND_OTHER or largest > EXACT_FLOAT32_LIMIT:
        if current_mode() == "packed":
            raise UsageError(
                "products.linear: packed kernels take +1, -1 and 0, or 2u - 255 and 0, whose sums float32 holds; got "
                f'others among the operands, or too large a fan-in ({fan_in}); use mode "auto"'
            )
        return F.linear(x, binarize_weight(weight.detach())), operand_columns, weight_columns, how
    how[_OPERANDS], how[_WEIGHTS] = _REAL if found else _SIGNS, _SIGNS
    signs = np.empty((fan_out, words), np.uint64)
    columns = _columns(weight_columns, fan_in) if pack_weights else None
    training.pack_signs(_array(weight), False, False, signs, columns, threads)
    sums = x.new_empty((batch, fan_out))
    more = np.empty_like(bits) if found & _FOUND_ZERO else None
    if found & _FOUND_BYTE:
        u = np.empty((batch, fan_in), np.uint8)
        training.to_bytes(_array(x), u, more, threads)
        training.multiply_bytes(u, more, signs, _array(sums), threads)
    else:
        if more is not None:
            training.pack_signs(_array(x), True, False, more, None, threads)
        training.multiply_bits(bits, more, signs, fan_in, _array(sums), threads)
    return sums, operand_columns, weight_columns, how


@_linear.register_fake
def _(x: Tensor, weight: Tensor, pack_operands: bool, pack_weights: bool) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    (batch, fan_in), fan_out = x.shape, weight.shape[0]
    return (
        x.new_empty((batch, fan_out)),
        x.new_empty(_columns_size(batch if pack_operands else 0, fan_in), dtype=torch.int32),
        x.new_empty(_columns_size(fan_out if pack_weights else 0, fan_in), dtype=torch.int32),
        x.new_empty((2,), dtype=torch.uint8),
    )


@torch.library.custom_op("binarynet::linear_input_gradient", mutates_args=())
def _input_gradient(g: Tensor, weight: Tensor, weight_columns: Tensor, how: Tensor) -> Tensor:
    """g [batch, out] times the signs of the weights: [batch, in]."""
    if how[_WEIGHTS] == _TORCH:
        return g @ binarize_weight(weight.detach())

    from binarynet._native import training

    result = g.new_empty((g.shape[0], weight.shape[1]))
    training.multiply_signs(
        _array(g.contiguous()),
        False,
        _columns(weight_columns, weight.shape[1]),
        _array(result),
        torch.get_num_threads(),
    )
    return result


@_input_gradient.register_fake
def _(g: Tensor, weight: Tensor, weight_columns: Tensor, how: Tensor) -> Tensor:
    return g.new_empty((g.shape[0], weight.shape[1]))


@torch.library.custom_op("binarynet::linear_weight_gradient", mutates_args=())
def _weight_gradient(g: Tensor, x: Tensor, operand_columns: Tensor, how: Tensor) -> Tensor:
    """g [batch, out], transposed, times x [batch, in]: [out, in]."""
    if how[_OPERANDS] == _TORCH:
        return g.T @ x

    from binarynet._native import training

    threads = torch.get_num_threads()
    g, result = g.contiguous(), g.new_empty((g.shape[1], x.shape[1]))
    if how[_OPERANDS] == _REAL:
        training.multiply_real(_array(g), _array(x.contiguous()), _array(result), threads)
    else:
        training.multiply_signs(_array(g), True, _columns(operand_columns, x.shape[1]), _array(result), threads)
    return result


@_weight_gradient.register_fake
def _(g: Tensor, x: Tensor, operand_columns: Tensor, how: Tensor) -> Tensor:
    return g.new_empty((g.shape[1], x.shape[1]))


def _save_for_linear(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    x, weight, _, _ = inputs
    ctx.save_for_backward(x, weight, *output[1:])
    ctx.mark_non_differentiable(*output[1:])


def _linear_backward(ctx: Any, g: Tensor, *_: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
    x, weight, operand_columns, weight_columns, how = ctx.saved_tensors
    need_x, need_weight, *_ = ctx.needs_input_grad
    return (
        _input_gradient(g, weight, weight_columns, how) if need_x else None,
        _weight_gradient(g, x, operand_columns, how) if need_weight else None,
        None,
        None,
    )


def _save_inputs(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(inputs[0], inputs[1])


# Differentiating twice is rare: torch's products, which can be differentiated again.


def _input_gradient_backward(ctx: Any, h: Tensor) -> tuple[Tensor, Tensor, None, None]:
    g, weight = ctx.saved_tensors
    return F.linear(h, _UnmaskedSign.apply(weight)), g.T @ h, None, None  # type: ignore[no-untyped-call]


def _weight_gradient_backward(ctx: Any, h: Tensor) -> tuple[Tensor, Tensor, None, None]:
    g, x = ctx.saved_tensors
    return F.linear(x, h), g @ h, None, None


_linear.register_autograd(_linear_backward, setup_context=_save_for_linear)
_input_gradient.register_autograd(_input_gradient_backward, setup_context=_save_inputs)
_weight_gradient.register_autograd(_weight_gradient_backward, setup_context=_save_inputs)
