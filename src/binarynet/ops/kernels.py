"""The package's own kernels on the memory of tensors (``native/src/training``), where they apply.

They take float32 on the CPU, outside of compiled graphs and of autograd (no gradient flows through them), and only
where the machine has fast ones: `binarynet info` tells. Everywhere else, torch computes the same, to the last bit
unless the function says otherwise.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from binarynet.errors import BackendUnavailableError


def instruction_set() -> str:
    """Whose training kernels are used now; "portable" where the chosen instruction set has none of its own.

    Raises:
        ImportError: the native extension is not there.
        BackendUnavailableError: ``BINARYNET_FORCE_ISA`` names what this machine has not.
    """
    from binarynet import _native

    try:
        return _native.training.instruction_set()
    except _native.NativeError as error:
        raise BackendUnavailableError(str(error)) from error


def fast(*tensors: Tensor) -> Any:
    """``binarynet._native.training`` if its kernels take these tensors and are fast; else None.

    They take dense tensors that are all contiguous, or all contiguous in channels-last order.
    """
    if torch.compiler.is_compiling() or torch._C._get_tracing_state() is not None:
        return None
    if torch._C._len_torch_dispatch_stack():
        return None  # who records operations must see them
    for tensor in tensors:
        if (
            tensor.dtype != torch.float32
            or tensor.device.type != "cpu"
            or tensor.layout != torch.strided
            or type(tensor) not in (Tensor, nn.Parameter)
            or (tensor.requires_grad and torch.is_grad_enabled())
            or tensor.is_neg()  # a view whose values are not what lies in memory
            or tensor._is_zerotensor()
        ):
            return None
    if not all(tensor.is_contiguous() for tensor in tensors) and not all(map(_is_channels_last, tensors)):
        return None
    try:
        if instruction_set() == "portable":
            return None
    except ImportError:
        return None
    from binarynet._native import training

    return training


def written(*tensors: Tensor) -> None:
    """Tell autograd that a kernel has changed tensors in place: a graph that still needs the old values says so."""
    torch.autograd.graph.increment_version(tensors)


def flat(tensor: Tensor) -> Any:
    """The memory of a tensor that :func:`fast` has approved: NumPy, float32 ``[n]``."""
    if not tensor.is_contiguous():
        tensor = tensor.permute(0, 2, 3, 1)
    return tensor.detach().view(-1).numpy()


def _is_channels_last(tensor: Tensor) -> bool:
    return tensor.ndim == 4 and tensor.is_contiguous(memory_format=torch.channels_last)
