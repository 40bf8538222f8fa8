"""Interleaved timing, with a clock that tests turn by hand."""

from __future__ import annotations

import gc
import itertools
import time

import pytest

from binarynet.analysis import Party, Spread, Timing, fair_clock, time_interleaved
from binarynet.analysis.timing import MAX_ROUNDS, MIN_ROUNDS

MS = 1_000_000


class Bench:
    """A clock and parties whose calls take the times that they are given, in turn, over and over."""

    def __init__(self) -> None:
        self.now = 0
        self.log: list[str] = []

    def clock(self) -> int:
        return self.now

    def party(self, name: str, *milliseconds: float, prepared_ms: float | None = None) -> Party:
        times = itertools.cycle(milliseconds)

        def run() -> None:
            self.log.append(name)
            self.now += round(next(times) * MS)

        def before() -> None:
            self.log.append(f"before {name}")
            self.now += round((prepared_ms or 0) * MS)

        return Party(name, run, before if prepared_ms is not None else None)

    def time(self, parties: list[Party], seconds: float) -> list[Timing]:
        return time_interleaved(parties, seconds, clock=self.clock, budget_clock=self.clock)


def test_times_and_ratios():
    bench = Bench()
    slow, fast = bench.time([bench.party("slow", 8), bench.party("fast", 2)], seconds=1)
    assert slow.time_ns == Spread(8 * MS, 8 * MS, 8 * MS)
    assert fast.time_ns == Spread(2 * MS, 2 * MS, 2 * MS)
    assert fast.speedup_over(slow) == Spread(4, 4, 4)
    assert slow.speedup_over(fast) == Spread(0.25, 0.25, 0.25)
    assert len(slow.rounds_ns) == len(fast.rounds_ns) == MAX_ROUNDS


def test_parties_take_turns_each_with_a_warm_up():
    bench = Bench()
    bench.time([bench.party("a", 100), bench.party("b", 300)], seconds=0)
    assert bench.log[:4] == ["a", "a", "b", "b"]  # calibration
    assert bench.log[4:] == ["a", "a", "b", "b"] * MIN_ROUNDS  # warm-up and one timed call


def test_warm_up_calls_are_not_counted():
    bench = Bench()
    first_of_a_turn_is_slow = bench.party("a", 1000, 10)  # calibration takes two, then slow and fast alternate
    (timing,) = bench.time([first_of_a_turn_is_slow], seconds=0)
    assert timing.time_ns.high == 10 * MS


def test_preparation_comes_before_each_timed_call_and_is_not_timed():
    bench = Bench()
    (timing,) = bench.time([bench.party("a", 5, prepared_ms=50)], seconds=0.3)
    assert timing.time_ns == Spread(5 * MS, 5 * MS, 5 * MS)
    timed = bench.log[3:]  # after the first call, preparation, second call
    assert timed.count("before a") == timing.num_calls
    for position, entry in enumerate(timed):
        if entry == "before a":
            assert timed[position + 1] == "a"


def test_short_calls_are_timed_several_at_once():
    bench = Bench()
    (timing,) = bench.time([bench.party("a", 0.01)], seconds=0.01)
    assert timing.time_ns.median == pytest.approx(0.01 * MS)
    assert timing.num_calls % 10 == 0


def test_about_as_long_as_asked():
    bench = Bench()
    bench.time([bench.party("a", 1), bench.party("b", 7)], seconds=2)
    assert 1.8e9 < bench.now < 2.5e9


def test_ratio_is_taken_within_a_round():
    drifting = Timing("a", (10.0, 20.0, 40.0), 3)
    other = Timing("b", (5.0, 10.0, 20.0), 3)
    assert other.speedup_over(drifting) == Spread(2, 2, 2)


def test_nothing_to_time():
    assert time_interleaved([], 1) == []


def test_garbage_collection_is_switched_on_again_after_a_failure():
    calls = itertools.count()

    def fails_while_timed() -> None:
        if next(calls) > 2:
            raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        time_interleaved([Party("a", fails_while_timed)], 0)
    assert gc.isenabled()


def test_one_thread_is_timed_by_the_processor_more_by_the_wall():
    clock, name = fair_clock(1)
    assert (clock, name) == (time.process_time_ns, "processor time")
    assert fair_clock(2) == (time.perf_counter_ns, "wall time")
    start = clock()
    time.sleep(0.05)
    assert clock() - start < 40 * MS
