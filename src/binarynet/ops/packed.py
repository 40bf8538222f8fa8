"""Packed +-1 operands as torch operators: pack, unpack, and exact products by XNOR and population count.

The operators are ``torch.ops.binarynet.{pack_bits, unpack_bits, xnor_matmul, xnor_conv2d}``; the functions of this
module call them. They work on the CPU (the package's own kernels) and on CUDA devices
(:mod:`binarynet.ops.packed_cuda`), inside of ``torch.compile(fullgraph=True)`` and ``torch.export``, and under
``torch.vmap``. None is differentiable: what they make are bits and integers.

**Words are int64**, least significant bit first (:mod:`binarynet.encoding`): the bits are those of the package's
uint64 words, the dtype is the one that torch computes with. Its uint64 (2.13) has no shift, complement, gather, flip or
maximum. ``words.numpy().view("uint64")`` and ``torch.from_numpy(array.view("int64"))`` go from one to the other without
a copy.

**Padding bits**, those of a last word beyond the true length, are written as 0 and ignored where words are read: what
stands there never changes a result.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from binarynet import encoding
from binarynet.encoding import EXACT_FLOAT32_LIMIT, WORD_BITS, num_words
from binarynet.errors import NonFiniteError, ShapeError, UsageError
from binarynet.ops.convolutions import torchs_conv2d
from binarynet.ops.kernels import instruction_set

SIGNED = (
    torch.float32,
    torch.float64,
    torch.float16,
    torch.bfloat16,
    torch.int8,
    torch.int16,
    torch.int32,
    torch.int64,
    torch.bool,
)
"""Dtypes that have signs; of bool, True is +1 and False is -1."""


def pack_bits(x: Tensor) -> Tensor:
    """The signs of the last axis as bits: 1 for +1, 0 for -1; ``sign(0) = sign(-0.0) = +1``.

    Args:
        x: floats, signed integers or bool (True is +1), ``[..., n]``.

    Returns:
        int64 ``[..., ceil(n / 64)]``, least significant bit first, padding bits 0.

    Raises:
        ShapeError: another dtype, or no axis.
        NonFiniteError: NaN, on the CPU. On CUDA devices, where looking for it would wait for the device, NaN packs as
            -1.
        UsageError: ``x`` requires a gradient, and gradients are recorded.
    """
    words: Tensor = _pack_bits(x)
    return words


def unpack_bits(words: Tensor, num_bits: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Inverse of :func:`pack_bits`.

    Args:
        words: int64 ``[..., ceil(num_bits / 64)]``.
        num_bits: length of the unpacked axis.
        dtype: of the result: a float or a signed integer gets +1 and -1, bool True for +1.

    Returns:
        ``[..., num_bits]``.

    Raises:
        ShapeError: words of another dtype or number, or a dtype without signs.
    """
    values: Tensor = _unpack_bits(words, num_bits, dtype)
    return values


def xnor_matmul(a: Tensor, b: Tensor, num_bits: int) -> Tensor:
    """``a @ b.T`` of +-1 matrices given as bits: ``num_bits - 2 * popcount(a XOR b)`` for each pair of rows.

    Args:
        a: int64 ``[..., M, words]``, words = ceil(num_bits / 64); one vector ``[words]`` will do.
        b: int64 ``[N, words]``.
        num_bits: length of the dot products, at most 2^24.

    Returns:
        int32 ``[..., M, N]``, exact.

    Raises:
        ShapeError: another dtype or number of words, or too long a dot product.
        UsageError: operands on different devices.
        BackendUnavailableError: CUDA kernels cannot be used here.
    """
    sums: Tensor = _xnor_matmul(a, b, num_bits)
    return sums


def xnor_conv2d(
    x: Tensor, w: Tensor, channels: int, stride: int | Sequence[int] = 1, padding: int | Sequence[int] = 0
) -> Tensor:
    """Convolution of +-1 images with +-1 weights, both given as bits; a padded tap adds 0.

    Args:
        x: int64 ``[batch, height, width, words]``: the bits of a pixel's channels, words = ceil(channels / 64).
        w: int64 ``[out_channels, kernel height, kernel width, words]``.
        channels: of the input; ``channels * kernel height * kernel width`` is at most 2^24.
        stride: (vertical, horizontal), or one number for both.
        padding: (vertical, horizontal), or one number for both; smaller than the kernel.

    Returns:
        int32 ``[batch, out_height, out_width, out_channels]``, exact. :func:`pack_bits` of ``sums - thresholds`` is the
        next layer's input.

    Raises:
        ShapeError: another dtype or number of words; a stride, padding or size that does not fit.
        UsageError: operands on different devices.
        BackendUnavailableError: CUDA kernels cannot be used here.
    """
    sums: Tensor = _xnor_conv2d(x, w, channels, _pair(stride), _pair(padding))
    return sums


