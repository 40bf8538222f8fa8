"""What a kernel is asked to compute, and how a kernel is started: the words that methods and devices share.

On the device every value lies as it does on the host (:mod:`binarynet.graph.ir`): bits are 64-bit words over the last
axis, image after image, without gaps. Addresses that kernels are given are multiples of 16.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from binarynet.encoding import Words, num_words

Pair = tuple[int, int]
Array = npt.NDArray[Any]
Capability = tuple[int, int]
"""Compute capability of a GPU: (9, 0) for an H100."""


@dataclass(frozen=True, eq=False)
class Block:
    """A binary convolution or dense layer with what is fused into it. A dense layer is a 1x1 window on a 1x1 image.

    Attributes:
        input: "bits", or "u8" for a first layer, where u stands for 2u - 255.
        height, width, channels: of the input.
        kernel, stride, padding: of the window, rows first; taps outside of the image add nothing.
        weights: packed bits, uint64 ``[out_channels, kernel rows, kernel columns, words(channels)]``.
        output: "i32" sums; "bits" after ``thresholds`` int32 and ``falling`` bool, both ``[out_channels]``;
            "f32" scores after ``scale`` and ``shift``, float32 ``[out_channels]``.
    """

    input: Literal["bits", "u8"]
    height: int
    width: int
    channels: int
    kernel: Pair
    stride: Pair
    padding: Pair
    weights: Words
    output: Literal["i32", "bits", "f32"] = "i32"
    thresholds: npt.NDArray[np.int32] | None = None
    falling: npt.NDArray[np.bool_] | None = None
    scale: npt.NDArray[np.float32] | None = None
    shift: npt.NDArray[np.float32] | None = None

    @property
    def words(self) -> int:
        """64-bit words of one input pixel, where the input is bits."""
        return num_words(self.channels)

    @property
    def out_channels(self) -> int:
        return int(self.weights.shape[0])

    @property
    def out_words(self) -> int:
        """64-bit words of one output pixel, where the output is bits."""
        return num_words(self.out_channels)

    @property
    def out_height(self) -> int:
        return (self.height + 2 * self.padding[0] - self.kernel[0]) // self.stride[0] + 1

    @property
    def out_width(self) -> int:
        return (self.width + 2 * self.padding[1] - self.kernel[1]) // self.stride[1] + 1

    @property
    def taps(self) -> int:
        """Weights per output channel (K)."""
        return self.kernel[0] * self.kernel[1] * self.channels

    def rows(self, batch: int) -> int:
        """Output pixels of a batch: the rows (M) of the product that the block is."""
        return batch * self.out_height * self.out_width


@dataclass(frozen=True)
class TensorMap:
    """A kernel argument that describes device memory to the bulk tensor copy engine (sm_90).

    Attributes:
        address: of the first element; a multiple of 16.
        element_bytes: 1 (uint8) or 4 (uint32).
        sizes, box: elements per dimension of the array and of the piece that one copy moves, fastest dimension first.
        strides: bytes from one element to the next, of all dimensions but the fastest; multiples of 16.
        swizzle: 0, 32, 64 or 128 bytes.
    """

    address: int
    element_bytes: int
    sizes: tuple[int, ...]
    strides: tuple[int, ...]
    box: tuple[int, ...]
    swizzle: int = 0


Argument = np.generic | TensorMap
"""A NumPy scalar, passed as it is (addresses: uint64), or a tensor map, passed as 128 bytes aligned to 64."""


@dataclass(frozen=True)
class Launch:
    """One start of one kernel.

    Attributes:
        source: file in ``binarynet/cuda/source``.
        kernel: name of the ``extern "C" __global__`` function.
        arguments: in the order of its parameters.
        grid: blocks of threads in x, y, z.
        threads: per block.
        shared_bytes: dynamic shared memory of a block.
        defines: macros that the source is compiled with; few variants, since each one is compiled once per machine.
        shared_by: where positive, blocks of threads share the work whatever their number, in multiples of this: as many
            as run at a time are enough (:meth:`fitted`).
    """

    source: str
    kernel: str
    arguments: tuple[Argument, ...]
    grid: tuple[int, int, int]
    threads: int
    shared_bytes: int = 0
    defines: tuple[tuple[str, int], ...] = field(default=())
    shared_by: int = 0

    def fitted(self, multiprocessors: int) -> Launch:
        """The same with no more blocks of threads than the device has multiprocessors, where they share the work."""
        if not self.shared_by:
            return self
        blocks = max(multiprocessors // self.shared_by, 1) * self.shared_by
        return replace(self, grid=(min(self.grid[0], blocks), *self.grid[1:]))


@dataclass(frozen=True)
class Variant:
    """One compilation of one source. Modules that make launches list all that they may ask for, as ``VARIANTS``, so
    that tests can compile and disassemble whatever can run.

    Attributes:
        source, defines: as in :class:`Launch`.
        first, last: least and greatest compute capability that it is meant for; None: no greatest.
    """

    source: str
    defines: tuple[tuple[str, int], ...] = ()
    first: Capability = (7, 5)
    last: Capability | None = None


class Method(Protocol):
    """One way to compute blocks."""

    name: str
    """For people: shown in plans."""

    def why_not(self, block: Block, capability: Capability) -> str:
        """Empty where the method can compute the block on such a GPU."""

    def prepare(self, block: Block) -> dict[str, Array]:
        """Weights and constants, laid out as the kernel reads them; the caller copies them to the device."""

    def launch(self, block: Block, batch: int, source: int, result: int, prepared: dict[str, int]) -> Launch:
        """How to compute ``batch`` images, at least one: device addresses of input, output and prepared arrays."""
