"""Loops that benchmarks measure the machine by do the work that they are said to do."""

from __future__ import annotations

import time

import numpy as np
import pytest

from binarynet.graph import Dense, Graph, Input
from binarynet.runtime import Session, engines

limits = pytest.importorskip("binarynet._native").limits
EXACT_STEPS = 3


def aligned(count: int) -> np.ndarray:
    """uint64 [count] at an address that 64 divides."""
    memory = np.empty(count + 8, np.uint64)
    first = -memory.ctypes.data % 64 // 8
    return memory[first : first + count]


@pytest.mark.parametrize(("isa", "method", "macs"), limits.mixes())
def test_a_mix_counts_the_bits_that_it_is_said_to(isa, method, macs):
    for steps in (1, EXACT_STEPS):
        assert limits.run_mix(isa, method, steps) == steps * macs


def test_mixes_are_those_of_engines_that_can_be_used_here():
    usable = {engine.name for engine in engines() if engine.available}
    assert {isa for isa, *_ in limits.mixes()} <= usable
    assert "portable" in {isa for isa, *_ in limits.mixes()}


@pytest.mark.parametrize("batch", [1, 2, 4, 64, 1024])
@pytest.mark.parametrize("size", [(4096, 4096), (1152, 128), (64, 10)])
def test_every_method_on_bits_has_its_instructions(size, batch):
    """A kernel with a new method, or a new inner loop, is to bring its mix."""
    known = {method for _, method, _ in limits.mixes()}
    inputs, outputs = size
    graph = Graph(
        (Input("x", (inputs,), "bits"), Dense("y", "x", np.zeros((outputs, -(-inputs // 64)), np.uint64))), "y"
    )
    for isa in {isa for isa, *_ in limits.mixes()}:
        (step,) = Session(graph, engine=isa, num_threads=1).plan(batch).steps
        assert step.method in known


@pytest.mark.parametrize(("isa", "name"), [("portable", "none"), ("none", "none")])
def test_an_unknown_mix_is_refused(isa, name):
    with pytest.raises(RuntimeError, match="no instruction mix 'none'"):
        limits.run_mix(isa, name, 1)


@pytest.mark.parametrize("cold", [False, True])
@pytest.mark.parametrize("count", [32, 32 * 77])
def test_reading_reads_everything(count, cold):
    words = aligned(count)
    words[:] = np.random.default_rng(count).integers(0, 1 << 64, count, dtype=np.uint64)
    expected = int(np.bitwise_xor.reduce(words))
    assert limits.read(words, 1, cold) == expected
    assert limits.read(words, 2, cold) == 0
    assert limits.read(words, 3, cold) == expected


def test_reading_refuses_what_it_cannot_read():
    with pytest.raises(RuntimeError, match="multiple of 32"):
        limits.read(aligned(33), 1, False)
    with pytest.raises(RuntimeError, match="64 divides"):
        limits.read(aligned(40)[1:33], 1, False)


def test_a_chain_adds_up_and_takes_its_time():
    assert limits.count_cycles(160) == 160
    shortest = min(_processor_ns(lambda: limits.count_cycles(1_000_000)) for _ in range(5))
    assert shortest > 100_000  # 10 GHz: no processor is as fast; a chain that was left out would be


def _processor_ns(run) -> int:
    start = time.process_time_ns()
    run()
    return time.process_time_ns() - start
