"""The typed graph: shapes, bounds, and every way in which it can be inconsistent."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from binarynet.encoding import EXACT_FLOAT32_LIMIT, pack_bits
from binarynet.errors import GraphError
from binarynet.graph import (
    Affine,
    Convolution,
    Dense,
    Flatten,
    Graph,
    GraphBuilder,
    Input,
    MaxPool,
    Node,
    Threshold,
    ValueType,
    Window,
    evaluate,
    num_taps,
)
from binarynet.graph.ir import MAX_ELEMENTS, MAX_NODES, Unary
from random_graphs import dense_graph, image_graph, random_graph, random_images, random_words

RNG = np.random.default_rng(0)


def words(*shape, channels):
    return random_words(RNG, shape, channels)


def threshold(name, source, channels):
    return Threshold(name, source, np.zeros(channels, np.int32), np.zeros(channels, bool))


def affine(name, source, channels, scale=1.0, shift=0.0):
    return Affine(name, source, np.full(channels, scale, np.float32), np.full(channels, shift, np.float32))


def test_types_and_bounds_of_a_network():
    graph = image_graph()
    assert {name: str(value) for name, value in graph.types.items()} == {
        "input": "u8[6, 5, 3]",
        "conv1": "i32[6, 5, 9]",
        "pool1": "i32[3, 2, 9]",
        "sign1": "bits[3, 2, 9]",
        "conv2": "i32[2, 1, 5]",
        "sign2": "bits[2, 1, 5]",
        "flatten": "bits[10]",
        "dense": "i32[4]",
        "scores": "f32[4]",
    }
    assert graph.bounds == {"conv1": 27 * 255, "pool1": 27 * 255, "conv2": 36, "dense": 10}
    assert graph.input.shape == (6, 5, 3)
    assert (graph.output_type, graph.output_type.channels, graph.output_type.num_elements) == (
        ValueType("f32", (4,)),
        4,
        4,
    )
    assert num_taps(graph.node("conv1"), graph.types["input"]) == 27
    assert num_taps(graph.node("dense"), graph.types["flatten"]) == 10
    assert [node.name for node in graph] == list(graph.types)


@given(st.integers(0, 2**32))
def test_bounds_hold(seed):
    graph = random_graph(np.random.default_rng(seed), max_layers=2)
    images = random_images(np.random.default_rng(seed), 3, graph.input.shape)
    values = evaluate(graph, images, list(graph.bounds))
    for name, bound in graph.bounds.items():
        assert np.abs(values[name]).max() <= bound <= EXACT_FLOAT32_LIMIT


@pytest.mark.parametrize("level", [0, 255])
def test_the_bound_of_a_first_layer_is_reached(level):
    nodes = (Input("input", (70,)), Dense("d", "input", pack_bits(np.ones((1, 70), bool))))
    graph = Graph(nodes, "d")
    assert abs(int(evaluate(graph, np.full((1, 70), level, np.uint8))["d"][0, 0])) == graph.bounds["d"] == 70 * 255


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "padding"),
    [((7, 5), (3, 3), (2, 1), (1, 0)), ((4, 4), (5, 5), (3, 3), (2, 2)), ((1, 9), (1, 2), (1, 3), (0, 1))],
)
def test_window_output_size_counts_positions(size, kernel, stride, padding):
    expected = tuple(
        len(range(-p, s + p - k + 1, step)) for s, k, step, p in zip(size, kernel, stride, padding, strict=True)
    )
    assert Window(kernel, stride, padding).output_size(size) == expected


def inputs(*shape):
    return Input("input", shape)


BITS = [inputs(9), Dense("sums", "input", words(5, channels=9)), threshold("bits", "sums", 5)]
IMAGE = [inputs(4, 4, 3), Convolution("sums", "input", Window((1, 1)), words(2, 1, 1, channels=3))]
IMAGE_BITS = [*IMAGE, threshold("bits", "sums", 2)]


def bad_padding(channels):
    array = words(3, channels=channels)
    array[1, -1] |= np.uint64(1 << 63)
    return array


WRONG = {
    "empty": ([], "output", "begins with its input"),
    "no input": ([threshold("a", "b", 1)], "a", "begins with its input"),
    "input of sums": ([Input("x", (3,), "i32")], "x", "'x': an input is u8 or bits, not 'i32'"),
    "two inputs": ([inputs(3), Input("again", (3,))], "again", "'again': a graph has one input, its first node"),
    "unknown output": ([inputs(3)], "x", "the output 'x' is not a value"),
    "unknown source": ([inputs(3), Flatten("f", "nowhere")], "f", "'f': its source 'nowhere' is not an earlier value"),
    "source is itself": ([inputs(3), Flatten("f", "f")], "f", "its source 'f' is not an earlier value"),
    "name twice": ([*BITS, threshold("sums", "sums", 5)], "sums", "node 3: the name 'sums' is used twice"),
    "name empty": ([Input("", (3,))], "", "node 0: name '' is not allowed"),
    "name with space": ([Input("a b", (3,))], "a b", "name 'a b' is not allowed"),
    "name with newline": ([Input("a\n", (3,))], "a\n", "is not allowed"),
    "name too long": ([Input("a" * 129, (3,))], "a" * 129, "at most 128 characters"),
    "dead value": ([*BITS, threshold("other", "sums", 5)], "bits", "'other' is neither used nor the output"),
    "rank 2": ([inputs(3, 3)], "input", r"shape \[3, 3\] must be \[h, w, c\] or \[k\]"),
    "size 0": ([inputs(3, 0, 1)], "input", "every size at least 1"),
    "negative size": ([inputs(-3)], "input", "every size at least 1"),
    "too many elements": ([inputs(1 << 15, 1 << 14, 1)], "input", f"more than {MAX_ELEMENTS} elements"),
    "unknown node": ([inputs(3), Node("n")], "n", "unknown node type Node"),
    "unknown unary node": ([inputs(3), Unary("n", "input")], "n", "unknown node type Unary"),
    "dense on an image": (
        [inputs(2, 2, 3), Dense("d", "input", words(2, channels=12))],
        "d",
        "expected a feature vector",
    ),
    "convolution on features": (
        [inputs(3), Convolution("c", "input", Window((1, 1)), words(2, 1, 1, channels=3))],
        "c",
        "expected an image",
    ),
    "flatten of features": ([inputs(3), Flatten("f", "input")], "f", "expected an image"),
    "pool of features": ([*BITS, MaxPool("p", "bits", Window((1, 1)))], "p", "expected an image"),
    "pool of pixels": ([inputs(4, 4, 3), MaxPool("p", "input", Window((2, 2)))], "p", "expected i32 or bits"),
    "threshold of bits": ([*BITS, threshold("t", "bits", 5)], "t", "expected i32, its source is bits"),
    "affine of bits": ([*BITS, affine("a", "bits", 5)], "a", "expected i32, its source is bits"),
    "dense on sums": ([*BITS[:2], Dense("d", "sums", words(2, channels=5))], "d", "expected u8 or bits"),
    "weights of another width": (
        [inputs(65), Dense("d", "input", words(2, channels=64))],
        "d",
        r"weights must be uint64 \[2, 2\]",
    ),
    "weights of another dtype": ([inputs(9), Dense("d", "input", np.zeros((2, 1), np.int64))], "d", "got int64"),
    "weights are a scalar": ([inputs(9), Dense("d", "input", np.array(None))], "d", "have no output channel"),
    "no output channel": ([inputs(9), Dense("d", "input", np.zeros((0, 1), np.uint64))], "d", "have no output channel"),
    "kernel unlike weights": (
        [inputs(4, 4, 3), Convolution("c", "input", Window((2, 2)), words(2, 2, 1, channels=3))],
        "c",
        r"\[2, 2, 2, 1\], got",
    ),
    "padding bits": ([inputs(9), Dense("d", "input", bad_padding(9))], "d", "padding bits of the weights are not 0"),
    "window too large": (
        [inputs(4, 4, 3), Convolution("c", "input", Window((5, 1)), words(2, 5, 1, channels=3))],
        "c",
        "does not fit",
    ),
    "padding of a kernel": (
        [inputs(4, 4, 3), Convolution("c", "input", Window((2, 2), (1, 1), (2, 0)), words(2, 2, 2, channels=3))],
        "c",
        r"padding \(2, 0\) must be smaller than the kernel",
    ),
    "stride 0": (
        [*IMAGE, MaxPool("p", "sums", Window((2, 2), (0, 1)))],
        "p",
        r"stride \(0, 1\) must be two integers from 1",
    ),
    "kernel 0": ([*IMAGE, MaxPool("p", "sums", Window((0, 2)))], "p", "kernel"),
    "padding -1": ([*IMAGE, MaxPool("p", "sums", Window((2, 2), (1, 1), (-1, 0)))], "p", "padding"),
    "huge stride": ([*IMAGE, MaxPool("p", "sums", Window((2, 2), (65536, 1)))], "p", "to 65535"),
    "three strides": ([*IMAGE, MaxPool("p", "sums", Window((2, 2), (1, 1, 1)))], "p", "must be two integers"),
    "pool of padding alone": (
        [*IMAGE_BITS, MaxPool("p", "bits", Window((3, 3), (1, 1), (2, 0)))],
        "p",
        "exceeds half of the kernel",
    ),
    "sums beyond float32": (
        [inputs(65_794), Dense("d", "input", words(1, channels=65_794))],
        "d",
        r"sums reach 16777470, beyond 16777216",
    ),
    "thresholds of another length": (
        [*BITS[:2], threshold("t", "sums", 4)],
        "t",
        r"thresholds must be int32 \[5\], got int32 \[4\]",
    ),
    "thresholds of another dtype": (
        [*BITS[:2], Threshold("t", "sums", np.zeros(5, np.int64), np.zeros(5, bool))],
        "t",
        "got int64",
    ),
    "falling as numbers": (
        [*BITS[:2], Threshold("t", "sums", np.zeros(5, np.int32), np.zeros(5, np.uint8))],
        "t",
        r"falling must be bool \[5\]",
    ),
    "scale of another dtype": (
        [*BITS[:2], Affine("a", "sums", np.ones(5), np.ones(5, np.float32))],
        "a",
        "scale must be float32",
    ),
    "scale is NaN": ([*BITS[:2], affine("a", "sums", 5, scale=np.nan)], "a", "scale of channel 0 is nan"),
    "shift is infinite": ([*BITS[:2], affine("a", "sums", 5, shift=-np.inf)], "a", "shift of channel 0 is -inf"),
    "scores overflow": (
        [*BITS[:2], affine("a", "sums", 5, scale=3e38)],
        "a",
        "scores of channel 0 can overflow float32",
    ),
}


@pytest.mark.parametrize(("nodes", "output", "message"), WRONG.values(), ids=WRONG.keys())
def test_inconsistent_graphs_are_refused(nodes, output, message):
    with pytest.raises(GraphError, match=message):
        Graph(tuple(nodes), output)


def test_sums_up_to_the_limit_are_allowed():
    builder = GraphBuilder()
    builder.add(inputs(65_793))
    builder.add(Dense("d", "input", words(1, channels=65_793)))
    assert builder.bounds["d"] == EXACT_FLOAT32_LIMIT - 1


def test_poolings_cannot_grow_a_value_without_bound():
    builder = GraphBuilder()
    builder.add(inputs(1, 1, 1))
    builder.add(Convolution("sums", "input", Window((1, 1)), pack_bits(np.ones((1 << 20, 1, 1, 1), bool))))
    last = "sums"
    grow = Window((2, 2), (1, 1), (1, 1))  # one row and one column more, each time
    with pytest.raises(GraphError, match=f"more than {MAX_ELEMENTS} elements"):  # noqa: PT012
        for i in range(20):
            last = builder.add(MaxPool(f"pool{i}", last, grow))
    assert builder.types[last].num_elements <= MAX_ELEMENTS


def test_the_number_of_nodes_is_bounded():
    builder = GraphBuilder()
    builder.add(inputs(1, 1, 1))
    builder.add(Convolution("0", "input", Window((1, 1)), pack_bits(np.ones((1, 1, 1, 1), bool))))
    for i in range(1, MAX_NODES - 1):
        builder.add(MaxPool(str(i), str(i - 1), Window((1, 1))))
    with pytest.raises(GraphError, match=f"more than {MAX_NODES} nodes"):
        builder.add(MaxPool("last", str(MAX_NODES - 2), Window((1, 1))))


def test_a_builder_keeps_nothing_of_a_refused_node():
    builder = GraphBuilder()
    builder.add(inputs(9))
    with pytest.raises(GraphError):
        builder.add(Dense("d", "input", words(2, channels=65)))
    builder.add(Dense("d", "input", words(2, channels=9)))
    assert builder.finish("d").output_type == ValueType("i32", (2,))


def test_unknown_values_are_named_with_the_known_ones():
    graph = dense_graph()
    with pytest.raises(GraphError, match="no value is called 'x'; there are: input, dense1, sign1, dense2, scores"):
        graph.node("x")
    assert graph.node("sign1").name == "sign1"
