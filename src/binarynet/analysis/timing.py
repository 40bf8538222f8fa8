"""Fair timing on a busy machine: all parties take turns in one run, and ratios are taken within a round."""

from __future__ import annotations

import gc
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

MIN_ROUNDS = 3
MAX_ROUNDS = 25
WARM_UP_SHARE = 0.2
"""Share of a turn that is spent on calls that are not timed."""

MIN_SAMPLE_NS = 100_000
"""Calls shorter than this are timed several at once: reading a clock takes time, too."""

Clock = Callable[[], int]


@dataclass(frozen=True)
class Party:
    """Something to time.

    Attributes:
        name: its name in the results.
        run: one call.
        before: done before every timed call, itself not timed (to empty caches, for instance).
        share: how long its turns are, relative to the others'.
    """

    name: str
    run: Callable[[], object]
    before: Callable[[], object] | None = None
    share: float = 1.0


@dataclass(frozen=True)
class Spread:
    """Median over rounds, with the lowest and highest round."""

    median: float
    low: float
    high: float

    @staticmethod
    def of(values: Sequence[float]) -> Spread:
        return Spread(statistics.median(values), min(values), max(values))


@dataclass(frozen=True)
class Timing:
    """One party's times: the median call of each round, in nanoseconds."""

    name: str
    rounds_ns: tuple[float, ...]
    num_calls: int

    @property
    def time_ns(self) -> Spread:
        return Spread.of(self.rounds_ns)

    def speedup_over(self, other: Timing) -> Spread:
        """How many times faster than ``other``: the ratio within each round, so that both saw the same conditions."""
        return self.compared(other, lambda ours, theirs: theirs / ours)

    def compared(self, other: Timing, figure: Callable[[float, float], float]) -> Spread:
        """A figure of both parties' times in nanoseconds (ours first), found within each round."""
        return Spread.of([figure(ours, theirs) for ours, theirs in zip(self.rounds_ns, other.rounds_ns, strict=True)])


def time_interleaved(
    parties: Sequence[Party],
    seconds: float,
    *,
    clock: Clock = time.perf_counter_ns,
    budget_clock: Clock = time.perf_counter_ns,
    min_sample_ns: int = MIN_SAMPLE_NS,
    progress: Callable[[str], None] | None = None,
) -> list[Timing]:
    """Time parties in turns (A B C, A B C, ...), each turn opened by untimed warm-up calls.

    Warm-up calls matter: a large float network that ran just before has taken the caches.

    Args:
        parties: what to time.
        seconds: about how long all of it may take; every party gets at least one timed call in each of three rounds,
            however slow it is.
        clock: what calls are timed by, in nanoseconds, rising; see :func:`fair_clock`.
        budget_clock: what ``seconds`` are counted by; it must see what a call costs, as ``clock`` does.
        min_sample_ns: calls shorter than this are timed several at once.
        progress: called with a party's name before its turn.
    """
    if not parties:
        return []
    costs = [_cost_ns(party, budget_clock) for party in parties]
    num_rounds = int(min(max(seconds * 1e9 / (2 * sum(costs)), MIN_ROUNDS), MAX_ROUNDS))
    unit_ns = seconds * 1e9 / (num_rounds * sum(party.share for party in parties))
    medians: list[list[float]] = [[] for _ in parties]
    calls = [0] * len(parties)
    with _no_garbage_collection():
        for _ in range(num_rounds):
            for i, party in enumerate(parties):
                if progress is not None:
                    progress(party.name)
                repeats = 1 if party.before is not None else max(1, round(min_sample_ns / costs[i]))
                samples = _turn(party, repeats, unit_ns * party.share, clock, budget_clock)
                medians[i].append(statistics.median(samples))
                calls[i] += len(samples) * repeats
    return [Timing(party.name, tuple(medians[i]), calls[i]) for i, party in enumerate(parties)]


def fair_clock(num_threads: int) -> tuple[Clock, str]:
    """A clock for parties that use so many threads, and its name.

    With one thread it is the processor time of this process: on an idle machine the same as time on the wall, and on
    a busy one the same for calls short and long, where only the long ones are interrupted by other programs. With
    more threads it is time on the wall.
    """
    if num_threads == 1 and sys.platform != "win32":  # there process_time ticks every 16 ms
        return time.process_time_ns, "processor time"
    return time.perf_counter_ns, "wall time"


def _cost_ns(party: Party, clock: Clock) -> int:
    party.run()  # the first call may allocate and compile
    _before(party)
    start = clock()
    party.run()
    return max(clock() - start, 1)


def _turn(party: Party, repeats: int, turn_ns: float, clock: Clock, budget_clock: Clock) -> list[float]:
    begin = budget_clock()
    party.run()
    while budget_clock() - begin < WARM_UP_SHARE * turn_ns:
        party.run()
    samples: list[float] = []
    while not samples or budget_clock() - begin < turn_ns:
        _before(party)
        start = clock()
        for _ in range(repeats):
            party.run()
        samples.append((clock() - start) / repeats)
    return samples


def _before(party: Party) -> None:
    if party.before is not None:
        party.before()


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
