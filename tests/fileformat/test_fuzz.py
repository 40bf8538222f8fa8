"""Damage by chance: whatever the bytes, the reader says FileFormatError or returns a sound network; nothing else."""

import hashlib
import json
import random
import struct

import numpy as np
import pytest
from bnn_files import dense_network, join, small_network, split

from binarynet.errors import FileFormatError
from binarynet.fileformat import read, to_bytes
from binarynet.graph import evaluate
from binarynet.runtime import Session, engines
from random_graphs import random_images

FILES = [to_bytes(small_network()), to_bytes(dense_network())]
ENGINE = next(engine.name for engine in engines() if engine.available)
ROUNDS = 500
NASTY = [
    None, True, False, 0, 1, -1, 2, 3, 63, 64, 65, 255, 65_535, 65_536, 2**31 - 1, 2**31, 2**32, 2**48, 2**63, 2**64,
    -(2**63), 10**400, 0.0, -0.0, 1.5, 1e308, 5e-324, "", "x", "input", "conv1", "\x00", "\x1b[2J", "\u202e", "x" * 300,
    [], [[]], [0], [1, 1], [0, 0], [2**31, 2**31], [65_535, 65_535], {}, {"": {}}, {"op": "input"}, {"dtype": "U8"},
]  # fmt: skip


def outcome(path, content):
    """Read the bytes; None where they are refused, else the network, which must be sound."""
    path.write_bytes(content)
    message = ""
    try:
        network = read(path)
    except FileFormatError as error:
        message = str(error)
    if message:
        assert message.startswith(f"{path}: ")
        assert len(message) < len(str(path)) + 2000
        message.encode()  # printable: no lone surrogates
        return None
    again = to_bytes(network)
    path.write_bytes(again)
    assert to_bytes(read(path)) == again
    return network


def run_if_small(network, seed):
    """A network that passes the reader runs, on the reference and on the best engine alike."""
    graph = network.graph
    work = sum(value.num_elements for value in graph.types.values()) + sum(
        graph.types[node.name].num_elements * node.weights[0].size for node in graph if hasattr(node, "weights")
    )
    padded = max((sum(node.window.padding) for node in graph if hasattr(node, "window")), default=0)
    if work > 300_000 or padded > 1000:
        return False
    images = random_images(np.random.default_rng(seed), 2, graph.input.shape)
    expected = evaluate(graph, images)[graph.output]
    assert Session(graph, engine=ENGINE, num_threads=1).run(images).tobytes() == expected.tobytes()
    return True


def damaged(rng, content):
    """A few flips, overwrites, cuts, insertions or repetitions, anywhere; more often in the header."""
    data = bytearray(content)
    for _ in range(rng.choice((1, 1, 1, 2, 5, 20))):
        if not data:
            break
        at = rng.randrange(len(data)) if rng.random() < 0.5 else rng.randrange(min(len(data), 1500))
        kind = rng.randrange(7)
        if kind == 0:
            data[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            data[at] = rng.choice((0, 255, rng.randrange(256), *b'"{}[],:-019eE\\'))
        elif kind == 2:
            del data[at:]
        elif kind == 3:
            del data[at : at + rng.randrange(1, 9)]
        elif kind == 4:
            data[at:at] = rng.randbytes(rng.randrange(1, 9))
        elif kind == 5:
            data[at:at] = data[at : at + rng.randrange(1, 200)]
        else:
            data[:8] = struct.pack(
                "<Q", rng.choice((0, 1, len(data), max(0, len(data) - 8), 2**32, 2**63, rng.randrange(3000)))
            )
    return bytes(data)


@pytest.mark.parametrize("seed", range(4))
def test_damaged_bytes(tmp_path, seed):
    rng = random.Random(seed)
    refused = 0
    for _ in range(ROUNDS):
        refused += outcome(tmp_path / "model.bnn", damaged(rng, rng.choice(FILES))) is None
    assert refused > 0.7 * ROUNDS


def places(value, path=()):
    """Every place in a JSON value, as a tuple of keys."""
    yield path
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from places(inner, (*path, key))


def mutate(rng, tree):
    """Change one place of a JSON value: replace, delete, duplicate, swap or exchange with another place."""
    path = rng.choice([path for path in places(tree) if path])
    parent = tree
    for key in path[:-1]:
        parent = parent[key]
    key, kind = path[-1], rng.randrange(6)
    if kind == 0:
        del parent[key]
    elif kind == 1 and isinstance(parent, list):
        parent.insert(key, json.loads(json.dumps(parent[key])))
    elif kind == 2 and isinstance(parent, list):
        rng.shuffle(parent)
    elif kind == 3 and isinstance(parent, dict):
        parent[rng.choice(("source", "kernel", "channels_in", "x", ""))] = parent.pop(key)
    elif kind == 4 and isinstance(parent[key], int):
        parent[key] += rng.choice((-2, -1, 1, 2, 64))
    else:
        parent[key] = rng.choice(NASTY)


@pytest.mark.parametrize("seed", range(6))
def test_mutated_structure(tmp_path, seed):
    rng = random.Random(100 + seed)
    accepted = ran = 0
    for i in range(ROUNDS):
        header, metadata, data = split(rng.choice(FILES))
        for _ in range(rng.choice((1, 1, 2, 4))):
            trees = [tree for tree in (metadata, header, metadata.get("graph")) if isinstance(tree, dict) and tree]
            mutate(rng, rng.choice(trees))
        network = outcome(tmp_path / "model.bnn", join(header, metadata, data))
        if network is not None:
            accepted += 1
            ran += run_if_small(network, i)
    assert 0 < ran <= accepted < ROUNDS  # both ways out are taken


@pytest.mark.parametrize("seed", range(2))
def test_mutated_data_with_a_right_checksum(tmp_path, seed):
    """Any thresholds, directions, weights and finite scales are a sound network."""
    rng = random.Random(200 + seed)
    accepted = 0
    for i in range(200):
        header, metadata, data = split(rng.choice(FILES))
        data = bytearray(data)
        for _ in range(rng.choice((1, 2, 8))):
            data[rng.randrange(len(data))] = rng.choice((0, 0x7F, 0x80, 0xFF, rng.randrange(256)))
        metadata["sha256"] = hashlib.sha256(data).hexdigest()
        network = outcome(tmp_path / "model.bnn", join(header, metadata, bytes(data)))
        if network is not None:
            accepted += run_if_small(network, i)
    assert 20 < accepted < 200
