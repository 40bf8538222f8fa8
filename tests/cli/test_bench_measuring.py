"""The instrument: limits from the same rounds, cold weights, what ratios are taken over."""

from __future__ import annotations

import time
from itertools import pairwise

import numpy as np
import pytest
from bench_output import NATIVE, needs_native

from binarynet.analysis import Timing
from binarynet.cli._benching.cooling import Cooling
from binarynet.cli._benching.limits import ADDITIONS, Measured, _Mix, _Reads
from binarynet.cli._benching.measuring import Contender, Task, compare


def contender(name, arithmetic, microseconds, engine="", method="", **more):
    def run():
        end = time.process_time_ns() + 1000 * microseconds  # the clock of a run with one thread
        while time.process_time_ns() < end:
            pass

    return Contender(name, arithmetic, run, lambda: run, engine, method, **more)


limits = pytest.importorskip("binarynet._native").limits

PARTIES = [
    contender("ours", "packed", 100, *(limits.mixes()[0][:2] if NATIVE else ("reference",))),
    contender("ours, slow", "packed", 300, "none", read_bytes=1 << 20),
    contender("torch float32", "float32", 1000),
    contender("other float32", "float32", 500),
    contender("int8", "int8", 400),
    contender("twice int8", "int8", 500, layers=2),
]


@needs_native
def test_a_comparison():
    task = Task("task", 1, macs=1000, read_bytes=1 << 16)
    found = compare(task, PARTIES, 1, 0.0)
    assert [row.name for row in found.rows] == [party.name for party in PARTIES]
    assert found.baseline == "torch float32"
    assert found.best.name == "ours"
    rows = {row.name: row for row in found.rows}
    assert 230_000 < rows["twice int8"].timing.time_ns.low < 350_000
    assert [(ratio.kind, ratio.name) for ratio in found.best.ratios] == [
        ("torch float32", "torch float32"),
        ("best float32", "other float32"),
        ("best int8", "twice int8"),
    ]
    measured = found.limits
    assert [port.engine for port in measured.ports] == NATIVE[:1]
    assert [reading.bytes for reading in measured.reading] == [1 << 16, 1 << 20]
    row = rows["ours"]
    # 1000 MACs in 100 us are next to nothing.
    assert row.macs_per_cycle.median == pytest.approx(1000 / 100_000 / measured.clock_ghz.median, rel=0.5)
    assert 0 < row.port_share.median < 0.01
    assert row.read_share.median > 0
    assert (row.read_bytes, rows["ours, slow"].read_bytes) == (1 << 16, 1 << 20)
    assert rows["ours, slow"].read_share.median > 2 * row.read_share.median  # 16 times the bytes, 3 times the time
    assert rows["ours, slow"].port_share is None
    assert rows["int8"].read_share is None
    assert rows["int8"].macs_per_cycle is not None


def test_limits_are_of_one_thread_only():
    found = compare(Task("task", 1, 10, 64), PARTIES[:1], 2, 0.0)
    assert found.limits is None
    assert found.rows[0].macs_per_cycle is None
    assert found.best.ratios == ()


def test_shares_by_hand():
    clock = Timing("clock", (ADDITIONS / 4, ADDITIONS / 2), 2)  # 4 and 2 GHz
    reading = Timing("reading", (100.0, 100.0), 2)
    mix = Timing("mix", (50.0, 100.0), 2)
    reads = ((_Reads(1000, 2000, lambda: None), reading), (_Reads(500, 500, lambda: None), Timing("", (10, 40), 2)))
    measured = Measured(clock, reads, ((_Mix("isa", "mix", 800, lambda: None), mix),))
    ours = Timing("ours", (200.0, 100.0), 2)
    assert measured.limits().clock_ghz.median == 3
    assert [limit.bytes for limit in measured.limits().reading] == [1000, 500]
    assert measured.limits().reading[0].bytes_per_cycle.high == 10
    assert measured.per_cycle(ours, 1600) == measured.per_cycle(ours, 1600.0)
    assert (measured.per_cycle(ours, 1600).low, measured.per_cycle(ours, 1600).high) == (2, 8)
    share = measured.share_of_ports(ours, "isa", "mix", 400)
    assert (share.low, share.high) == (2 / 16, 4 / 8)
    assert measured.share_of_ports(ours, "isa", "other", 400) is None
    assert measured.share_of_reading(ours, 1000).high == 0.5  # 50 ns for the task's 1000 bytes
    assert measured.share_of_reading(ours, 500).high == 0.4


def test_cold_calls_come_after_a_twin():
    events = []

    def party(name):
        def again():
            events.append(f"{name} again")
            return lambda: events.append(f"twin of {name}")

        return Contender(name, "packed", lambda: events.append(name), again)

    compare(Task("task", 1, 1, 64, cold=True), [party("a"), party("b")], 2, 0.0)
    assert events[:2] == ["a again", "b again"]
    timed = [(before, event) for before, event in pairwise(events) if before.startswith("twin")]
    assert timed == [("twin of a", "a"), ("twin of b", "b")] * 4  # an estimate and three rounds


def test_cooling_empties_the_caches():
    cooling = Cooling(time.perf_counter_ns)
    memory = np.ones(1 << 17)  # 1 MB
    order = np.random.default_rng(0).permutation(len(memory))

    def cost(before):
        samples = []
        for _ in range(7):
            memory[order].sum()
            before()
            start = time.process_time_ns()
            memory[order].sum()
            samples.append(time.process_time_ns() - start)
        return min(samples)

    assert cost(cooling.before(lambda: None)) > 1.1 * cost(lambda: None)
