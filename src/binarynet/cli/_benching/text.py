"""Results of benchmarks as tables on the terminal."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from rich.text import Text

from binarynet.cli._benching.measuring import Comparison, Ratio, Row, describe
from binarynet.cli._console import plain_table
from binarynet.cli._peers_common import Absence

if TYPE_CHECKING:
    from rich.console import Console

    from binarynet.analysis import Spread
    from binarynet.cli._benching.networks import NetworkResult
    from binarynet.cli._benching.suites import SuiteResult
    from binarynet.cli._benching.training import TrainingResult

_Cell = Callable[[Row], str]

_TURNS = (
    "All take turns in one run; the first calls of a turn are not timed. time: {clock} of a call, median over the "
    "rounds; range: fastest and slowest round; faster: median of the ratios within each round. "
)
_LIMITS = (
    "MAC/cycle: by a chain of dependent additions in the same rounds. ports: of the speed of the inner instructions of "
    "the engine's method alone, on registers and the first cache; reading: of the speed at which as many bytes as "
    "weights, input and output have can be read and nothing done with them. "
)
_COLD = (
    "cold weights: before each call the caches are emptied, and then a twin with weights of its own is run, which "
    "brings back the code, but not the weights. "
)
NOTES = {
    "model": _TURNS
    + _LIMITS
    + _COLD
    + "binarynet gets 8-bit images, and the call from Python is included; the others get "
    "their input ready made. float32 and int8 networks have the same layers with real weights and ReLU; binary ones "
    "are the very same network. ports: no column, a network has layers with different instructions.",
    "layers": _TURNS
    + _LIMITS
    + _COLD
    + "Every layer alone, its packed (or 8-bit) input ready made, without the pooling behind "
    "it; the call from Python is included. Peers have the weights +1 and -1, their input ready made in their own form. "
    "A first layer's instructions (8-bit) are not measured alone.",
    "gemm": _TURNS + _LIMITS + "M x N x K: [M, K] times [K, N], operands +1 and -1; ours packed, and bits (M x N "
    "thresholds) or int32 out; the call from Python is included. Every result was compared with an exact one.",
    "training": "One step is forward pass, cost, backward pass, update and clipping, on a batch that is there already. "
    + _TURNS
    + "straightforward: the same step in plain torch (sign as an autograd.Function, Adam(fused=True), clamp_), its "
    "cost compared with ours first.",
}
_ON_GPU = (
    "Everything lies in the GPU's memory, input and result. Calls of one turn are started one behind the other: "
    "the call from Python counts only where the GPU waits for it. "
)
_PEAK = (
    "of peak: of the one-bit peak, which is computed, not measured: multiprocessors x clock x one-bit multiply-"
    "accumulates of one multiprocessor in a cycle."
)
NOTES_ON_GPU = {
    "model": _TURNS
    + _ON_GPU
    + "binarynet gets 8-bit images, the others their input ready made. The others' networks have the same layers with "
    "real weights and ReLU. ",
    "layers": _TURNS
    + _ON_GPU
    + "Every layer alone, its packed (or 8-bit) input ready made, without the pooling behind it. The others have the "
    "weights +1 and -1. ",
    "gemm": _TURNS + _ON_GPU + "M x N x K: [M, K] times [K, N], operands +1 and -1; ours packed, and bits (M x N "
    "thresholds) or int32 out. Every result was compared with an exact one; bfloat16 stores sums in eight bits. ",
}


def print_notes(console: Console, suite: str, machine: dict[str, Any]) -> None:
    """What the columns mean."""
    notes = NOTES_ON_GPU[suite] + peak_note(machine) if machine["gpu"] else NOTES[suite]
    console.print()
    console.print(Text(notes.format(clock=machine["clock"]), style="dim"), width=min(console.width, 100))


def peak_note(machine: dict[str, Any]) -> str:
    """What the column "of peak" means, where there is one."""
    return _PEAK if machine["gpu"]["one_bit_peak_tmacs_per_second"] is not None else ""


def print_processor(console: Console, machine: dict[str, Any], threads: int) -> None:
    """The machine, and how much of it everybody may use."""
    if (gpu := machine["gpu"]) is not None:
        console.print(
            Text(
                f"{gpu['name']} ({gpu['device']}), {gpu['multiprocessors']} multiprocessors at up to "
                f"{gpu['clock_ghz']:.2f} GHz; {machine['processor']}"
            ),
            soft_wrap=True,
        )
        return
    plural = "" if threads == 1 else "s"
    console.print(
        Text(f"{machine['processor']}, {machine['cores']} cores; {threads} thread{plural} for everyone"), soft_wrap=True
    )


def print_parties(console: Console, machine: dict[str, Any], result: NetworkResult | SuiteResult, threads: int) -> None:
    """Versions of those that take part, and who is absent and why."""
    print_processor(console, machine, threads)
    libraries = (f"binarynet {machine['version']}", *result.libraries, machine["python"])
    console.print(Text(", ".join(libraries)), soft_wrap=True)
    place = machine["gpu"] or machine
    engines = [engine for engine in place["engines"] if engine["why_not"]]
    print_absences(console, result.absent)
    print_absences(console, [Absence(f"engine {engine['name']}", engine["why_not"]) for engine in engines])


def print_absences(console: Console, absences: Sequence[Absence]) -> None:
    """Who does not take part, and why."""
    for absence in absences:
        console.print(Text(f"absent: {absence.name}, {absence.why}", style="yellow"), soft_wrap=True)


def print_network(console: Console, result: NetworkResult) -> None:
    """One network at all its batch sizes."""
    network = result.network
    console.print()
    console.print(Text(network.name, style="bold"), soft_wrap=True)
    smaller = network.float32_bytes / network.packed_bytes
    console.print(
        f"  {network.packed_bytes:,} bytes packed, {network.float32_bytes:,} bytes in float32: "
        f"[bold]{smaller:.1f}x smaller[/]",
        soft_wrap=True,
    )
    if result.checked:
        console.print(f"  checked: {_and(result.checked)} equal the NumPy reference bit for bit", soft_wrap=True)
        console.print(
            f"  checked: every score of the images that are timed, against {result.compared_with}", soft_wrap=True
        )
    for comparison in result.batches:
        console.print()
        print_comparison(console, comparison, per_image=True)


def print_training(console: Console, result: TrainingResult) -> None:
    """One network's training step."""
    console.print()
    console.print(Text(f"{result.network.name}, {result.weights:,} binary weights", style="bold"), soft_wrap=True)
    for comparison in result.batches:
        console.print()
        print_comparison(console, comparison, per_image=True)


