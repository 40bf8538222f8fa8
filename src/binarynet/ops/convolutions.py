"""Convolutions with the signs of latent weights, by packed kernels where that pays, else by torch's own.

The sibling of :mod:`binarynet.ops.products`, whose :func:`~binarynet.ops.products.use` decides for both. Packed kernels
take operands that are all +1 or -1 (masked ones are torch's), any stride and padding in the forward pass, and in the
backward pass stride 1; with other strides the gradients are torch's. The sums are the same integers either way;
packed gradients differ from torch's by rounding only: each by at most ``(n / 4 + 4) * 2**-24`` times the sum of the
magnitudes of its n terms.

Packed kernels work on images whose channels lie together, torch's memory format channels_last, which torch's pooling,
normalization and elementwise operations keep. As with torch's convolutions, a result has the format of the input, so
that a contiguous network stays so (and pays for the reordering); ``channels_last`` asks for the fast one.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function_variadic

from binarynet.errors import ShapeError, UsageError
from binarynet.ops import products
from binarynet.ops.binarize import _check, _UnmaskedSign, binarize_weight
from binarynet.ops.kernels import instruction_set

MIN_PACKED_CHANNELS = 32
"""Layers with fewer input channels go to torch in mode "auto": packed kernels would compute with half-empty vectors."""


def conv2d(
    x: Tensor,
    weight: Tensor,
    stride: Sequence[int] = (1, 1),
    padding: Sequence[int] = (0, 0),
    channels_last: bool = False,
) -> Tensor:
    """The convolution of x with ``sign(weight)``; a padded tap contributes 0.

    Gradients (arXiv 1602.02830, algorithm 1): that of ``x`` comes through ``sign(weight)``, that of the signs goes to
    the latent weights unchanged. Both can be differentiated again.

    Args:
        x: float ``[batch, in_channels, height, width]``, meant to hold +1 and -1; other values are multiplied as they
            are.
        weight: latent weights, float ``[out_channels, in_channels, kernel height, kernel width]``.
        stride: (vertical, horizontal).
        padding: (vertical, horizontal), smaller than the kernel.
        channels_last: give the result in that memory format, whatever that of ``x``, where packed kernels may compute.

    Returns:
        ``[batch, out_channels, out_height, out_width]`` of the dtype of ``x``; integers where ``x`` holds integers.

    Raises:
        ShapeError: shapes or dtypes that do not fit.
        NonFiniteError: the weights hold NaN, and anomaly detection is on.
        UsageError: mode "packed", and the operands cannot be packed.
    """
    if has_torch_function_variadic(x, weight):
        options: dict[str, Any] = {"stride": stride, "padding": padding, "channels_last": channels_last}
        result: Tensor = handle_torch_function(conv2d, (x, weight), x, weight, **options)
        return result
    _check_shapes(x, weight, stride, padding)
    _check("convolutions.conv2d", weight)
    if not _can_pack(x, weight):
        return torchs_conv2d(x, binarize_weight(weight).to(x.dtype), stride, padding, channels_last)
    sums: Tensor = _conv2d(x, weight, stride, padding)[0]
    return sums.contiguous(memory_format=_format(x, channels_last))


def _format(x: Tensor, channels_last: bool) -> torch.memory_format:
    """Of the result: mixed formats are slow, torch's batch normalization takes ten times as long to go back through."""
    if not x.is_contiguous() and x.is_contiguous(memory_format=torch.channels_last):
        return torch.channels_last
    fast = x.device.type == "cpu" and x.dtype == torch.float32 and products.current_mode() != "torch"
    return torch.channels_last if channels_last and fast and _fast_kernels() else torch.contiguous_format


def torchs_conv2d(
    x: Tensor,
    weight: Tensor,
    stride: Sequence[int] = (1, 1),
    padding: Sequence[int] = (0, 0),
    channels_last: bool = False,
) -> Tensor:
    """The convolution of any x with any weights by torch, exact where all sums are integers below 2^24.

    Its result has the memory format that :func:`conv2d` would give.
    """
    memory_format = _format(x, channels_last)
    if x.shape[1] > 1:
        x = x.contiguous(memory_format=memory_format)
    with _without_nnpack(x.device.type):
        sums = F.conv2d(_settled(x), weight, stride=_pair(stride), padding=_pair(padding))
    return sums.contiguous(memory_format=memory_format)


def _settled(x: Tensor) -> Tensor:
    """One channel leaves the strides open, and with those of a transposed image oneDNN reads the wrong pixels for some
    windows (torch 2.13). contiguous() keeps such strides, a clone does not."""
    return x.clone(memory_format=torch.contiguous_format) if x.shape[1] == 1 else x


