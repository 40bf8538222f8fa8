"""Blocks with inputs and what they must give, by the graph's reference: shared by the tests of all methods."""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field
from functools import cache
from typing import Literal

import numpy as np

from binarynet.cuda.blocks import Block
from binarynet.encoding import INPUT_MAX, num_words, pack_bits
from binarynet.graph import Affine, Convolution, Dense, Graph, Input, Node, Threshold, Window, evaluate

Operands = Literal["random", "alike", "opposite", "ones", "zeros"]
LOWEST, HIGHEST = -(2**31), 2**31 - 1


@dataclass(frozen=True)
class Case:
    """A block by its sizes; arrays are drawn from its name.

    Attributes:
        name: for test identifiers.
        input, output: as in :class:`Block`.
        channels, out_channels, batch: sizes; ``size``, ``kernel``, ``stride``, ``padding`` of a convolution.
        operands: "random"; "alike", inputs that equal the first channel's weights, and "opposite" (dense: sums reach
            +-K); "ones" and "zeros", all bits of inputs and weights (u8: 255 and 0).
        slow: for tests with more time.
    """

    name: str
    input: Literal["bits", "u8"]
    channels: int
    out_channels: int
    batch: int
    output: Literal["i32", "bits", "f32"] = "i32"
    size: tuple[int, int] = (1, 1)
    kernel: tuple[int, int] = (1, 1)
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    operands: Operands = "random"
    slow: bool = field(default=False)

    @property
    def dense(self) -> bool:
        return self.size == self.kernel == (1, 1)

    @cache  # noqa: B019 - cases are few and live as long as the process
    def block(self) -> Block:
        rng = self._generator()
        bits = rng.integers(0, 2, (self.out_channels, *self.kernel, self.channels), dtype=np.uint8)
        if self.operands in ("ones", "zeros"):
            bits[:] = self.operands == "ones"
        block = Block(
            self.input, *self.size, self.channels, self.kernel, self.stride, self.padding, pack_bits(bits), self.output
        )
        constants: dict[str, np.ndarray] = {}
        if self.output == "bits":
            constants = {
                "thresholds": self._thresholds(rng, block),
                "falling": rng.integers(0, 2, self.out_channels).astype(bool),
            }
        elif self.output == "f32":
            constants = {
                "scale": (rng.standard_normal(self.out_channels) / np.sqrt(block.taps)).astype(np.float32),
                "shift": rng.standard_normal(self.out_channels).astype(np.float32),
            }
            constants["scale"][::3] *= -1
            constants["shift"][::5] = -0.0
        return Block(**{**vars(block), **constants})

    def images(self) -> np.ndarray:
        """uint8 ``[batch, height, width, channels]``, or uint64 ``[.., words]``."""
        block, rng = self.block(), self._generator(1)
        shape = (self.batch, *self.size, self.channels)
        if self.input == "u8":
            if self.operands in ("ones", "zeros"):
                return np.full(shape, INPUT_MAX * (self.operands == "ones"), np.uint8)
            images = rng.integers(0, INPUT_MAX + 1, shape, dtype=np.uint8)
            images.reshape(-1)[::3] = INPUT_MAX
            images.reshape(-1)[1::3] = 0
            return images
        if self.operands in ("ones", "zeros"):
            return pack_bits(np.full(shape, self.operands == "ones"))
        if self.operands == "random":
            return pack_bits(rng.integers(0, 2, shape, dtype=np.uint8))
        assert self.dense
        alike = np.unpackbits(block.weights[0, 0, 0].view(np.uint8), count=self.channels, bitorder="little")
        return np.tile(pack_bits(alike if self.operands == "alike" else 1 - alike), (self.batch, 1, 1, 1))

    @cache  # noqa: B019
    def expected(self) -> np.ndarray:
        """int32 or float32 ``[batch, out_height, out_width, out_channels]``, or uint64 ``[.., out_words]``."""
        block, images = self.block(), self.images()
        nodes: list[Node] = []
        if self.dense:
            nodes = [
                Input("input", (self.channels,), self.input),
                Dense("sums", "input", block.weights.reshape(self.out_channels, -1)),
            ]
            images = images.reshape(self.batch, -1)
        else:
            nodes = [
                Input("input", (*self.size, self.channels), self.input),
                Convolution("sums", "input", Window(self.kernel, self.stride, self.padding), block.weights),
            ]
        if self.output == "bits":
            nodes.append(Threshold("output", "sums", block.thresholds, block.falling))
        elif self.output == "f32":
            nodes.append(Affine("output", "sums", block.scale, block.shift))
        values = evaluate(Graph(tuple(nodes), nodes[-1].name), images)[nodes[-1].name]
        return values.reshape(self.batch, block.out_height, block.out_width, -1)

    def _generator(self, more: int = 0) -> np.random.Generator:
        return np.random.default_rng([zlib.crc32(self.name.encode()), more])

    def _thresholds(self, rng: np.random.Generator, block: Block) -> np.ndarray:
        """Near the middle of the sums, where bits turn; some channels at or beyond what sums and int32 can reach."""
        reach = block.taps * (INPUT_MAX if self.input == "u8" else 1)
        spread = max(1, int(np.sqrt(block.taps) * (INPUT_MAX if self.input == "u8" else 1)))
        thresholds = rng.integers(-spread, spread + 1, self.out_channels)
        extremes = [LOWEST, HIGHEST, LOWEST, HIGHEST, -reach, reach, reach + 1, -reach - 1, 0, 1, -1]
        few = len(extremes) if self.out_channels > len(extremes) else 0
        thresholds[rng.permutation(self.out_channels)[:few]] = extremes[:few]
        return thresholds.astype(np.int32)


