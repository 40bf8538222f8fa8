"""Every way in which a file can be wrong has its own message."""

import json
import os
import struct

import pytest
from bnn_files import dense_network, edited, join, small_network, split, with_header

from binarynet.errors import FileFormatError
from binarynet.fileformat import FORMAT_VERSION, read, to_bytes
from binarynet.fileformat.container import MAX_DATA_BYTES, MAX_HEADER_BYTES

GOOD = to_bytes(small_network())
HEADER, METADATA, DATA = split(GOOD)
DATA_START = len(GOOD) - len(DATA)
HUGE = 1 << 62


def refused(tmp_path, content, message):
    path = tmp_path / "model.bnn"
    path.write_bytes(content)
    with pytest.raises(FileFormatError, match=message) as caught:
        read(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert len(str(caught.value)) < len(str(path)) + 600


def test_the_undamaged_file_is_read(tmp_path):
    """What all the damage below starts from."""
    path = tmp_path / "model.bnn"
    path.write_bytes(join(HEADER, METADATA, DATA))
    assert to_bytes(read(path)) == GOOD


@pytest.mark.parametrize("length", [0, 1, 7])
def test_truncated_in_the_length(tmp_path, length):
    refused(tmp_path, GOOD[:length], f"not a .bnn file: {length} bytes are too few")


@pytest.mark.parametrize("length", [8, 9, 100, DATA_START - 1])
def test_truncated_in_the_header(tmp_path, length):
    refused(tmp_path, GOOD[:length], f"truncated: a header of {DATA_START - 8} bytes in a file of {length}")


@pytest.mark.parametrize("length", [0, 1, len(DATA) // 2, len(DATA) - 1])
def test_truncated_in_the_data(tmp_path, length):
    refused(tmp_path, GOOD[: DATA_START + length], rf"tensor '.*': bytes \d+ to \d+ of {length}: truncated or wrong")


CONTAINERS = {
    "a PNG": (b"\x89PNG\r\n\x1a\n" + b"\0" * 40, r"not a .bnn file: a header of \d+ bytes"),
    "a zip": (b"PK\x03\x04" + b"\0" * 4 + GOOD[8:], "not a .bnn file|truncated"),
    "all zero": (bytes(64), "not a .bnn file: the header does not begin with '{'"),
    "all ones": (b"\xff" * 64, rf"a header of {2**64 - 1} bytes \(at most {MAX_HEADER_BYTES}\)"),
    "header just too long": (
        struct.pack("<Q", MAX_HEADER_BYTES + 1) + bytes(MAX_HEADER_BYTES + 1),
        rf"a header of {MAX_HEADER_BYTES + 1} bytes \(at most {MAX_HEADER_BYTES}\)",
    ),
    "header is not text": (with_header(b"{\xff\xfe}", DATA), "the header is not text"),
    "header has an encoded surrogate": (with_header(b'{"\xed\xa0\x80": 1}', DATA), "the header is not text"),
    "header begins with a space": (with_header(b" {}", DATA), "does not begin with '{'"),
    "header is a list": (with_header(b"[]", DATA), "does not begin with '{'"),
    "header is cut JSON": (with_header(b'{"a":', DATA), "the header is not valid JSON: Expecting value"),
    "header and more": (with_header(b"{} {}", DATA), "the header is not valid JSON: Extra data"),
    "no metadata": (with_header(json.dumps(HEADER), DATA), "a safetensors header without binarynet's metadata"),
    "metadata is text": (with_header('{"__metadata__": "binarynet"}', b""), "without binarynet's metadata"),
    "another program's metadata": (
        with_header('{"__metadata__": {"format": "pt"}}', b""),
        "without binarynet's metadata",
    ),
    "metadata under two keys": (
        with_header(json.dumps({"__metadata__": {"binarynet": "{}", "more": "x"}}), b""),
        "the metadata must be text under the one key 'binarynet'",
    ),
    "metadata is an object": (
        with_header('{"__metadata__": {"binarynet": {}}}', b""),
        "the metadata must be text under the one key 'binarynet'",
    ),
    "metadata twice": (
        with_header('{"__metadata__": {"binarynet": "{}"}, "__metadata__": {"binarynet": "{}"}}', b""),
        "the key '__metadata__' stands twice",
    ),
    "tensor twice": (
        with_header('{"__metadata__": {"binarynet": "{}"}, "t": 1, "t": 2}', b""),
        "the key 't' stands twice",
    ),
    "metadata is not JSON": (join(HEADER, "nonsense", DATA), "the header is not valid JSON: Expecting value"),
    "metadata is a number": (join(HEADER, "7", DATA), "the header must be a JSON object, got int"),
    "key twice in the metadata": (join(HEADER, '{"a": {"version": 1, "version": 2}}', DATA), "'version' stands twice"),
    "NaN in the metadata": (join(HEADER, '{"a": NaN}', DATA), "NaN is not allowed"),
    "infinity in the metadata": (join(HEADER, '{"a": -Infinity}', DATA), "-Infinity is not allowed"),
    "infinity in disguise": (join(HEADER, '{"a": [1e999]}', DATA), "inf is not a finite number"),
    "too many digits": (
        join(HEADER, '{"a": ' + "9" * 5000 + "}", DATA),
        "the header is not valid JSON: Exceeds the limit",
    ),
    "lone surrogate": (join(HEADER, r'{"a": "\ud800"}', DATA), r"'\\ud800' is not valid Unicode text"),
    "nested a little too deep": (join(HEADER, '{"a": ' + "[" * 32 + "]" * 32 + "}", DATA), "nested more than 32 deep"),
    "nested far too deep": (join(HEADER, "[" * 100_000 + "]" * 100_000, DATA), "nested more than 32 deep"),
    "objects nested too deep": (
        with_header('{"a":' * 50_000 + "1" + "}" * 50_000, DATA),
        "the header: lists and objects are nested more than 32 deep",
    ),
    "bytes behind the tensors": (GOOD + b"x", "1 bytes at the end belong to no tensor"),
}


@pytest.mark.parametrize(("content", "message"), CONTAINERS.values(), ids=CONTAINERS.keys())
def test_wrong_containers(tmp_path, content, message):
    refused(tmp_path, content, message)


def tensor(name="dense.weights", **fields):
    def edit(header, metadata, data):
        header[name].update(fields)

    return edit


def other_tensors(function):
    return lambda header, metadata, data: function(header)


def overlap(header):
    header["dense.weights"]["data_offsets"] = [0, header["dense.weights"]["shape"][0]]


def gap(header, metadata, data):
    for entry in header.values():
        entry["data_offsets"] = [offset + 4 for offset in entry["data_offsets"]]
    return b"\0\0\0\0" + data


LAYOUTS = {
    "tensor is a list": (
        lambda h, m, d: h.update(t=[]),
        "tensor 't': must have exactly 'dtype', 'shape' and 'data_offsets'",
    ),
    "tensor lacks its dtype": (lambda h, m, d: h["dense.weights"].pop("dtype"), "'dense.weights': must have exactly"),
    "tensor has a fourth field": (tensor(strides=[1]), "'dense.weights': must have exactly"),
    "unknown dtype": (tensor(dtype="U64"), "dtype 'U64' is not one of U8, I32, F32"),
    "pickled objects": (tensor(dtype="O"), "dtype 'O' is not one of"),
    "dtype is a list": (tensor(dtype=["U8"]), "is not one of"),
    "shape is a number": (tensor(shape=5), "shape and offsets must be lists of non-negative integers"),
    "shape is negative": (tensor(shape=[-5]), "lists of non-negative integers"),
    "shape is a float": (tensor(shape=[5.0]), "lists of non-negative integers"),
    "shape is true": (tensor(shape=[True]), "lists of non-negative integers"),
    "shape is beyond all memory": (tensor(shape=[HUGE]), "lists of non-negative integers"),
    "offsets are beyond all memory": (tensor(data_offsets=[0, HUGE]), "lists of non-negative integers"),
    "two dimensions": (tensor(shape=[5, 1]), "must have one dimension and two offsets"),
    "no dimension": (tensor(shape=[]), "must have one dimension and two offsets"),
    "dimensions whose product overflows": (tensor(shape=[1 << 32, 1 << 32]), "must have one dimension"),
    "one offset": (tensor(data_offsets=[0]), "must have one dimension and two offsets"),
    "offsets in reverse": (tensor(data_offsets=[9, 4]), "bytes 9 to 4 of .*: truncated or wrong"),
    "offset behind the end": (tensor(data_offsets=[0, 1 << 40]), f"bytes 0 to {1 << 40} of {len(DATA)}"),
    "shape unlike the bytes": (tensor(shape=[4]), r"shape \[4\] does not fit 5 bytes"),
    "dtype unlike the bytes": (tensor(dtype="I32"), r"shape \[5\] does not fit 5 bytes"),
    "overlap": (other_tensors(overlap), "overlaps another"),
    "gap": (gap, r"leaves a gap before it \(begins at 4, expected 0\)"),
    "name as long as the header": (lambda h, m, d: h.update({"n" * 100_000: 1}), r"tensor 'n{80}': must have"),
}


@pytest.mark.parametrize(("edit", "message"), LAYOUTS.values(), ids=LAYOUTS.keys())
def test_wrong_layouts(tmp_path, edit, message):
    refused(tmp_path, edited(small_network(), edit), message)


def top(**fields):
    return lambda header, metadata, data: metadata.update(fields)


def node(index, **fields):
    return lambda header, metadata, data: metadata["graph"]["nodes"][index].update(fields)


def without(*path):
    def edit(header, metadata, data):
        place = metadata
        for key in path[:-1]:
            place = place[key]
        del place[path[-1]]

    return edit


def rename(old, new):
    def edit(header, metadata, data):
        header[new] = header.pop(old)

    return edit


def set_byte(name, index, value):
    def edit(header, metadata, data):
        data[header[name]["data_offsets"][0] + index] |= value

    return edit


def nan_scale(header, metadata, data):
    struct.pack_into("<f", data, header["scores.scale"]["data_offsets"][0], float("nan"))


NODES = ("graph", "nodes")
METADATAS = {
    "another format": (top(format="torch"), "not a binarynet file: its format is 'torch'"),
    "no format": (without("format"), "not a binarynet file: its format is None"),
    "a newer version": (
        top(version=FORMAT_VERSION + 1),
        f"format version {FORMAT_VERSION + 1}, this binarynet reads up to {FORMAT_VERSION}: update binarynet",
    ),
    "a much newer version with unknown keys": (top(version=10**9, quantum=True), "update binarynet"),
    "version 0": (top(version=0), "the format version 0 is not a number from 1"),
    "version as text": (top(version="1"), "the format version '1' is not a number from 1"),
    "version true": (top(version=True), "the format version True is not a number from 1"),
    "unknown key": (top(author="me"), "header: unknown key 'author'; allowed: classes, format, graph"),
    "missing key": (without("classes"), "header: the key 'classes' is missing"),
    "missing checksum": (without("sha256"), "header: the key 'sha256' is missing"),
    "graph is a list": (top(graph=[]), "graph: expected an object, got list"),
    "graph has an unknown key": (lambda h, m, d: m["graph"].update(code="print()"), "graph: unknown key 'code'"),
    "nodes is an object": (lambda h, m, d: m["graph"].update(nodes={}), "graph: 'nodes' must be a list, got {}"),
    "no nodes": (lambda h, m, d: (m["graph"].update(nodes=[]), h.clear(), b"")[-1], "a graph begins with its input"),
    "too many nodes": (lambda h, m, d: m["graph"].update(nodes=[0] * 4097), "4097 nodes; at most 4096"),
    "node is a number": (lambda h, m, d: m["graph"]["nodes"].insert(1, 7), "node 1: unknown operation None"),
    "unknown operation": (node(1, op="eval"), "node 1: unknown operation 'eval'; known: input, convolution"),
    "operation is a list": (node(1, op=["input"]), r"node 1: unknown operation \['input'\]"),
    "unknown key of a node": (
        node(7, bias=[1]),
        "node 7: unknown key 'bias'; allowed: channels_in, channels_out, name",
    ),
    "missing key of a node": (without(*NODES, 7, "source"), "node 7: the key 'source' is missing"),
    "name is a number": (node(7, name=7), "node 7: 'name' must be text, got 7"),
    "source is a number": (node(7, source=6), "node 7: 'source' must be text, got 6"),
    "output is null": (lambda h, m, d: m["graph"].update(output=None), "graph: 'output' must be text, got None"),
    "output is unknown": (lambda h, m, d: m["graph"].update(output="x"), "the output 'x' is not a value"),
    "output makes values dead": (
        lambda h, m, d: m["graph"].update(output="dense"),
        "'scores' is neither used nor the output",
    ),
    "shape of text": (node(0, shape="6"), "node 0: 'shape' must be a list, got '6'"),
    "shape of floats": (node(0, shape=[6.0, 5, 3]), r"node 0: 'shape' must be integers from 0 to \d+, got 6.0"),
    "shape of rank 2": (node(0, shape=[6, 5]), r"'input': shape \[6, 5\] must be"),
    "shape too large": (node(0, shape=[60_000, 60_000, 3]), "has more than .* elements"),
    "shape unlike the weights": (
        node(0, shape=[6, 5, 4]),
        r"node 1: 'channels_in' is 3, but its source 'input' is u8\[6, 5, 4\]",
    ),
    "shape of another size": (
        node(0, shape=[5, 5, 3]),
        r"node 7: 'channels_in' is 10, but its source 'flatten' is bits\[5\]",
    ),
    "kernel of three": (node(1, kernel=[3, 3, 3]), "node 1: 'kernel' must have two numbers, got 3"),
    "kernel too large": (node(1, kernel=[65_535, 65_535]), "is empty or beyond"),
    "kernel 0": (node(1, kernel=[0, 3]), "is empty or beyond"),
    "kernel beyond integers": (node(1, kernel=[1 << 40, 3]), f"must be integers from 0 to {1 << 31}"),
    "stride 0": (node(1, stride=[0, 1]), "'conv1': stride"),
    "padding as large as the kernel": (node(1, padding=[3, 1]), "'conv1': padding"),
    "pool that does not fit": (node(2, kernel=[9, 9]), "'pool1': the window .* does not fit"),
    "channels out beyond memory": (node(1, channels_out=1 << 31), "is empty or beyond"),
    "channels out unlike the tensor": (
        node(1, channels_out=10),
        r"'conv1.weights' must be uint8 \[34\], got uint8 \[31\]",
    ),
    "channels of a threshold beyond memory": (node(3, channels=1 << 31), "is empty or beyond"),
    "channels of an affine map": (node(8, channels=5), r"'scores.scale' must be float32 \[5\], got float32 \[4\]"),
    "missing tensor": (rename("dense.weights", "dense.weight"), "node 7: its tensor 'dense.weights' is missing"),
    "two nodes, one tensor": (node(7, name="conv1"), "node 7: its tensor 'conv1.weights' is missing"),
    "wrong dtype": (
        lambda h, m, d: h["scores.scale"].update(dtype="I32"),
        r"'scores.scale' must be float32 \[4\], got int32 \[4\]",
    ),
    "unused tensor": (
        lambda h, m, d: h.update(x={"dtype": "U8", "shape": [0], "data_offsets": [0, 0]}),
        "tensor 'x' belongs to no node",
    ),
    "unused bits of weights": (
        set_byte("conv1.weights", -1 + (9 * 27 + 7) // 8, 0x80),
        "unused bits at the end of 'conv1.weights' are not 0",
    ),
    "unused bits of directions": (
        set_byte("sign2.falling", 0, 0x20),
        "unused bits at the end of 'sign2.falling' are not 0",
    ),
    "damaged data": (
        set_byte("conv2.weights", 1, 0xFF),
        "damaged: the SHA-256 of the data is not the one in the header",
    ),
    "checksum is a number": (top(sha256=5), "damaged: the SHA-256"),
    "checksum in upper case": (lambda h, m, d: m.update(sha256=m["sha256"].upper()), "damaged: the SHA-256"),
    "scale is NaN": (nan_scale, "'scores': scale of channel 0 is nan"),
    "classes is text": (top(classes="abcd"), "header: 'classes' must be a list, got 'abcd'"),
    "three classes for four scores": (top(classes=["a", "b", "c"]), r"3 class names for an output of f32\[4\]"),
    "class is a number": (top(classes=["a", "b", "c", 4]), "class name '4' must be text"),
    "class twice": (top(classes=["a", "b", "c", "a"]), "class names are not distinct"),
    "class that clears the screen": (top(classes=["a", "b", "c", "\x1b[2J"]), "has control characters"),
    "image lacks its size": (lambda h, m, d: m["image"].pop("height"), "image policy: expected the keys"),
    "image has an unknown key": (lambda h, m, d: m["image"].update(crop=1), "image policy: expected the keys"),
    "image with an unknown rule": (
        lambda h, m, d: m["image"].update(resize="zoom"),
        "image policy: resize must be one",
    ),
    "image with a size of true": (
        lambda h, m, d: m["image"].update(height=True),
        "image policy: height must be an integer, got True",
    ),
    "image of another size": (
        lambda h, m, d: m["image"].update(width=6),
        r"image policy: it gives images of \[6, 6, 3\] \(height, width, channels\), the network takes \[6, 5, 3\]",
    ),
    "image is a list": (top(image=[]), "'image' must be an object or null"),
    "provenance is null": (top(provenance=None), "'provenance' an object"),
}


@pytest.mark.parametrize(("edit", "message"), METADATAS.values(), ids=METADATAS.keys())
def test_wrong_metadata(tmp_path, edit, message):
    refused(tmp_path, edited(small_network(), edit), message)


def test_a_deep_value_in_a_message_does_not_recurse(tmp_path):
    """30 levels are allowed in the header, also where they are not expected and end in a message."""
    value = []
    for _ in range(25):
        value = [value]
    refused(tmp_path, edited(small_network(), node(1, kernel=value)), "node 1: 'kernel' must")
    refused(tmp_path, edited(small_network(), tensor(dtype=value)), "is not one of")


# What is not a file of bytes


def test_missing_files_and_directories(tmp_path):
    with pytest.raises(FileFormatError, match=r"nothing\.bnn: there is no such file"):
        read(tmp_path / "nothing.bnn")
    with pytest.raises(FileFormatError, match="cannot be read: Is a directory"):
        read(tmp_path)
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(FileFormatError, match="cannot be read: Not a directory"):
        read(tmp_path / "file" / "model.bnn")


@pytest.mark.timeout(20)
def test_a_fifo_is_refused_without_waiting(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(FileFormatError, match="fifo: not a regular file"):
        read(tmp_path / "fifo")


@pytest.mark.parametrize("device", ["/dev/zero", "/dev/null"])
def test_a_device_is_refused(device):
    with pytest.raises(FileFormatError, match=f"{device}: not a regular file"):
        read(device)


def test_a_file_without_permission(tmp_path, not_root):
    path = tmp_path / "model.bnn"
    path.write_bytes(GOOD)
    path.chmod(0)
    with not_root(), pytest.raises(FileFormatError, match=r"model\.bnn: cannot be read: Permission denied"):
        read(path)


def test_a_symbolic_link_that_leads_to_itself(tmp_path):
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(FileFormatError, match="cannot be read: Too many levels of symbolic links"):
        read(tmp_path / "loop")


def test_a_sparse_file_of_a_terabyte(tmp_path):
    """It takes no space on the disk; reading it would take all memory."""
    path = tmp_path / "model.bnn"
    path.write_bytes(GOOD)
    os.truncate(path, 1 << 40)
    with pytest.raises(FileFormatError, match=f"bytes of data; at most {MAX_DATA_BYTES} are allowed"):
        read(path)


def test_files_of_a_dense_network_have_the_same_errors(tmp_path):
    """The messages do not depend on the one network that this page damages."""
    network = dense_network()
    refused(tmp_path, to_bytes(network)[:-1], "truncated or wrong")
    refused(tmp_path, edited(network, node(1, channels_in=21)), "node 1: the tensor 'dense1.weights' must be uint8")
    refused(tmp_path, edited(network, node(0, shape=[21])), r"'channels_in' is 20, but its source 'input' is u8\[21\]")
