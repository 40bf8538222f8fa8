"""Normalizations: batch statistics while training, one affine map per channel in evaluation.

torch's own ``nn.BatchNorm*`` is not used, because its evaluation mode rounds differently: ours is always
``x * scale + shift`` in float32 with exactly two roundings, where scale and shift were computed in float64 and
rounded once. That expression is what the packed network's integer thresholds are derived from.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from binarynet.errors import NonFiniteError, ShapeError, UsageError
from binarynet.layers import _synchronized


class Normalization(nn.Module, ABC):
    """Base of the normalizations; parameters and statistics are per channel, axis 1 of the input.

    Attributes:
        weight: learned gain, float32 ``[num_features]``, starts at 1.
        bias: learned offset, float32 ``[num_features]``, starts at 0.
        running_mean: averaged batch mean of ``x * input_scale``, starts at 0.
        running_inv_std: averaged inverse standard deviation of ``x * input_scale``, starts at 1. It is the inverse
            that is averaged, not the variance, as in the paper's programs.
        synchronize: in training mode, and where torch.distributed runs on several processes, take the statistics and
            their gradients over the joined batch of all of them; True unless set to False.
        process_group: which processes; None, as at first, for all. They may hold batches of different sizes; each
            must call the layer equally often.
    """

    num_dimensions: ClassVar[int]
    weight: nn.Parameter
    bias: nn.Parameter
    running_mean: Tensor
    running_inv_std: Tensor

    def __init__(self, num_features: int, *, eps: float, momentum: float, input_scale: float) -> None:
        super().__init__()
        if num_features < 1:
            raise UsageError(f"{type(self).__name__}: num_features must be at least 1, got {num_features}")
        if not eps > 0 or not 0 < momentum <= 1 or not input_scale > 0:
            raise UsageError(
                f"{type(self).__name__}: expected eps > 0, 0 < momentum <= 1 and input_scale > 0, "
                f"got eps={eps}, momentum={momentum}, input_scale={input_scale}"
            )
        self.num_features = num_features
        self.eps = eps
        self.momentum = momentum
        self.input_scale = input_scale
        self.synchronize = True
        self.process_group: Any = None
        self.weight = nn.Parameter(torch.ones(num_features))
        self.bias = nn.Parameter(torch.zeros(num_features))
        self.register_buffer("running_mean", torch.zeros(num_features))
        self.register_buffer("running_inv_std", torch.ones(num_features))

    def affine(self) -> tuple[Tensor, Tensor]:
        """The evaluation mode as ``y = x * scale + shift``.

        Returns:
            scale and shift, float32 ``[num_features]`` each, computed in float64 and rounded once; ``input_scale``
            is folded in.

        Raises:
            NonFiniteError: a scale or shift is NaN or infinite; names the first such channel.
        """
        scale, shift = self._affine_unchecked()
        finite = torch.isfinite(scale) & torch.isfinite(shift)
        if not bool(finite.all()):
            channel = int(torch.nonzero(~finite)[0])
            raise NonFiniteError(
                f"{type(self).__name__}: channel {channel} has scale {scale[channel].item()} and shift "
                f"{shift[channel].item()}; the training has diverged: go back to an earlier checkpoint, or train "
                "with a smaller learning rate"
            )
        return scale, shift

    @torch.no_grad()
    def _affine_unchecked(self) -> tuple[Tensor, Tensor]:
        gain = self.weight.double() * self.running_inv_std.double()
        shift = self.bias.double() - self.running_mean.double() * gain
        return (gain * self.input_scale).float(), shift.float()

    def forward(self, x: Tensor) -> Tensor:
        if x.ndim != self.num_dimensions or x.shape[1] != self.num_features:
            axes = ["batch", str(self.num_features), "height", "width"][: self.num_dimensions]
            raise ShapeError(f"{type(self).__name__}: expected [{', '.join(axes)}], got {list(x.shape)}")
        if x.dtype != torch.float64:
            x = x.float()
        if self.training:
            return self._normalize_batch(x)
        # In a compiled graph the check would be a host synchronisation and a graph break.
        scale, shift = self._affine_unchecked() if torch.compiler.is_compiling() else self.affine()
        per_channel = (1, -1) + (1,) * (self.num_dimensions - 2)
        return x * scale.view(per_channel) + shift.view(per_channel)

    @abstractmethod
    def _normalize_batch(self, x: Tensor) -> Tensor:
        """Normalize by the statistics of this batch, and average them into the running ones."""

    def _joins_processes(self) -> bool:
        return self.synchronize and _synchronized.world_size(self.process_group) > 1

    def _check_batch(self, x: Tensor) -> None:
        least = 1 if self._joins_processes() else 2
        if x.numel() // self.num_features < least:
            raise UsageError(
                f"{type(self).__name__}: batch statistics need at least {least} values per channel, "
                f"got {list(x.shape)}; use larger batches, or call eval() first"
            )

    @torch.no_grad()
    def _average(self, mean: Tensor, inv_std: Tensor) -> None:
        """Take a batch's statistics of ``x * input_scale`` into the running ones."""
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), self.momentum)
        self.running_inv_std.lerp_(inv_std.to(self.running_inv_std.dtype), self.momentum)

    def extra_repr(self) -> str:
        scale = f", input_scale={self.input_scale:g}" if self.input_scale != 1 else ""
        return f"{self.num_features}, eps={self.eps:g}, momentum={self.momentum:g}{scale}"


