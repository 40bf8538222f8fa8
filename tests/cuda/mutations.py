"""Kernels broken on purpose: a text to replace in a source, and what must then go wrong on the simulated GPU.

Jobs are small: each is one launch whose numbers are known. A mutation is caught where the simulator objects or a number
differs; the same job on the sources as they are must go through.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from block_cases import Case, convolution, dense, output_shape
from machine import Machine

from binarynet.cuda import compiler, operations
from binarynet.cuda.methods import METHODS
from binarynet.encoding import pack_bits, unpack_bits

DTYPES = {"i32": np.int32, "bits": np.uint64, "f32": np.uint32}


@cache
def _compiled(directory: Path, *rest) -> bytes:
    """What compiler.compile_source makes of a directory's sources."""
    assert directory == compiler.SOURCES
    return compiler.compile_source(*rest, code="ptx")


class Fresh(Machine):
    """Compiles what it runs from the sources as they are now."""

    def run(self, launch):
        ptx = _compiled(compiler.SOURCES, launch.source, self.architecture, launch.defines)
        self.run_ptx(ptx, launch.kernel, launch.grid, launch.threads, launch.shared_bytes, launch.arguments)


Job = Callable[[], bool]
"""Runs a launch; whether its numbers are right."""


@dataclass(frozen=True)
class Blocks:
    """A block by a method.

    Attributes:
        multiprocessors: that blocks of threads share, where they share the work.
    """

    method: str
    case: Case
    schedule: str | int = "late"
    capability: tuple[int, int] = (9, 0)
    multiprocessors: int = 132

    def __call__(self) -> bool:
        method, block = METHODS[self.method], self.case.block()
        assert not method.why_not(block, self.capability)
        machine = Fresh(self.capability, self.schedule)
        prepared = {name: machine.upload(array) for name, array in method.prepare(block).items()}
        shape, dtype = output_shape(self.case), DTYPES[self.case.output]
        result = machine.allocate(int(np.prod(shape)) * np.dtype(dtype).itemsize)
        launch = method.launch(block, self.case.batch, machine.upload(self.case.images()), result, prepared)
        machine.run(launch.fitted(self.multiprocessors))
        return np.array_equal(machine.download(result, shape, dtype), self.case.expected().view(dtype))


def operation(make, expected, *arrays) -> Job:
    """A launch of ``operations``: ``make(addresses, result)`` of the arrays' addresses."""

    def job() -> bool:
        machine = Fresh((9, 0), "late")
        result = machine.allocate(expected.nbytes)
        machine.run(make([machine.upload(array) for array in arrays], result))
        view = f"u{expected.itemsize}"
        return np.array_equal(machine.download(result, expected.shape, expected.dtype).view(view), expected.view(view))

    return job


@dataclass(frozen=True)
class Mutation:
    """``before`` occurs once in the source file, or in ``count`` places that are all replaced by ``after``."""

    source: str
    before: str
    after: str
    job: Job
    count: int = 1

    def sources(self, directory: Path) -> Path:
        """A copy of all sources with this change."""
        shutil.copytree(compiler.SOURCES, directory)
        path = directory / self.source
        text = path.read_text()
        assert text.count(self.before) == self.count, f"{self.source} has changed: {self.before!r} is to be replaced"
        path.write_text(text.replace(self.before, self.after))
        return directory


# ---- jobs

_RNG = np.random.default_rng(2)
PADDED = Blocks("popcount", convolution("bits", (5, 5), 3, (3, 3), 4, 2, "i32", padding=(1, 1)))
STREAM = Blocks("popcount", dense("bits", 1000, 33, 5, "bits"))
TILES = Blocks("popcount", dense("bits", 2200, 70, 20, "i32"))
TILE_BITS = Blocks("popcount", dense("bits", 300, 66, 18, "bits"))
WINDOW_TILES = Blocks("popcount", convolution("bits", (9, 9), 64, (3, 3), 66, 2, "bits", padding=(1, 1)))
SCORES = Blocks("popcount", dense("bits", 200, 7, 33, "f32"))
BYTES = Blocks("bytes_dp4a", dense("u8", 300, 66, 18, "bits"))
ODD_BYTES = Blocks("bytes_dp4a", convolution("u8", (6, 5), 3, (3, 3), 64, 2, "bits", padding=(1, 1)))
LONG_BYTES = Blocks("bytes_dp4a", dense("u8", 4101, 10, 3, "i32"))
PLAIN = Blocks("baseline", convolution("bits", (5, 5), 70, (3, 3), 4, 1, "bits", padding=(1, 1)))

MMA = Blocks("mma", dense("bits", 7000, 40, 3, "bits"))
MMA_SUMS = Blocks("mma", dense("bits", 2000, 70, 33, "i32"))
MMA_WINDOW = Blocks("mma", convolution("bits", (9, 9), 64, (3, 3), 66, 2, "bits", padding=(1, 1)))
MMA_TILES = Blocks("mma", dense("bits", 2000, 100, 1100, "bits"), schedule=3)
BYTES_MMA = Blocks("bytes_mma", dense("u8", 784, 66, 18, "bits"))
ODD_BYTES_MMA = Blocks("bytes_mma", convolution("u8", (6, 5), 3, (3, 3), 64, 2, "bits", padding=(1, 1)))


