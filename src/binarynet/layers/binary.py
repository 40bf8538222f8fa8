"""Layers whose weights take part in products only as +1 / -1 (arXiv 1602.02830, section 1).

Sums stay integers from end to end: operands are +-1 (0 where dropped), or the odd integers ``2u - 255`` of 8-bit
inputs ``u`` in a first layer, and both the accumulator and the stored result are float32 (float64 in a network that
was moved to float64), also under autocast: bfloat16 operands would be exact, a bfloat16 result is not.

The one exception is a layer with ``real_input=True``, behind real-valued preprocessing: it takes floats as they are,
its sums are rounded, and no network with it can be packed.
"""

from __future__ import annotations

import math
from contextlib import AbstractContextManager, nullcontext
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from binarynet import ops
from binarynet.encoding import EXACT_FLOAT32_LIMIT, INPUT_MAX
from binarynet.errors import ShapeError, UsageError
from binarynet.layers.noise import NoisyLayer
from binarynet.ops import convolutions, cuda_products, products

IntOrPair = int | tuple[int, int]
Weights = Literal["sign", "stochastic_sign"]
"""How latent weights become binary in training mode; in evaluation mode they are signs either way."""


class BinaryLayer(NoisyLayer):
    """Base of the binary layers.

    Attributes:
        weight: latent float32 parameter, initialized uniformly in [-1, 1]; keep it there by clipping after each
            update (``binarynet.optim`` does).
        fan_in: number of products per output, ``kernel_area * in_channels``.
        fan_out: ``kernel_area * out_channels``; both enter the Glorot factor of ``binarynet.optim``.
        first: the layer takes uint8 images instead of +-1.
        real_input: the layer takes any floats instead of +-1.
        dropout: probability with which an operand is masked to 0 in training mode.
        weights: "sign", or "stochastic_sign": in training mode, every forward pass draws +1 with probability
            ``clip((w + 1) / 2, 0, 1)``, and its backward pass uses the same ones.
    """

    weight: nn.Parameter

    def __init__(
        self, weight_shape: tuple[int, ...], *, first: bool, dropout: float, weights: Weights, real_input: bool = False
    ) -> None:
        super().__init__()
        out_channels, in_channels, *kernel = weight_shape
        if min(weight_shape) < 1:
            raise UsageError(f"{type(self).__name__}: sizes must be at least 1, got weights {list(weight_shape)}")
        if not 0 <= dropout < 1:
            raise UsageError(f"{type(self).__name__}: dropout must be in [0, 1), got {dropout}")
        if weights not in get_args(Weights):
            raise UsageError(f"{type(self).__name__}: weights must be one of {get_args(Weights)}, got {weights!r}")
        if first and real_input:
            raise UsageError(f"{type(self).__name__}: first=True takes bytes, real_input=True floats; give one of them")
        area = math.prod(kernel)
        self.fan_in = in_channels * area
        self.fan_out = out_channels * area
        self.first = first
        self.real_input = real_input
        self.dropout = float(dropout)
        self.weights = weights
        self._check_bound()
        self.weight = nn.Parameter(torch.empty(weight_shape))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the latent weights anew from U(-1, 1), with torch's global generator, as the paper's programs do."""
        with torch.no_grad():
            self.weight.uniform_(-1, 1)

    def binary_weight(self) -> Tensor:
        """The weights as they enter products: +1 / -1, float32, shape of ``weight``; differentiable.

        Stochastic ones are drawn anew by every call in training mode.
        """
        if self.training and self.weights == "stochastic_sign":
            key = self.next_noise_key(self.weight.device)
            return ops.stochastic_weight(self.weight, key=key).to(self._dtype)
        return ops.binarize_weight(self.weight).to(self._dtype)

    def _unsigned_weight(self) -> Tensor | None:
        """A tensor whose signs are the weights, for ``ops.products``; None where a subclass has weights of its own."""
        if type(self).binary_weight is not BinaryLayer.binary_weight:
            return None
        if self.training and self.weights == "stochastic_sign":
            return self.binary_weight()
        return self.weight

    @property
    def sum_bound(self) -> int:
        """Largest magnitude that an output sum can have in evaluation mode; UsageError where inputs are real."""
        if self.real_input:
            raise UsageError(f"{type(self).__name__}: sums of real inputs have no bound")
        return self.fan_in * (INPUT_MAX if self.first else 1)

    @property
    def _dtype(self) -> torch.dtype:
        return torch.float64 if self.weight.dtype == torch.float64 else torch.float32

    def _check_bound(self) -> None:
        if self.real_input or self.sum_bound <= EXACT_FLOAT32_LIMIT:
            return
        limit = EXACT_FLOAT32_LIMIT // (INPUT_MAX if self.first else 1)
        kind = "a first layer" if self.first else "a binary layer"
        raise UsageError(
            f"{type(self).__name__}: {kind} sums at most {limit} inputs exactly in float32, got a fan-in of "
            f"{self.fan_in}; use smaller images, or put a convolution or pooling with a smaller window before it"
        )

    def _operand(self, x: Tensor) -> Tensor:
        """Check the input's dtype; the integers that enter the product, masked by dropout in training mode."""
        if self.first:
            if x.dtype != torch.uint8:
                raise ShapeError(
                    f"{type(self).__name__}(first=True): expected uint8 images (0..255), got {x.dtype} "
                    f"{list(x.shape)}; map your data to 0..255 once, and do not scale it"
                )
            x = x.to(self._dtype) * 2 - INPUT_MAX
        elif x.is_floating_point():
            x = x.to(self._dtype)
        else:
            remedy = "put a Sign before it, or give first=True if it takes 8-bit images"
            expected = "floats" if self.real_input else f"+-1 as floats ({remedy})"
            raise ShapeError(f"{type(self).__name__}: expected {expected}, got {x.dtype} {list(x.shape)}")
        if self.training and self.dropout > 0:
            x = ops.drop(x, self.dropout, self.next_noise_key(x.device))
        return x

    def _on_tensor_cores(self, operand: Tensor) -> bool:
        return operand.is_cuda and operand.dtype == torch.float32 and not self.real_input

    def _rescale(self, sums: Tensor) -> Tensor:
        """Dropout's 1/(1-p), applied to the finished integer sums."""
        if self.training and self.dropout > 0:
            return sums * (1 / (1 - self.dropout))
        return sums

    def _options(self) -> str:
        first = ", first=True" if self.first else ", real_input=True" if self.real_input else ""
        dropout = f", dropout={self.dropout:g}" if self.dropout else ""
        return first + dropout + (f", weights={self.weights!r}" if self.weights != "sign" else "")


