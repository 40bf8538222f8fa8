"""Counts per layer, activation memory and energy, against the paper's figures and against hand counts."""

from __future__ import annotations

import numpy as np
import pytest

from binarynet.analysis import activation_memory, estimate_energy, layers, random_convnet, random_mlp
from binarynet.analysis.energy import access_energy_pj
from binarynet.encoding import num_words
from binarynet.graph import (
    Affine,
    Convolution,
    Dense,
    Flatten,
    Graph,
    Input,
    MaxPool,
    Threshold,
    Window,
    evaluate,
)


def zeros(*shape: int) -> np.ndarray:
    """Packed weights that are all -1; the last size is the number of bits."""
    return np.zeros((*shape[:-1], num_words(shape[-1])), dtype=np.uint64)


def threshold(name: str, source: str, channels: int) -> Threshold:
    return Threshold(name, source, np.zeros(channels, np.int32), np.zeros(channels, np.bool_))


def affine(name: str, source: str, channels: int) -> Affine:
    return Affine(name, source, np.ones(channels, np.float32), np.zeros(channels, np.float32))


@pytest.fixture
def small() -> Graph:
    """5 x 7 colour images, a strided convolution, pooled sums, a dense layer of scores."""
    return Graph(
        (
            Input("image", (5, 7, 3)),
            Convolution("conv1", "image", Window((3, 3), (2, 1), (1, 0)), zeros(70, 3, 3, 3)),
            threshold("sign1", "conv1", 70),
            Convolution("conv2", "sign1", Window((1, 1)), zeros(8, 1, 1, 70)),
            MaxPool("pool2", "conv2", Window((3, 2), (3, 2))),
            threshold("sign2", "pool2", 8),
            Flatten("flat", "sign2"),
            Dense("dense3", "flat", zeros(4, 16)),
            affine("scores", "dense3", 4),
        ),
        "scores",
    )


def test_paper_networks_have_the_papers_counts():
    convnet, mlp = layers(random_convnet()), layers(random_mlp())
    assert sum(layer.weights for layer in convnet) == 14_022_016
    assert sum(layer.macs for layer in convnet) == 616_966_144
    assert sum(layer.weights for layer in mlp) == sum(layer.macs for layer in mlp) == 36_806_656
    assert [layer.name for layer in convnet][5:8] == ["conv6", "dense7", "dense8"]


def test_layers_of_a_small_network(small):
    conv1, conv2, dense3 = layers(small)
    assert conv1.nodes == ("conv1", "sign1")
    assert conv1.operations == ("convolution 3x3 stride (2, 1) pad (1, 0)", "sign")
    assert (conv1.weights, conv1.macs, conv1.arithmetic) == (70 * 27, 70 * 27 * 3 * 5, "8-bit")
    assert conv2.nodes == ("conv2", "pool2", "sign2", "flat")
    assert conv2.operations == ("convolution 1x1", "max pool 3x2", "sign")
    assert (conv2.weights, conv2.macs, conv2.arithmetic) == (560, 560 * 15, "xnor-popcount")
    assert str(conv2.output) == "bits[16]"
    assert (dense3.weights, dense3.macs, dense3.kind) == (64, 64, "dense")
    assert conv1.float32_bytes == 4 * (70 * 27 + 70)


def test_what_is_not_binary_is_named_with_its_reason(small):
    conv1, conv2, dense3 = layers(small)
    assert len(conv1.not_binary) == 1
    assert "8-bit" in conv1.not_binary[0]
    assert conv2.not_binary == ()
    assert len(dense3.not_binary) == 1
    assert "scores" in dense3.not_binary[0]
    assert "4 per image" in dense3.not_binary[0]


def test_sums_as_the_result_are_not_binary():
    graph = Graph((Input("x", (64,)), Dense("dense", "x", zeros(3, 64))), "dense")
    assert [len(layer.not_binary) for layer in layers(graph)] == [2]


def test_activation_memory_counts_what_is_alive_at_a_time(small):
    memory = activation_memory(small)
    # While conv1 is computed: 105 bytes of input and 3 x 5 pixels of 70 bits in two words.
    assert memory.packed_bytes == 105 + 15 * 2 * 8
    assert memory.at == "sign1"
    assert memory.float32_bytes == 4 * (105 + 15 * 70)


