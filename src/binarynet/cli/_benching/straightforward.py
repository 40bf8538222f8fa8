"""What a user would write without this package: the same training step in plain torch, as straight as it comes.

Binarization is an ``autograd.Function``, products, normalizations and the optimizer are torch's own. It computes the
same step as ours (bench checks the costs against one another); nothing in it is slow on purpose: of the usual ways to
write the sign, it has the fastest one that maps 0 to +1.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from binarynet import layers
from binarynet.encoding import INPUT_MAX


class _Binarize(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return (x >= 0).to(x.dtype).mul_(2).sub_(1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return gradients[0]


class _BinarizeClipped(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return (x >= 0).to(x.dtype).mul_(2).sub_(1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        inside: Tensor = gradients[0] * (x.abs() <= 1)
        return inside


class _Sign(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return _BinarizeClipped.apply(x)  # type: ignore[no-any-return, no-untyped-call]


class _CompilableSign(nn.Module):
    """The straight-through estimator without an ``autograd.Function``: what ``torch.compile`` fuses best."""

    def forward(self, x: Tensor) -> Tensor:
        window = x.clamp(-1, 1)
        sign: Tensor = window + ((x >= 0).to(x.dtype) * 2 - 1 - window).detach()
        return sign


class _BinaryLinear(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, _Binarize.apply(self.weight))  # type: ignore[no-untyped-call]


class _CompilableLinear(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, _compilable(self.weight))


class _BinaryConv2d(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        weight = _Binarize.apply(self.weight)  # type: ignore[no-untyped-call]
        return F.conv2d(x, weight, None, self.stride, self.padding)


class _CompilableConv2d(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, _compilable(self.weight), None, self.stride, self.padding)


def _compilable(weight: Tensor) -> Tensor:
    return weight + ((weight >= 0).to(weight.dtype) * 2 - 1 - weight).detach()


class _Scale(nn.Module):
    """8-bit images to [-1, 1]."""

    def forward(self, images: Tensor) -> Tensor:
        return images.float() * (2 / INPUT_MAX) - 1


def binary(network: nn.Module, *, compilable: bool = False) -> nn.Sequential:
    """The same network with the same weights, written plainly.

    Args:
        network: a chain of this package's layers and torch's own.
        compilable: binarize by arithmetic and ``detach`` instead of an ``autograd.Function``.
    """
    linear, conv = (_CompilableLinear, _CompilableConv2d) if compilable else (_BinaryLinear, _BinaryConv2d)
    sign = _CompilableSign if compilable else _Sign
    return nn.Sequential(_Scale(), *_translated(network, linear, conv, sign))


def real(network: nn.Module) -> nn.Sequential:
    """An ordinary float network of the same shapes: real weights (He initialization by torch), ReLU for the sign."""
    translated = nn.Sequential(_Scale(), *_translated(network, nn.Linear, nn.Conv2d, nn.ReLU))
    for module in translated:
        if isinstance(module, nn.Linear | nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
    return translated


def latent_weights(network: nn.Sequential) -> list[Tensor]:
    """The weights of the plain network's products."""
    return [module.weight for module in network if isinstance(module, nn.Linear | nn.Conv2d)]


def _translated(
    network: nn.Module, linear: type[nn.Linear], conv: type[nn.Conv2d], sign: type[nn.Module]
) -> Iterator[nn.Module]:
    for module in network.children():
        new: nn.Module
        if isinstance(module, layers.BinaryLinear):
            new = linear(module.in_features, module.out_features, bias=False)
            new.weight = nn.Parameter(module.weight.detach().clone())
        elif isinstance(module, layers.BinaryConv2d):
            new = conv(module.in_channels, module.out_channels, module.kernel_size, module.stride, module.padding)
            new.bias = None
            new.weight = nn.Parameter(module.weight.detach().clone())
        elif isinstance(module, layers.Sign):
            new = sign()
        elif isinstance(module, layers.BatchNorm1d):
            new = nn.BatchNorm1d(module.num_features, module.eps, module.momentum)
        elif isinstance(module, layers.BatchNorm2d):
            new = nn.BatchNorm2d(module.num_features, module.eps, module.momentum)
        else:
            new = copy.deepcopy(module)
        yield new
