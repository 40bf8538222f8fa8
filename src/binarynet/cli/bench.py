"""`binarynet bench`: speed on this machine, side by side with what else is installed."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from binarynet.cli._console import plain_table, print_json, say, stderr, stdout
from binarynet.cli._options import Json
from binarynet.errors import UsageError

if TYPE_CHECKING:
    from rich.console import Console

    from binarynet.analysis import Spread
    from binarynet.cli._benching import BatchResult, NetworkResult
    from binarynet.cli._training_bench import TrainingResult

MAX_BATCH = 65536

_NOTES = (
    "All take turns in one run; the first calls of a turn are not timed. time: {clock} of a call, median over the "
    "rounds; range: fastest and slowest round; faster: median of the ratios within each round. binarynet gets 8-bit "
    "images, and the call from Python is included; the others get float32 input ready made, and run the same layers "
    "with real weights and ReLU. cold caches: emptied before each call."
)

_TRAINING_NOTES = (
    "One step is forward pass, cost, backward pass, update and clipping, on a batch that is there already. All take "
    "turns in one run; the first steps of a turn are not timed. time: {clock} of a step, median over the rounds; "
    "range: fastest and slowest round; faster: median of the ratios within each round. straightforward: the same step "
    "in plain torch (sign as an autograd.Function, Adam(fused=True), clamp_), its cost compared with ours first."
)


def bench(
    model: Annotated[
        Path | None,
        typer.Argument(metavar="[MODEL.bnn]", help="A packed network; default: the paper's, with random weights."),
    ] = None,
    threads: Annotated[int, typer.Option(min=1, metavar="N", help="Threads that every party may use.")] = 1,
    batch: Annotated[
        str | None,
        typer.Option(metavar="N,...", help="Images per call; default: 1,256 (the paper's ConvNet: 1)."),
    ] = None,
    seconds: Annotated[
        float,
        typer.Option(
            min=0.0,
            metavar="S",
            help="About how long to measure for each table; longer where three rounds of every party take longer, as "
            "with --training.",
        ),
    ] = 3.0,
    training: Annotated[
        bool, typer.Option("--training", help="Time the training step of the paper's networks instead.")
    ] = False,
    compiled: Annotated[
        bool, typer.Option("--compiled", help="With --training: torch.compile as well (compiling takes minutes).")
    ] = False,
    json: Json = False,
) -> None:
    """Measure the speed on this machine, side by side with torch and onnxruntime where they are installed."""
    batches = parse_batches(batch) if batch is not None else None
    if training:
        if model is not None:
            raise UsageError(f"--training times the paper's networks, not a packed one; leave out {model}")
        _bench_training(batches, threads, seconds, compiled, json)
        return
    if compiled:
        raise UsageError("--compiled belongs to --training")
    if model is not None:
        from binarynet.cli._networks import require_file

        require_file(model)
    from binarynet.analysis import fair_clock
    from binarynet.cli import _benching
    from binarynet.cli.info import collect

    machine = collect() | {"load": load()}
    warn_if_busy(machine, threads)
    networks = _benching.paper_networks() if model is None else [_benching.network_of_file(model)]
    results: list[NetworkResult] = []
    console, notes = stdout(), stderr()
    for position, network in enumerate(networks):
        with _benching.shown(notes, notes.is_terminal) as progress:
            result = _benching.measure(network, batches or network.batches, threads, seconds, progress)
        results.append(result)
        if not json:
            if position == 0:
                _print_machine(console, machine, result, threads)
            _print_network(console, result)
    if json:
        print_json(to_dict(machine, results, threads, seconds))
    else:
        console.print()
        console.print(Text(_NOTES.format(clock=fair_clock(threads)[1]), style="dim"), width=min(console.width, 100))


def _bench_training(batches: tuple[int, ...] | None, threads: int, seconds: float, compiled: bool, json: bool) -> None:
    from binarynet.cli.train import wait_politely

    wait_politely()
    from binarynet.analysis import fair_clock
    from binarynet.cli import _training_bench
    from binarynet.cli._benching import shown
    from binarynet.cli.info import collect

    machine = collect() | {"load": load()}
    warn_if_busy(machine, threads)
    console, notes = stdout(), stderr()
    results: list[TrainingResult] = []
    if not json:
        _print_processor(console, machine, threads)
        console.print(Text(f"binarynet {machine['version']}, torch {machine['libraries']['torch']}"), soft_wrap=True)
    for network in _training_bench.paper_networks():
        with shown(notes, notes.is_terminal) as progress:
            result = _training_bench.measure(network, batches or network.batches, threads, seconds, compiled, progress)
        results.append(result)
        if not json:
            console.print()
            console.print(Text(f"{network.name}, {result.weights:,} binary weights", style="bold"), soft_wrap=True)
            for batch in result.batches:
                console.print()
                _print_batch(console, batch)
    if json:
        print_json(training_to_dict(machine, results, threads, seconds))
    else:
        console.print()
        console.print(
            Text(_TRAINING_NOTES.format(clock=fair_clock(threads)[1]), style="dim"), width=min(console.width, 100)
        )


def parse_batches(text: str) -> tuple[int, ...]:
    """``"1,256"`` to (1, 256).

    Raises:
        UsageError: something else than numbers from 1 to MAX_BATCH, or none.
    """
    try:
        batches = tuple(int(part) for part in text.split(","))
    except ValueError:
        batches = ()
    if not batches or any(not 1 <= batch <= MAX_BATCH for batch in batches):
        raise UsageError(
            f"--batch must be numbers from 1 to {MAX_BATCH} with commas between, as in 1,256; got {text!r}"
        )
    return tuple(dict.fromkeys(batches))


def load() -> float | None:
    """Programs that wanted a processor during the last minute, on average; None where the system does not tell."""
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None


def warn_if_busy(machine: dict[str, Any], threads: int) -> None:
    """Threads that wait for one another lose out of all proportion where other programs take the processors."""
    busy = machine["load"]
    if threads > 1 and busy is not None and busy + threads > machine["cores"] + 0.5:
        say(
            stderr(),
            "note",
            "yellow",
            f"this machine is busy (load {busy} on {machine['cores']} cores): with {threads} threads neither times nor "
            "ratios can be trusted; wait until it is idle, or use --threads 1, which is timed by the processor",
        )


def to_dict(machine: dict[str, Any], results: list[NetworkResult], threads: int, seconds: float) -> dict[str, Any]:
    """Everything that was measured, as plain JSON values; times in milliseconds."""
    return {
        **_conditions(machine, threads, seconds),
        "absent": [asdict(absence) for absence in results[0].absent],
        "networks": [
            {
                "name": result.network.name,
                "weights": result.network.num_weights,
                "packed_bytes": result.network.packed_bytes,
                "float32_bytes": result.network.float32_bytes,
                "equal_to_reference": list(result.checked),
                "batches": [_batch_dict(batch) for batch in result.batches],
            }
            for result in results
        ],
    }


def training_to_dict(
    machine: dict[str, Any], results: list[TrainingResult], threads: int, seconds: float
) -> dict[str, Any]:
    """Everything that `--training` measured, as plain JSON values; times in milliseconds."""
    return {
        **_conditions(machine, threads, seconds),
        "networks": [
            {
                "name": result.network.name,
                "weights": result.weights,
                "batches": [_batch_dict(batch) for batch in result.batches],
            }
            for result in results
        ],
    }


def _conditions(machine: dict[str, Any], threads: int, seconds: float) -> dict[str, Any]:
    from binarynet.analysis import fair_clock

    keys = ("version", "processor", "cores", "load", "system", "python", "libraries", "engines")
    return {
        "machine": {key: machine[key] for key in keys if key in machine},
        "threads": threads,
        "clock": fair_clock(threads)[1],
        "seconds": seconds,
    }


def _batch_dict(result: BatchResult) -> dict[str, Any]:
    return {
        "batch": result.batch,
        "cold_caches": result.cold,
        "baseline": result.baseline,
        "rows": [
            {
                "name": row.name,
                "ms": {key: value / 1e6 for key, value in asdict(row.timing.time_ns).items()},
                "images_per_second": result.batch * 1e9 / row.timing.time_ns.median,
                "speedup": asdict(row.speedup) if row.speedup is not None else None,
                "calls": row.timing.num_calls,
                "rounds_ms": [value / 1e6 for value in row.timing.rounds_ns],
            }
            for row in result.rows
        ],
    }


def _print_processor(console: Console, machine: dict[str, Any], threads: int) -> None:
    plural = "" if threads == 1 else "s"
    console.print(
        Text(f"{machine['processor']}, {machine['cores']} cores; {threads} thread{plural} for everyone"), soft_wrap=True
    )


def _print_machine(console: Console, machine: dict[str, Any], result: NetworkResult, threads: int) -> None:
    _print_processor(console, machine, threads)
    libraries = (f"binarynet {machine['version']}", *result.libraries, machine["python"])
    console.print(Text(", ".join(libraries)), soft_wrap=True)
    absences = [(absence.name, absence.why) for absence in result.absent]
    absences += [(f"engine {engine['name']}", engine["why_not"]) for engine in machine["engines"] if engine["why_not"]]
    for name, why in absences:
        console.print(Text(f"absent: {name}, {why}", style="yellow"), soft_wrap=True)


def _print_network(console: Console, result: NetworkResult) -> None:
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
        console.print(
            f"  checked: {_and(result.checked)} equal the NumPy reference bit for bit",
            soft_wrap=True,
        )
    for batch in result.batches:
        console.print()
        _print_batch(console, batch)


def _print_batch(console: Console, result: BatchResult) -> None:
    table = plain_table(
        f"batch {result.batch}{', cold caches' if result.cold else ''}",
        "time, ms",
        "range",
        "images/s",
        "faster",
        right=("time, ms", "range", "images/s", "faster"),
    )
    for row in result.rows:
        time = row.timing.time_ns
        table.add_row(
            Text(row.name, style="bold" if row is result.best else ""),
            milliseconds(time.median),
            f"{milliseconds(time.low)} - {milliseconds(time.high)}",
            f"{result.batch * 1e9 / time.median:,.0f}",
            _faster(row.speedup, row.name == result.baseline),
        )
    console.print(table)
    best = result.best
    if best.speedup is not None:
        console.print(
            f"[bold green]{best.speedup.median:.1f}x[/] as fast as {result.baseline} "
            f"({best.speedup.low:.1f} to {best.speedup.high:.1f} over {result.num_rounds} rounds)",
            soft_wrap=True,
        )


def _and(names: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))


def _faster(speedup: Spread | None, is_baseline: bool) -> str:
    if speedup is None:
        return ""
    return "1" if is_baseline else f"{speedup.median:.2f}" if speedup.median < 10 else f"{speedup.median:.1f}"


def milliseconds(nanoseconds: float) -> str:
    """With about three significant digits: 0.0123, 0.123, 1.23, 12.3, 123."""
    value = nanoseconds / 1e6
    for limit, digits in ((0.1, 4), (1, 3), (10, 2), (100, 1)):
        if value < limit:
            return f"{value:.{digits}f}"
    return f"{value:,.0f}"
