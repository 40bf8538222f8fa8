"""The plain kernels of the paper's comparison (Hubara et al. 2016, section 4): one thread per output, nothing else."""

from __future__ import annotations

import numpy as np

from binarynet.cuda.blocks import Array, Block, Capability, Launch, Variant
from binarynet.cuda.methods._common import (
    TILE_CHANNELS,
    addresses,
    block_arguments,
    ceil_div,
    channel_constants,
    grid,
    int32s,
    padded_rows,
    padded_words,
    rows_of,
)
from binarynet.errors import UsageError

VARIANTS = (Variant("baseline.cu"),)
_ROWS = 4
_PRODUCT_TILE = 16


class Baseline:
    """Every block, on every GPU: operands of +-1 are taken out of packed words bit by bit, multiplied and added."""

    name = "baseline"

    def why_not(self, block: Block, capability: Capability) -> str:
        return ""

    def prepare(self, block: Block) -> dict[str, Array]:
        channels = padded_words(block)
        flat = block.weights.reshape(block.out_channels, -1)
        rows = padded_rows(flat, channels, flat.shape[1])
        return {"weights": np.ascontiguousarray(rows.T), **channel_constants(block, channels)}

    def launch(self, block: Block, batch: int, source: int, result: int, prepared: dict[str, int]) -> Launch:
        blocks = ceil_div(rows_of(block, batch), _ROWS) * block.out_words
        kernel = "baseline_bytes" if block.input == "u8" else "baseline_bits"
        arguments = block_arguments(block, batch, source, result, prepared)
        return Launch("baseline.cu", kernel, arguments, grid(blocks), _ROWS * TILE_CHANNELS)


def plain_product(m: int, n: int, k: int, a: int, b: int, c: int) -> Launch:
    """The straightforward float32 product ``c = a b``, for Figure 3.

    Args:
        m, n, k: a is ``[m, k]``, b ``[k, n]``, c ``[m, n]``, all float32 and dense; m is at most 2^20 - 16.
        a, b, c: their device addresses.

    Raises:
        UsageError: sizes that the kernel cannot count.
    """
    if not (0 < m <= 65535 * _PRODUCT_TILE and 0 < n < 1 << 31 and 0 < k < 1 << 31):
        raise UsageError(f"a product of {m} x {n} x {k}: expected 1 to {65535 * _PRODUCT_TILE} rows, others below 2^31")
    arguments = (*addresses(a, b, c), *int32s(m, n, k))
    tiles = (ceil_div(n, _PRODUCT_TILE), ceil_div(m, _PRODUCT_TILE), 1)
    return Launch("baseline.cu", "baseline_product", arguments, tiles, _PRODUCT_TILE**2)
