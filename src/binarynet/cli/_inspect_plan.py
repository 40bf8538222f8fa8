"""What `binarynet inspect --plan` shows: how a session runs a network on this machine, step by step."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.text import Text

from binarynet.cli._console import print_facts, print_json, stdout
from binarynet.cli._tables import heading, number_table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from binarynet.runtime import MethodRange, Plan, Session, StepTime

_LARGEST_BATCH = 1024
"""Methods are asked for up to this batch."""
_SECONDS = 0.5
"""About as long is a network run for its times."""
_RUNS = (5, 1000)
"""At least, at most ..."""
_MOST_SECONDS = 5.0
"""... but fewer where they would take longer than this; one run is made however long it takes."""


def inspect_plan(
    path: Path, *, batch: int, threads: int | None, engine: str | None, device: str | None, time: bool, json: bool
) -> None:
    """Print the plan of a .bnn file for a batch, with the time of each step if asked for, as text or JSON."""
    from binarynet.fileformat import read
    from binarynet.runtime import Session, method_ranges

    network = read(path)
    session = Session(network.graph, engine=engine, num_threads=threads, device=device)
    plan = session.plan(batch)
    ranges = method_ranges(session.plan, _LARGEST_BATCH)
    times = _times(session, batch) if time else ()
    if json:
        print_json({"model": str(path), "plan": plan.to_dict(), "methods": _methods(ranges), "times": _to_dict(times)})
        return
    console = stdout()
    _print_whole(console, path, plan)
    _print_steps(console, plan, times)
    _print_choices(console, plan, ranges)


def _times(session: Session, batch: int) -> tuple[StepTime, ...]:
    """Of runs on noise, after as many as it takes to know how many."""
    import numpy as np

    images = np.random.default_rng(0).integers(0, 256, (batch, *session.graph.input.shape), dtype=np.uint8)
    warm = session.profile(images, repeats=1)
    if _seconds(warm) * _RUNS[0] < _SECONDS:  # the first run is slow: caches, pages
        warm = session.profile(images, _RUNS[0])
    seconds = max(_seconds(warm), 1e-9)
    repeats = min(round(min(max(_SECONDS / seconds, _RUNS[0]), _RUNS[1])), int(_MOST_SECONDS / seconds))
    return session.profile(images, repeats) if repeats > 1 else warm


def _seconds(times: Sequence[StepTime]) -> float:
    """Of one run."""
    return sum(step.median for step in times) / 1e9


def _methods(ranges: Sequence[MethodRange]) -> list[dict[str, Any]]:
    return [{"step": item.step, "first_batch": item.first_batch, "method": item.method} for item in ranges]


def _to_dict(times: Sequence[StepTime]) -> list[dict[str, Any]] | None:
    if not times:
        return None
    return [
        {
            "step": time.step.name,
            "median_nanoseconds": time.median,
            "least_nanoseconds": min(time.nanoseconds),
            "runs": len(time.nanoseconds),
        }
        for time in times
    ]


def _print_whole(console: Console, path: Path, plan: Plan) -> None:
    from binarynet.analysis.units import in_bytes

    chunks = "one chunk" if plan.num_chunks == 1 else f"{plan.num_chunks} chunks of at most {plan.chunk}"
    print_facts(
        console,
        {
            "file": str(path),
            "engine": f"{plan.engine}: {plan.why_engine}",
            **({"threads": str(plan.num_threads)} if plan.device == "cpu" else {"device": plan.device}),
            "batch": f"{_images(plan.batch)}, computed in {chunks}",
            "weights": f"{in_bytes(plan.weight_bytes)} as the kernels read them",
            "memory": _memory(plan),
        },
    )


def _memory(plan: Plan) -> str:
    from binarynet.analysis.units import in_bytes

    between, kept = f"{in_bytes(plan.arena_bytes)} between the steps", f"{in_bytes(plan.workspace_bytes)}"
    if plan.device != "cpu":
        return f"{between} (up to {kept} for each run at a time, enough for any batch)"
    scratch = in_bytes(plan.scratch_bytes)
    return f"{between}, {scratch} for the kernels ({kept} are kept for each run at a time, enough for any batch)"


def _print_steps(console: Console, plan: Plan, times: Sequence[StepTime]) -> None:
    """One row per step; with times, their medians and shares."""
    heading(console, "Steps")
    on_gpu = plan.device != "cpu"
    numbers = (
        ("grid", "threads", "shared", "weights") if on_gpu else ("units", "tasks", "threads", "weights", "scratch")
    )
    right = (*numbers, *(("us", "least", "share") if times else ()))
    table = number_table("step", "method", *right, right=right)
    medians = [time.median for time in times]
    for i, step in enumerate(plan.steps):
        shown: tuple[int | str, ...] = (step.units, step.tasks, step.threads, step.weight_bytes, step.scratch_bytes)
        if on_gpu:
            shown = (step.grid, step.threads, step.shared_bytes, step.weight_bytes)
        counts = (number if isinstance(number, str) else f"{number:,}" for number in shown)
        timed: tuple[str, ...] = ()
        if times:
            least = min(times[i].nanoseconds)
            timed = (f"{medians[i] / 1e3:,.1f}", f"{least / 1e3:,.1f}", f"{100 * medians[i] / sum(medians):.1f} %")
        table.add_row(Text(", ".join(step.values)), step.method, *counts, *timed)
    if times:
        total = (f"{sum(medians) / 1e3:,.1f}", f"{sum(min(time.nanoseconds) for time in times) / 1e3:,.1f}", "")
        columns = dict.fromkeys(("step", "method", *numbers), "") | {
            "step": "sum",
            "weights": f"{plan.weight_bytes:,}",
        }
        table.add_row(*columns.values(), *total, style="bold")
    console.print(table)
    console.print(
        "step: the values that it computes, fused into one kernel; grid: blocks of threads; threads: of a block; "
        "shared: bytes of dynamic shared memory of a block; weights: bytes"
        if on_gpu
        else "step: the values that it computes, fused into one; units: into which its work divides, tasks: ranges of "
        "units that threads take one by one; weights, scratch: bytes",
        style="dim",
    )
    if times:
        console.print(
            f"us: microseconds, median of {_runs(len(times[0].nanoseconds))} over {_images(plan.batch)} of noise, one "
            "after the other; least: of the quickest",
            style="dim",
        )


def _print_choices(console: Console, plan: Plan, ranges: Sequence[MethodRange]) -> None:
    """What decided where there was a choice: threads of each step, methods by batch."""
    heading(console, "Why")
    table = number_table("", "", header=False)
    reasons: dict[str, list[str]] = {}
    for step in plan.steps if plan.device == "cpu" else ():
        threads = f"{step.threads} thread" + ("s" if step.threads > 1 else "")
        reasons.setdefault(f"{threads}: {step.why_threads}", []).append(step.name)
    for reason, names in reasons.items():
        table.add_row(Text(", ".join(names)), reason)
    by_step: dict[str, list[MethodRange]] = {}
    for item in ranges:
        by_step.setdefault(item.step, []).append(item)
    methods: dict[str, list[str]] = {}
    for name, found in by_step.items():
        if len(found) > 1:
            text = "; ".join(f"from {_images(item.first_batch)} on: {item.method}" for item in found)
            methods.setdefault(text, []).append(name)
    for text, names in methods.items():
        table.add_row(Text(", ".join(names)), text)
    console.print(table)
    if not methods:
        console.print("no step's method depends on the number of images", style="dim")


def _runs(number: int) -> str:
    return f"{number:,} run" + ("s" if number > 1 else "")


def _images(number: int) -> str:
    return f"{number:,} image" + ("s" if number > 1 else "")