def print_comparison(console: Console, comparison: Comparison, *, per_image: bool = False) -> None:
    """One table: every party a row."""
    rows, task = comparison.rows, comparison.task
    columns: dict[str, _Cell] = {
        "time, ms": lambda row: milliseconds(row.timing.time_ns.median),
        "range": lambda row: f"{milliseconds(row.timing.time_ns.low)} - {milliseconds(row.timing.time_ns.high)}",
    }
    if per_image:
        columns["images/s"] = lambda row: f"{task.batch * 1e9 / row.timing.time_ns.median:,.0f}"
    if task.macs:
        columns["GMAC/s"] = lambda row: figure(task.macs / row.timing.time_ns.median)
    optional: dict[str, _Cell] = {
        "MAC/cycle": lambda row: figure(row.macs_per_cycle.median) if row.macs_per_cycle else "",
        "ports": lambda row: share(row.port_share),
        "reading": lambda row: share(row.read_share),
        "of peak": lambda row: share(row.peak_share),
        "file, MB": lambda row: figure(row.file_bytes / 1e6) if row.file_bytes and per_image else "",
        "peak, MB": lambda row: figure(row.peak_bytes / 1e6) if row.peak_bytes else "",
    }
    columns |= {name: cell for name, cell in optional.items() if any(cell(row) for row in rows)}
    columns["faster"] = lambda row: _faster(row.speedup, row.name == comparison.baseline)
    table = plain_table(describe(task), *columns, right=tuple(columns))
    best = comparison.best
    for row in rows:
        table.add_row(Text(row.name, style="bold" if row is best else ""), *(cell(row) for cell in columns.values()))
    console.print(table)
    if comparison.limits is not None:
        console.print(Text(_limits(comparison), style="dim"), soft_wrap=True)
    if best.ratios:
        console.print(_ratio_line(comparison), soft_wrap=True)


