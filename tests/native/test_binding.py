"""``binarynet._native``: what it refuses, and who owns what it returns."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from binarynet import __version__, _native
from binarynet.encoding import pack_bits

ISAS = [name for name, why_not in _native.instruction_sets() if not why_not]


def dense(graph: _native.Graph, source: int, out_channels: int, seed: int = 0) -> int:
    channels = graph.value_info(source)[3]
    bits = np.random.default_rng(seed).integers(0, 2, (out_channels, 1, 1, channels))
    return graph.add_convolution(source, (1, 1), (1, 1), (0, 0), out_channels, pack_bits(bits))


def small_graph() -> _native.Graph:
    """Values 0: input [2, 3, 5]; 1: sums [2, 3, 70]; 2: their bits; 3: scores."""
    graph = _native.Graph()
    sums = dense(graph, graph.add_input(2, 3, 5), 70)
    graph.add_threshold(sums, np.zeros(70, np.int32), np.zeros(2, np.uint64))
    graph.add_affine(sums, np.full(70, 0.5, np.float32), np.zeros(70, np.float32))
    return graph


def images(batch: int) -> np.ndarray[Any, Any]:
    return np.random.default_rng(batch).integers(0, 256, (batch, 2, 3, 5), dtype=np.uint8)


def refused(status: str, *parts: str) -> Any:
    """Expect a NativeError with this status whose text holds all parts, in order."""
    return pytest.raises(_native.NativeError, match=".*".join(parts), check=lambda e: e.status == status)


def test_version_is_the_package_version() -> None:
    assert _native.version() == __version__


def test_value_info() -> None:
    graph = small_graph()
    assert [graph.value_info(v) for v in range(4)] == [
        ("u8", 2, 3, 5),
        ("i32", 2, 3, 70),
        ("bits", 2, 3, 70),
        ("f32", 2, 3, 70),
    ]
    with refused("INVALID_ARGUMENT", "no value 4"):
        graph.value_info(4)


def test_images_are_checked() -> None:
    session = _native.Session(small_graph(), [3])
    good = images(4)
    expected = r"images: expected a NumPy array uint8 \[n, 2, 3, 5\], got "
    for bad, got in (
        (good.astype(np.float32), r"float32 \[4, 2, 3, 5\]"),
        (good.view(np.int8), r"int8 \[4, 2, 3, 5\]"),
        (good > 3, r"bool \[4, 2, 3, 5\]"),
        (good.astype(object), r"object \[4, 2, 3, 5\]"),
        (good[0], r"uint8 \[2, 3, 5\]"),
        (good.reshape(4, 3, 2, 5), r"uint8 \[4, 3, 2, 5\]"),
        (np.zeros((4, 2, 3, 10), np.uint8)[..., ::2], r"uint8 \[4, 2, 3, 5\] that is not C-contiguous"),
        (np.asfortranarray(good), "that is not C-contiguous"),
        ([[[[1] * 5] * 3] * 2], "list"),
        (None, "NoneType"),
        (b"123", "bytes"),
    ):
        with refused("INVALID_ARGUMENT", expected, got):
            session.run(bad)  # type: ignore[arg-type]


def test_parameters_are_checked() -> None:
    graph = _native.Graph()
    source = graph.add_input(1, 1, 65)
    weights = np.zeros((3, 1, 1, 2), np.uint64)

    def convolution(weights: Any) -> None:
        graph.add_convolution(source, (1, 1), (1, 1), (0, 0), 3, weights)

    for bad, got in (
        (weights.astype(np.int64), "int64"),
        (weights[:2], r"uint64 \[2, 1, 1, 2\]"),
        (weights.astype(">u8"), ">u8"),
        (np.zeros((3, 1, 1, 4), np.uint64)[..., ::2], "that is not C-contiguous"),
        (np.zeros(49, np.uint8)[1:].view(np.uint64).reshape(3, 1, 1, 2), r"uint64 \[3, 1, 1, 2\] that is not aligned"),
    ):
        with refused("INVALID_ARGUMENT", r"weights: expected a NumPy array uint64 \[3, 1, 1, 2\]", got):
            convolution(bad)
    with refused("INVALID_ARGUMENT", "padding bits of the weights of output channel 0"):
        convolution(~weights)
    convolution(weights)
    with refused("INVALID_ARGUMENT", "thresholds", r"int32 \[3\]", r"int64 \[3\]"):
        graph.add_threshold(1, np.zeros(3, np.int64), np.zeros(1, np.uint64))  # type: ignore[arg-type]
    with refused("INVALID_ARGUMENT", "falling", r"uint64 \[1\]", r"uint64 \[2\]"):
        graph.add_threshold(1, np.zeros(3, np.int32), np.zeros(2, np.uint64))
    with refused("INVALID_ARGUMENT", "scale", r"float32 \[3\]", r"float64 \[3\]"):
        graph.add_affine(1, np.zeros(3), np.zeros(3, np.float32))  # type: ignore[arg-type]
    with refused("INVALID_ARGUMENT", "channel 2", "finite"):
        graph.add_affine(1, np.array([0, 1, np.nan], np.float32), np.zeros(3, np.float32))
    with refused("INVALID_ARGUMENT", "value 1 is i32"):
        convolution_of_sums = np.zeros((1, 1, 1, 1), np.uint64)
        graph.add_convolution(1, (1, 1), (1, 1), (0, 0), 1, convolution_of_sums)


def test_sessions_are_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = small_graph()
    with refused("INVALID_ARGUMENT", "no value 9"):
        _native.Session(graph, [9])
    with refused("INVALID_ARGUMENT", "no outputs"):
        _native.Session(graph, [])
    with refused("INVALID_ARGUMENT", "num_threads is -2"):
        _native.Session(graph, [3], num_threads=-2)
    with refused("UNAVAILABLE", "instruction set 'neon9'", "usable: ", "portable"):
        _native.Session(graph, [3], isa="neon9")
    monkeypatch.setenv("BINARYNET_FORCE_ISA", "sse42")
    with refused("UNAVAILABLE", "BINARYNET_FORCE_ISA 'sse42'"):
        _native.Session(graph, [3])
    monkeypatch.setenv("BINARYNET_FORCE_ISA", "portable")
    assert _native.Session(graph, [3]).isa == "portable"
    with refused("INVALID_ARGUMENT", "no value 0"):
        _native.Session(_native.Graph(), [0])


@pytest.mark.parametrize("isa", ISAS)
def test_results(isa: str) -> None:
    """dtype, shape, values, and memory that belongs to NumPy; for no image, for one output twice, for the input."""
    outputs = [0, 1, 2, 3, 1]
    session = _native.Session(small_graph(), outputs, isa=isa, num_threads=1)
    assert (session.isa, session.num_threads) == (isa, 1)
    for batch in (0, 1, 1500):
        given = images(batch)
        given.flags.writeable = False
        copy, sums, bits, scores, again = session.run(given)
        assert [a.dtype.name for a in (copy, sums, bits, scores)] == ["uint8", "int32", "uint64", "float32"]
        assert [a.shape for a in (copy, sums, bits)] == [(batch, 2, 3, 5), (batch, 2, 3, 70), (batch, 2, 3, 2)]
        for array in (copy, sums, bits, scores, again):
            assert array.flags.owndata
            assert array.flags.writeable
        np.testing.assert_array_equal(copy, given)
        np.testing.assert_array_equal(sums, again)
        np.testing.assert_array_equal(bits, pack_bits(sums >= 0))
        np.testing.assert_array_equal(scores, sums.astype(np.float32) * np.float32(0.5))
        assert not np.shares_memory(sums, again)


def test_a_session_outlives_its_graph() -> None:
    graph = small_graph()
    session = _native.Session(graph, [1])
    before = session.run(images(2))[0]
    graph.add_flatten(1)
    del graph
    np.testing.assert_array_equal(session.run(images(2))[0], before)


@pytest.mark.parametrize("num_threads", [1, 2])
def test_many_python_threads(num_threads: int) -> None:
    graph = _native.Graph()
    value = graph.add_input(1, 1, 300)
    for seed in range(2):
        value = dense(graph, value, 1000, seed)
        value = graph.add_threshold(value, np.arange(1000, dtype=np.int32) % 7 - 3, np.zeros(16, np.uint64))
    session = _native.Session(graph, [value], num_threads=num_threads)
    batches = [np.random.default_rng(i).integers(0, 256, (i, 1, 1, 300), dtype=np.uint8) for i in range(40)]
    expected = [session.run(batch)[0] for batch in batches]
    with ThreadPoolExecutor(4) as pool:
        for _ in range(3):
            for want, (got,) in zip(expected, pool.map(session.run, batches), strict=True):
                np.testing.assert_array_equal(got, want)


def test_other_threads_go_on_while_a_session_runs() -> None:
    """The GIL is released: this thread counts while the other computes for a while."""
    graph = _native.Graph()
    session = _native.Session(graph, [dense(graph, graph.add_input(1, 1, 4000), 4000)], num_threads=1)
    batch = np.zeros((400, 1, 1, 4000), np.uint8)
    running, finished = threading.Event(), threading.Event()

    def compute() -> None:
        running.set()
        session.run(batch)
        finished.set()

    thread = threading.Thread(target=compute)
    thread.start()
    running.wait()
    count = 0
    while not finished.is_set():
        count += 1
    thread.join()
    assert count > 1000


def test_bits_as_the_input() -> None:
    graph = _native.Graph()
    source = graph.add_bits_input(2, 3, 65)
    assert graph.value_info(source) == ("bits", 2, 3, 65)
    session = _native.Session(graph, [dense(graph, source, 3)])
    bits = np.zeros((4, 2, 3, 2), np.uint64)
    assert session.run(bits)[0].shape == (4, 2, 3, 3)
    with refused("INVALID_ARGUMENT", "uint64", "2, 3, 2", "got uint8"):
        session.run(np.zeros((4, 2, 3, 65), np.uint8))
    bits[2, 1, 0, 1] = 2
    with refused("INVALID_ARGUMENT", "padding bits of image 2 are not 0", "lowest 1 bits"):
        session.run(bits)


def test_vectors_have_no_rows() -> None:
    graph = _native.Graph()
    sums = dense(graph, graph.add_input(1, 1, 5), 3)
    session = _native.Session(graph, [sums], vectors=[0, sums])
    assert session.run(np.zeros((4, 5), np.uint8))[0].shape == (4, 3)
    with refused("INVALID_ARGUMENT", r"uint8 \[n, 5\]"):
        session.run(np.zeros((4, 1, 1, 5), np.uint8))
    with refused("INVALID_ARGUMENT", "value 0 is no vector"):
        _native.Session(small_graph(), [3], vectors=[0])