def _without_nnpack(device_type: str) -> AbstractContextManager[object]:
    """Torch takes NNPACK for larger batches where oneDNN is off or missing; its sums are no integers."""
    if device_type != "cpu" or torch.compiler.is_compiling():
        return nullcontext()
    flags: AbstractContextManager[object] = torch.backends.nnpack.flags(enabled=False)
    return flags


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def _fast_kernels() -> bool:
    """Whether this machine has kernels worth taking."""
    try:
        return instruction_set() != "portable"
    except ImportError:
        return False


def _check_shapes(x: Tensor, weight: Tensor, stride: Sequence[int], padding: Sequence[int]) -> None:
    if (
        x.ndim != 4
        or weight.ndim != 4
        or x.shape[1] != weight.shape[1]
        or x.dtype not in (torch.float32, torch.float64)
    ):
        raise ShapeError(
            "convolutions.conv2d: expected float32 or float64 [batch, in_channels, height, width] and weights "
            f"[out_channels, in_channels, kernel height, kernel width], got {x.dtype} {list(x.shape)} and "
            f"{list(weight.shape)}"
        )
    kernel = weight.shape[2:]
    if (
        len(stride) != 2
        or len(padding) != 2
        or min(stride) < 1
        or any(not 0 <= p < k for p, k in zip(padding, kernel, strict=True))
    ):
        raise ShapeError(
            f"convolutions.conv2d: expected two strides of at least 1 and two paddings from 0 and smaller than the "
            f"kernel {list(kernel)}, got strides {list(stride)} and paddings {list(padding)}"
        )
    if any(size + 2 * p < k for size, p, k in zip(x.shape[2:], padding, kernel, strict=True)):
        raise ShapeError(
            f"convolutions.conv2d: images of {list(x.shape[2:])} with padding {list(padding)} are smaller than the "
            f"kernel {list(kernel)}"
        )


def _can_pack(x: Tensor, weight: Tensor) -> bool:
    """What is known before the values are: mode, device, dtype, size, and whether the machine has fast kernels."""
    if not products._can_pack("convolutions.conv2d", x, weight):
        return False
    if products.current_mode() == "packed":
        return True
    return x.shape[1] >= MIN_PACKED_CHANNELS and _fast_kernels()


# ---- The operations, opaque to torch.compile. Bits travel from forward to backward as int64 tensors; where x could not
# ---- be packed, `packed` (one bool) is false.


def _out_shape(x: Tensor, weight: Tensor, stride: Sequence[int], padding: Sequence[int]) -> tuple[int, int, int, int]:
    height, width = (
        (size + 2 * p - k) // s + 1
        for size, p, k, s in zip(x.shape[2:], padding, weight.shape[2:], stride, strict=True)
    )
    return (x.shape[0], weight.shape[0], height, width)


def _new(shape: Sequence[int], like: Tensor) -> Tensor:
    return torch.empty(shape, dtype=like.dtype, device=like.device, memory_format=torch.channels_last)


