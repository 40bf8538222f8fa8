"""The report of `binarynet reproduce` as text of at most 100 columns."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.text import Text

from binarynet.cli._console import percent, printable
from binarynet.cli._reproduction_networks import print_networks
from binarynet.cli._tables import heading, number_table

if TYPE_CHECKING:
    from rich.console import Console

    from binarynet.analysis.reproduction import Curve, Reproduction
    from binarynet.analysis.table import Machine, Result, TrainedRun

COLUMNS = 100
_RUNS_BESIDE_EACH_OTHER = 4
NOTHING = "-"


def as_text(found: Reproduction) -> str:
    """The whole report as plain text."""
    from rich.console import Console

    text = io.StringIO()
    print_report(Console(file=text, width=COLUMNS, highlight=False, color_system=None), found)
    return "\n".join(line.rstrip() for line in text.getvalue().splitlines()) + "\n"


def print_report(console: Console, found: Reproduction) -> None:
    """Table 1, the runs behind it, their curves, and what each network costs."""
    _print_table(console, found.results)
    for number, result in enumerate(found.results, start=1):
        _print_result(console, number, result)
    _print_missing(console, found)
    for data in dict.fromkeys(curve.data for curve in found.curves):
        chosen = [curve for curve in found.curves if curve.data == data]
        for first in range(0, len(chosen), _RUNS_BESIDE_EACH_OTHER):
            _print_curves(console, data, chosen[first : first + _RUNS_BESIDE_EACH_OTHER])
    print_networks(console, found.subjects)
    for remark in found.remarks:
        console.print()
        console.print(Text(f"note: {printable(remark)}", style="yellow"))


def _print_table(console: Console, results: Sequence[Result]) -> None:
    from binarynet.analysis import paper

    console.print(Text("Table 1: test error in %, the paper's and own", style="bold"))
    table = number_table("", *paper.DATA_NAMES.values(), "", right=tuple(paper.DATA_NAMES.values()))
    block = ""
    for row in paper.TABLE_1:
        if row.block != block:
            block = row.block
            table.add_row(Text(block, style="italic"))
        cells = [_published(row.errors.get(data)) for data in paper.DATA_NAMES]
        table.add_row(Text(f"  {row.method}"), *cells, " ".join(row.printed_in))
        if row.setting is not None:
            _add_own_rows(table, row.setting, results)
    console.print(table)
    sources = "; ".join(f"{letter}: {source}" for letter, source in paper.SOURCES.items())
    console.print(
        f"Printed in {sources}. The paper's own rows are single runs. {NOTHING}: none. Only a run by the paper's own "
        "recipe stands for its cell; one with fewer epochs, fewer weights or other constants has a row of its own. "
        "Where the paper is silent, its recipe is the authors' program.",
        style="dim",
    )


def _add_own_rows(table: object, setting: str, results: Sequence[Result]) -> None:
    """One row for runs by the paper's recipe, one for each other recipe; numbers in brackets name the result below."""
    from rich.table import Table

    from binarynet.analysis import paper

    assert isinstance(table, Table)
    own = dict.fromkeys(paper.DATA_NAMES, NOTHING)
    behind = []
    rows: list[list[str]] = []
    for number, result in enumerate(results, start=1):
        if result.experiment is None or result.experiment.setting != setting:
            continue
        if result.by_the_paper:
            own[result.experiment.data] = _own(result)
            behind.append(f"[{number}]")
        else:
            cells = [_own(result) if data == result.experiment.data else "" for data in paper.DATA_NAMES]
            why = "not the paper's" if result.finished else "not finished"
            rows.append([f"    own, {printable(result.name)}", *cells, f"[{number}] {why}"])
    table.add_row(Text("    own, by the paper's recipe"), *own.values(), Text(" ".join(behind)), style="bold")
    for row in rows:
        table.add_row(*map(Text, row), style="bold")


def _published(error: tuple[float, float | None] | None) -> str:
    if error is None:
        return NOTHING
    value, spread = error
    return f"{value:.2f}" if spread is None else f"{value:.2f} \N{PLUS-MINUS SIGN} {spread:.2f}"


def _own(result: Result) -> str:
    return _published((100 * result.mean, None if result.deviation is None else 100 * result.deviation))