def _pair(value: int | Sequence[int]) -> Sequence[int]:
    return value if isinstance(value, Sequence) else (value, value)


# ---- What every device checks, and the shapes of results.


def _check_values(x: Tensor) -> None:
    if x.ndim == 0 or x.dtype not in SIGNED:
        raise ShapeError(
            f"pack_bits: expected floats, signed integers or bool [..., n], got {x.dtype} {list(x.shape)}"
            + ("; bits are the signs of values: pass 2 * x - 1 for 0 and 1" if x.dtype == torch.uint8 else "")
        )


def _check_words(where: str, words: Tensor, num_bits: int, axes: str = "...") -> None:
    """``axes``: names of those before the words; "..." for any number of them, none included."""
    any_axes = axes.startswith("...")
    ndim = len(axes.split(",")) + 1
    if num_bits < 0:
        raise ShapeError(f"{where}: a number of bits cannot be negative, got {num_bits}")
    if (
        words.dtype != torch.int64
        or (words.ndim < 1 if any_axes else words.ndim != ndim)
        or words.shape[-1] != num_words(num_bits)
    ):
        hint = "; pass words.view(torch.int64)" if words.dtype == torch.uint64 else ""
        raise ShapeError(
            f"{where}: {num_bits} bits need int64 [{axes}, {num_words(num_bits)}], got {words.dtype} "
            f"{list(words.shape)}{hint}"
        )


def _check_product(where: str, a: Tensor, b: Tensor, taps: int) -> None:
    if a.device != b.device:
        raise UsageError(f"{where}: operands must be on one device, got {a.device} and {b.device}; move one of them")
    if taps > EXACT_FLOAT32_LIMIT:
        raise ShapeError(f"{where}: dot products of {taps} terms; {EXACT_FLOAT32_LIMIT} is the most")


def _check_matmul(a: Tensor, b: Tensor, num_bits: int) -> None:
    _check_words("xnor_matmul", a, num_bits, "..., M")
    _check_words("xnor_matmul", b, num_bits, "N")
    _check_product("xnor_matmul", a, b, num_bits)


def _check_conv2d(x: Tensor, w: Tensor, channels: int, stride: Sequence[int], padding: Sequence[int]) -> None:
    where = "xnor_conv2d"
    _check_words(where, x, channels, "batch, height, width")
    _check_words(where, w, channels, "out_channels, kernel height, kernel width")
    kernel, size = w.shape[1:3], x.shape[1:3]
    if (
        len(stride) != 2
        or len(padding) != 2
        or min(stride) < 1
        or min(kernel) < 1
        or any(not 0 <= p < k for p, k in zip(padding, kernel, strict=True))
    ):
        raise ShapeError(
            f"{where}: expected two strides of at least 1 and two paddings from 0 and smaller than the kernel "
            f"{list(kernel)}, got strides {list(stride)} and paddings {list(padding)}"
        )
    if min(size) < 1 or any(s + 2 * p < k for s, p, k in zip(size, padding, kernel, strict=True)):
        raise ShapeError(
            f"{where}: images of {list(size)} with padding {list(padding)} are smaller than the kernel {list(kernel)}"
        )
    _check_product(where, x, w, channels * kernel[0] * kernel[1])


def _matmul_shape(a: Tensor, b: Tensor) -> tuple[int, ...]:
    return (*a.shape[:-1], b.shape[0])


def _conv2d_shape(x: Tensor, w: Tensor, stride: Sequence[int], padding: Sequence[int]) -> tuple[int, int, int, int]:
    height, width = (
        (size + 2 * p - k) // s + 1 for size, p, k, s in zip(x.shape[1:3], padding, w.shape[1:3], stride, strict=True)
    )
    return (x.shape[0], height, width, w.shape[0])


def _without_padding(words: Tensor, num_bits: int) -> Tensor:
    """The same words, contiguous, with padding bits 0; a copy only where it takes one to know that they are."""
    used = num_bits % WORD_BITS
    words = words.contiguous()
    if used == 0 or words.numel() == 0:
        return words
    mask = (1 << used) - 1
    if words.device.type == "cpu" and not bool((words[..., -1] & ~mask).any()):
        return words
    words = words.clone()
    words[..., -1] &= mask
    return words


# ---- The operators, opaque to torch.compile, with their kernels for the CPU.