def _images(*shape):
    return _RNG.integers(0, 2, shape).astype(bool)


def _threshold() -> Job:
    sums = _RNG.integers(-9, 9, (5, 70)).astype(np.int32)
    thresholds, falling = _RNG.integers(-9, 9, 70).astype(np.int32), _images(70)
    constants = operations.threshold_constants(thresholds, falling)
    return operation(
        lambda at, result: operations.threshold(5, 70, at[0], result, dict(zip(constants, at[1:], strict=True))),
        pack_bits((sums >= thresholds) != falling),
        sums,
        *constants.values(),
    )


def _pool_bits() -> Job:
    images, falling = _images(2, 5, 6, 70), _images(70)
    padded = np.pad(images ^ falling, ((0, 0), (1, 1), (1, 1), (0, 0)))
    joined = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(1, 2))[:, ::2, ::2].any(axis=(4, 5))
    return operation(
        lambda at, result: operations.max_pool_bits(2, (5, 6), 70, (3, 3), (2, 2), (1, 1), at[0], result, at[1]),
        pack_bits(joined ^ falling),
        pack_bits(images),
        operations.falling_words(falling),
    )


def _flatten() -> Job:
    images = _images(3, 5, 70)
    return operation(
        lambda at, result: operations.flatten_bits(3, 5, 70, at[0], result),
        pack_bits(images.reshape(3, -1)),
        pack_bits(images),
    )


def _affine() -> Job:
    sums = _RNG.integers(-5000, 5000, (40, 7)).astype(np.int32)
    scale, shift = _RNG.normal(size=(2, 7)).astype(np.float32)
    return operation(
        lambda at, result: operations.affine(40, 7, at[0], result, at[1], at[2]),
        sums.astype(np.float32) * scale + shift,
        sums,
        scale,
        shift,
    )


def _pack(dtype) -> Job:
    numbers = _RNG.normal(size=(3, 75)).astype(np.float32)
    numbers[:, ::7] = -0.0
    numbers[:, 1::7] = 0.0
    given = numbers.astype(np.float16) if dtype == "float16" else numbers
    return operation(lambda at, result: operations.pack(3, 75, dtype, at[0], result), pack_bits(given >= 0), given)


def _unpack() -> Job:
    words = pack_bits(_images(3, 75))
    signs = (2 * unpack_bits(words, 75).astype(np.int8) - 1).astype(np.int8)
    return operation(lambda at, result: operations.unpack(3, 75, "int8", at[0], result), signs, words)


SIMPLE = (
    # common.cuh
    Mutation("common.cuh", "* stride_width - padding_width};", "* stride_width};", PADDED),
    Mutation("common.cuh", "offsets[line % out_height]", "offsets[0]", WINDOW_TILES),
    Mutation("common.cuh", "max(-corner, 0)", "0", PADDED),
    Mutation(
        "common.cuh",
        "__fadd_rn(__fmul_rn(__int2float_rn(sum), scale), shift)",
        "__fmaf_rn(__int2float_rn(sum), scale, shift)",
        SCORES,
    ),
    Mutation("common.cuh", "upper ? low : high, STEP", "upper ? high : low, STEP", STREAM),
    # tiles.cuh
    Mutation("tiles.cuh", "if (row < rows && tx == 0)", "if (tx == 0)", TILE_BITS),
    Mutation("tiles.cuh", "if (channel + 16 * j < out_channels)", "if (channel + 16 * j <= out_channels)", TILES),
    Mutation(
        "tiles.cuh", "(u32)(window.x + tap_x) < (u32)width", "(u32)(window.x + tap_x) <= (u32)width", WINDOW_TILES
    ),
    Mutation("tiles.cuh", "bits ^ __ldg(static_cast<const u32*>(second) + group)", "bits", STREAM),
    Mutation(
        "tiles.cuh",
        "u64 word = __ldg(static_cast<const u64*>(second) + tile.first_channel / 64);",
        "u64 word = 0;",
        TILE_BITS,
    ),
    Mutation("tiles.cuh", "if (output != BITS) return;\n  __syncthreads();", "if (output != BITS) return;", STREAM),
    # popcount.cu
    Mutation("popcount.cu", "4 * sums[i][j] - 2 * ones[i]", "4 * sums[i][j] - ones[i]", TILES),
    Mutation("popcount.cu", "put((stage + 1) & 1);\n    __syncthreads();", "put((stage + 1) & 1);", TILES),
    Mutation("popcount.cu", "= staged[stage & 1];", "= staged[0];", TILES),
    Mutation("popcount.cu", "DENSE || inside ? ~0u : 0u", "~0u", PADDED),
    Mutation("popcount.cu", "2 * __popc(sum_bit(c0, c1, c2))", "__popc(sum_bit(c0, c1, c2))", TILES),
    # bytes_dp4a.cu
    Mutation("bytes_dp4a.cu", "sums[i][j] *= 2;", "sums[i][j] += 0;", BYTES),
    Mutation("bytes_dp4a.cu", "const bool whole = (channels & 3) == 0;", "const bool whole = true;", ODD_BYTES),
    Mutation("bytes_dp4a.cu", "there && at + byte < channels", "there", LONG_BYTES),
    Mutation("bytes_dp4a.cu", "    __syncthreads();\n  }\n  auto sum_of", "  }\n  auto sum_of", LONG_BYTES),
    # baseline.cu
    Mutation("baseline.cu", "if (y < 0 || y >= height) continue;", "if (y < 0 || y > height) continue;", PLAIN),
    Mutation("baseline.cu", "min(64, channels - word * 64)", "64", PLAIN),
    # operations.cu
    Mutation("operations.cu", "return bits ^ __ldg(falling + word);", "return bits;", _threshold()),
    Mutation("operations.cu", "position + 32 < length && ", "", _threshold()),
    Mutation("operations.cu", "min(max(x, 0), width - 1)", "min(x, width - 1)", _pool_bits()),
    Mutation("operations.cu", "return value ^ flips(word);", "return value;", _pool_bits()),
    Mutation("operations.cu", "min(64 - channel % 64, channels - channel)", "64 - channel % 64", _flatten()),
    Mutation("operations.cu", "__ldg(shift + channel)", "__ldg(shift + 0)", _affine()),
    Mutation("operations.cu", "return value >= 0.0f;", "return value > 0.0f;", _pack("float32")),
    Mutation("operations.cu", "(bits == magnitude || magnitude == 0)", "bits == magnitude", _pack("float16")),
    Mutation("operations.cu", "if (position + i < length)", "if (position + i <= length)", _unpack()),
)

