"""Noise by counting: the same key gives the same random numbers on every device, and nothing has a state.

The generator is Philox4x32-10 (Salmon, Moraes, Dror and Shaw 2011, "Parallel random numbers: as easy as 1, 2, 3",
doi 10.1145/2063384.2063405), which passes the statistical batteries of TestU01 for keys and counters that merely
count. Element i, in the order of C whatever the tensor's memory layout, takes word ``i % 4`` of block ``i // 4``;
the block's number is the counter (its upper 64 bits are 0), and the key is 64 bits wide. All of it is integer
arithmetic, so that threads, devices and compilers cannot change a bit.

A decision with probability p takes the word's upper 24 bits with the last of them set: an odd integer n in
``1 .. 2^24 - 1``. It compares n with ``p * 2^24``, which is right to 2^-24 and symmetric about 1/2.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function_unary

from binarynet.errors import ShapeError, UsageError
from binarynet.ops import kernels

_WORD = 0xFFFFFFFF
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_KEY_STEPS = (0x9E3779B9, 0xBB67AE85)
_ROUNDS = 10


def noise_key(number: int, device: torch.device | str | None = None) -> Tensor:
    """A key from an integer of which the lowest 64 bits count: int64 ``[]``."""
    number %= 1 << 64
    return torch.tensor(number - (1 << 64) if number >> 63 else number, dtype=torch.int64, device=device)


def draw_noise_key(device: torch.device, generator: torch.Generator | None = None) -> Tensor:
    """A key from a generator of torch, the global one of the device by default: int64 ``[]``."""
    if generator is None:  # a compiled graph takes no generator, not even None, where sizes vary
        return torch.randint(2**63 - 1, (), device=device, dtype=torch.int64)
    return torch.randint(2**63 - 1, (), device=device, dtype=torch.int64, generator=generator)


def next_noise_key(state: Tensor) -> Tensor:
    """A copy of a key, which is counted on in place (as a number, it would make a compiled graph per step)."""
    if torch.compiler.is_compiling():
        key: Tensor = _next_noise_key(state)
        return key
    return _next_noise_key_now(state)


def _next_noise_key_now(state: Tensor) -> Tensor:
    key = state.clone()
    state.add_(1)
    return key


# An operation of its own, because compilers copy an ordinary clone() into the backward graph, where it finds the state
# of after the forward pass (https://github.com/pytorch/pytorch/pull/197039).
@torch.library.custom_op("binarynet::next_noise_key", mutates_args=("state",))
def _next_noise_key(state: Tensor) -> Tensor:
    return _next_noise_key_now(state)


@_next_noise_key.register_fake
def _(state: Tensor) -> Tensor:
    return torch.empty_like(state)


def random_words(key: Tensor, count: int) -> Tensor:
    """The first ``count`` words of a key: int64 ``[count]``, values 0 to 2^32 - 1, on the key's device.

    Args:
        key: int64, one element.
        count: how many.

    Raises:
        ShapeError: ``key`` is something else.
    """
    _check_key("random_words", key)
    block = torch.arange((count + 3) // 4, device=key.device, dtype=torch.int64)
    key, zero = key.reshape(()), torch.zeros_like(block)
    words = _philox((block & _WORD, block >> 32, zero, zero), (key & _WORD, (key >> 32) & _WORD))
    return torch.stack(words, 1).flatten()[:count]


def _philox(counter: tuple[Tensor, ...], key: tuple[Tensor, Tensor]) -> tuple[Tensor, ...]:
    """Ten rounds; counter and result are four words, a key is two, each an int64 from 0 to 2^32 - 1."""
    (c0, c1, c2, c3), (k0, k1) = counter, key
    for number in range(_ROUNDS):
        if number:
            k0, k1 = (k0 + _KEY_STEPS[0]) & _WORD, (k1 + _KEY_STEPS[1]) & _WORD
        high0, low0 = _multiply(c0, _MULTIPLIERS[0])
        high1, low1 = _multiply(c2, _MULTIPLIERS[1])
        c0, c1, c2, c3 = high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0
    return c0, c1, c2, c3


def random_sign(x: Tensor, key: Tensor) -> Tensor:
    """+1 with probability ``clip((x + 1) / 2, 0, 1)``, else -1; NaN stays. No gradient of its own.

    The odd integer n (see above) is compared with ``(x + 1) * 2^23``, in float32, or in float64 for float64.
    """
    if torch.compiler.is_compiling() and x.device.type == "cpu" and x.dtype == torch.float32:
        drawn: Tensor = _random_sign(x, key)
        return drawn
    return _random_sign_now(x, key)


def _random_sign_now(x: Tensor, key: Tensor) -> Tensor:
    drawn = _by_kernel("random_sign", x, key)
    if drawn is None:
        wide = x if x.dtype == torch.float64 else x.float()
        drawn = torch.where(_odd(key, x).to(wide.dtype) < (wide + 1) * 2.0**23, 1.0, -1.0).to(x.dtype)
        drawn = torch.where(torch.isnan(x), x, drawn)
    return _laid_out_like(x, drawn)


def drop(x: Tensor, probability: float, key: Tensor | None = None) -> Tensor:
    """0 with the given probability, else x: dropout without its rescaling, so that integers stay integers.

    The gradient is dropped where x was. A dropped infinity or NaN gives 0.

    Args:
        x: float tensor, any shape.
        probability: in [0, 1], taken to a multiple of 2^-23.
        key: what noise, int64 with one element (:func:`noise_key`); by default drawn from torch's global generator.

    Returns:
        Same shape and dtype.

    Raises:
        ShapeError: ``x`` is not a float tensor, or the key no key.
        UsageError: ``probability`` is none.
    """
    if has_torch_function_unary(x):
        result: Tensor = handle_torch_function(drop, (x,), x, probability, key=key)
        return result
    if not x.is_floating_point():
        raise ShapeError(f"drop: expected a float tensor, got {x.dtype} {list(x.shape)}; convert it first")
    if not 0 <= probability <= 1:
        raise UsageError(f"drop: expected a probability, got {probability}")
    return _Drop.apply(x, probability, chosen_key("drop", x, key, None))  # type: ignore[no-any-return, no-untyped-call]


def chosen_key(name: str, x: Tensor, key: Tensor | None, generator: torch.Generator | None) -> Tensor:
    """The key that a caller of ``name`` gave, checked, or a new one for the device of x."""
    if key is None:
        return draw_noise_key(x.device, generator)
    if generator is not None:
        raise UsageError(f"{name}: give a key or a generator, not both")
    _check_key(name, key)
    if key.device != x.device:
        raise ShapeError(f"{name}: the key is on {key.device}, the values are on {x.device}; put it there, too")
    return key


class _Drop(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, probability: float, key: Tensor) -> Tensor:
        ctx.save_for_backward(key)
        ctx.probability = probability
        return _dropped(x, probability, key)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None, None]:
        (key,) = ctx.saved_tensors
        return _dropped(grad_outputs[0], ctx.probability, key), None, None


def _dropped(x: Tensor, probability: float, key: Tensor) -> Tensor:
    threshold = math.ceil(probability * 2**24)
    if torch.compiler.is_compiling() and x.device.type == "cpu" and x.dtype == torch.float32:
        dropped: Tensor = _drop(x, threshold, key)
        return dropped
    return _drop_now(x, threshold, key)


def _drop_now(x: Tensor, threshold: int, key: Tensor) -> Tensor:
    kept = _by_kernel("drop", x, key, threshold)
    if kept is None:
        kept = torch.where(_odd(key, x) >= threshold, x, 0)
    return _laid_out_like(x, kept)


def _by_kernel(name: str, x: Tensor, key: Tensor, *options: int) -> Tensor | None:
    """The result of the package's kernel; None where torch has to compute."""
    if torch.compiler.is_compiling():
        return None
    groups = x.ndim == 4 and x[0, 0].numel() % 4 == 0 if x.numel() else False
    if not x.is_contiguous() and not (groups and x.is_contiguous(memory_format=torch.channels_last)):
        x = x.contiguous()
    if (native := kernels.fast(x)) is None:
        return None
    result = torch.empty_like(x)
    arguments = (int(key) % (1 << 64), *options, torch.get_num_threads())
    if x.is_contiguous():
        getattr(native, name)(kernels.flat(x), kernels.flat(result), *arguments)
    else:
        images, pixels, channels = x.shape[0], x[0, 0].numel(), x.shape[1]
        views = (kernels.flat(tensor).reshape(images, pixels, channels) for tensor in (x, result))
        getattr(native, f"{name}_images")(*views, *arguments)
    return result


