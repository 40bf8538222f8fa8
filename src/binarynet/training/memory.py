"""A network that is larger than the machine, told in one line and as far as possible before it is made; and memory
that steps hand on to each other."""

from __future__ import annotations

import ctypes
import os
import platform
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import nn

from binarynet.errors import UsageError

_COPIES = 4  # of every parameter while Adam trains: itself, its gradient, two moments
_ALLOCATORS = ("DefaultCPUAllocator", "not enough memory", "MPS backend out of memory")  # words of torch's own errors


# Numbers of glibc's mallopt() (malloc.h), and the values that its own adaptation ends with.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_MMAP_MAX = -1, -3, -4
_KEEP = ((_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, -1))
_RETURN = ((_M_MMAP_MAX, 65536), (_M_MMAP_THRESHOLD, 32 << 20), (_M_TRIM_THRESHOLD, 64 << 20))


def weight_bytes(network: nn.Module) -> int:
    """Bytes of a network's parameters and statistics; it may be on the meta device."""
    return sum(tensor.numel() * tensor.element_size() for tensor in network.state_dict().values())


def check_fits(network: nn.Module, accelerator: str, *, averaged: bool = False) -> None:
    """Compare what training a network takes with the machine's memory, where that is known.

    Args:
        network: on the meta device, so that asking costs nothing.
        accelerator: a recipe's ``training.accelerator``; beside one, the processor holds the weights only.
        averaged: whether an average of the weights is kept, too.

    Raises:
        UsageError: it can never fit.
    """
    beside = accelerator != "cpu" and (torch.cuda.is_available() or torch.backends.mps.is_available())
    weights, memory = weight_bytes(network), _memory()
    needed = weights if beside else (_COPIES + averaged) * weights
    if memory is not None and needed > memory:
        more = "" if beside else f", {needed:,} with gradients and moments"
        raise UsageError(
            f"the network needs {weights:,} bytes of weights{more}, but this machine has {memory:,} bytes of memory; "
            "make the [model] smaller"
        )


@contextmanager
def told(network: nn.Module) -> Iterator[None]:
    """Turn a failed allocation of torch's into a UsageError that says how large the network is."""
    try:
        yield
    except RuntimeError as error:
        if not isinstance(error, torch.OutOfMemoryError) and not any(words in str(error) for words in _ALLOCATORS):
            raise
        raise UsageError(
            f"out of memory: the network needs {weight_bytes(network):,} bytes of weights, and several times as much "
            "in training; make the [model] or training.batch_size smaller"
        ) from error


@contextmanager
def kept() -> Iterator[None]:
    """Keep what is freed for the next allocation, until the end of the block, where glibc allocates.

    torch asks the C library for each tensor, and glibc gives blocks above 32 MB back to the system at once. Every step
    of a large network then takes hundreds of megabytes of new pages, which the system fills with zeros first: in the
    paper's largest MLP a tenth of the step and more. Kept, they cost a few per cent of peak memory.
    """
    if platform.libc_ver()[0] != "glibc":
        yield
        return
    library = ctypes.CDLL(None)
    _set(library.mallopt, _KEEP)
    try:
        yield
    finally:
        _set(library.mallopt, _RETURN)
        library.malloc_trim(0)


def _set(mallopt: Callable[[int, int], int], settings: tuple[tuple[int, int], ...]) -> None:
    for number, value in settings:
        if mallopt(number, value) != 1:
            raise RuntimeError(f"mallopt({number}, {value}) was refused")


def _memory() -> int | None:
    """Bytes of the machine's memory; None where the system does not say."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return None
