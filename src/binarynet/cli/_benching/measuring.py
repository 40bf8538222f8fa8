"""The instrument: parties in turns, the machine's limits beside them, ratios within a round."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from binarynet.analysis import Party, Spread, Timing, fair_clock, time_interleaved
from binarynet.cli._benching.cooling import Cooling
from binarynet.cli._benching.limits import Limits, Measured, Probes

if TYPE_CHECKING:
    from binarynet.cli._benching.gpu import Gpu

Arithmetic = Literal["packed", "float32", "tf32", "bf16", "int8", "binary"]
"""packed: ours. binary: another library's, with the same binary weights. tf32: float32, its operands rounded."""


@dataclass(frozen=True)
class Task:
    """One table: what every party computes in a call.

    Attributes:
        name: what it is.
        batch: images (or rows) per call.
        macs: multiply-accumulates per call; 0 where the task is more than products (training).
        read_bytes: packed weights, input and output of a call: what memory has to carry at least.
        cold: weights and operands are in no cache when a call begins.
    """

    name: str
    batch: int
    macs: int
    read_bytes: int
    cold: bool = False


@dataclass(frozen=True)
class Contender:
    """A party of a comparison; ``engine`` is the name of one of ours, "" for a peer.

    ``method``: how the engine computes it, in the words of its kernels, where all of it is one block. ``details``: what
    a peer's library says of its kernels. ``num_threads``: of ours.
    ``file_bytes`` and ``peak_bytes``: size of its file, and the most memory of a process that only loads and runs it.
    ``read_bytes``: as Task's, where it is this one's own (more comes out of it, for instance).
    ``layers``: how many times one ``run`` does the task; times are divided by it. ``again`` loads the same once more,
    elsewhere in memory, and returns its call.
    """

    name: str
    arithmetic: Arithmetic
    run: Callable[[], Any]
    again: Callable[[], Callable[[], Any]]
    engine: str = ""
    method: str = ""
    details: str = ""
    file_bytes: int | None = None
    peak_bytes: int | None = None
    read_bytes: int | None = None
    layers: int = 1
    num_threads: int = 1


@dataclass(frozen=True)
class Ratio:
    """How many times faster one of our rows is than the fastest (``name``) of a kind."""

    kind: str
    name: str
    spread: Spread


@dataclass(frozen=True)
class Row:
    """One party's result.

    Attributes:
        name, arithmetic, engine, method, details, file_bytes, peak_bytes: the contender's.
        timing: its times.
        speedup: over the baseline's; None where there is none.
        ratios: over the best of every kind that there is; ours only.
        macs_per_cycle: by the clock of the same rounds; None without probes.
        port_share: of the inner instructions of its method alone; None for peers, and where there is no one method.
        read_share: of the speed of reading ``read_bytes``, its weights, input and output; ours only.
        peak_share: of the GPU's computed one-bit peak; ours only, and None where there is none.
    """

    name: str
    arithmetic: Arithmetic
    timing: Timing
    speedup: Spread | None
    ratios: tuple[Ratio, ...] = ()
    engine: str = ""
    method: str = ""
    details: str = ""
    macs_per_cycle: Spread | None = None
    port_share: Spread | None = None
    read_share: Spread | None = None
    peak_share: Spread | None = None
    file_bytes: int | None = None
    peak_bytes: int | None = None
    read_bytes: int | None = None

    @property
    def ours(self) -> bool:
        return self.arithmetic == "packed"


@dataclass(frozen=True)
class Comparison:
    """All parties at one task.

    Attributes:
        task: what was computed.
        rows: one per party, in the order in which they are shown.
        baseline: name of the row that speed-ups refer to: torch's fastest float32, else the fastest float32; None
            where there is no float32.
        limits: of the machine in the same rounds; None where they were not measured.
    """

    task: Task
    rows: tuple[Row, ...]
    baseline: str | None
    limits: Limits | None = None

    @property
    def num_rounds(self) -> int:
        return len(self.rows[0].timing.rounds_ns)

    @property
    def best(self) -> Row:
        """Our fastest row."""
        return min((row for row in self.rows if row.ours), key=_median)


def _median(row: Row) -> float:
    return row.timing.time_ns.median


KINDS: dict[str, Callable[[Contender], bool]] = {
    "torch float32": lambda peer: peer.arithmetic == "float32" and peer.name.startswith("torch"),
    "best float32": lambda peer: peer.arithmetic == "float32",
    "best TF32": lambda peer: peer.arithmetic == "tf32",
    "best bf16": lambda peer: peer.arithmetic == "bf16",
    "best int8": lambda peer: peer.arithmetic == "int8",
    "best binary": lambda peer: peer.arithmetic == "binary",
}
"""The kinds of peers that ratios are taken over."""
ONE_THREAD = "one thread"
"""And what our rows by several threads are held against."""


def alone(name: str) -> str:
    """The name of the same party with one thread."""
    return f"{name}, 1 thread"


