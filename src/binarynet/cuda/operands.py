"""Blocks whose weights lie in device memory: laid out there for the method that computes, without the host.

:meth:`Method.prepare` works on the host, on weights that are known when a network is loaded. Here they are an operand
like the other one, and must not cross to the host and back. A method's layout moves halves of words and puts zeros
between them; which half goes where depends on shapes alone, and is found once per shape, by preparing weights whose
halves are numbered. What else depends on the weights are corrections (``source/common.cuh``), counted by a kernel.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from binarynet.cuda.blocks import Argument, Array, Block, Launch, Method, Variant
from binarynet.cuda.methods._common import addresses, border_classes, ceil_div, int32s, round_up
from binarynet.errors import UsageError

VARIANTS = (Variant("operands.cu"),)
_THREADS = 256
_WARPS = _THREADS // 32
_MOST_BLOCKS = 1 << 14
"""Of a launch whose threads take one element after the other."""
_ALIGNMENT = 256
_MOST_HALVES = (1 << 32) - 1
"""Numbers of halves are 32 bits wide, and 0 means none."""


@dataclass(frozen=True, eq=False)
class Layout:
    """What a method needs to compute a block whose weights are given as plain packed bits on the device.

    Attributes:
        method: who computes.
        block: what; of its weights, only the shape means anything.
        constants: arrays to be copied to the device once, by name.
        made: bytes of the arrays that the launches make, by name.
    """

    method: Method
    block: Block
    constants: dict[str, Array]
    made: dict[str, int]

    @property
    def scratch_bytes(self) -> int:
        """Memory of the device that the launches need for themselves."""
        return sum(map(_aligned, self.made.values()))

    def launches(
        self, batch: int, source: int, weights: int, result: int, constants: dict[str, int], scratch: int
    ) -> list[Launch]:
        """How to compute ``batch`` images, at least one: launches for one stream, in this order.

        Args:
            batch: images.
            source: device address of the images.
            weights: that of the weights, uint64 ``[out_channels, kernel rows, kernel columns, words]``.
            result: that of the result.
            constants: those of the arrays of these names.
            scratch: that of ``scratch_bytes``, contents undefined.

        All addresses are multiples of 16.
        """
        found, places = [], {}
        for name, nbytes in self.made.items():
            places[name] = scratch
            scratch += _aligned(nbytes)
        if "weights" in places:
            found.append(self._lay_out(weights, constants["index"], places["weights"]))
        if "corrections" in places:
            found.append(self._correct(weights, constants["parts"], places["corrections"]))
        prepared = {"weights": weights, **constants, **places}
        return [*found, self.method.launch(self.block, batch, source, result, prepared)]

    def _lay_out(self, weights: int, index: int, result: int) -> Launch:
        count = self.constants["index"].size
        return _launch(
            "lay_out", (weights, index, result), (np.int64(count),), min(ceil_div(count, _THREADS), _MOST_BLOCKS)
        )

    def _correct(self, weights: int, parts: int, corrections: int) -> Launch:
        block = self.block
        rows, columns = (len(classes) for classes, _ in border_classes(block))
        items = self.made["corrections"] // np.dtype(np.int32).itemsize
        sizes = (rows, columns, items // (rows * columns), block.out_channels, block.channels, *block.kernel)
        pointers = (weights, parts, corrections)
        return _launch("correct", pointers, int32s(*sizes), ceil_div(items, _WARPS))


def layout(method: Method, block: Block) -> Layout:
    """How the method takes weights of this shape from device memory.

    Args:
        method: one whose ``why_not`` is empty for the block.
        block: bits in, int32 sums out; of its weights, only the shape is looked at.

    Raises:
        UsageError: more weights than can be numbered.
    """
    shape = block.weights.shape
    halves = 2 * block.weights.size
    if halves > _MOST_HALVES:
        raise UsageError(f"weights {list(shape)} of 64-bit words: at most {_MOST_HALVES // 2} of them fit")
    numbered = np.arange(1, halves + 1, dtype=np.uint32).view(np.uint64).reshape(shape)
    constants = dict(method.prepare(replace(block, weights=numbered)))
    index = np.ascontiguousarray(constants.pop("weights")).view(np.uint32).ravel()
    made = {}
    if not np.array_equal(index, numbered.view(np.uint32).ravel()):
        constants["index"] = index
        made["weights"] = index.nbytes
    if (table := constants.pop("corrections", None)) is not None:
        parts = [classes.ravel() for classes, _ in border_classes(block)]
        constants["parts"] = np.concatenate(parts).astype(np.int32)
        made["corrections"] = table.nbytes
    nothing = np.broadcast_to(np.uint64(0), shape)
    return Layout(method, replace(block, weights=nothing), constants, made)


def _aligned(nbytes: int) -> int:
    return round_up(nbytes, _ALIGNMENT)


def _launch(kernel: str, pointers: tuple[int, ...], sizes: tuple[Argument, ...], blocks: int) -> Launch:
    return Launch("operands.cu", kernel, (*addresses(*pointers), *sizes), (blocks, 1, 1), _THREADS)
