"""The metadata of a .bnn file: graph to JSON and back, field by field, strictly (SPEC.md has the same in words)."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from binarynet.encoding import num_words, pack_bits, unpack_bits
from binarynet.errors import FileFormatError
from binarynet.fileformat.content import FORMAT_VERSION, PackedNetwork
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
    Window,
)
from binarynet.graph.ir import MAX_NODES, MAX_WEIGHT_WORDS

Array = npt.NDArray[Any]
Tensors = dict[str, Array]
MAX_SIZE = 1 << 31
"""No number in the metadata may exceed this."""
MAX_DEPTH = 32
"""Deepest nesting of lists and objects in the metadata."""
_FIELDS = {
    "": {"format", "version", "graph", "classes", "image", "provenance", "sha256"},
    "graph": {"nodes", "output"},
    "input": {"shape"},
    "convolution": {"source", "kernel", "stride", "padding", "channels_in", "channels_out"},
    "dense": {"source", "channels_in", "channels_out"},
    "max_pool": {"source", "kernel", "stride", "padding"},
    "threshold": {"source", "channels"},
    "affine": {"source", "channels"},
    "flatten": {"source"},
}


# Writing


def describe(network: PackedNetwork, sha256: str) -> dict[str, Any]:
    """The metadata of a network whose tensor data has the given SHA-256."""
    return {
        "format": "binarynet",
        "version": FORMAT_VERSION,
        "graph": {
            "nodes": [_describe_node(node, network.graph) for node in network.graph],
            "output": network.graph.output,
        },
        "classes": list(network.classes),
        "image": network.image_policy,
        "provenance": network.provenance,
        "sha256": sha256,
    }


def _describe_node(node: Node, graph: Graph) -> dict[str, Any]:
    fields: dict[str, Any] = {"name": node.name, "op": _OPS[type(node)]}
    if node.sources:
        fields["source"] = node.sources[0]
    if isinstance(node, Input):
        fields["shape"] = list(node.shape)
    if isinstance(node, Convolution | MaxPool):
        fields |= {
            "kernel": list(node.window.kernel),
            "stride": list(node.window.stride),
            "padding": list(node.window.padding),
        }
    if isinstance(node, Convolution | Dense):
        fields |= {"channels_in": graph.types[node.source].channels, "channels_out": len(node.weights)}
    if isinstance(node, Threshold | Affine):
        fields["channels"] = graph.types[node.source].channels
    return fields


def tensors_of(graph: Graph) -> Tensors:
    """The tensors of a graph as they are stored: bits without padding between rows, as bytes."""
    tensors: Tensors = {}
    for node in graph:
        if isinstance(node, Convolution | Dense):
            bits = unpack_bits(node.weights, graph.types[node.source].channels)
            tensors[f"{node.name}.weights"] = np.packbits(bits.reshape(-1), bitorder="little")
        elif isinstance(node, Threshold):
            tensors[f"{node.name}.thresholds"] = node.thresholds
            tensors[f"{node.name}.falling"] = np.packbits(node.falling, bitorder="little")
        elif isinstance(node, Affine):
            tensors[f"{node.name}.scale"] = node.scale
            tensors[f"{node.name}.shift"] = node.shift
    return tensors


# Reading


def parse_json(text: str) -> dict[str, Any]:
    """JSON text to an object; duplicate keys and what :func:`check_json` finds are refused."""

    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for name, value in items:
            if name in result:
                raise FileFormatError(f"the key {name[:80]!r} stands twice in the header")
            result[name] = value
        return result

    def constant(text: str) -> Any:
        raise FileFormatError(f"{text} is not allowed in the header")

    try:
        value = json.loads(text, object_pairs_hook=pairs, parse_constant=constant)
    except RecursionError:
        raise FileFormatError(f"the header: lists and objects are nested more than {MAX_DEPTH} deep") from None
    except ValueError as error:
        raise FileFormatError(f"the header is not valid JSON: {str(error)[:200]}") from None
    if not isinstance(value, dict):
        raise FileFormatError(f"the header must be a JSON object, got {type(value).__name__}")
    check_json(value, "the header")
    return value


def check_json(value: Any, where: str) -> None:
    """FileFormatError unless a value survives the way through JSON text unchanged, and is not nested too deeply.

    Allowed are objects with text as keys, lists, text without lone surrogates, integers, finite numbers, true, false
    and null.
    """
    pending = [(value, 1)]
    while pending:
        item, depth = pending.pop()
        if depth > MAX_DEPTH:
            raise FileFormatError(f"{where}: lists and objects are nested more than {MAX_DEPTH} deep")
        inner: list[Any] = []
        if isinstance(item, dict):
            inner = [*item.keys(), *item.values()]
            wrong = next((key for key in item if not isinstance(key, str)), None)
            if wrong is not None:
                raise FileFormatError(f"{where}: the key {_brief(wrong)} is not text")
        elif isinstance(item, list | tuple):
            inner = list(item)
        elif isinstance(item, str):
            if any("\ud800" <= character <= "\udfff" for character in item):
                raise FileFormatError(f"{where}: {_brief(item)} is not valid Unicode text")
        elif isinstance(item, float):
            if not math.isfinite(item):
                raise FileFormatError(f"{where}: {item} is not a finite number")
        elif item is not None and type(item) not in (bool, int):
            raise FileFormatError(f"{where}: {_brief(item)} ({type(item).__name__}) is not a JSON value")
        pending += [(child, depth + isinstance(child, dict | list | tuple)) for child in inner]


class Reader:
    """Takes typed fields out of one JSON object; every failure names the place and what was expected."""

    def __init__(self, fields: Any, where: str, allowed: set[str]) -> None:
        if not isinstance(fields, dict):
            raise FileFormatError(f"{where}: expected an object, got {type(fields).__name__}")
        unknown = sorted(set(fields) - allowed)
        if unknown:
            raise FileFormatError(f"{where}: unknown key {unknown[0][:80]!r}; allowed: {', '.join(sorted(allowed))}")
        missing = sorted(allowed - set(fields))
        if missing:
            raise FileFormatError(f"{where}: the key {missing[0]!r} is missing")
        self.fields: Mapping[str, Any] = fields
        self.where = where

    def text(self, key: str) -> str:
        value = self.fields[key]
        if not isinstance(value, str):
            raise FileFormatError(f"{self.where}: {key!r} must be text, got {_brief(value)}")
        return value

    def size(self, key: str) -> int:
        return self._size(key, self.fields[key])

    def sizes(self, key: str) -> tuple[int, ...]:
        return tuple(self._size(key, value) for value in self.items(key))

    def pair(self, key: str) -> tuple[int, int]:
        values = self.sizes(key)
        if len(values) != 2:
            raise FileFormatError(f"{self.where}: {key!r} must have two numbers, got {len(values)}")
        return values[0], values[1]

    def items(self, key: str) -> list[Any]:
        value = self.fields[key]
        if not isinstance(value, list):
            raise FileFormatError(f"{self.where}: {key!r} must be a list, got {_brief(value)}")
        return value

    def _size(self, key: str, value: Any) -> int:
        if type(value) is not int or not 0 <= value <= MAX_SIZE:
            raise FileFormatError(f"{self.where}: {key!r} must be integers from 0 to {MAX_SIZE}, got {_brief(value)}")
        return value


def parse(metadata: dict[str, Any], tensors: Tensors) -> PackedNetwork:
    """Metadata and stored tensors to a network; FileFormatError or GraphError names what is wrong."""
    if metadata.get("format") != "binarynet":
        raise FileFormatError(f"not a binarynet file: its format is {_brief(metadata.get('format'))}")
    version = metadata.get("version")
    if type(version) is not int or version < 1:
        raise FileFormatError(f"the format version {_brief(version)} is not a number from 1")
    if version > FORMAT_VERSION:
        raise FileFormatError(
            f"the file has format version {version}, this binarynet reads up to {FORMAT_VERSION}: update binarynet"
        )
    top = Reader(metadata, "header", _FIELDS[""])
    graph_fields = Reader(top.fields["graph"], "graph", _FIELDS["graph"])
    items = graph_fields.items("nodes")
    if len(items) > MAX_NODES:
        raise FileFormatError(f"{len(items)} nodes; at most {MAX_NODES} are allowed")
    unused = dict(tensors)
    builder = GraphBuilder()
    for position, item in enumerate(items):
        node = _parse_node(item, position, unused)
        source = builder.types.get(node.sources[0]) if node.sources else None
        if source is not None and item.get("channels_in", source.channels) != source.channels:
            given = f"'channels_in' is {item['channels_in']}"
            raise FileFormatError(f"node {position}: {given}, but its source {node.sources[0]!r} is {source}")
        builder.add(node)
    if unused:
        raise FileFormatError(f"the tensor {next(iter(unused))!r} belongs to no node")
    graph = builder.finish(graph_fields.text("output"))
    image, provenance = top.fields["image"], top.fields["provenance"]
    if not (image is None or isinstance(image, dict)) or not isinstance(provenance, dict):
        raise FileFormatError("header: 'image' must be an object or null, and 'provenance' an object")
    return PackedNetwork(graph, tuple(top.items("classes")), image, provenance)


def _parse_node(item: Any, position: int, tensors: Tensors) -> Node:
    where = f"node {position}"
    op = item.get("op") if isinstance(item, dict) else None
    if not isinstance(op, str) or op not in _PARSERS:
        raise FileFormatError(f"{where}: unknown operation {_brief(op)}; known: {', '.join(_PARSERS)}")
    reader = Reader(item, where, {"name", "op"} | _FIELDS[op])
    return _PARSERS[op](reader, reader.text("name"), tensors)


def _take(tensors: Tensors, name: str, dtype: str, shape: tuple[int, ...], where: str) -> Array:
    tensor = tensors.pop(name, None)
    if tensor is None:
        raise FileFormatError(f"{where}: its tensor {name[:80]!r} is missing")
    if tensor.dtype != np.dtype(dtype) or tensor.shape != shape:
        raise FileFormatError(
            f"{where}: the tensor {name!r} must be {np.dtype(dtype).name} {list(shape)}, "
            f"got {tensor.dtype.name} {list(tensor.shape)}"
        )
    return tensor


def _take_bits(tensors: Tensors, name: str, shape: tuple[int, ...], where: str) -> npt.NDArray[np.bool_]:
    count = math.prod(shape)
    if count < 1 or math.prod(shape[:-1]) * num_words(shape[-1]) > MAX_WEIGHT_WORDS:
        raise FileFormatError(f"{where}: {name!r} of shape {list(shape)} is empty or beyond {MAX_WEIGHT_WORDS} words")
    stored = _take(tensors, name, "u1", (-(-count // 8),), where)
    if count % 8 and stored[-1] >> (count % 8):
        raise FileFormatError(f"{where}: the unused bits at the end of {name!r} are not 0")
    return np.unpackbits(stored, count=count, bitorder="little").view(np.bool_).reshape(shape)


def _window(reader: Reader) -> Window:
    return Window(reader.pair("kernel"), reader.pair("stride"), reader.pair("padding"))


def _parse_input(reader: Reader, name: str, tensors: Tensors) -> Node:
    return Input(name, reader.sizes("shape"))


def _parse_convolution(reader: Reader, name: str, tensors: Tensors) -> Node:
    window = _window(reader)
    shape = (reader.size("channels_out"), *window.kernel, reader.size("channels_in"))
    weights = pack_bits(_take_bits(tensors, f"{name}.weights", shape, reader.where))
    return Convolution(name, reader.text("source"), window, weights)


def _parse_dense(reader: Reader, name: str, tensors: Tensors) -> Node:
    shape = (reader.size("channels_out"), reader.size("channels_in"))
    return Dense(name, reader.text("source"), pack_bits(_take_bits(tensors, f"{name}.weights", shape, reader.where)))


def _parse_max_pool(reader: Reader, name: str, tensors: Tensors) -> Node:
    return MaxPool(name, reader.text("source"), _window(reader))


def _parse_threshold(reader: Reader, name: str, tensors: Tensors) -> Node:
    channels = reader.size("channels")
    falling = _take_bits(tensors, f"{name}.falling", (channels,), reader.where)
    thresholds = _take(tensors, f"{name}.thresholds", "<i4", (channels,), reader.where)
    return Threshold(name, reader.text("source"), thresholds, falling)


def _parse_affine(reader: Reader, name: str, tensors: Tensors) -> Node:
    shape = (reader.size("channels"),)
    scale = _take(tensors, f"{name}.scale", "<f4", shape, reader.where)
    shift = _take(tensors, f"{name}.shift", "<f4", shape, reader.where)
    return Affine(name, reader.text("source"), scale, shift)


def _parse_flatten(reader: Reader, name: str, tensors: Tensors) -> Node:
    return Flatten(name, reader.text("source"))


_OPS: dict[type[Node], str] = {
    Input: "input",
    Convolution: "convolution",
    Dense: "dense",
    MaxPool: "max_pool",
    Threshold: "threshold",
    Affine: "affine",
    Flatten: "flatten",
}
_PARSERS: dict[str, Callable[[Reader, str, Tensors], Node]] = {
    "input": _parse_input,
    "convolution": _parse_convolution,
    "dense": _parse_dense,
    "max_pool": _parse_max_pool,
    "threshold": _parse_threshold,
    "affine": _parse_affine,
    "flatten": _parse_flatten,
}


def _brief(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
