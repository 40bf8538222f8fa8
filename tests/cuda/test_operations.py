"""Launches that are no blocks, on the simulated GPU against the graph's reference and the encoding room."""

import numpy as np
import pytest
from machine import Machine, SimulationError

from binarynet.cuda import operations
from binarynet.encoding import pack_bits, to_signs
from binarynet.errors import ShapeError
from binarynet.graph import Flatten, Graph, Input, MaxPool, Window, evaluate

POOLS = [
    ((2, 5, 6), 70, Window((2, 2), (2, 2))),
    ((3, 4, 4), 3, Window((3, 3), (1, 2), (1, 1))),
    ((1, 7, 3), 300, Window((3, 2), (2, 1), (1, 0))),
    ((40, 1, 1), 64, Window((1, 1))),
    ((2, 5, 5), 65, Window((2, 2), (2, 2), (1, 1))),
    ((2, 1, 7), 10, Window((4, 5), (1, 2), (2, 2))),
]
CAPABILITIES = [(9, 0), (7, 5)]


@pytest.fixture(params=CAPABILITIES, ids=["90", "75"])
def machine(request):
    return Machine(request.param, "late")


def result_of(machine, like, launch):
    """What a launch, given the address of its result, writes to memory that nothing wrote before."""
    memory = machine.allocate(16 + like.nbytes)
    machine.run(launch(memory + 16))
    with pytest.raises(SimulationError, match="uninitialized"):
        machine.download(memory + 12, 1, np.uint32)
    return machine.download(memory + 16, like.shape, like.dtype)


def equal(machine, expected, launch):
    found = result_of(machine, expected, launch)
    assert found.tobytes() == expected.tobytes(), np.argwhere(found != expected)[:5]


def from_bits(shape, *nodes):
    """A graph on bits."""
    return Graph((Input("input", shape, "bits"), *nodes), nodes[-1].name)


@pytest.mark.parametrize(("images", "channels", "window"), POOLS)
def test_max_pool(machine, images, channels, window):
    rng = np.random.default_rng(channels)
    batch, *size = images
    bits = rng.integers(0, 4, (*images, channels)) == 0
    falling = rng.integers(0, 2, channels).astype(bool)
    graph = from_bits((*size, channels), MaxPool("pool", "input", window))
    sizes = (batch, tuple(size), channels, window.kernel, window.stride, window.padding)
    source = machine.upload(pack_bits(bits))

    rising = evaluate(graph, pack_bits(bits))["pool"]
    equal(machine, rising, lambda result: operations.max_pool_bits(*sizes, source, result))
    flipped = pack_bits(np.broadcast_to(falling, bits.shape))
    mixed = evaluate(graph, pack_bits(bits) ^ flipped)["pool"]
    mixed ^= pack_bits(np.broadcast_to(falling, (*mixed.shape[:3], channels)))
    mask = machine.upload(operations.falling_words(falling))
    equal(machine, mixed, lambda result: operations.max_pool_bits(*sizes, source, result, mask))
    assert (mixed != rising).any() == (falling.any() and window.kernel != (1, 1))


@pytest.mark.parametrize(("images", "channels", "window"), POOLS)
def test_max_pool_of_sums(machine, images, channels, window):
    """Against the graph's pooling of bits, threshold by threshold: a maximum reaches what one of its parts reaches."""
    rng = np.random.default_rng(channels)
    batch, *size = images
    sums = rng.integers(-3, 4, (*images, channels)).astype(np.int32) * 100_000_000
    sums.reshape(-1)[::7] = -(2**31)
    graph = from_bits((*size, channels), MaxPool("pool", "input", window))
    out = window.output_size(tuple(size))
    like = np.empty((batch, *out, channels), np.int32)
    sizes = (batch, tuple(size), channels, window.kernel, window.stride, window.padding)
    source = machine.upload(sums)
    found = result_of(machine, like, lambda result: operations.max_pool_sums(*sizes, source, result))
    for threshold in np.unique(sums):
        expected = evaluate(graph, pack_bits(sums >= threshold))["pool"]
        assert np.array_equal(pack_bits(found >= threshold), expected)


@pytest.mark.parametrize(("rows", "channels"), [(1, 1), (5, 64), (37, 65), (3, 700), (600, 10)])
def test_threshold_and_affine(machine, rows, channels):
    rng = np.random.default_rng(channels)
    sums = rng.integers(-50, 51, (rows, channels)).astype(np.int32)
    sums.reshape(-1)[::11] = 2**24
    thresholds = rng.integers(-20, 21, channels).astype(np.int32)
    thresholds[rng.permutation(channels)[:2]] = [-(2**31), 2**31 - 1][: min(channels, 2)]
    falling = rng.integers(0, 2, channels).astype(bool)
    scale, shift = rng.standard_normal((2, channels)).astype(np.float32)
    shift[::2] = -0.0
    source = machine.upload(sums)
    constants = operations.threshold_constants(thresholds, falling)
    addresses = {name: machine.upload(array) for name, array in constants.items()}
    expected = pack_bits((sums >= thresholds) != falling)
    equal(machine, expected, lambda result: operations.threshold(rows, channels, source, result, addresses))
    scores = sums.astype(np.float32) * scale
    scores += shift
    scales = machine.upload(scale), machine.upload(shift)
    equal(machine, scores, lambda result: operations.affine(rows, channels, source, result, *scales))


