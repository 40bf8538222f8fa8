"""Batch statistics over the joined batch of several processes (torch.distributed; gloo, NCCL, any backend).

Both normalizations are, per channel, ``y = c * (gain * scale) + bias`` with ``c = x - mean(x)``, where scale comes from
``mean(c * q)``: in ordinary batch normalization ``q = c``, in the shift-based one ``q = AP2(c)``, and there gain and
scale are AP2 of what they are here. Their gradients have one form, too, which is why one Function serves both::

    g_x = gain * scale * (g - mean(g) - q * scale^2 * mean(q * g))
    g_weight = scale * sum(q * g)        g_bias = sum(g)

All means are over the joined batch, each process counting with as many values as it has. The gradients of weight and
bias are this process's share: data-parallel training adds those up (or averages them) as it does for all parameters.

A step takes two all-reduces per layer forward (products with AP2 have to be those of the joined mean, which must be
known before) and one backward, of at most ``2 * channels`` float64 numbers each.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from binarynet import ops


def world_size(group: Any) -> int:
    """Number of processes in a group (None: all); 1 where torch.distributed is not in use."""
    if not dist.is_available() or not dist.is_initialized():
        return 1
    return dist.get_world_size(group)


def batch_norm(x: Tensor, weight: Tensor, bias: Tensor, eps: float, group: Any) -> tuple[Tensor, Tensor, Tensor]:
    """Ordinary batch normalization; gives ``y``, and the joined batch's mean and inverse standard deviation."""
    return _Synchronized.apply(x, weight, bias, eps, group, False)  # type: ignore[no-any-return, no-untyped-call]


def shift_batch_norm(x: Tensor, weight: Tensor, bias: Tensor, eps: float, group: Any) -> tuple[Tensor, Tensor, Tensor]:
    """Shift-based batch normalization; gives ``y``, and the joined batch's mean and inverse standard deviation."""
    return _Synchronized.apply(x, weight, bias, eps, group, True)  # type: ignore[no-any-return, no-untyped-call]


class _Synchronized(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float, group: Any, shift_based: bool
    ) -> tuple[Tensor, Tensor, Tensor]:
        axes, view = _axes(x)
        own_count = x.new_full((1,), x.numel() // x.shape[1], dtype=torch.float64)
        totals = _all_sum(torch.cat([x.sum(axes, dtype=torch.float64), own_count]), group)
        count = totals[-1:]
        mean = (totals[:-1] / count).to(x.dtype)
        centred = x - mean.view(view)
        rounded = ops.round_to_ap2(centred) if shift_based else centred
        second = _all_sum((centred * rounded).sum(axes, dtype=torch.float64), group) / count
        # Below, the same operations as in one process alone, so that equal statistics give equal bits.
        if shift_based:
            inv_std = (second.to(x.dtype) + eps).rsqrt()
            scale, gain = ops.round_to_ap2(inv_std), ops.round_to_ap2(weight)
            y = centred * (gain * scale).view(view) + bias.view(view)
        else:
            inv_std = (second + eps).rsqrt().to(x.dtype)
            scale, gain = inv_std, weight
            y, _, _ = torch.native_batch_norm(x, gain * scale, bias, mean, torch.ones_like(mean), False, 0.0, 0.0)
        ctx.save_for_backward(rounded, scale, gain, count)
        ctx.group = group
        ctx.mark_non_differentiable(mean, inv_std)
        return y, mean, inv_std

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        rounded, scale, gain, count = ctx.saved_tensors
        gradient = grad_outputs[0]
        axes, view = _axes(gradient)
        own = torch.stack([gradient.sum(axes), (rounded * gradient).sum(axes)])
        means = (_all_sum(own.to(torch.float64, copy=True), ctx.group) / count).to(own.dtype)
        slope = scale * scale * means[1]
        gradient_x = (gradient - means[0].view(view) - rounded * slope.view(view)) * (gain * scale).view(view)
        return gradient_x, scale * own[1], own[0], None, None, None


def _all_sum(values: Tensor, group: Any) -> Tensor:
    """Sums over the processes, in place; the same bits in all of them."""
    dist.all_reduce(values, group=group)
    return values


def _axes(x: Tensor) -> tuple[list[int], tuple[int, ...]]:
    """The axes that are averaged over, and the shape that puts one value per channel beside the data."""
    return [axis for axis in range(x.ndim) if axis != 1], (1, -1) + (1,) * (x.ndim - 2)