def _print_result(console: Console, number: int, result: Result) -> None:
    from binarynet.analysis import paper

    experiment, runs = result.experiment, result.runs
    data = paper.DATA_NAMES.get(runs[0].data, runs[0].data)
    heading(console, f"[{number}] {printable(result.name)}: {printable(data)}")
    table = number_table("", "", header=False)
    if experiment is None:
        table.add_row("cell", f"none of Table 1: {result.why_not}")
    elif result.by_the_paper:
        table.add_row("cell", f"{paper.SETTING_NAMES[experiment.setting]}, by the paper's recipe")
    else:
        setting = paper.SETTING_NAMES[experiment.setting]
        table.add_row("cell", f"not the paper's: its setting, {setting}, but {result.in_short}")
        table.add_row("differs in", Text("\n".join(printable(str(difference)) for difference in result.differences)))
    beside = "" if experiment is None else f"; the paper: {experiment.test_error:.2f} %"
    if result.deviation is not None:
        spread = f"{percent(result.mean)} \N{PLUS-MINUS SIGN} {100 * result.deviation:.2f}"
        table.add_row(
            "test error", f"{spread}, mean and standard deviation over {len(runs)} seeds{beside}", style="bold"
        )
    for run in runs:
        several = len(runs) > 1
        name = f"seed {run.seed}" if several else "test error"
        table.add_row(name, Text(_error(run) + ("" if several else beside)), style="" if several else "bold")
    table.add_row("epochs", "; ".join(dict.fromkeys(_epochs(run) for run in runs)))
    table.add_row("training", Text("; ".join(dict.fromkeys(_training(run) for run in runs))))
    if len(runs) == 1:
        table.add_row("seed", str(runs[0].seed))
    images = runs[0].sizes
    table.add_row(
        "images", f"{images['train']:,} training, {images['validation']:,} validation, {images['test']:,} test"
    )
    if missing := result.missing_images():
        table.add_row("", Text(f"not all that the paper had: {'; '.join(missing)}"))
    if notes := runs[0].notes:
        table.add_row("", f"the data set has {len(notes)} remark{'s' if len(notes) > 1 else ''}: see report.json")
    for remark in experiment.remarks if experiment is not None else ():
        table.add_row("remark", remark)
    table.add_row("run", Text(", ".join(printable(run.path) for run in runs)))
    console.print(table)


def _error(run: TrainedRun) -> str:
    low, high = run.interval()
    return (
        f"{percent(run.test_error)} ({run.test_errors:,} of {run.test_images:,} wrong; "
        f"95 % interval {100 * low:.2f} to {100 * high:.2f})"
    )


def _epochs(run: TrainedRun) -> str:
    so_far = "" if run.finished else f" of {run.recipe['training']['epochs']:,} so far"
    return f"{run.epochs:,}{so_far}, selected {run.best_epoch:,} (validation error {percent(run.validation_error)})"


def _training(run: TrainedRun) -> str:
    from binarynet.analysis.units import in_time

    times = f"{in_time(run.train_seconds)} ({in_time(run.cpu_seconds)} of processor time)"
    return f"{times}, {_machine(run.machine)}" if run.machine is not None else times


def _machine(machine: Machine) -> str:
    threads = f"{machine.threads} thread{'' if machine.threads == 1 else 's'}"
    cores = "" if machine.cores is None else f" with {machine.cores} core{'' if machine.cores == 1 else 's'}"
    where = "" if machine.device == "cpu" else f", {machine.device}"
    return printable(f"{threads}, {machine.processor}{cores}{where}")


def _print_missing(console: Console, found: Reproduction) -> None:
    from binarynet.analysis import paper
    from binarynet.analysis.reproduction import fill_command

    if not found.missing:
        return
    heading(console, "Cells without a run by the paper's recipe")
    table = number_table("", "", "", header=False)
    for cell in found.missing:
        name = f"{paper.DATA_NAMES[cell.data]}, {paper.SETTING_NAMES[cell.setting]}"
        table.add_row(name, fill_command(cell), f"{cell.epochs:,} epochs")
    console.print(table)
    console.print("with --data DIR where the data are; NAME-quick is the short form of a recipe", style="dim")


def _print_curves(console: Console, data: str, curves: Sequence[Curve]) -> None:
    """Figure 1 as numbers: at some epochs, each run's validation error and training cost."""
    from binarynet.analysis import paper

    heading(console, f"Figure 1: training on {printable(paper.DATA_NAMES.get(data, data))}")
    names = [f"{printable(curve.label)}" for curve in curves]
    beside = {"torch7": "paper T7", "theano": "paper Th", "baseline": "paper 32-bit"} if data == "cifar10" else {}
    table = number_table("epoch", *names, *beside.values(), right=("epoch", *names, *beside.values()))
    points = {name: {point.epoch: point.validation for point in paper.FIGURE_1[name]} for name in beside}
    last = max(curve.epochs[-1] for curve in curves)
    for epoch in _some_epochs(last, {epoch for of_one in points.values() for epoch in of_one}):
        own = [_at(curve, epoch) for curve in curves]
        table.add_row(str(epoch), *own, *(_read_off(points[name].get(epoch)) for name in beside))
    console.print(table)
    note = "validation error in %, and training cost (mean squared hinge)"
    if beside:
        note += f"; paper: validation error read from its Figure 1, within {paper.READ_OFF_ACCURACY}"
    console.print(note, style="dim")


def _some_epochs(last: int, of_the_paper: set[int]) -> list[int]:
    """1, 2, 5, 10, 20, 50, ... and the last; where the paper has points, all of those too."""
    chosen = {1, last} | of_the_paper
    step = 1
    while step < last:
        chosen |= {step * factor for factor in (1, 2, 5) if step * factor <= last}
        step *= 10
    return sorted(chosen)


def _at(curve: Curve, epoch: int) -> str:
    if epoch not in curve.epochs:
        return ""
    place = curve.epochs.index(epoch)
    return f"{100 * curve.validation_error[place]:.2f}  {curve.training_cost[place]:.4f}"


def _read_off(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}"