TENSOR_CORES = (
    # mma_tile.cuh
    Mutation("mma_tile.cuh", "0x80008000u", "0x80000000u", MMA_WINDOW),
    Mutation("mma_tile.cuh", "0x80008000u", "0x00008000u", ODD_BYTES_MMA),
    Mutation("mma_tile.cuh", "^ (row >> 1 & 3)", "^ (row & 3)", MMA),
    Mutation("mma_tile.cuh", "static_cast<int>(threadIdx.x) < rows - first_row", "true", MMA),
    Mutation("mma_tile.cuh", "PANELS == 1 || panel * 2 < steps", "true", MMA),
    Mutation("mma_tile.cuh", "taps_ += STAGE_TAPS;", "", MMA),
    Mutation("mma_tile.cuh", "taps_[half * 8].pixel < FAR", "half == 0", ODD_BYTES_MMA),
    # mma_block.cuh
    Mutation("mma_block.cuh", "wait_for_copies<STAGES - 2>();", "wait_for_copies<STAGES - 1>();", MMA, 2),
    Mutation("mma_block.cuh", "__syncthreads();\n    reading =", "reading =", MMA_TILES),
    Mutation("mma_block.cuh", "? 0 : writing + STAGE_BYTES", "? STAGE_BYTES : writing + STAGE_BYTES", MMA),
    Mutation("mma_block.cuh", "warp_channel ? input[2] : input[0]", "input[0]", MMA_TILES),
    Mutation("mma_block.cuh", "if (left > warp_panel * 2 + 1) {", "if (left > STAGE_STEPS) {", MMA_TILES),
    Mutation("mma_block.cuh", "in_group % height", "in_group % GROUP", MMA_TILES),
    Mutation("mma_block.cuh", "outputs.part[r] = -2 * ones;", "outputs.part[r] = -ones;", MMA_SUMS),
    Mutation("mma_block.cuh", "ones += __shfl_xor_sync(ALL_LANES, ones, 2);", "", MMA_SUMS),
    Mutation("mma_block.cuh", "if (PANELS == 1) __syncthreads();", "", MMA_TILES),
    Mutation("mma_block.cuh", "alike = alike && classes[r] == classes[0];", "alike = true;", MMA_WINDOW),
    Mutation("mma_block.cuh", "lower < left && word < out_words", "word < out_words", MMA),
    Mutation("mma_block.cuh", "odd ? a[0] : a[1], 1)", "odd ? a[1] : a[0], 1)", MMA),
    Mutation("mma_block.cuh", "below(r) < left && at < out_channels", "below(r) < left", MMA_SUMS),
    # mma.cu, bytes_mma.cu
    Mutation("mma.cu", "FACTOR = 4", "FACTOR = 2", MMA),
    Mutation("bytes_mma.cu", "s32.u8.s8.s32", "s32.s8.s8.s32", BYTES_MMA),
)

ALL = SIMPLE + TENSOR_CORES