@torch.library.custom_op("binarynet::pack_bits", mutates_args=(), device_types="cpu")
def _pack_bits(x: Tensor) -> Tensor:
    _check_values(x)
    x = x.detach().contiguous()
    if x.is_floating_point() and _has_nan(x):
        raise NonFiniteError("pack_bits: NaN has no sign; look for it where the values come from")
    if x.dtype == torch.float32 and x.numel() and _fast():
        from binarynet._native import training

        words = np.empty((x.numel() // x.shape[-1], num_words(x.shape[-1])), np.uint64)
        training.pack_signs(x.view(-1, x.shape[-1]).numpy(), False, False, words, None, torch.get_num_threads())
    else:
        words = encoding.pack_bits((x if x.dtype == torch.bool else x >= 0).numpy())
    return torch.from_numpy(words.view(np.int64)).view(_words_shape(x))


@_pack_bits.register_kernel("cuda")
def _(x: Tensor) -> Tensor:
    from binarynet.ops import packed_cuda

    _check_values(x)
    return packed_cuda.pack_bits(x.detach())


@_pack_bits.register_fake
def _(x: Tensor) -> Tensor:
    _check_values(x)
    return x.new_empty(_words_shape(x), dtype=torch.int64)


def _words_shape(x: Tensor) -> tuple[int, ...]:
    return (*x.shape[:-1], num_words(x.shape[-1]))


def _has_nan(x: Tensor) -> bool:
    """A sum with NaN in it is NaN (that of two infinities may be, too), and faster than looking at every value."""
    return bool(x.sum().isnan()) and bool(x.isnan().any())


def _refuse_gradient(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    raise UsageError(
        "pack_bits: bits have no gradient, and x requires one; pass x.detach(), or train with binarynet.ops.sign, "
        "whose gradient is a straight-through estimator, and pack afterwards"
    )


_pack_bits.register_autograd(lambda ctx, g: None, setup_context=_refuse_gradient)


@torch.library.custom_op("binarynet::unpack_bits", mutates_args=(), device_types="cpu")
def _unpack_bits(words: Tensor, num_bits: int, dtype: torch.dtype) -> Tensor:
    _check_unpack(words, num_bits, dtype)
    bits = torch.from_numpy(encoding.unpack_bits(_array(words.contiguous()), num_bits))
    return bits if dtype == torch.bool else bits.to(dtype).mul_(2).sub_(1)


@_unpack_bits.register_kernel("cuda")
def _(words: Tensor, num_bits: int, dtype: torch.dtype) -> Tensor:
    from binarynet.ops import packed_cuda

    _check_unpack(words, num_bits, dtype)
    return packed_cuda.unpack_bits(words, num_bits, dtype)


@_unpack_bits.register_fake
def _(words: Tensor, num_bits: int, dtype: torch.dtype) -> Tensor:
    _check_unpack(words, num_bits, dtype)
    return words.new_empty((*words.shape[:-1], num_bits), dtype=dtype)


def _check_unpack(words: Tensor, num_bits: int, dtype: torch.dtype) -> None:
    _check_words("unpack_bits", words, num_bits)
    if dtype not in SIGNED:
        raise ShapeError(f"unpack_bits: {dtype} cannot hold -1; ask for a float, a signed integer or bool")


@torch.library.custom_op("binarynet::xnor_matmul", mutates_args=(), device_types="cpu")
def _xnor_matmul(a: Tensor, b: Tensor, num_bits: int) -> Tensor:
    _check_matmul(a, b, num_bits)
    sums = torch.zeros(_matmul_shape(a, b), dtype=torch.int32)
    if sums.numel() == 0 or num_bits == 0:
        return sums
    a, b = (_without_padding(words, num_bits).view(-1, words.shape[-1]) for words in (a, b))
    if not _has_native():
        values = (unpack_bits(words, num_bits) for words in (a, b))
        return sums.copy_((next(values) @ next(values).T).view(sums.shape))

    from binarynet._native import training

    instruction_set()  # an unknown one is named in an error of its own
    out = sums.view(len(a), len(b)).numpy()
    training.multiply_bits_int32(_array(a), _array(b), num_bits, out, torch.get_num_threads())
    return sums


@_xnor_matmul.register_kernel("cuda")
def _(a: Tensor, b: Tensor, num_bits: int) -> Tensor:
    from binarynet.ops import packed_cuda

    _check_matmul(a, b, num_bits)
    shape = _matmul_shape(a, b)
    if 0 in shape or num_bits == 0:
        return a.new_zeros(shape, dtype=torch.int32)
    return packed_cuda.xnor_matmul(_without_padding(a, num_bits), _without_padding(b, num_bits), num_bits, shape)


@_xnor_matmul.register_fake
def _(a: Tensor, b: Tensor, num_bits: int) -> Tensor:
    _check_matmul(a, b, num_bits)
    return a.new_empty(_matmul_shape(a, b), dtype=torch.int32)


@torch.library.custom_op("binarynet::xnor_conv2d", mutates_args=(), device_types="cpu")
def _xnor_conv2d(x: Tensor, w: Tensor, channels: int, stride: Sequence[int], padding: Sequence[int]) -> Tensor:
    _check_conv2d(x, w, channels, stride, padding)
    sums = torch.zeros(_conv2d_shape(x, w, stride, padding), dtype=torch.int32)
    if sums.numel() == 0 or channels == 0:
        return sums
    x, w = _without_padding(x, channels), _without_padding(w, channels)
    window = (stride[0], stride[1]), (padding[0], padding[1])
    if not _has_native():
        images, weights = (unpack_bits(words, channels).permute(0, 3, 1, 2) for words in (x, w))
        return sums.copy_(torchs_conv2d(images, weights, *window).permute(0, 2, 3, 1))

    from binarynet._native import training

    instruction_set()  # an unknown one is named in an error of its own
    training.convolve_bits_int32(_array(x), _array(w), channels, *window, sums.numpy(), torch.get_num_threads())
    return sums


@_xnor_conv2d.register_kernel("cuda")
def _(x: Tensor, w: Tensor, channels: int, stride: Sequence[int], padding: Sequence[int]) -> Tensor:
    from binarynet.ops import packed_cuda

    _check_conv2d(x, w, channels, stride, padding)
    shape = _conv2d_shape(x, w, stride, padding)
    if 0 in shape or channels == 0:
        return x.new_zeros(shape, dtype=torch.int32)
    x, w = _without_padding(x, channels), _without_padding(w, channels)
    return packed_cuda.xnor_conv2d(x, w, channels, stride, padding, shape)


@_xnor_conv2d.register_fake
def _(x: Tensor, w: Tensor, channels: int, stride: Sequence[int], padding: Sequence[int]) -> Tensor:
    _check_conv2d(x, w, channels, stride, padding)
    return x.new_empty(_conv2d_shape(x, w, stride, padding), dtype=torch.int32)


def _array(words: Tensor) -> Any:
    return words.numpy().view(np.uint64)


def _has_native() -> bool:
    try:
        from binarynet import _native  # noqa: F401
    except ImportError:
        return False
    return True


def _fast() -> bool:
    return _has_native() and instruction_set() != "portable"


# ---- torch.vmap: the new axis joins those in front; where weights have it, too, one product after the other.


def _vmapped_pack(info: Any, in_dims: tuple[Any, ...], x: Tensor) -> tuple[Tensor, int]:
    return pack_bits(_front(x, in_dims[0], x.ndim - 1)), 0


def _vmapped_unpack(
    info: Any, in_dims: tuple[Any, ...], words: Tensor, num_bits: int, dtype: torch.dtype
) -> tuple[Tensor, int]:
    return unpack_bits(_front(words, in_dims[0], words.ndim - 1), num_bits, dtype), 0


def _front(x: Tensor, dim: int, last: int) -> Tensor:
    if last == 0:
        raise ShapeError("vmap: the operators work on the last axis of each example, and these examples have none")
    return x.movedim(dim, 0)


def _vmapped_matmul(info: Any, in_dims: tuple[Any, ...], a: Tensor, b: Tensor, num_bits: int) -> tuple[Tensor, int]:
    if in_dims[1] is None:
        return xnor_matmul(a.movedim(in_dims[0], 0), b, num_bits), 0
    pairs = zip(_each(a, in_dims[0], info), _each(b, in_dims[1], info), strict=True)
    return torch.stack([xnor_matmul(one, other, num_bits) for one, other in pairs]), 0


def _vmapped_conv2d(
    info: Any, in_dims: tuple[Any, ...], x: Tensor, w: Tensor, channels: int, stride: Any, padding: Any
) -> tuple[Tensor, int]:
    if in_dims[1] is None:
        images = x.movedim(in_dims[0], 0)
        sums = xnor_conv2d(images.flatten(0, 1), w, channels, stride, padding)
        return sums.view(*images.shape[:2], *sums.shape[1:]), 0
    pairs = zip(_each(x, in_dims[0], info), _each(w, in_dims[1], info), strict=True)
    return torch.stack([xnor_conv2d(one, other, channels, stride, padding) for one, other in pairs]), 0


def _each(x: Tensor, dim: int | None, info: Any) -> Sequence[Tensor]:
    return x.unbind(dim) if dim is not None else [x] * info.batch_size


_pack_bits.register_vmap(_vmapped_pack)
_unpack_bits.register_vmap(_vmapped_unpack)
_xnor_matmul.register_vmap(_vmapped_matmul)
_xnor_conv2d.register_vmap(_vmapped_conv2d)
