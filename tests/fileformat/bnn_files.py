"""Small .bnn files to damage: their header as Python objects, and bytes made of a header and data, right or wrong."""

import json
import struct

from binarynet.fileformat import PackedNetwork, to_bytes
from random_graphs import dense_graph, image_graph

POLICY = {"height": 6, "width": 5, "channels": 3, "resize": "crop", "background": 255}


def small_network():
    """Every operation, class names, an image policy and provenance."""
    provenance = {"recipe": "none", "test_error": 0.015625, "größe": [1, None, True]}
    return PackedNetwork(image_graph(seed=5), ("cat", "dög", "a b", "7"), POLICY, provenance)


def dense_network():
    return PackedNetwork(dense_graph(20, 9, 3))


def split(content):
    """A file's bytes to (header, metadata, data): two JSON objects and bytes."""
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    metadata = json.loads(header.pop("__metadata__")["binarynet"])
    return header, metadata, content[8 + length :]


def join(header, metadata, data):
    """The inverse of :func:`split`; ``metadata`` may be text already, where it is not to be JSON."""
    text = metadata if isinstance(metadata, str) else json.dumps(metadata)
    return with_header(json.dumps({"__metadata__": {"binarynet": text}, **header}), data)


def with_header(header, data):
    raw = header if isinstance(header, bytes) else header.encode()
    return struct.pack("<Q", len(raw)) + raw + data


def edited(network, edit):
    """A network's file after ``edit(header, metadata, data)``, which changes them in place or returns new data."""
    header, metadata, content = split(to_bytes(network))
    data = bytearray(content)
    changed = edit(header, metadata, data)
    return join(header, metadata, changed if isinstance(changed, bytes | bytearray) else data)
