"""The packed operators (:mod:`binarynet.ops.packed`) on CUDA devices, by the kernels of :mod:`binarynet.cuda`.

Kernels run on torch's current stream, in memory of torch's allocator, and nothing waits for the device, except the
first product of a new shape, which copies what is known of its shape there. Both operands of a product may be new in
every call: weights are laid out for the kernel on the device (:mod:`binarynet.cuda.operands`). After a first call,
calls can be recorded in CUDA graphs.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from binarynet.cuda import choice, operations
from binarynet.cuda.blocks import Block, Launch
from binarynet.cuda.device import Device, device
from binarynet.cuda.device_operands import DeviceLayout
from binarynet.cuda.methods import METHODS
from binarynet.cuda.operands import layout
from binarynet.encoding import num_words

PACKED: dict[torch.dtype, operations.Packed] = {
    torch.float32: "float32",
    torch.float16: "float16",
    torch.bfloat16: "bfloat16",
    torch.int8: "int8",
    torch.bool: "bool",
}
"""Dtypes that kernels pack, by the names that they have there; of others, the signs are taken first."""
UNPACKED: dict[torch.dtype, Literal["float32", "int8"]] = {torch.float32: "float32", torch.int8: "int8"}


def pack_bits(x: Tensor) -> Tensor:
    """See :func:`binarynet.ops.pack_bits`; NaN packs as -1."""
    values = x if x.dtype in PACKED else x >= 0
    values = _aligned(values.contiguous())
    words = _empty((*x.shape[:-1], num_words(x.shape[-1])), torch.int64, x)
    if words.numel():
        rows = x.numel() // x.shape[-1]
        _start(x, [operations.pack(rows, x.shape[-1], PACKED[values.dtype], values.data_ptr(), words.data_ptr())])
    return words


def unpack_bits(words: Tensor, num_bits: int, dtype: torch.dtype) -> Tensor:
    """See :func:`binarynet.ops.unpack_bits`."""
    words = _aligned(words.contiguous())
    kind = dtype if dtype in UNPACKED else torch.int8
    values = _empty((*words.shape[:-1], num_bits), kind, words)
    if values.numel():
        rows = values.numel() // num_bits
        _start(words, [operations.unpack(rows, num_bits, UNPACKED[kind], words.data_ptr(), values.data_ptr())])
    return values > 0 if dtype == torch.bool else values.to(dtype)


def xnor_matmul(a: Tensor, b: Tensor, num_bits: int, shape: Sequence[int]) -> Tensor:
    """``a`` and ``b`` contiguous, padding bits 0; not empty, and at least a bit.

    Args:
        a, b, num_bits: see :func:`binarynet.ops.xnor_matmul`.
        shape: of the result.
    """
    sums = _empty(shape, torch.int32, a)
    geometry = (1, 1, num_bits, (1, 1), (1, 1), (0, 0), len(b))
    return _product(a, b, sums, sums.numel() // len(b), geometry)


def xnor_conv2d(
    x: Tensor, w: Tensor, channels: int, stride: Sequence[int], padding: Sequence[int], shape: Sequence[int]
) -> Tensor:
    """``x`` and ``w`` contiguous, padding bits 0; not empty, and at least a channel.

    Args:
        x, w, channels, stride, padding: see :func:`binarynet.ops.xnor_conv2d`.
        shape: of the result.
    """
    sums = _empty(shape, torch.int32, x)
    kernel = (w.shape[1], w.shape[2])
    geometry = (x.shape[1], x.shape[2], channels, kernel, tuple(stride), tuple(padding), len(w))
    return _product(x, w, sums, len(x), geometry)


Geometry = tuple[int, int, int, tuple[int, ...], tuple[int, ...], tuple[int, ...], int]
"""Height, width, channels, kernel, stride, padding, output channels."""


def _product(x: Tensor, w: Tensor, sums: Tensor, batch: int, geometry: Geometry) -> Tensor:
    x, w = _aligned(x), _aligned(w)
    gpu = _device(x)
    found = _on_device(gpu, geometry, _method(gpu, geometry, batch))
    if _is_recorded():
        _recorded.add(found)
    scratch = _empty((found.layout.scratch_bytes,), torch.uint8, x)
    places = (x.data_ptr(), w.data_ptr(), sums.data_ptr(), scratch.data_ptr())
    _start(x, found.launches(batch, *places))
    return sums


def block_of(geometry: Geometry) -> Block:
    """The product as a block; its weights are zeros that take no memory."""
    height, width, channels, kernel, stride, padding, out_channels = geometry
    weights = np.broadcast_to(np.uint64(0), (out_channels, *kernel, num_words(channels)))
    return Block("bits", height, width, channels, kernel, stride, padding, weights)  # type: ignore[arg-type]


@functools.lru_cache(maxsize=1024)
def _method(gpu: Device, geometry: Geometry, batch: int) -> str:
    capability = gpu.capability
    return choice.choose(choice.best(capability), block_of(geometry), batch, capability).name


_recorded: set[DeviceLayout] = set()
"""Never forgotten: a CUDA graph that was recorded still reads what lies on the device."""


@functools.lru_cache(maxsize=1024)
def _on_device(gpu: Device, geometry: Geometry, method: str) -> DeviceLayout:
    """Freeing a forgotten one waits for the kernels that read it."""
    return DeviceLayout(gpu, layout(METHODS[method], block_of(geometry)))


def _start(on: Tensor, launches: Sequence[Launch]) -> None:
    gpu, stream = _device(on), _stream(on)
    for launch in launches:
        gpu.launch(launch, stream)


def _is_recorded() -> bool:
    return torch.cuda.is_current_stream_capturing()


def _stream(on: Tensor) -> int:
    return torch.cuda.current_stream(on.device).cuda_stream


def _device(tensor: Tensor) -> Device:
    return device(tensor.device.index)


def _empty(shape: Sequence[int], dtype: torch.dtype, on: Tensor) -> Tensor:
    return torch.empty(tuple(shape), dtype=dtype, device=on.device)


def _aligned(tensor: Tensor) -> Tensor:
    """Kernels read 16 bytes at a time; a view may begin anywhere."""
    return tensor if tensor.data_ptr() % 16 == 0 else tensor.clone()