@pytest.mark.parametrize(
    ("batch", "size", "channels"), [(3, (2, 3), 70), (2, (5, 4), 1), (1, (3, 3), 63), (5, (2, 2), 9)]
)
def test_flatten(machine, batch, size, channels):
    bits = np.random.default_rng(channels).integers(0, 2, (batch, *size, channels)).astype(bool)
    expected = evaluate(from_bits((*size, channels), Flatten("flat", "input")), pack_bits(bits))["flat"]
    source, pixels = machine.upload(pack_bits(bits)), size[0] * size[1]
    assert operations.flatten_moves(pixels, channels)
    equal(machine, expected, lambda result: operations.flatten_bits(batch, pixels, channels, source, result))


def test_flatten_where_nothing_moves(machine):
    assert not operations.flatten_moves(6, 128)
    assert not operations.flatten_moves(1, 70)
    bits = pack_bits(np.random.default_rng(0).integers(0, 2, (2, 6, 128)))
    source = machine.upload(bits)
    equal(machine, bits, lambda result: operations.flatten_bits(2, 6, 128, source, result))


def elements(dtype, shape):
    """Numbers of every kind as they are stored, and which of them are at least 0; NaN is not."""
    rng = np.random.default_rng(len(dtype))
    if dtype in ("int8", "bool"):
        values = rng.integers(-128, 128, shape).astype(np.int8)
        return (values, values >= 0) if dtype == "int8" else (values > 0, values > 0)
    tiny = {"float32": 1e-45, "float16": 6e-8, "bfloat16": 1e-40}[dtype]
    special = np.array([0.0, -0.0, np.inf, -np.inf, np.nan, -np.nan, tiny, -tiny, 1.0, -1.0, 300.0, -300.0], np.float32)
    values = np.where(rng.integers(0, 2, shape), rng.choice(special, shape), rng.standard_normal(shape)).astype(
        np.float32
    )
    if dtype == "bfloat16":
        stored = (values.view(np.uint32) >> 16).astype(np.uint16)
        values = (stored.astype(np.uint32) << 16).view(np.float32)
        return stored, values >= 0
    values = values.astype(dtype)
    return values, values >= 0


@pytest.mark.parametrize(("rows", "length"), [(1, 1), (3, 64), (7, 65), (70, 10), (2, 1500)])
@pytest.mark.parametrize("dtype", operations.PACKED)
def test_pack(machine, dtype, rows, length):
    stored, positive = elements(dtype, (rows, length))
    source = machine.upload(stored)
    equal(machine, pack_bits(positive), lambda result: operations.pack(rows, length, dtype, source, result))


@pytest.mark.parametrize(("rows", "length"), [(1, 1), (3, 64), (7, 66), (70, 12), (2, 1501)])
@pytest.mark.parametrize("dtype", operations.UNPACKED)
def test_unpack(machine, dtype, rows, length):
    bits = np.random.default_rng(length).integers(0, 2, (rows, length)).astype(bool)
    source = machine.upload(pack_bits(bits))
    equal(machine, to_signs(bits, dtype), lambda result: operations.unpack(rows, length, dtype, source, result))


def test_more_work_than_blocks(machine, monkeypatch):
    """Each block of threads then takes one piece after the other."""
    monkeypatch.setattr(operations, "_MOST_BLOCKS", 2)
    rng = np.random.default_rng(0)
    bits = rng.integers(0, 2, (900, 4, 70)).astype(bool)
    words, sums = pack_bits(bits), rng.integers(-9, 9, (3000, 7)).astype(np.int32)
    source = machine.upload(words)
    values = machine.upload(to_signs(bits))
    equal(machine, words, lambda result: operations.pack(3600, 70, "int8", values, result))
    equal(machine, to_signs(bits), lambda result: operations.unpack(3600, 70, "int8", source, result))
    flat = pack_bits(bits.reshape(900, -1))
    equal(machine, flat, lambda result: operations.flatten_bits(900, 4, 70, source, result))
    pooled = pack_bits(bits.reshape(900, 2, 2, 70).any(axis=(1, 2)))
    pool = (900, (2, 2), 70, (2, 2), (2, 2), (0, 0))
    equal(machine, pooled, lambda result: operations.max_pool_bits(*pool, source, result))
    ones = machine.upload(np.ones(7, np.float32)), machine.upload(np.zeros(7, np.float32))
    given = machine.upload(sums)
    equal(machine, sums.astype(np.float32), lambda result: operations.affine(3000, 7, given, result, *ones))


@pytest.mark.parametrize(
    "launch",
    [
        lambda: operations.pack(0, 5, "int8", 0, 0),
        lambda: operations.unpack(5, 0, "int8", 0, 0),
        lambda: operations.flatten_bits(5, 1 << 16, 1 << 15, 0, 0),
        lambda: operations.max_pool_bits(1, (2, 2), 5, (3, 3), (1, 1), (0, 0), 0, 0),
    ],
)
def test_sizes_that_are_none(launch):
    with pytest.raises(ShapeError, match="expected at least one row"):
        launch()
