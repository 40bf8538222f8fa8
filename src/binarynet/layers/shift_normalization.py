"""Shift-based batch normalization: every multiplication by a power of two (arXiv 1602.02830, section 1.4, Alg. 2/3)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from binarynet import ops
from binarynet.layers import _synchronized
from binarynet.layers.normalization import Normalization
from binarynet.ops import kernels


class _ShiftBatchNorm(Normalization):
    """Shift-based batch normalization as in the Torch7 setting of the paper.

    With ``AP2`` (:func:`binarynet.ops.ap2`), ``z = x * AP2(input_scale)``, and means per channel over the batch (and
    the pixels), training mode computes::

        c = z - mean(z)
        inv_std = 1 / sqrt(mean(c * AP2(c)) + eps)
        y = AP2(weight) * (c * AP2(inv_std)) + bias

    and ``running = (1 - momentum) * running + momentum * batch`` for the mean and for inv_std, before AP2. The printed
    algorithm leaves out the bias that it lists as learned; the authors' program adds it, and so do we.

    The gradient is that program's, in which AP2 and the statistics' own rounding are passed straight through. For an
    incoming gradient g, with ``s = AP2(inv_std)``::

        g_z = AP2(weight) * s * (g - mean(g) - AP2(c) * s^2 * mean(AP2(c) * g))
        g_weight = sum(AP2(c) * s * g)
        g_bias = sum(g)

    Evaluation mode: ``y = x * scale + shift`` with :meth:`affine`, where
    ``scale = AP2(weight) * AP2(running_inv_std) * AP2(input_scale)`` is a power of two (or zero): in a packed network
    it vanishes into the integer thresholds. The output is float32, of the input's shape.

    The attribute ``input_scale`` holds ``AP2(input_scale)``: 1/256 for 1/255. The statistics absorb the difference.
    A constant channel has ``c = 0`` and gives the bias. The paper's Torch7 networks end with an ordinary batch
    normalization, which is :class:`binarynet.layers.BatchNorm1d`.

    Args:
        num_features: number of channels.
        eps: added to the variance.
        momentum: weight of the newest batch in the running values; 1/8 is a shift, too.
        input_scale: the statistics are those of ``x * AP2(input_scale)``; 1/255 after a first layer.

    Raises:
        UsageError: an argument out of range, or fewer than 2 values per channel in training mode.
        ShapeError: (in forward) wrong shape of the input.
        NonFiniteError: (in forward, evaluation mode) a scale or shift is not finite.
    """

    def __init__(
        self, num_features: int, *, eps: float = 1e-5, momentum: float = 0.125, input_scale: float = 1.0
    ) -> None:
        super().__init__(num_features, eps=eps, momentum=momentum, input_scale=input_scale)
        self.input_scale = ops.ap2_value(input_scale)

    @torch.no_grad()
    def _affine_unchecked(self) -> tuple[Tensor, Tensor]:
        gain = ops.round_to_ap2(self.weight).double() * ops.round_to_ap2(self.running_inv_std).double()
        shift = self.bias.double() - self.running_mean.double() * gain
        return (gain * self.input_scale).float(), shift.float()

    def _normalize_batch(self, x: Tensor) -> Tensor:
        self._check_batch(x)
        if self._joins_processes():
            z = x * self.input_scale
            y, mean, inv_std = _synchronized.shift_batch_norm(z, self.weight, self.bias, self.eps, self.process_group)
        else:
            y, mean, inv_std = _ShiftNormalize.apply(  # type: ignore[no-untyped-call]
                x, self.weight, self.bias, self.eps, self.input_scale
            )
        self._average(mean, inv_std)
        return y


class ShiftBatchNorm1d(_ShiftBatchNorm):
    __doc__ = _ShiftBatchNorm.__doc__
    num_dimensions = 2  # [batch, num_features]


class ShiftBatchNorm2d(_ShiftBatchNorm):
    __doc__ = _ShiftBatchNorm.__doc__
    num_dimensions = 4  # [batch, num_features, height, width]


class _ShiftNormalize(torch.autograd.Function):
    """The training mode; gives ``y``, and the mean and inverse standard deviation, which have no gradient."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float, input_scale: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        y, mean, inv_std = _forward_by_kernel(x, weight, bias, eps, input_scale) or _forward(
            x, weight, bias, eps, input_scale
        )
        ctx.save_for_backward(x, weight, mean, inv_std)
        ctx.input_scale = input_scale
        ctx.mark_non_differentiable(mean, inv_std)
        return y, mean, inv_std

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        gradient, (x, weight, mean, inv_std) = grad_outputs[0], ctx.saved_tensors
        arguments = (gradient, x, weight, mean, inv_std, ctx.input_scale)
        gradient_x, gradient_weight, gradient_bias = _backward_by_kernel(*arguments) or _backward(*arguments)
        return gradient_x, gradient_weight, gradient_bias, None, None


