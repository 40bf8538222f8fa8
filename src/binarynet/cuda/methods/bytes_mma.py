"""First layers on the 8-bit tensor cores by ``mma.sync``: inputs u times weights of +1 and -1.

``mma.m16n8k32`` u8 x s8 (PTX ISA, warp-level matrix instructions), sm_80 and later. An input u stands for 2u - 255, so
``sum = 2 sum(u w) + 255 (Kv - 2 pb)``, the last part a table (:mod:`._common`). Instructions are those of
:mod:`.mma`, IMMA instead of BMMA and nothing to count, with 64 taps where that has 512. Windows whose pixels are no
multiples of 4 bytes are gathered byte by byte.
"""

from __future__ import annotations

import numpy as np

from binarynet.cuda.blocks import Array, Block, Capability, Launch
from binarynet.cuda.methods import _mma_tiles
from binarynet.encoding import to_signs, unpack_bits

_SOURCE = "bytes_mma.cu"
_FIRST = (8, 0)
_COPIES = (16, 4, 1)

VARIANTS = _mma_tiles.variants(_SOURCE, _COPIES, _FIRST, None)


class BytesMma:
    """8-bit inputs, from sm_80 on."""

    name = "bytes_mma"

    def why_not(self, block: Block, capability: Capability) -> str:
        if block.input != "u8":
            return f"multiplies 8-bit inputs, not {block.input}"
        if capability < _FIRST:
            return "8-bit tensor core products of this shape need compute capability 8.0"
        return _mma_tiles.why_not_tiles(block, block.channels)

    def prepare(self, block: Block) -> dict[str, Array]:
        signs = to_signs(unpack_bits(block.weights, block.channels)).view(np.uint8)
        return _mma_tiles.prepare(
            block, signs.reshape(block.out_channels, block.taps), block.channels, _copy_bytes(block)
        )

    def launch(self, block: Block, batch: int, source: int, result: int, prepared: dict[str, int]) -> Launch:
        addresses = (source, result, prepared)
        return _mma_tiles.launch(
            _SOURCE, "bytes_mma_block", block, batch, addresses, block.channels, _copy_bytes(block)
        )


def _copy_bytes(block: Block) -> int:
    return next(size for size in _COPIES if block.channels % size == 0)
