"""Fair timing on a busy machine: all parties take turns in one run, and ratios are taken within a round."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

MIN_ROUNDS = 3
MAX_ROUNDS = 25
WARM_UP_SHARE = 0.2
"""Share of a turn that is spent on calls that are not timed."""

Clock = Callable[[], int]


@dataclass(frozen=True)
class Party:
    """Something to time.

    Attributes:
        name: its name in the results.
        run: one call.
        before: done before every timed call, itself not timed (to empty caches, for instance).
    """

    name: str
    run: Callable[[], object]
    before: Callable[[], object] | None = None


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
        return Spread.of([theirs / ours for theirs, ours in zip(other.rounds_ns, self.rounds_ns, strict=True)])


def time_interleaved(
    parties: Sequence[Party],
    seconds: float,
    *,
    clock: Clock = time.perf_counter_ns,
    progress: Callable[[str], None] | None = None,
) -> list[Timing]:
    """Time parties in turns (A B C, A B C, ...), each turn opened by untimed warm-up calls.

    Warm-up calls matter: a large float network that ran just before has taken the caches.

    Args:
        parties: what to time.
        seconds: about how long all of it may take; every party gets at least one timed call in each of three rounds,
            however slow it is.
        clock: nanoseconds, rising.
        progress: called with a party's name before its turn.
    """
    if not parties:
        return []
    cost_ns = 0
    for party in parties:  # first calls allocate and compile; the second tells the cost
        party.run()
        _before(party)
        start = clock()
        party.run()
        cost_ns += max(clock() - start, 1)
    num_rounds = int(min(max(seconds * 1e9 / (2 * cost_ns), MIN_ROUNDS), MAX_ROUNDS))
    turn_ns = seconds * 1e9 / (num_rounds * len(parties))
    medians: dict[int, list[float]] = {i: [] for i in range(len(parties))}
    calls = [0] * len(parties)
    with _no_garbage_collection():
        for _ in range(num_rounds):
            for i, party in enumerate(parties):
                if progress is not None:
                    progress(party.name)
                samples = _turn(party, turn_ns, clock)
                medians[i].append(statistics.median(samples))
                calls[i] += len(samples)
    return [Timing(party.name, tuple(medians[i]), calls[i]) for i, party in enumerate(parties)]


def _turn(party: Party, turn_ns: float, clock: Clock) -> list[int]:
    begin = clock()
    party.run()
    while clock() - begin < WARM_UP_SHARE * turn_ns:
        party.run()
    samples: list[int] = []
    while not samples or clock() - begin < turn_ns:
        _before(party)
        start = clock()
        party.run()
        samples.append(clock() - start)
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