def _laid_out_like(x: Tensor, result: Tensor) -> Tensor:
    """In the memory layout of x, which a following convolution wants."""
    laid_out = torch.empty_like(x)
    return result if result.stride() == laid_out.stride() else laid_out.copy_(result)


# In a graph compiled for the CPU, noise is an operation of its own: there, the kernels are several times faster than
# what a compiler makes of the formulas. On other devices the formulas are fused into what surrounds them.


@torch.library.custom_op("binarynet::random_sign", mutates_args=(), device_types="cpu")
def _random_sign(x: Tensor, key: Tensor) -> Tensor:
    return _random_sign_now(x, key)


@torch.library.custom_op("binarynet::drop", mutates_args=(), device_types="cpu")
def _drop(x: Tensor, threshold: int, key: Tensor) -> Tensor:
    return _drop_now(x, threshold, key)


@_random_sign.register_fake
def _(x: Tensor, key: Tensor) -> Tensor:
    return torch.empty_like(x)


@_drop.register_fake
def _(x: Tensor, threshold: int, key: Tensor) -> Tensor:
    return torch.empty_like(x)


def _odd(key: Tensor, like: Tensor) -> Tensor:
    """An odd integer in 1 .. 2^24 - 1 for each element: int64, in the shape of ``like``."""
    return (random_words(key, like.numel()).view(like.shape) >> 8) | 1


def _multiply(word: Tensor, factor: int) -> tuple[Tensor, Tensor]:
    """The upper and the lower word of a product of two words, by way of halves: int64 must not overflow."""
    below = (word & 0xFFFF) * factor
    above = (word >> 16) * factor + (below >> 16)
    return above >> 16, ((above & 0xFFFF) << 16) | (below & 0xFFFF)


def _check_key(name: str, key: Tensor) -> None:
    if key.dtype != torch.int64 or key.numel() != 1:
        raise ShapeError(f"{name}: expected a key of int64 with one element, got {key.dtype} {list(key.shape)}")