def _bits_shape(pixels: Sequence[int], channels: int) -> list[int]:
    return [*pixels, -(-channels // 64)]


def _new_bits(x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    (batch, channels, *size), (out_channels, _, *kernel) = x.shape, weight.shape
    return (
        x.new_empty(_bits_shape((batch, *size), channels), dtype=torch.int64),
        x.new_empty(_bits_shape((out_channels, *kernel), channels), dtype=torch.int64),
    )


def _pixels(x: Tensor) -> Any:
    """An array [batch, height, width, channels], contiguous."""
    return x.detach().contiguous(memory_format=torch.channels_last).permute(0, 2, 3, 1).numpy()


def _pair(values: Sequence[int]) -> tuple[int, int]:
    first, second = values
    return first, second


def _words(bits: Tensor) -> Any:
    return bits.numpy().view(np.uint64)


def _torch_gradient(
    g: Tensor, x: Tensor, weight: Tensor, stride: Sequence[int], padding: Sequence[int], which: int
) -> Tensor:
    """With respect to the input (0) or the weights (1), by torch; differentiable."""
    wanted = [which == 0, which == 1, False]
    results = torch.ops.aten.convolution_backward(
        _settled(g), _settled(x), weight, None, list(stride), list(padding), [1, 1], False, [0, 0], 1, wanted
    )
    gradient: Tensor = results[which]
    return gradient


@torch.library.custom_op("binarynet::conv2d", mutates_args=())
def _conv2d(
    x: Tensor, weight: Tensor, stride: Sequence[int], padding: Sequence[int]
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Sums; bits of x and of the weights; whether x could be packed."""
    from binarynet._native import training

    threads = torch.get_num_threads()
    sums = _new(_out_shape(x, weight, stride, padding), x)
    x_bits, w_bits = _new_bits(x, weight)
    channels = x.shape[1]
    found = training.pack_signs(
        _pixels(x).reshape(-1, channels), False, True, _words(x_bits).reshape(-1, x_bits.shape[-1]), None, threads
    )
    training.pack_conv_weights(weight.detach().contiguous().numpy(), _words(w_bits), threads)
    packed = torch.tensor(found == 0)
    if found:
        if products.current_mode() == "packed":
            raise UsageError('convolutions.conv2d: packed kernels take -1 and +1, got other operands; use mode "auto"')
        sums.copy_(torchs_conv2d(x, binarize_weight(weight.detach()), stride, padding))
    else:
        training.convolve_bits(
            _words(x_bits), _words(w_bits), channels, _pair(stride), _pair(padding), _pixels(sums), threads
        )
    return sums, x_bits, w_bits, packed


@_conv2d.register_fake
def _(x: Tensor, weight: Tensor, stride: Sequence[int], padding: Sequence[int]) -> tuple[Tensor, ...]:
    return _new(_out_shape(x, weight, stride, padding), x), *_new_bits(x, weight), x.new_empty((), dtype=torch.bool)


@torch.library.custom_op("binarynet::conv2d_input_gradient", mutates_args=())
def _input_gradient(
    g: Tensor,
    weight: Tensor,
    x: Tensor,
    w_bits: Tensor,
    packed: Tensor,
    stride: Sequence[int],
    padding: Sequence[int],
) -> Tensor:
    """x gives its shape."""
    result = _new(x.shape, g)
    if not packed or max(stride) > 1:
        return result.copy_(_torch_gradient(g, x, binarize_weight(weight.detach()), stride, padding, 0))

    from binarynet._native import training

    training.conv_input_gradient(_pixels(g), _words(w_bits), _pair(padding), _pixels(result), torch.get_num_threads())
    return result


@_input_gradient.register_fake
def _(
    g: Tensor,
    weight: Tensor,
    x: Tensor,
    w_bits: Tensor,
    packed: Tensor,
    stride: Sequence[int],
    padding: Sequence[int],
) -> Tensor:
    return _new(x.shape, g)


@torch.library.custom_op("binarynet::conv2d_weight_gradient", mutates_args=())
def _weight_gradient(
    g: Tensor,
    x: Tensor,
    weight: Tensor,
    x_bits: Tensor,
    packed: Tensor,
    stride: Sequence[int],
    padding: Sequence[int],
) -> Tensor:
    """weight gives its shape."""
    result = g.new_empty(weight.shape)
    if not packed or max(stride) > 1:
        return result.copy_(_torch_gradient(g, x, weight, stride, padding, 1))

    from binarynet._native import training

    training.conv_weight_gradient(_pixels(g), _words(x_bits), _pair(padding), result.numpy(), torch.get_num_threads())
    return result


@_weight_gradient.register_fake
def _(
    g: Tensor,
    x: Tensor,
    weight: Tensor,
    x_bits: Tensor,
    packed: Tensor,
    stride: Sequence[int],
    padding: Sequence[int],
) -> Tensor:
    return g.new_empty(weight.shape)


def _save_for_conv2d(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    x, weight, ctx.stride, ctx.padding = inputs
    ctx.save_for_backward(x, weight, *output[1:])
    ctx.mark_non_differentiable(*output[1:])


def _conv2d_backward(ctx: Any, g: Tensor, *_: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
    x, weight, x_bits, w_bits, packed = ctx.saved_tensors
    need_x, need_weight, *_ = ctx.needs_input_grad
    window = (ctx.stride, ctx.padding)
    return (
        _input_gradient(g, weight, x, w_bits, packed, *window) if need_x else None,
        _weight_gradient(g, x, weight, x_bits, packed, *window) if need_weight else None,
        None,
        None,
    )


# Differentiating twice is rare: torch's products, which can be differentiated again.


def _save_gradient(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    g, second, _, _, _, ctx.stride, ctx.padding = inputs
    ctx.save_for_backward(g, second)


def _input_gradient_backward(ctx: Any, h: Tensor) -> tuple[Tensor | None, ...]:
    g, weight = ctx.saved_tensors
    signs = _UnmaskedSign.apply(weight)  # type: ignore[no-untyped-call]
    g_gradient = F.conv2d(h, signs, stride=_pair(ctx.stride), padding=_pair(ctx.padding))
    return g_gradient, _torch_gradient(g, h, signs, ctx.stride, ctx.padding, 1), None, None, None, None, None


def _weight_gradient_backward(ctx: Any, h: Tensor) -> tuple[Tensor | None, ...]:
    g, x = ctx.saved_tensors
    g_gradient = F.conv2d(x, h, stride=_pair(ctx.stride), padding=_pair(ctx.padding))
    return g_gradient, _torch_gradient(g, x, h, ctx.stride, ctx.padding, 0), None, None, None, None, None


_conv2d.register_autograd(_conv2d_backward, setup_context=_save_for_conv2d)
_input_gradient.register_autograd(_input_gradient_backward, setup_context=_save_gradient)
_weight_gradient.register_autograd(_weight_gradient_backward, setup_context=_save_gradient)