def print_summary(console: Console, tables: Sequence[Comparison]) -> None:
    """One line per table: our fastest engine, and how many times faster it is than the best of each kind."""
    kinds = list(dict.fromkeys(ratio.kind for comparison in tables for ratio in comparison.best.ratios))
    measured: dict[str, _Cell] = {
        "MAC/cycle": lambda row: figure(row.macs_per_cycle.median) if row.macs_per_cycle else "",
        "ports": lambda row: share(row.port_share),
        "reading": lambda row: share(row.read_share),
        "of peak": lambda row: share(row.peak_share),
    }
    measured = {name: cell for name, cell in measured.items() if any(cell(each.best) for each in tables)}
    columns = ("time, ms", *measured, *kinds)
    table = plain_table("times faster than", "our fastest", *columns, right=columns)
    for comparison in tables:
        best = comparison.best
        ratios = {ratio.kind: ratio.spread.median for ratio in best.ratios}
        table.add_row(
            Text(describe(comparison.task)),
            Text(best.name.removeprefix("binarynet ")),
            milliseconds(best.timing.time_ns.median),
            *(cell(best) for cell in measured.values()),
            *(figure(ratios[kind]) if kind in ratios else "" for kind in kinds),
        )
    console.print()
    console.print(table)


def _limits(comparison: Comparison) -> str:
    limits = comparison.limits
    assert limits is not None
    clock = limits.clock_ghz.median
    parts = [f"limits here: {clock:.2f} GHz"]
    parts += [f"{port.engine} {figure(port.macs_per_cycle.median)} MAC/cycle ({port.method})" for port in limits.ports]
    for reading in limits.reading:
        size, speed = reading.bytes, reading.bytes_per_cycle.median
        amount = f"{size / 1e6:.2f} MB" if size >= 1e6 else f"{size / 1e3:.1f} kB"
        parts.append(f"{amount} are read at {speed:.1f} bytes/cycle ({speed * clock:.1f} GB/s)")
    return "; ".join(parts)


def _ratio_line(comparison: Comparison) -> Text:
    merged: dict[str, Ratio] = {ratio.name: ratio for ratio in reversed(comparison.best.ratios)}
    line = Text(f"{comparison.best.name}: ")
    for position, ratio in enumerate(reversed(merged.values())):
        spread = ratio.spread
        line.append(", " if position else "")
        line.append(f"{times(spread.median)}x", style="bold green")
        line.append(f" as fast as {ratio.name} ({times(spread.low)} to {times(spread.high)})")
    line.append(f", over {comparison.num_rounds} rounds")
    return line


def _and(names: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))


def share(spread: Spread | None) -> str:
    """In percent; empty where there is none."""
    return f"{100 * spread.median:.0f} %" if spread is not None else ""


def _faster(speedup: Spread | None, is_baseline: bool) -> str:
    if speedup is None:
        return ""
    return "1" if is_baseline else times(speedup.median)


def times(ratio: float) -> str:
    """A ratio: 0.51, 1.52, 15.2."""
    return f"{ratio:.2f}" if ratio < 10 else f"{ratio:.1f}"


def figure(value: float) -> str:
    """With about three significant digits: 0.123, 1.23, 12.3, 1,235."""
    for limit, digits in ((1, 3), (10, 2), (100, 1)):
        if value < limit:
            return f"{value:.{digits}f}"
    return f"{value:,.0f}"


def milliseconds(nanoseconds: float) -> str:
    """With about three significant digits: 0.0123, 0.123, 1.23, 12.3, 123."""
    value = nanoseconds / 1e6
    return f"{value:.4f}" if value < 0.1 else figure(value)
