"""The reference evaluator: hand-made numbers, chunks, and what it refuses. (Conformance compares it with an oracle.)"""

import numpy as np
import pytest

from binarynet.encoding import pack_bits
from binarynet.errors import GraphError, ShapeError, UsageError
from binarynet.graph import (
    Affine,
    Convolution,
    Dense,
    Graph,
    Input,
    MaxPool,
    Threshold,
    Window,
    check_images,
    evaluate,
    reference,
)
from random_graphs import dense_graph, image_graph, random_images


def test_a_network_by_hand():
    """Two pixels 255 and 0 stand for +255 and -255; weights (+,+), (+,-), (-,-)."""
    weights = pack_bits(np.array([[1, 1], [1, 0], [0, 0]], bool))
    nodes = [
        Input("input", (2,)),
        Dense("sums", "input", weights),
        Threshold("bits", "sums", np.array([0, 511, 0], np.int32), np.array([False, False, True])),
        Dense("again", "bits", pack_bits(np.array([[1, 1, 0]], bool))),
        Affine("scores", "again", np.array([0.5], np.float32), np.array([0.25], np.float32)),
    ]
    graph = Graph(tuple(nodes), "scores")
    values = evaluate(graph, np.array([[255, 0], [255, 255], [0, 1]], np.uint8), list(graph.types))
    assert values["sums"].tolist() == [[0, 510, 0], [510, 0, -510], [-508, -2, 508]]
    # rising 0: sum >= 0; 511 out of reach; falling 0: sum < 0
    assert values["bits"].tolist() == [[0b001], [0b101], [0b000]]
    assert values["again"].tolist() == [[1], [-1], [-1]]
    assert values["scores"].tolist() == [[0.75], [-0.25], [-0.25]]
    assert [values[name].dtype for name in graph.types] == [np.uint8, np.int32, np.uint64, np.int32, np.float32]


def test_zero_padding_contributes_nothing_in_the_first_layer():
    """A black image: every inner tap is -255, every tap outside is 0, not -255 and not 255."""
    weights = pack_bits(np.ones((1, 3, 3, 1), bool))
    nodes = (Input("input", (2, 3, 1)), Convolution("sums", "input", Window((3, 3), (1, 1), (1, 1)), weights))
    sums = evaluate(Graph(nodes, "sums"), np.zeros((1, 2, 3, 1), np.uint8))["sums"]
    assert sums[0, :, :, 0].tolist() == [[-1020, -1530, -1020], [-1020, -1530, -1020]]


def test_pooling_ignores_what_lies_outside():
    """All sums are negative: a padding of 0 would win, and a padding bit of +1 would, too."""
    weights = pack_bits(np.ones((1, 1, 1, 1), bool))
    window = Window((3, 3), (2, 2), (1, 1))
    nodes = [
        Input("input", (3, 3, 1)),
        Convolution("sums", "input", Window((1, 1)), weights),
        MaxPool("pooled", "sums", window),
        Threshold("bits", "pooled", np.array([0], np.int32), np.array([False])),
        MaxPool("pooled_bits", "bits", window),
    ]
    values = evaluate(
        Graph(tuple(nodes), nodes[-1].name), np.full((1, 3, 3, 1), 7, np.uint8), ["pooled", "pooled_bits"]
    )
    assert (values["pooled"] == 2 * 7 - 255).all()
    assert not values["pooled_bits"].any()


def test_the_affine_map_rounds_twice():
    """A fused multiply-add would give another last bit here."""
    k, scale, shift = 4097, np.float32(1 + 2**-12), np.float32(-4097)
    nodes = (Input("input", (k,)), Dense("sums", "input", pack_bits(np.ones((1, k), bool))))
    graph = Graph((*nodes, Affine("scores", "sums", np.array([scale]), np.array([shift]))), "scores")
    image = np.full((1, k), 128, np.uint8)  # each stands for 1, so that the sum is k
    once = np.float64(k) * np.float64(scale) + np.float64(shift)
    score = evaluate(graph, image)["scores"][0, 0]
    assert score == np.float32(k * scale) + shift
    assert score != np.float32(once)