def _ending(rest: dict[str, object]) -> str:
    return f"-{rest['operands']}" if "operands" in rest else ""


def dense(kind: Literal["bits", "u8"], channels: int, out_channels: int, batch: int, output: str, **rest) -> Case:
    name = f"{kind}-{channels}to{out_channels}-batch{batch}-{output}{_ending(rest)}"
    return Case(name, kind, channels, out_channels, batch, output, **rest)


def convolution(
    kind: Literal["bits", "u8"],
    size: tuple[int, int],
    channels: int,
    kernel: tuple[int, int],
    out_channels: int,
    batch: int,
    output: str,
    stride: tuple[int, int] = (1, 1),
    padding: tuple[int, int] = (0, 0),
    **rest,
) -> Case:
    window = f"{kernel[0]}x{kernel[1]}-stride{stride[0]}{stride[1]}-pad{padding[0]}{padding[1]}"
    name = f"{kind}-{size[0]}x{size[1]}x{channels}to{out_channels}-{window}-batch{batch}-{output}{_ending(rest)}"
    return Case(name, kind, channels, out_channels, batch, output, size, kernel, stride, padding, **rest)


ALL = (
    dense("bits", 1, 1, 1, "i32"),
    dense("bits", 1, 2, 3, "bits"),
    dense("bits", 64, 64, 1, "bits"),
    dense("bits", 63, 65, 1, "bits"),
    dense("bits", 65, 10, 3, "f32"),
    dense("bits", 129, 300, 2, "bits"),
    dense("bits", 784, 100, 1, "f32"),
    dense("bits", 1000, 33, 5, "bits"),
    dense("bits", 300, 66, 70, "bits"),
    dense("bits", 256, 130, 17, "i32"),
    dense("bits", 512, 256, 16, "bits"),
    dense("bits", 4160, 40, 9, "i32"),
    dense("bits", 200, 7, 33, "f32"),
    dense("bits", 70000, 3, 2, "i32"),
    dense("bits", 70000, 2, 17, "bits", slow=True),
    dense("bits", 1111, 20, 1, "i32", operands="alike"),
    dense("bits", 1111, 20, 12, "bits", operands="opposite"),
    dense("bits", 640, 70, 20, "i32", operands="ones"),
    dense("bits", 640, 70, 4, "bits", operands="zeros"),
    dense("bits", 1024, 1024, 130, "bits", slow=True),
    convolution("bits", (5, 5), 3, (3, 3), 4, 2, "i32", padding=(1, 1)),
    convolution("bits", (1, 1), 64, (3, 3), 64, 3, "bits", padding=(1, 1)),
    convolution("bits", (2, 3), 70, (5, 5), 65, 1, "i32", padding=(4, 4)),
    convolution("bits", (7, 6), 130, (3, 2), 40, 3, "bits", stride=(2, 1), padding=(2, 0)),
    convolution("bits", (4, 4), 64, (1, 1), 64, 3, "i32", stride=(2, 2)),
    convolution("bits", (2, 3), 100, (1, 1), 70, 1, "bits"),
    convolution("bits", (8, 8), 32, (3, 3), 128, 2, "bits", padding=(1, 1)),
    convolution("bits", (9, 4), 1, (4, 1), 300, 1, "f32", stride=(3, 2), padding=(3, 0)),
    convolution("bits", (6, 6), 192, (2, 2), 20, 5, "bits", stride=(2, 2)),
    convolution("bits", (3, 3), 200, (3, 3), 70, 70, "f32"),
    convolution("bits", (6, 7), 128, (3, 3), 128, 1, "i32", padding=(1, 1)),
    convolution("bits", (4, 5), 100, (4, 4), 9, 2, "i32", padding=(3, 3), operands="ones"),
    convolution("bits", (4, 5), 100, (4, 4), 9, 2, "bits", padding=(2, 2), operands="zeros"),
    convolution("bits", (10, 3), 257, (5, 1), 90, 2, "bits", padding=(3, 0)),
    convolution("bits", (16, 16), 256, (3, 3), 256, 3, "bits", padding=(1, 1), slow=True),
    dense("u8", 1, 1, 1, "i32"),
    dense("u8", 27, 70, 1, "bits"),
    dense("u8", 784, 100, 1, "bits"),
    dense("u8", 784, 33, 5, "i32"),
    dense("u8", 785, 10, 2, "f32"),
    dense("u8", 300, 130, 70, "bits"),
    dense("u8", 100, 64, 20, "i32"),
    dense("u8", 64, 300, 17, "f32"),
    dense("u8", 65793, 2, 1, "i32", operands="ones"),
    dense("u8", 65793, 2, 9, "i32", slow=True),
    dense("u8", 3001, 12, 3, "i32", operands="zeros"),
    dense("u8", 784, 1024, 130, "bits", slow=True),
    convolution("u8", (6, 5), 3, (3, 3), 64, 2, "bits", padding=(1, 1)),
    convolution("u8", (6, 5), 1, (5, 5), 10, 3, "i32", padding=(4, 3)),
    convolution("u8", (7, 7), 4, (3, 3), 65, 2, "i32", stride=(2, 2), padding=(1, 1)),
    convolution("u8", (2, 3), 30, (1, 1), 70, 1, "i32"),
    convolution("u8", (5, 4), 16, (2, 3), 8, 4, "f32", stride=(1, 2), padding=(0, 2)),
    convolution("u8", (4, 4), 30, (4, 4), 30, 5, "bits", padding=(3, 3), operands="ones"),
    convolution("u8", (2, 2), 3, (3, 3), 130, 40, "bits", padding=(2, 2)),
    convolution("u8", (3, 3), 5, (1, 1), 6, 3, "i32", stride=(2, 2), operands="zeros"),
    convolution("u8", (32, 32), 3, (3, 3), 128, 2, "bits", padding=(1, 1), slow=True),
)
"""Names are unique; every kind of input, output and operand, and every way of a window over the border, is here."""


def output_shape(case: Case) -> tuple[int, ...]:
    """Of what the kernel writes."""
    block = case.block()
    last = num_words(block.out_channels) if case.output == "bits" else block.out_channels
    return (case.batch, block.out_height, block.out_width, last)