def test_activation_memory_of_a_branch_counts_both():
    graph = Graph(
        (
            Input("x", (64,)),
            Dense("a", "x", zeros(640, 64)),
            threshold("bits", "a", 640),
            Dense("b", "bits", zeros(128, 640)),
            threshold("more", "b", 128),
            Dense("c", "more", zeros(2, 128)),
            affine("scores", "c", 2),
        ),
        "scores",
    )
    assert activation_memory(graph).packed_bytes == 80 + 64  # input and first bits
    assert activation_memory(graph).float32_bytes == 4 * (640 + 128)


def test_float32_energy_of_the_papers_convnet():
    energy = estimate_energy(random_convnet())
    assert energy.float32.arithmetic_pj == pytest.approx(2.84e9, rel=1e-3)


def test_energy_by_hand():
    graph = Graph(
        (
            Input("x", (64,)),
            Dense("a", "x", zeros(32, 64)),
            threshold("bits", "a", 32),
            Dense("b", "bits", zeros(2, 32)),
            affine("scores", "b", 2),
        ),
        "scores",
    )
    energy = estimate_energy(graph)
    assert energy.packed.arithmetic_pj == pytest.approx(2048 * 0.1 + 64 * 0.3 / 32)
    assert energy.float32.arithmetic_pj == pytest.approx((2048 + 64) * 4.6)
    # Weights and thresholds 256 + 8 + 4 * 34 bytes = 50 accesses; input 8 and bits 1, written and read; scores 1.
    assert energy.packed.memory_pj == (pytest.approx(10.0 * (50 + 2 * (8 + 1) + 1)),) * 2
    # 4 * (2112 + 34) bytes are more than 8 KB, the values 4 * (64 + 32) are not.
    assert energy.float32.memory_pj == (pytest.approx(20.0 * 1073 + 10.0 * (2 * (32 + 16) + 1)),) * 2
    assert [(item.name, item.count, item.each_pj) for item in (*energy.packed.arithmetic, *energy.packed.memory)] == [
        ("integer ADD of an 8-bit input", 2048, (0.1, 0.1)),
        ("XNOR, popcount, ADD on 32 bits", 3 * 2, (0.1, 0.1)),
        ("weights, 8 KB", 50, (10, 10)),
        ("activations, 8 KB", 2 * (8 + 1) + 1, (10, 10)),
    ]
    assert [(item.count, item.each_pj[0]) for item in energy.float32.arithmetic] == [(2112, 3.7), (2112, 0.9)]
    assert [(item.name, item.count) for item in energy.float32.memory] == [
        ("weights, 32 KB", 1073),
        ("activations, 8 KB", 97),
    ]


@pytest.mark.parametrize(
    ("resident", "expected"),
    [(0, 10), (8192, 10), (8193, 20), (32768, 20), (32769, 100), (1 << 20, 100)],
)
def test_access_energy_by_size(resident, expected):
    assert access_energy_pj(resident) == (expected, expected)


def test_access_energy_of_dram_is_a_range():
    assert access_energy_pj((1 << 20) + 1) == (1300, 2600)


def test_random_networks_are_the_same_every_time_and_alive():
    first, again = random_convnet((8, 8, 3), [[70], [40]], [30]), random_convnet((8, 8, 3), [[70], [40]], [30])
    other = random_convnet((8, 8, 3), [[70], [40]], [30], seed=1)
    images = np.random.default_rng(0).integers(0, 256, (32, 8, 8, 3), dtype=np.uint8)
    scores = evaluate(first, images)["scores"]
    np.testing.assert_array_equal(scores, evaluate(again, images)["scores"])
    assert not np.array_equal(scores, evaluate(other, images)["scores"])
    assert (scores.std(axis=0) > 0.1).all()
    bits = evaluate(first, images, ["sign1"])["sign1"]
    ones = np.bitwise_count(bits).sum() / (bits.size / num_words(70) * 70)
    assert 0.3 < ones < 0.7