class _BatchNorm(Normalization):
    """Batch normalization as in the Theano setting of the paper.

    Training mode, per channel over the batch (and the pixels), with ``z = x * input_scale``:
    ``y = weight * (z - mean(z)) / sqrt(var(z) + eps) + bias``, ``var`` being the biased variance; then
    ``running = (1 - momentum) * running + momentum * batch`` for the mean and for ``1 / sqrt(var(z) + eps)``.
    Evaluation mode: ``y = x * scale + shift`` with :meth:`affine`. The output is float32, of the input's shape.

    Args:
        num_features: number of channels.
        eps: added to the variance.
        momentum: weight of the newest batch in the running values.
        input_scale: the statistics are those of ``x * input_scale``; 1/255 after a first layer, whose sums are
            255 times those of inputs in [-1, 1].

    Raises:
        UsageError: an argument out of range, or fewer than 2 values per channel in training mode.
        ShapeError: (in forward) wrong shape of the input.
        NonFiniteError: (in forward, evaluation mode) a scale or shift is not finite.
    """

    def __init__(
        self, num_features: int, *, eps: float = 1e-4, momentum: float = 0.1, input_scale: float = 1.0
    ) -> None:
        super().__init__(num_features, eps=eps, momentum=momentum, input_scale=input_scale)

    def _normalize_batch(self, x: Tensor) -> Tensor:
        self._check_batch(x)
        # With z = s*x: (z - mean z) / sqrt(var z + eps) = (x - mean x) / sqrt(var x + eps / s^2).
        s = self.input_scale
        eps = self.eps / (s * s)
        if self._joins_processes():
            y, mean, inv_std = _synchronized.batch_norm(x, self.weight, self.bias, eps, self.process_group)
        else:
            y, mean, inv_std = torch.native_batch_norm(x, self.weight, self.bias, None, None, True, self.momentum, eps)
        dtype = self.running_mean.dtype
        self._average(mean.detach().to(dtype) * s, inv_std.detach().to(dtype) / s)
        return y


class BatchNorm1d(_BatchNorm):
    __doc__ = _BatchNorm.__doc__
    num_dimensions = 2  # [batch, num_features]


class BatchNorm2d(_BatchNorm):
    __doc__ = _BatchNorm.__doc__
    num_dimensions = 4  # [batch, num_features, height, width]
