"""The paper's networks with random weights, built directly as graphs: something to measure without training."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from binarynet.encoding import WORD_BITS, Words, num_words
from binarynet.graph import (
    Affine,
    Convolution,
    Dense,
    Flatten,
    Graph,
    GraphBuilder,
    Input,
    MaxPool,
    Threshold,
    Window,
)

EXPECTED_MAXIMUM_OF_4 = 1.03
"""Of four normal variables, in standard deviations: where the sums lie after 2x2 pooling."""


def random_mlp(
    inputs: int = 784, hidden: Sequence[int] = (4096, 4096, 4096), classes: int = 10, *, seed: int = 0
) -> Graph:
    """A multi-layer perceptron; by default the paper's MNIST network (36,806,656 binary weights)."""
    network = _RandomNetwork(seed, (inputs,))
    network.dense_layers((*hidden, classes))
    return network.finish()


def random_convnet(
    input_shape: tuple[int, int, int] = (32, 32, 3),
    blocks: Sequence[Sequence[int]] = ((128, 128), (256, 256), (512, 512)),
    dense: Sequence[int] = (1024, 1024),
    classes: int = 10,
    *,
    seed: int = 0,
) -> Graph:
    """3x3 "same" convolutions, each block closed by 2x2 max-pooling, then dense layers.

    By default the paper's CIFAR-10 network (14,022,016 binary weights); ``input_shape`` is (rows, columns, channels).
    """
    network = _RandomNetwork(seed, input_shape)
    for block in blocks:
        for position, channels in enumerate(block, start=1):
            network.convolution(channels, pooled=position == len(block))
    network.flatten()
    network.dense_layers((*dense, classes))
    return network.finish()


class _RandomNetwork:
    """Adds layers with random weights, and thresholds within the usual reach of their sums."""

    def __init__(self, seed: int, input_shape: tuple[int, ...]) -> None:
        self.rng = np.random.default_rng(seed)
        self.builder = GraphBuilder()
        self.value = self.builder.add(Input("input", input_shape))
        self.number = 0

    @property
    def channels(self) -> int:
        return self.builder.types[self.value].channels

    def convolution(self, channels: int, *, pooled: bool) -> None:
        self.number += 1
        weights = self.weights((channels, 3, 3), self.channels)
        window = Window((3, 3), padding=(1, 1))
        deviation = self.deviation(9 * self.channels)
        self.value = self.builder.add(Convolution(f"conv{self.number}", self.value, window, weights))
        if pooled:
            self.value = self.builder.add(MaxPool(f"pool{self.number}", self.value, Window((2, 2), (2, 2))))
        self.sign(deviation, EXPECTED_MAXIMUM_OF_4 * deviation if pooled else 0.0)

    def dense_layers(self, sizes: Sequence[int]) -> None:
        for position, size in enumerate(sizes, start=1):
            self.number += 1
            deviation = self.deviation(self.channels)
            weights = self.weights((size,), self.channels)
            self.value = self.builder.add(Dense(f"dense{self.number}", self.value, weights))
            if position < len(sizes):
                self.sign(deviation)
            else:
                scale = self.rng.uniform(0.5, 1.5, size) / deviation
                shift = self.rng.normal(0.0, 0.1, size)
                self.value = self.builder.add(
                    Affine("scores", self.value, scale.astype(np.float32), shift.astype(np.float32))
                )

    def sign(self, deviation: float, center: float = 0.0) -> None:
        thresholds = np.rint(self.rng.normal(center, deviation / 2, self.channels)).astype(np.int32)
        falling: npt.NDArray[np.bool_] = self.rng.random(self.channels) < 0.1
        self.value = self.builder.add(Threshold(f"sign{self.number}", self.value, thresholds, falling))

    def flatten(self) -> None:
        self.value = self.builder.add(Flatten("flatten", self.value))

    def finish(self) -> Graph:
        return self.builder.finish(self.value)

    def deviation(self, taps: int) -> float:
        """Standard deviation of a sum of so many random terms of the current value's kind."""
        of_term = 147.0 if self.builder.types[self.value].kind == "u8" else 1.0
        return float(of_term * np.sqrt(taps))

    def weights(self, leading: tuple[int, ...], taps: int) -> Words:
        words: Words = self.rng.integers(0, 1 << 64, (*leading, num_words(taps)), dtype=np.uint64)
        if taps % WORD_BITS:
            words[..., -1] &= np.uint64((1 << (taps % WORD_BITS)) - 1)
        return words