class BinaryLinear(BinaryLayer):
    """Fully connected layer with weights +-1 and no bias.

    Shapes: input ``[..., in_features]`` (+-1 floats, or uint8 with ``first=True``), output float32
    ``[..., out_features]`` holding integers (times 1/(1-dropout) in training mode).

    Args:
        in_features: inputs per sample.
        out_features: outputs per sample.
        first: take uint8 ``u`` and compute with the odd integers ``2u - 255``. The normalization that follows
            wants ``input_scale=1/255``.
        real_input: take any floats, see :class:`BinaryLayer`; does not pack.
        dropout: in training mode, mask each operand to 0 with this probability.
        weights: "sign", or "stochastic_sign" in training mode, see :class:`BinaryLayer`.

    Raises:
        UsageError: sizes below 1, dropout outside [0, 1), other weights, or a fan-in whose sums float32 cannot hold.
        ShapeError: (in forward) wrong shape or dtype of the input.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        first: bool = False,
        real_input: bool = False,
        dropout: float = 0.0,
        weights: Weights = "sign",
    ) -> None:
        shape = (out_features, in_features)
        super().__init__(shape, first=first, real_input=real_input, dropout=dropout, weights=weights)
        self.in_features = in_features
        self.out_features = out_features

    def forward(self, x: Tensor) -> Tensor:
        if x.ndim == 0 or x.shape[-1] != self.in_features:
            raise ShapeError(
                f"BinaryLinear: expected [..., {self.in_features}], got {list(x.shape)}"
                + ("; put nn.Flatten() before it" if x.ndim > 2 else "")
            )
        with _outside_autocast(x.device.type):
            operand = self._operand(x)
            if self._on_tensor_cores(operand):
                return self._rescale(cuda_products.linear(operand, self.binary_weight()))
            weight = self._unsigned_weight()
            if weight is None:
                return self._rescale(F.linear(operand, self.binary_weight()))
            return self._rescale(products.linear(operand, weight))

    def extra_repr(self) -> str:
        return f"{self.in_features}, {self.out_features}{self._options()}"


class BinaryConv2d(BinaryLayer):
    """Two-dimensional convolution with weights +-1, exact zero padding and no bias.

    Shapes: input ``[batch, in_channels, height, width]`` (+-1 floats, or uint8 with ``first=True``), output float32
    ``[batch, out_channels, out_height, out_width]`` holding integers (times 1/(1-dropout) in training mode).
    A padded tap contributes nothing to the sum, in a first layer too (there it stands for neither 0 nor 255).

    Args:
        in_channels: input channels.
        out_channels: output channels.
        kernel_size: int or (height, width).
        stride: int or (vertical, horizontal).
        padding: int, (vertical, horizontal), or "same" (odd kernels at stride 1); smaller than the kernel.
        first: take uint8 ``u`` and compute with ``2u - 255``.
        real_input: take any floats, see :class:`BinaryLayer`; does not pack.
        dropout: in training mode, mask each operand to 0 with this probability.
        weights: "sign", or "stochastic_sign" in training mode, see :class:`BinaryLayer`.
        channels_last: give results in torch's memory format channels_last where packed kernels may compute; what
            follows keeps it. A network is fastest if its first convolution does. By default, results have the format
            of the input, as with torch's own convolutions.

    Raises:
        UsageError: sizes out of range, "same" where it has no exact meaning, or a fan-in whose sums float32 cannot
            hold.
        ShapeError: (in forward) wrong shape or dtype of the input.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: IntOrPair,
        *,
        stride: IntOrPair = 1,
        padding: IntOrPair | str = 0,
        first: bool = False,
        real_input: bool = False,
        dropout: float = 0.0,
        weights: Weights = "sign",
        channels_last: bool = False,
    ) -> None:
        kernel = _pair(kernel_size)
        shape = (out_channels, in_channels, *kernel)
        super().__init__(shape, first=first, real_input=real_input, dropout=dropout, weights=weights)
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.kernel_size = kernel
        self.stride = _pair(stride)
        self.padding = _padding(padding, self.kernel_size, self.stride)
        self.channels_last = channels_last
        if min(self.stride) < 1:
            raise UsageError(f"BinaryConv2d: stride must be at least 1, got {stride}")
        if min(self.padding) < 0:
            raise UsageError(f"BinaryConv2d: padding must not be negative, got {padding}")
        if any(p >= k for p, k in zip(self.padding, self.kernel_size, strict=True)):
            raise UsageError(
                f"BinaryConv2d: padding must be smaller than the kernel {self.kernel_size}, got {self.padding}; "
                "outputs beyond that see no pixel at all"
            )

    def forward(self, x: Tensor) -> Tensor:
        if x.ndim != 4 or x.shape[1] != self.in_channels:
            raise ShapeError(f"BinaryConv2d: expected [batch, {self.in_channels}, height, width], got {list(x.shape)}")
        with _outside_autocast(x.device.type):
            operand = self._operand(x)
            weight = self._unsigned_weight()
            masked = self.training and self.dropout > 0
            if self._on_tensor_cores(operand):
                sums = cuda_products.conv2d(operand, self.binary_weight(), self.stride, self.padding, self.sum_bound)
            elif weight is None or self.first or self.real_input or masked:  # not signs times signs
                signs = self.binary_weight()
                sums = convolutions.torchs_conv2d(operand, signs, self.stride, self.padding, self.channels_last)
            else:
                sums = convolutions.conv2d(operand, weight, self.stride, self.padding, self.channels_last)
            return self._rescale(sums)

    def extra_repr(self) -> str:
        return (
            f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}, "
            f"padding={self.padding}{self._options()}"
        )


def _outside_autocast(device_type: str) -> AbstractContextManager[object]:
    if not torch.amp.is_autocast_available(device_type):
        return nullcontext()  # the meta device, for one
    return torch.autocast(device_type, enabled=False)


def _pair(value: IntOrPair) -> tuple[int, int]:
    if isinstance(value, int):
        return value, value
    first, second = value
    return int(first), int(second)


def _padding(padding: IntOrPair | str, kernel: tuple[int, int], stride: tuple[int, int]) -> tuple[int, int]:
    if not isinstance(padding, str):
        return _pair(padding)
    if padding != "same":
        raise UsageError(f'BinaryConv2d: padding must be an int, a pair or "same", got {padding!r}')
    if stride != (1, 1) or kernel[0] % 2 == 0 or kernel[1] % 2 == 0:
        raise UsageError(
            f'BinaryConv2d: padding="same" needs an odd kernel at stride 1, got kernel {kernel} at stride {stride}; '
            "give the padding as numbers"
        )
    return kernel[0] // 2, kernel[1] // 2
