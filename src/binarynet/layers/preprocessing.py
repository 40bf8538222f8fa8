"""Real-valued preprocessing of 8-bit images, as the first module of a network: what the paper's Torch7 programs do.

A binary layer behind it takes real numbers (``real_input=True``). Such a network trains and evaluates, but its first
layer's sums are no integers, so it does not pack.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from binarynet.encoding import INPUT_MAX
from binarynet.errors import ShapeError, UsageError
from binarynet.layers.binary import _outside_autocast

MAX_WHITENED = 8192
"""Most values per image that whitening takes: its matrix has their square, 268 million bytes."""

_BLOCK = 4096  # images, while the covariance is summed up


class Preprocessing(nn.Module, ABC):
    """Base: uint8 ``[batch, channels, height, width]`` to float32 of the same shape; nothing in it is learned."""

    def forward(self, images: Tensor) -> Tensor:
        if images.dtype != torch.uint8 or images.ndim != 4:
            raise ShapeError(
                f"{type(self).__name__}: expected uint8 [batch, channels, height, width], got {images.dtype} "
                f"{list(images.shape)}"
            )
        with torch.no_grad(), _outside_autocast(images.device.type):
            return self._transform(images)

    @abstractmethod
    def _transform(self, images: Tensor) -> Tensor:
        """uint8 images to the network's input."""


class Whitening(Preprocessing):
    """ZCA whitening, fitted to the training images.

    With x an image in [0, 1] as one vector, mean m and covariance C (divided by the number of images) of the training
    images, and C = V diag(d) V^T: ``y = V diag(1 / sqrt(d + bias)) V^T (x - m)``. Formula and the bias of 0.1 as in
    the dp library's ZCA, through which the Torch7 program for CIFAR-10 loads its data (that program then whitens a
    second time, with other means; here it is done once).

    Attributes:
        mean: m, float32 ``[channels * height * width]``; NaN until :meth:`fit`.
        matrix: the symmetric matrix, float32 ``[features, features]``.
        fitted: whether there is something to transform with.

    Args:
        image_shape: (channels, height, width).
        bias: added to the eigenvalues, above 0.

    Raises:
        UsageError: sizes out of range; (in forward) :meth:`fit` was not called.
        ShapeError: (in forward and fit) other images.
    """

    mean: Tensor
    matrix: Tensor

    def __init__(self, image_shape: tuple[int, int, int], *, bias: float = 0.1) -> None:
        super().__init__()
        features = math.prod(image_shape)
        if not 1 <= features <= MAX_WHITENED:
            raise UsageError(
                f"Whitening: takes images of 1 to {MAX_WHITENED:,} values, got {features:,} ({list(image_shape)}); use "
                "smaller images"
            )
        if not 0 < bias < math.inf:
            raise UsageError(f"Whitening: bias must be above 0, got {bias}")
        self.image_shape = image_shape
        self.bias = bias
        self.fitted = False
        self.register_buffer("mean", torch.full((features,), math.nan))
        self.register_buffer("matrix", torch.full((features, features), math.nan))

    @torch.no_grad()
    def fit(self, images: Tensor) -> None:
        """Take mean and covariance of uint8 ``[n, channels, height, width]``, exactly, then float64 throughout.

        3,072 values per image and 45,000 images take about a minute on one core.
        """
        self._check_shape(images)
        if images.dtype != torch.uint8 or not len(images):
            raise ShapeError(f"Whitening: expected uint8 images to fit to, got {images.dtype} {list(images.shape)}")
        features = len(self.mean)
        total = torch.zeros(features, dtype=torch.float64)
        products = torch.zeros(features, features, dtype=torch.float64)
        for start in range(0, len(images), _BLOCK):
            block = images[start : start + _BLOCK].flatten(1).to("cpu", torch.float64)
            total += block.sum(0)
            products += block.T @ block
        mean = total / len(images)
        covariance = (products / len(images) - torch.outer(mean, mean)) / INPUT_MAX**2
        values, vectors = torch.linalg.eigh(covariance)
        self.matrix.copy_((vectors * (values.clamp(min=0) + self.bias).rsqrt()) @ vectors.T)
        self.mean.copy_(mean / INPUT_MAX)
        self.fitted = True

    def _transform(self, images: Tensor) -> Tensor:
        self._check_shape(images)
        if not self.fitted:
            raise UsageError("Whitening: not fitted; call fit(training_images) before training")
        return ((images.flatten(1).float() / INPUT_MAX - self.mean) @ self.matrix).view_as(images)

    def _check_shape(self, images: Tensor) -> None:
        if tuple(images.shape[1:]) != self.image_shape:
            raise ShapeError(f"Whitening: expected [n, {str(list(self.image_shape))[1:-1]}], got {list(images.shape)}")

    def _load_from_state_dict(self, *arguments: Any, **named: Any) -> None:
        super()._load_from_state_dict(*arguments, **named)
        self.fitted = self.mean.device.type != "meta" and bool(torch.isfinite(self.mean).all())

    def extra_repr(self) -> str:
        return f"{self.image_shape}, bias={self.bias:g}"


