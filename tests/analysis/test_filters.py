"""First-layer filters against the graph's own sums, and distinct patterns against a count with sets."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from binarynet.analysis import random_convnet, random_mlp
from binarynet.analysis.filters import distinct, first_layer
from binarynet.encoding import pack_bits
from binarynet.graph import Convolution, Dense, Flatten, Graph, Input, Window, evaluate


def dense_graph(shape: tuple[int, int, int], units: int) -> Graph:
    bits = np.random.default_rng(1).random((units, int(np.prod(shape)))) < 0.5
    nodes = (Input("x", shape), Flatten("flat", "x"), Dense("a", "flat", pack_bits(bits)))
    return Graph(nodes, "a")


def conv_graph(shape: tuple[int, int, int], filters: int) -> Graph:
    """A convolution whose window is the whole image, so that it has one sum per filter."""
    bits = np.random.default_rng(1).random((filters, *shape)) < 0.5
    return Graph((Input("x", shape), Convolution("a", "x", Window(shape[:2]), pack_bits(bits))), "a")


@pytest.mark.parametrize(
    ("make", "kind"), [(dense_graph, "dense"), (conv_graph, "convolution")], ids=["dense", "convolution"]
)
@pytest.mark.parametrize("shape", [(4, 5, 1), (3, 3, 3)])
def test_bits_are_the_weights_of_the_pixels_that_they_stand_for(make, kind, shape):
    graph = make(shape, 7)
    layer = first_layer(graph)
    assert (layer.name, layer.kind) == ("a", kind)
    assert layer.bits.shape == (7, shape[2], *shape[:2])
    images = np.random.default_rng(0).integers(0, 256, (5, *shape), dtype=np.uint8)
    signs = np.where(layer.bits, 1, -1)
    sums = np.einsum("nhwc,fchw->nf", 2 * images.astype(int) - 255, signs)
    np.testing.assert_array_equal(evaluate(graph, images)["a"].reshape(5, 7), sums)


@pytest.mark.parametrize("graph", [random_mlp(20, [9], 3), Graph(dense_graph((1, 1, 30), 4).nodes, "a")])
def test_features_are_no_picture(graph):
    assert first_layer(graph) is None


def test_a_sample_is_spread_over_the_layer():
    layer = first_layer(random_convnet((8, 8, 3), [[50]], [10]))
    chosen = layer.sample(16)
    assert len(set(chosen)) == 16
    assert chosen[0] == 0
    assert set(np.diff(chosen)) == {3, 4}
    assert list(layer.sample(80)) == list(range(50))


def test_distinct_patterns_and_their_counts():
    bits = np.random.default_rng(0).random((40, 3, 2, 2)) < 0.4
    patterns, counts = distinct(bits)
    expected = Counter(tuple(pattern.reshape(-1)) for pattern in bits.reshape(-1, 2, 2))
    assert {tuple(p.reshape(-1)): c for p, c in zip(patterns, counts, strict=True)} == expected
    assert list(counts) == sorted(counts, reverse=True)
    assert counts.sum() == 120
