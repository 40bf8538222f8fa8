"""What the machine can do at most, measured in the same rounds as the parties: clock, instruction mixes, memory."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from binarynet.analysis import Party, Spread, Timing
from binarynet.cli._benching.cooling import Cooling

ADDITIONS = 1 << 18
"""Of the chain that measures the clock."""
MIX_NS = 200_000
"""About how long one run of an instruction mix takes."""
PROBE_SHARE = 0.1
"""Length of a probe's turn, relative to a party's."""
READ_BYTES = 1 << 22
"""Warm memory is read until it makes up so many bytes: a call takes time, too."""
_READ_WORDS = 32
"""The native side reads multiples of so many words."""


@dataclass(frozen=True)
class PortLimit:
    """The inner instructions of an engine's method without anything around them: what its kernels cannot pass."""

    engine: str
    method: str
    macs_per_cycle: Spread


@dataclass(frozen=True)
class ReadLimit:
    """How fast so many bytes are read by nothing but loads, warm or cold as the task is."""

    bytes: int
    bytes_per_cycle: Spread


@dataclass(frozen=True)
class Limits:
    """The machine during one comparison.

    Attributes:
        clock_ghz: cycles per nanosecond, by a chain of dependent additions.
        ports: one per method that is used, and whose instructions are known.
        reading: one for each amount that a call has to move at least (weights, input, output).
    """

    clock_ghz: Spread
    ports: tuple[PortLimit, ...]
    reading: tuple[ReadLimit, ...]


@dataclass(frozen=True)
class _Reads:
    task_bytes: int
    bytes: int
    """Of one run."""
    run: Callable[[], object]


@dataclass(frozen=True)
class _Mix:
    engine: str
    method: str
    macs: int
    """Of one run."""
    run: Callable[[], object]


class Probes:
    """Parties that measure the machine, to be timed with the others; afterwards, what they found.

    Args:
        sizes: how many bytes the others move at least: weights, input and output of a call.
        methods: engines and how they compute the task; "" where it is no single method.
        cooling: what comes before calls with cold weights; None for warm ones.

    Raises:
        ImportError: the native extension cannot be loaded.
    """

    def __init__(self, sizes: Sequence[int], methods: Sequence[tuple[str, str]], cooling: Cooling | None) -> None:
        from binarynet import _native

        native = _native.limits
        known: dict[str, tuple[str, int]] = {}
        for isa, method, macs in native.mixes():  # an engine may use another's kernels
            known.setdefault(method, (isa, macs))
        self._mixes = [_mix(engine, method, *known[method]) for engine, method in methods if method in known]
        self._reads = [_reads(size, cooling is not None) for size in sizes]
        other = _aligned_words(1)
        before = cooling.before(lambda: native.read(other, 1, True)) if cooling is not None else None
        self.parties = [
            Party("clock", lambda: native.count_cycles(ADDITIONS), share=PROBE_SHARE),
            *(Party("reading", reads.run, before, PROBE_SHARE) for reads in self._reads),
            *(Party(f"{mix.engine}: {mix.method}", mix.run, share=PROBE_SHARE) for mix in self._mixes),
        ]

    def found(self, timings: Sequence[Timing]) -> Measured:
        """What the probes' own timings (in their order) say."""
        clock, *others = timings
        reads, mixes = others[: len(self._reads)], others[len(self._reads) :]
        return Measured(clock, tuple(zip(self._reads, reads, strict=True)), tuple(zip(self._mixes, mixes, strict=True)))


@dataclass(frozen=True)
class Measured:
    """The probes' timings, and what they make of a party's."""

    clock: Timing
    reads: tuple[tuple[_Reads, Timing], ...]
    mixes: tuple[tuple[_Mix, Timing], ...]

    def limits(self) -> Limits:
        return Limits(
            Spread.of([ADDITIONS / ns for ns in self.clock.rounds_ns]),
            tuple(PortLimit(mix.engine, mix.method, self.per_cycle(timing, mix.macs)) for mix, timing in self.mixes),
            tuple(ReadLimit(reads.task_bytes, self.per_cycle(timing, reads.bytes)) for reads, timing in self.reads),
        )

    def per_cycle(self, timing: Timing, amount: float) -> Spread:
        """An amount of work of each call, per cycle of the clock in the same round."""
        return timing.compared(self.clock, lambda ns, clock_ns: amount / ns * clock_ns / ADDITIONS)

    def share_of_ports(self, timing: Timing, engine: str, method: str, macs: int) -> Spread | None:
        """An engine's speed over that of its method's instructions; None where these are not known."""
        for mix, alone in self.mixes:
            if (mix.engine, mix.method) == (engine, method):
                return timing.compared(alone, lambda ns, mix_ns, mix=mix: macs / ns * mix_ns / mix.macs)  # type: ignore[misc]
        return None

    def share_of_reading(self, timing: Timing, num_bytes: int) -> Spread:
        """The time to do nothing but read as many bytes (one of the sizes that were probed), over a party's."""
        reads, reading = next(pair for pair in self.reads if pair[0].task_bytes == num_bytes)
        part = num_bytes / reads.bytes
        return timing.compared(reading, lambda ns, reading_ns: part * reading_ns / ns)


def _reads(num_bytes: int, cold: bool) -> _Reads:
    """Once where memory is cold, else as often as makes up READ_BYTES."""
    from binarynet import _native

    memory = _aligned_words(num_bytes)
    times = 1 if cold else max(1, READ_BYTES // memory.nbytes)
    return _Reads(num_bytes, memory.nbytes * times, lambda: _native.limits.read(memory, times, cold))


def _mix(engine: str, method: str, isa: str, macs: int) -> _Mix:
    """So many steps of a method's instructions that they take about MIX_NS."""
    from binarynet import _native

    steps = 1000
    while True:
        start = time.perf_counter_ns()
        _native.limits.run_mix(isa, method, steps)
        if (taken := time.perf_counter_ns() - start) > MIX_NS / 2:
            break
        steps *= 4
    steps = max(1, round(steps * MIX_NS / taken))
    return _Mix(engine, method, steps * macs, lambda: _native.limits.run_mix(isa, method, steps))


def _aligned_words(num_bytes: int) -> npt.NDArray[np.uint64]:
    """At least so much memory, as the native side wants it to be; written, so that it is there."""
    words = max(1, -(-num_bytes // (8 * _READ_WORDS))) * _READ_WORDS
    memory = np.ones(words + 8, np.uint64)
    first = -memory.ctypes.data % 64 // 8
    return memory[first : first + words]
