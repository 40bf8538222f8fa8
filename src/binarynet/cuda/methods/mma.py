"""Bits on the one-bit tensor cores by ``mma.sync`` AND + POPC: blocks as a matrix product that is never written down.

``mma.m16n8k256`` (PTX ISA, warp-level matrix instructions) is one machine instruction, BMMA.168256.AND.POPC, on sm_80
to sm_90. With pa ones among the activations of a window, ``sum = 4 popc(a AND w) - 2 pa + (Kv - 2 pb)``, where the last
part is a table (:mod:`._common`) and pa is counted from the operand registers on their way to the tensor cores.

A warp of the largest tile does 64 x 64 sums. For each 512 taps it has, compiled for sm_90 with pieces of 16 bytes, 224
instructions: 64 BMMA, 16 LDSM, 16 POPC with 16 SEL and 16 IMAD for pa (shared out between the two warps that hold the
same rows), 6 LDGSTS, about 90 of addresses, bounds and the loop. By the published rate of the A100 a BMMA occupies its
tensor core for 8 cycles: the 8 warps of the tile take 1024 cycles, of which shared memory is busy for 704 and each of
the four schedulers for 448; 24 KiB arrive meanwhile. Nothing of this has been measured.
"""

from __future__ import annotations

import numpy as np

from binarynet.cuda.blocks import Array, Block, Capability, Launch
from binarynet.cuda.methods import _mma_tiles

_SOURCE = "mma.cu"
_FIRST, _LAST = (8, 0), (9, 0)

VARIANTS = _mma_tiles.variants(_SOURCE, (16, 8), _FIRST, _LAST)


class Mma:
    """Bits, on sm_80 to sm_90."""

    name = "mma"

    def why_not(self, block: Block, capability: Capability) -> str:
        if block.input != "bits":
            return f"multiplies bits, not {block.input}"
        if capability < _FIRST:
            return "one-bit tensor core products with AND need compute capability 8.0"
        if capability > _LAST:
            return "one-bit tensor core products are emulated from compute capability 10.0 on"
        return _mma_tiles.why_not_tiles(block, _pixel_bytes(block))

    def prepare(self, block: Block) -> dict[str, Array]:
        weights = np.ascontiguousarray(block.weights).view(np.uint8).reshape(block.out_channels, -1)
        return _mma_tiles.prepare(block, weights, _pixel_bytes(block), _copy_bytes(block))

    def launch(self, block: Block, batch: int, source: int, result: int, prepared: dict[str, int]) -> Launch:
        addresses = (source, result, prepared)
        return _mma_tiles.launch(_SOURCE, "mma_block", block, batch, addresses, _pixel_bytes(block), _copy_bytes(block))


def _pixel_bytes(block: Block) -> int:
    return block.words * 8


def _copy_bytes(block: Block) -> int:
    """Pixels of an even number of words begin at multiples of 16 bytes."""
    return 16 if block.words % 2 == 0 else 8