def compare(
    task: Task,
    contenders: Sequence[Contender],
    num_threads: int,
    seconds: float,
    progress: Callable[[str], None] = lambda _: None,
    gpu: Gpu | None = None,
) -> Comparison:
    """Time all contenders in turns. With one thread, the machine's limits are measured in the same rounds; with a
    ``gpu``, whose contenders only start their work, its clock counts."""
    clock = fair_clock(num_threads)[0]
    cooling = Cooling(clock) if task.cold else None
    methods = dict.fromkeys((contender.engine, contender.method) for contender in contenders if contender.engine)
    sizes = dict.fromkeys(_read_bytes(task, contender) for contender in contenders if contender.engine)
    probed = num_threads == 1 and gpu is None
    probes = _probes(list(sizes) or [task.read_bytes], list(methods), cooling) if probed else None
    parties = [
        Party(contender.name, contender.run, cooling.before(contender.again()) if cooling is not None else None)
        for contender in contenders
    ]
    timings = timed(
        [*parties, *(probes.parties if probes is not None else ())],
        num_threads,
        seconds,
        functools.partial(_tell, progress, describe(task)),
        gpu,
    )
    own = [
        replace(timing, rounds_ns=tuple(ns / contender.layers for ns in timing.rounds_ns))
        for contender, timing in zip(contenders, timings, strict=False)
    ]
    measured = probes.found(timings[len(contenders) :]) if probes is not None else None
    best = _best_of_kinds(contenders, own)
    baseline = best.get("torch float32", best.get("best float32"))
    by_name = {timing.name: timing for timing in own}
    rows = tuple(
        _row(
            task,
            contender,
            timing,
            baseline,
            best | _own_by_one_thread(contender, by_name),
            measured,
            gpu.peak_macs_per_ns if gpu is not None else None,
        )
        for contender, timing in zip(contenders, own, strict=True)
    )
    return Comparison(
        task,
        rows,
        baseline.name if baseline is not None else None,
        measured.limits() if measured is not None else None,
    )


def timed(
    parties: Sequence[Party], num_threads: int, seconds: float, progress: Callable[[str], None], gpu: Gpu | None
) -> list[Timing]:
    """Parties in turns, by the clock that is fair to them."""
    if gpu is None:
        return time_interleaved(parties, seconds, clock=fair_clock(num_threads)[0], progress=progress)
    from binarynet.cli._benching.gpu import SAMPLE_NS

    clock = gpu.clock
    return time_interleaved(
        parties, seconds, clock=clock, budget_clock=clock, min_sample_ns=SAMPLE_NS, progress=progress
    )


def describe(task: Task) -> str:
    """The heading of a task's table."""
    return f"{task.name}{', cold weights' if task.cold else ''}"


def _read_bytes(task: Task, contender: Contender) -> int:
    return task.read_bytes if contender.read_bytes is None else contender.read_bytes


def _probes(sizes: list[int], methods: list[tuple[str, str]], cooling: Cooling | None) -> Probes | None:
    try:
        return Probes(sizes, methods, cooling)
    except ImportError:  # no native extension: the reference is timed alone
        return None


def _tell(progress: Callable[[str], None], what: str, name: str) -> None:
    progress(f"{what}: {name}")


def _best_of_kinds(contenders: Sequence[Contender], timings: Sequence[Timing]) -> dict[str, Timing]:
    """Kind to the timing of its fastest."""
    best = {}
    for kind, belongs in KINDS.items():
        members = [timing for contender, timing in zip(contenders, timings, strict=True) if belongs(contender)]
        if members:
            best[kind] = min(members, key=lambda timing: timing.time_ns.median)
    return best


def _own_by_one_thread(contender: Contender, timings: dict[str, Timing]) -> dict[str, Timing]:
    own = timings.get(alone(contender.name))
    return {} if own is None else {ONE_THREAD: own}


def _row(
    task: Task,
    contender: Contender,
    timing: Timing,
    baseline: Timing | None,
    best: dict[str, Timing],
    measured: Measured | None,
    peak: float | None,
) -> Row:
    row = Row(
        contender.name,
        contender.arithmetic,
        timing,
        timing.speedup_over(baseline) if baseline is not None else None,
        engine=contender.engine,
        method=contender.method,
        details=contender.details,
        macs_per_cycle=measured.per_cycle(timing, task.macs) if measured is not None else None,
        file_bytes=contender.file_bytes,
        peak_bytes=contender.peak_bytes,
    )
    if not row.ours:
        return row
    read_bytes = _read_bytes(task, contender)
    return replace(
        row,
        read_bytes=read_bytes,
        ratios=tuple(Ratio(kind, other.name, timing.speedup_over(other)) for kind, other in best.items()),
        port_share=measured.share_of_ports(timing, contender.engine, contender.method, task.macs)
        if measured is not None
        else None,
        read_share=measured.share_of_reading(timing, read_bytes) if measured is not None else None,
        peak_share=Spread.of([task.macs / ns / peak for ns in timing.rounds_ns]) if peak is not None else None,
    )


@contextmanager
def shown(console: Any, enabled: bool) -> Iterator[Callable[[str], None]]:
    """A line on the terminal that says what is being done now."""
    if not enabled:
        yield lambda _: None
        return
    with console.status("") as status:
        yield lambda text: status.update(text)