Three = tuple[Tensor, Tensor, Tensor]


def _forward(x: Tensor, weight: Tensor, bias: Tensor, eps: float, input_scale: float) -> Three:
    z = x * input_scale
    axes, view = _axes(z)
    mean = z.mean(axes)
    centred = z - mean.view(view)
    inv_std = ((centred * ops.round_to_ap2(centred)).mean(axes) + eps).rsqrt()
    factor = ops.round_to_ap2(weight) * ops.round_to_ap2(inv_std)
    return centred * factor.view(view) + bias.view(view), mean, inv_std


def _backward(gradient: Tensor, x: Tensor, weight: Tensor, mean: Tensor, inv_std: Tensor, input_scale: float) -> Three:
    axes, view = _axes(gradient)
    count = gradient.numel() // gradient.shape[1]
    rounded = ops.round_to_ap2(x * input_scale - mean.view(view))
    shift, gain = ops.round_to_ap2(inv_std), ops.round_to_ap2(weight)
    summed = gradient.sum(axes)
    correlated = (rounded * gradient).sum(axes)
    slope = shift * shift * correlated / count
    gradient_z = (gradient - (summed / count).view(view) - rounded * slope.view(view)) * (gain * shift).view(view)
    return gradient_z * input_scale, shift * correlated, summed


# The same by the package's kernels (native/src/training/shift_norm_kernels.h): one pass over memory each, if a
# channel's values fit into the cache. Sums are added in another order, partly in float64: results differ by rounding,
# which may also put a value that lies next to a boundary of AP2 on its other side.


def _forward_by_kernel(x: Tensor, weight: Tensor, bias: Tensor, eps: float, input_scale: float) -> Three | None:
    if (native := kernels.fast(x)) is None or kernels.fast(weight, bias) is None:
        return None
    y, mean, inv_std = torch.empty_like(x), torch.empty_like(weight), torch.empty_like(weight)
    flat = kernels.flat
    given = (flat(x), *_extents(x), input_scale, flat(weight), flat(bias), eps)
    native.shift_norm(*given, flat(y), flat(mean), flat(inv_std), torch.get_num_threads())
    return y, mean, inv_std


def _backward_by_kernel(
    gradient: Tensor, x: Tensor, weight: Tensor, mean: Tensor, inv_std: Tensor, input_scale: float
) -> Three | None:
    if (native := kernels.fast(gradient, x)) is None or kernels.fast(weight, mean, inv_std) is None:
        return None
    results = torch.empty_like(x), torch.empty_like(weight), torch.empty_like(weight)
    flat = kernels.flat
    given = (flat(x), flat(gradient), *_extents(x), input_scale, flat(weight), flat(mean), flat(inv_std))
    native.shift_norm_gradient(*given, *map(flat, results), torch.get_num_threads())
    return results


def _extents(x: Tensor) -> tuple[int, int, int]:
    """How values lie in memory: [outer, channels, inner]."""
    channels = x.shape[1]
    if x.is_contiguous():
        return x.shape[0], channels, x[0, 0].numel() if x.shape[0] else 1
    return x.numel() // channels, channels, 1  # channels last


def _axes(x: Tensor) -> tuple[list[int], tuple[int, ...]]:
    """The axes that are averaged over, and the shape that puts one value per channel beside the data."""
    return [axis for axis in range(x.ndim) if axis != 1], (1, -1) + (1,) * (x.ndim - 2)