@pytest.mark.parametrize("make", [dense_graph, image_graph])
@pytest.mark.parametrize("batch", [0, 1, 5])
def test_chunks_do_not_matter(make, batch, monkeypatch):
    graph = make()
    images = random_images(np.random.default_rng(1), batch, graph.input.shape)
    whole = evaluate(graph, images, list(graph.types))
    monkeypatch.setattr(reference, "_CHUNK_ELEMENTS", 1)
    chunked = evaluate(graph, images, list(graph.types))
    for name, value in whole.items():
        assert len(value) == batch
        assert chunked[name].dtype == value.dtype
        assert np.array_equal(chunked[name], value)


def test_only_wanted_values_come_back():
    graph = image_graph()
    images = random_images(np.random.default_rng(1), 2, graph.input.shape)
    assert list(evaluate(graph, images)) == ["scores"]
    assert list(evaluate(graph, images, ["pool1", "input"])) == ["pool1", "input"]
    with pytest.raises(GraphError, match="no value is called 'pool9'"):
        evaluate(graph, images, ["pool9"])


def test_images_are_not_changed_or_shared():
    graph = image_graph()
    images = random_images(np.random.default_rng(1), 2, graph.input.shape)
    before = images.copy()
    values = evaluate(graph, images, ["input"])
    values["input"][:] = 0
    assert np.array_equal(images, before)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ([[1, 2]], r"expected a NumPy array uint8 \[n, 6, 5, 3\], got list"),
        (np.zeros((1, 6, 5, 3), np.float32), r"expected uint8 values 0\.\.255, got float32; map them once"),
        (np.zeros((1, 6, 5, 3), np.int8), "got int8"),
        (np.zeros((1, 6, 5, 3), bool), "got bool"),
        (np.zeros((6, 5, 3), np.uint8), r"expected uint8 \[n, 6, 5, 3\], got \[6, 5, 3\]"),
        (np.zeros((1, 3, 6, 5), np.uint8), r"got \[1, 3, 6, 5\]"),
        (np.zeros((1, 90), np.uint8), r"got \[1, 90\]"),
    ],
)
def test_wrong_images_are_refused(images, message):
    with pytest.raises(ShapeError, match=message):
        check_images(image_graph(), images)
    with pytest.raises(ShapeError, match=message):
        evaluate(image_graph(), images)


def test_bits_as_the_input():
    """Rows 101 and 010 stand for (+,-,+) and (-,+,-); weights (+,+,+), (-,+,-)."""
    nodes = (Input("input", (3,), "bits"), Dense("sums", "input", np.array([[0b111], [0b010]], np.uint64)))
    values = evaluate(Graph(nodes, "sums"), np.array([[0b101], [0b010]], np.uint64), ["input", "sums"])
    assert values["sums"].tolist() == [[1, -3], [-1, 3]]
    assert values["input"].tolist() == [[0b101], [0b010]]


@pytest.mark.parametrize(
    ("images", "error", "message"),
    [
        (np.zeros((1, 2, 2, 65), bool), ShapeError, r"packed bits uint64 \[n, 2, 2, 2\], got bool; .*pack_bits packs"),
        (np.zeros((1, 2, 2, 16), np.uint8), ShapeError, "got uint8"),
        (np.zeros((1, 2, 2, 65), np.uint64), ShapeError, r"expected uint64 \[n, 2, 2, 2\], got \[1, 2, 2, 65\]"),
        (np.full((1, 2, 2, 2), 2, np.uint64), UsageError, "padding bits are not 0: .* only the lowest 1 bits"),
        (None, ShapeError, "got NoneType"),
    ],
)
def test_wrong_bits_are_refused(images, error, message):
    graph = Graph((Input("input", (2, 2, 65), "bits"),), "input")
    with pytest.raises(error, match=message):
        check_images(graph, images)