class ContrastNormalization(Preprocessing):
    """Global, then local contrast normalization of each image by itself.

    Global: subtract the mean of all of an image's values, then divide by their Euclidean norm (by 1 where that is below
    1e-8). Local, per channel, with G the convolution with a 9 x 9 Gaussian of standard deviation 2 and sum 1, zeros
    around the image: ``v = x - G(x)``, ``s = sqrt(G(v * v))``, ``y = v / max(s, mean(s), 1e-4)``, where mean(s) is over
    the pixels of the channel (Jarrett, Kavukcuoglu, Ranzato, LeCun, ICCV 2009). Order and constants are the defaults of
    the dp library, through which the Torch7 program for SVHN loads its data. That program also divides each split by
    its maximum, which changes nothing here, and in the end subtracts one mean and divides by one deviation, which the
    first normalization does anyway.

    Args:
        kernel_size: of G, odd.
        deviation: standard deviation of G, in pixels.
        threshold: the smallest divisor.

    Raises:
        UsageError: an argument out of range.
        ShapeError: (in forward) anything but uint8 images.
    """

    kernel: Tensor

    def __init__(self, *, kernel_size: int = 9, deviation: float = 2.0, threshold: float = 1e-4) -> None:
        super().__init__()
        if kernel_size < 1 or kernel_size % 2 == 0 or not deviation > 0 or not threshold > 0:
            raise UsageError(
                f"ContrastNormalization: expected an odd kernel_size, deviation > 0 and threshold > 0, got "
                f"{kernel_size}, {deviation} and {threshold}"
            )
        self.deviation = deviation
        self.threshold = threshold
        steps = torch.arange(kernel_size, dtype=torch.float64) - kernel_size // 2
        bell = torch.exp(-(steps * steps) / (2 * deviation * deviation))
        weights = torch.outer(bell, bell)
        self.register_buffer("kernel", (weights / weights.sum()).float())

    def _transform(self, images: Tensor) -> Tensor:
        # The mean is subtracted among integers: of a plain image, floats would leave rounding errors to be blown up.
        values = math.prod(images.shape[1:])
        x = (images.long() * values - images.sum((1, 2, 3), keepdim=True)).float() / (values * INPUT_MAX)
        norm = x.square().sum((1, 2, 3), keepdim=True).sqrt()
        x = x / torch.where(norm < 1e-8, torch.ones_like(norm), norm)
        centred = x - self._blur(x)
        spread = self._blur(centred.square()).sqrt()
        return centred / torch.maximum(spread, spread.mean((2, 3), keepdim=True)).clamp(min=self.threshold)

    def _blur(self, x: Tensor) -> Tensor:
        channels, size = x.shape[1], len(self.kernel)
        return F.conv2d(x, self.kernel.expand(channels, 1, size, size), padding=size // 2, groups=channels)

    def extra_repr(self) -> str:
        return f"kernel_size={len(self.kernel)}, deviation={self.deviation:g}, threshold={self.threshold:g}"
