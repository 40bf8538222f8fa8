"""The wgmma kernels broken on purpose, as in ``mutations``: waits left out, counts and addresses wrong."""

from __future__ import annotations

from block_cases import convolution, dense
from mutations import Blocks, Mutation

RESIDENT = Blocks("wgmma", dense("bits", 4224, 70, 190, "bits"), multiprocessors=1)
"""Two tiles of five stages: the ring of eight goes round."""
STREAMED = Blocks("wgmma", dense("bits", 12544, 10, 130, "i32"), multiprocessors=1)
"""Weights that shared memory has no room for."""
SUMS = Blocks("wgmma", dense("bits", 256, 129, 65, "i32"))
SCORES = Blocks("wgmma", dense("bits", 256, 67, 70, "f32"))
WINDOWS = Blocks("wgmma", convolution("bits", (17, 24), 128, (3, 3), 64, 2, "bits", padding=(1, 1)), multiprocessors=1)
PIECES = Blocks("wgmma", convolution("bits", (9, 8), 256, (3, 3), 130, 2, "bits", padding=(1, 1)), multiprocessors=1)


def overtaken() -> bool:
    """Schedules among which there are some where weights come after the patch that was asked for after them."""
    case = convolution("bits", (8, 8), 256, (3, 3), 8, 1, "bits", padding=(1, 1))
    return all(Blocks("wgmma", case, seed)() for seed in range(16))


WGMMA = (
    # wgmma.cuh
    Mutation("wgmma.cuh", "      parity ^= 1;\n", "", RESIDENT),
    Mutation("wgmma.cuh", 'asm volatile("wgmma.fence.sync.aligned;" ::: "memory");', "", RESIDENT),
    Mutation("wgmma.cuh", "static_cast<u64>(next_rows >> 4) << 32", "static_cast<u64>(next_rows >> 4) << 33", WINDOWS),
    Mutation("wgmma.cuh", "static_cast<u64>(next_k >> 4) << 16", "0", WINDOWS),
    # wgmma_output.cuh
    Mutation("wgmma_output.cuh", "    words[word] <<= 2 * (lane & 3);\n", "", RESIDENT),
    Mutation("wgmma_output.cuh", "upper ? words[i] : words[count + i]", "words[i]", RESIDENT),
    Mutation("wgmma_output.cuh", "at >= 2 * words_of(output.channels)", "false", PIECES),
    Mutation("wgmma_output.cuh", "words[0] ^ __ldg(falling)", "words[0]", RESIDENT),
    Mutation("wgmma_output.cuh", "words[1] ^ inverted.y", "words[1]", PIECES),
    Mutation("wgmma_output.cuh", "!row.valid || column >= output.channels", "column >= output.channels", SUMS),
    Mutation("wgmma_output.cuh", "if (column + 1 < output.channels) ", "", SUMS),
    Mutation("wgmma_output.cuh", "- 2 * high.ones + 4 * four[2]", "- 2 * low.ones + 4 * four[2]", SUMS),
    Mutation(
        "wgmma_output.cuh", "score_of(above.y, scale[i].y, shift[i].y)", "score_of(above.y, scale[i].x, 0)", SCORES
    ),
    # wgmma_dense.cu
    Mutation("wgmma_dense.cu", "ROWS_BYTES + (with_weights ? COLUMNS_BYTES : 0)", "ROWS_BYTES", RESIDENT),
    Mutation("wgmma_dense.cu", "!memory.resident || index == order.begin", "index == order.begin", STREAMED),
    Mutation("wgmma_dense.cu", "      barrier_wait(memory.empty + 8 * ring.stage, ring.parity ^ 1);\n", "", RESIDENT),
    Mutation("wgmma_dense.cu", "      barrier_wait(memory.full + 8 * ring.stage, ring.parity);\n", "", STREAMED),
    Mutation("wgmma_dense.cu", "        wait_for_products<1>();\n", "", STREAMED),
    Mutation("wgmma_dense.cu", "wait_for_products<0>()", "wait_for_products<1>()", RESIDENT),
    Mutation("wgmma_dense.cu", "if (counting) ones = 0;", "", RESIDENT),
    Mutation("wgmma_dense.cu", "index == order.begin", "index != order.begin", RESIDENT),
    Mutation("wgmma_dense.cu", "(lane >> 4) * 4 + i", "i", RESIDENT),
    Mutation("wgmma_dense.cu", "step + k > 0", "true", RESIDENT),
    Mutation("wgmma_dense.cu", "step + k > 0", "k > 0", RESIDENT),
    Mutation("wgmma_dense.cu", "CONSUMERS * (WARPGROUP / 32)", "WARPGROUP / 32", STREAMED),
    Mutation("wgmma_dense.cu", "row + 8 < rows", "true", SUMS),
    # wgmma_convolution.cu
    Mutation("wgmma_convolution.cu", "!arrived && step % GROUP == 0", "false", overtaken),
    Mutation("wgmma_convolution.cu", "    synchronize_warpgroup(consumer);\n", "", WINDOWS),
    Mutation("wgmma_convolution.cu", "    turn ^= 1;\n", "", WINDOWS),
    Mutation("wgmma_convolution.cu", "    wait_for_products<0>();\n    settle(sums);\n", "", WINDOWS),
    Mutation("wgmma_convolution.cu", "if (i < consumer) ring.advance(layer.stages);", "", WINDOWS),
    Mutation("wgmma_convolution.cu", "barrier_wait(at.empty + 8 * ring.stage, ring.parity ^ 1);", "", WINDOWS),
    Mutation("wgmma_convolution.cu", "y + 1 < layer.out_height && ", "", WINDOWS),
    Mutation("wgmma_convolution.cu", "x_class + __ldg(offsets + y + 1)", "x_class + __ldg(offsets + y)", PIECES),
    Mutation("wgmma_convolution.cu", "if (i > 0) sum.y += line;", "sum.y += line;", PIECES),
    Mutation(
        "wgmma_convolution.cu", "stage + piece * layer.plane_bytes, source", "stage + piece * bytes, source", PIECES
    ),
)
