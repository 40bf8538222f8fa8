"""What is written comes back, the same network gives the same bytes, and yesterday's files are still read."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from bnn_files import dense_network, small_network, split
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open

from binarynet.data import ImagePolicy
from binarynet.errors import FileFormatError
from binarynet.fileformat import FORMAT_VERSION, PackedNetwork, read, read_with_sections, to_bytes, write
from binarynet.fileformat.container import MAX_HEADER_BYTES
from binarynet.graph import Affine, Convolution, Dense, Flatten, Graph, Input, MaxPool, Threshold, evaluate
from random_graphs import dense_graph, random_graph, random_images

GOLDEN = Path(__file__).parent.parent / "golden" / "version1.bnn"
GOLDEN_SHA256 = "8b40366fed51c69a27dbdba0c364db5745fb0d2b04fec955088e7c0d72381351"

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"]), max_size=4), inner, max_size=3)
    ),
    max_leaves=6,
)


def described(graph: Graph):
    """Everything that a graph holds, as plain values."""
    fields = {
        Convolution: ("source", "window", "weights"),
        Dense: ("source", "weights"),
        MaxPool: ("source", "window"),
        Threshold: ("source", "thresholds", "falling"),
        Affine: ("source", "scale", "shift"),
        Flatten: ("source",),
        Input: ("shape",),
    }
    rows = []
    for node in graph:
        values = [getattr(node, name) for name in fields[type(node)]]
        plain = [(v.dtype.str, v.shape, v.tobytes()) if isinstance(v, np.ndarray) else v for v in values]
        rows.append((type(node).__name__, node.name, *plain))
    return rows, graph.output, graph.types, graph.bounds


@settings(max_examples=150)
@given(seed=st.integers(0, 2**32), provenance=st.dictionaries(st.text("abc", max_size=3), json_values, max_size=3))
def test_any_network_comes_back(tmp_path_factory, seed, provenance):
    graph = random_graph(np.random.default_rng(seed))
    output = graph.output_type
    scores = output.kind == "f32" and len(output.shape) == 1
    classes = tuple(f"class {i}" for i in range(output.channels)) if scores else ()
    size = graph.input.shape if len(graph.input.shape) == 3 else (1, 1, *graph.input.shape)
    network = PackedNetwork(graph, classes, ImagePolicy(*size).to_dict() if seed % 2 else None, provenance)
    path = tmp_path_factory.mktemp("bnn") / "network.bnn"
    size = write(path, network)
    content = path.read_bytes()
    again, sections = read_with_sections(path)
    assert described(again.graph) == described(graph)
    assert (again.classes, again.image_policy, again.provenance) == (classes, network.image_policy, provenance)
    assert to_bytes(again) == content == to_bytes(network)
    assert size == len(content) == sum(section.num_bytes for section in sections)
    assert [s.offset for s in sections] == np.cumsum([0, *(s.num_bytes for s in sections)])[:-1].tolist()
    images = random_images(np.random.default_rng(seed), 2, graph.input.shape)
    before, after = evaluate(graph, images)[graph.output], evaluate(again.graph, images)[graph.output]
    assert before.tobytes() == after.tobytes()


def test_the_golden_file_is_read_and_written_identically():
    """Version 1 is what its bytes are. If this test fails, the format changed: raise the version, keep this file."""
    content = GOLDEN.read_bytes()
    assert hashlib.sha256(content).hexdigest() == GOLDEN_SHA256
    network = read(GOLDEN)
    assert to_bytes(network) == content
    assert network.classes == ("cat", "dög", "a b", "7")
    assert network.image_policy == {"height": 6, "width": 5, "channels": 3, "resize": "crop", "background": 255}
    assert network.provenance == {"recipe": "none", "test_error": 0.015625, "größe": [1, None, True]}
    rows = [np.zeros(90), np.full(90, 255), np.arange(90), (np.arange(90) % 3 == 1) * 255]
    images = np.stack(rows).astype(np.uint8).reshape(4, 6, 5, 3)
    scores = evaluate(network.graph, images)["scores"]
    assert [row.tobytes().hex() for row in scores] == [
        "b5125abe636b353f769246c03ab5a03f",
        "3b7d913c4c650c3f68c81fbff643bf3f",
        "3b7d913c4c650c3f44e92fc0f643bf3f",
        "305af53e7264693efb88aabff643bf3f",
    ]


def test_the_golden_file_byte_by_byte():
    """What SPEC.md says, read with nothing but ``struct`` and ``json``."""
    header, metadata, data = split(GOLDEN.read_bytes())
    assert list(metadata) == sorted(metadata)
    assert (metadata["format"], metadata["version"]) == ("binarynet", 1) == ("binarynet", FORMAT_VERSION)
    assert metadata["sha256"] == hashlib.sha256(data).hexdigest()
    assert [node["op"] for node in metadata["graph"]["nodes"]] == [
        "input", "convolution", "max_pool", "threshold", "convolution", "threshold", "flatten", "dense", "affine",
    ]  # fmt: skip
    assert {name: (entry["dtype"], entry["shape"]) for name, entry in header.items()} == {
        "conv1.weights": ("U8", [(9 * 27 + 7) // 8]),
        "sign1.thresholds": ("I32", [9]),
        "sign1.falling": ("U8", [2]),
        "conv2.weights": ("U8", [(5 * 36 + 7) // 8]),
        "sign2.thresholds": ("I32", [5]),
        "sign2.falling": ("U8", [1]),
        "dense.weights": ("U8", [(4 * 10 + 7) // 8]),
        "scores.scale": ("F32", [4]),
        "scores.shift": ("F32", [4]),
    }
    begin, end = header["conv1.weights"]["data_offsets"]
    number = int.from_bytes(data[begin:end], "little")  # bit i is weight i, in the order [out, row, column, channel]
    words = read(GOLDEN).graph.node("conv1").weights
    for i, (o, r, c, k) in enumerate(np.ndindex(9, 3, 3, 3)):
        assert (number >> i) & 1 == (int(words[o, r, c, 0]) >> k) & 1


def test_other_safetensors_readers_can_open_it(tmp_path):
    path = tmp_path / "network.bnn"
    write(path, small_network())
    with safe_open(path, "numpy") as file:
        assert list(file.metadata()) == ["binarynet"]
        assert file.get_tensor("scores.scale").tobytes() == small_network().graph.node("scores").scale.tobytes()


def test_a_network_without_weights(tmp_path):
    path = tmp_path / "flat.bnn"
    graph = Graph((Input("input", (2, 3, 4)), Flatten("flat", "input")), "flat")
    write(path, PackedNetwork(graph))
    assert described(read(path).graph) == described(graph)


def test_sizes_may_be_numpy_integers(tmp_path):
    """Whoever builds a graph by hand takes sizes from array shapes."""
    graph = Graph((Input("input", (np.int64(2), np.int32(3), np.uint8(4))), Flatten("flat", "input")), "flat")
    write(tmp_path / "flat.bnn", PackedNetwork(graph))
    assert read(tmp_path / "flat.bnn").graph.input.shape == (2, 3, 4)


def deep(levels):
    value = []
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"provenance": {"x": object()}}, r"provenance: <object .* \(object\) is not a JSON value"),
        ({"provenance": {"x": np.float32(1)}}, r"\(float32\) is not a JSON value"),
        ({"provenance": {"x": [float("nan")]}}, "provenance: nan is not a finite number"),
        ({"provenance": {"x": float("-inf")}}, "provenance: -inf is not a finite number"),
        ({"provenance": {1: "x"}}, "provenance: the key 1 is not text"),
        ({"provenance": {"x": "\ud800"}}, "provenance: .* is not valid Unicode text"),
        ({"provenance": {"x": deep(40)}}, "provenance: .* nested more than 32 deep"),
        ({"provenance": {"log": "x" * MAX_HEADER_BYTES}}, r"header of \d+ bytes \(at most \d+\).*shorten the prov"),
    ],
)
def test_what_a_file_cannot_hold_is_refused_before_writing(tmp_path, fields, message):
    with pytest.raises(FileFormatError, match=message):
        write(tmp_path / "network.bnn", PackedNetwork(dense_graph(), **fields))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        (("a", "b"), r"2 class names for an output of f32\[3\]; expected one name per score"),
        (("a", "b", "a"), "class names are not distinct"),
        (("a", "b", ""), "'' must be text of 1 to 1024 characters"),
        (("a", "b", "c" * 1025), "must be text of 1 to 1024 characters"),
        (("a", "b", 3), "'3' must be text"),
        (("a", "b", "\x1b[31m"), "has control characters"),
        (("a", "b", "\udcff"), "has control characters"),
    ],
)
def test_class_names_are_checked(classes, message):
    with pytest.raises(FileFormatError, match=message):
        PackedNetwork(dense_network().graph, classes)


GOOD_POLICY = ImagePolicy(1, 1, 20).to_dict()


@pytest.mark.parametrize(
    ("policy", "message"),
    [
        ({}, "image policy: expected the keys"),
        ({**GOOD_POLICY, "more": 1}, "image policy: expected the keys"),
        (
            {**GOOD_POLICY, "resize": {2, 3}},
            "image policy: resize must be one of crop, pad, stretch, refuse, got {2, 3}",
        ),
        ({**GOOD_POLICY, "background": 0.5}, "image policy: background must be an integer, got 0.5"),
        ({**GOOD_POLICY, "height": np.int64(1)}, "image policy: height must be an integer, got"),
        ({**GOOD_POLICY, "channels": 21}, r"images of \[1, 1, 21\] .*, the network takes \[1, 1, 20\]"),
        ({**GOOD_POLICY, "height": 20, "channels": 1}, r"images of \[20, 1, 1\] .*, the network takes \[1, 1, 20\]"),
        (ImagePolicy(1, 1, 20), r"expected an object as ImagePolicy\.to_dict\(\) gives it, got ImagePolicy"),
    ],
)
def test_the_image_policy_is_checked(policy, message):
    PackedNetwork(dense_network().graph, image_policy=GOOD_POLICY)
    with pytest.raises(FileFormatError, match=message):
        PackedNetwork(dense_network().graph, image_policy=policy)


def test_classes_need_a_vector_of_scores():
    graph = Graph(dense_network().graph.nodes[:-1], "dense2")
    with pytest.raises(FileFormatError, match=r"3 class names for an output of i32\[3\]"):
        PackedNetwork(graph, ("a", "b", "c"))


def test_the_header_is_json_text_with_sorted_keys():
    content = to_bytes(small_network())
    length = int.from_bytes(content[:8], "little")
    text = json.loads(content[8 : 8 + length])["__metadata__"]["binarynet"]
    assert text == json.dumps(json.loads(text), sort_keys=True, separators=(",", ":"))


def test_another_bit_order_would_be_noticed(monkeypatch):
    """The golden file is what notices that writer and reader changed together."""
    pack, unpack = np.packbits, np.unpackbits
    network = read(GOLDEN)
    monkeypatch.setattr(np, "packbits", lambda bits, **_: pack(bits, bitorder="big"))
    monkeypatch.setattr(np, "unpackbits", lambda data, count=None, **_: unpack(data, count=count, bitorder="big"))
    assert to_bytes(network) != GOLDEN.read_bytes()


def test_a_graph_over_packed_bits_has_no_file():
    graph = Graph((Input("signs", (3,), "bits"),), "signs")
    with pytest.raises(FileFormatError, match=r"the input 'signs' is packed bits: .*Session"):
        PackedNetwork(graph)
