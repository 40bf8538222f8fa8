"""Everything that is held against the paper, as values and as one JSON document.

The document (``Reproduction.to_dict``, the command's ``--json`` and ``report.json``) has these keys. Errors are shares
from 0 to 1 in what was measured here, and percent where a key ends in ``_percent``, as the paper prints them.

========================  =============================================================================================
``format``, ``version``   "binarynet-reproduction", 1
``sources``               letter to source, for ``printed_in``
``table_1``               the paper's rows: ``block``, ``method``, ``setting`` ("torch7", "theano" or null),
                          ``printed_in``, ``errors_percent``: data set to ``[error, spread or null]``
``results``               own results, one per recipe: ``name``, ``data``, ``setting`` (null: no cell of the table),
                          ``why_not``, ``by_the_paper`` (only then may it stand for the paper's cell), ``in_short``,
                          ``differences`` (``key``, ``paper``, ``here``, ``assumed``), ``missing_images``, ``remarks``,
                          ``paper_test_error_percent``, ``test_error`` (``mean``, ``deviation``, ``n`` seeds), and
                          ``runs``: ``path``, ``seed``, ``epochs``, ``best_epoch``, ``validation_error``,
                          ``test_error``, ``test_errors``, ``test_images``, ``interval_95``, ``train_seconds``,
                          ``cpu_seconds``, ``machine``, ``versions``, ``sizes``, ``notes``, ``recipe``
``missing``               cells without a run by the paper's recipe: ``data``, ``setting``, ``command``
``figure_1``              ``curves``: ``label``, ``data``, ``epochs``, ``validation_error``, ``training_cost``,
                          ``best_epoch``, ``test_error``; ``paper``: points read from its picture (CIFAR-10)
``networks``              ``label``, ``source``, ``left_out`` (why there is nothing more, else ""), and per image:
                          ``memory``, ``energy``, ``xnor_popcount``, ``filter_repetition``, ``first_layer``
``remarks``               what was left out, and why
``pictures``              names of the files beside it
========================  =============================================================================================
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

from binarynet.analysis import paper
from binarynet.analysis.account import Account
from binarynet.analysis.energy import ASSUMPTIONS, Energy
from binarynet.analysis.filters import FirstLayer, distinct, first_layer
from binarynet.analysis.instructions import Instructions, instructions, total
from binarynet.analysis.table import Result

FORMAT = "binarynet-reproduction"
VERSION = 1


@dataclass(frozen=True)
class Curve:
    """A run's history, epoch by epoch.

    Attributes:
        label: names the run.
        data: its data set.
        epochs: their numbers.
        validation_error: 0 to 1, one per epoch.
        training_cost: mean squared hinge, one per epoch.
        best_epoch: the selected one.
        test_error: of the selected weights, 0 to 1.
    """

    label: str
    data: str
    epochs: tuple[int, ...]
    validation_error: tuple[float, ...]
    training_cost: tuple[float, ...]
    best_epoch: int
    test_error: float


@dataclass(frozen=True, eq=False)
class Subject:
    """A network whose numbers are told.

    Attributes:
        label: names it in report and pictures.
        source: the run or file that it is.
        account: of its packed file; None where it has none.
        left_out: why it has none, else "".
    """

    label: str
    source: str
    account: Account | None
    left_out: str = ""

    @cached_property
    def instructions(self) -> tuple[Instructions, ...]:
        return () if self.account is None else instructions(self.account.network.graph)

    @cached_property
    def first_layer(self) -> FirstLayer | None:
        return None if self.account is None else first_layer(self.account.network.graph)


@dataclass(frozen=True)
class Reproduction:
    """What there is to hold against the paper."""

    results: tuple[Result, ...]
    curves: tuple[Curve, ...]
    subjects: tuple[Subject, ...]
    remarks: tuple[str, ...] = ()

    @property
    def missing(self) -> tuple[paper.Experiment, ...]:
        """Cells that no run by the paper's recipe fills."""
        filled = {result.experiment for result in self.results if result.by_the_paper}
        return tuple(experiment for experiment in paper.EXPERIMENTS if experiment not in filled)

    def to_dict(self, pictures: Sequence[str] = ()) -> dict[str, Any]:
        """The document, as plain JSON values."""
        return {
            "format": FORMAT,
            "version": VERSION,
            "sources": dict(paper.SOURCES),
            "table_1": [_row(row) for row in paper.TABLE_1],
            "results": [_result(result) for result in self.results],
            "missing": [
                {"data": cell.data, "setting": cell.setting, "command": fill_command(cell)} for cell in self.missing
            ],
            "figure_1": {
                "curves": [asdict(curve) for curve in self.curves],
                "paper": {
                    "data": "cifar10",
                    "accuracy_percent": paper.READ_OFF_ACCURACY,
                    "points": {name: [asdict(point) for point in points] for name, points in paper.FIGURE_1.items()},
                },
            },
            "networks": [_subject(subject) for subject in self.subjects],
            "remarks": list(self.remarks),
            "pictures": list(pictures),
        }


def fill_command(experiment: paper.Experiment) -> str:
    """The command that fills a cell."""
    return f"binarynet reproduce {experiment.recipe}"


def _row(row: paper.PublishedRow) -> dict[str, Any]:
    return {
        "block": row.block,
        "method": row.method,
        "setting": row.setting,
        "printed_in": list(row.printed_in),
        "errors_percent": {data: list(error) for data, error in row.errors.items()},
    }


def _result(result: Result) -> dict[str, Any]:
    experiment = result.experiment
    return {
        "name": result.name,
        "data": result.runs[0].data,
        "setting": experiment.setting if experiment else None,
        "why_not": result.why_not,
        "by_the_paper": result.by_the_paper,
        "in_short": result.in_short,
        "differences": [asdict(difference) for difference in result.differences],
        "missing_images": list(result.missing_images()),
        "remarks": list(experiment.remarks) if experiment else [],
        "paper_test_error_percent": experiment.test_error if experiment else None,
        "test_error": {"mean": result.mean, "deviation": result.deviation, "n": len(result.runs)},
        "runs": [
            {
                "path": run.path,
                "seed": run.seed,
                "epochs": run.epochs,
                "best_epoch": run.best_epoch,
                "validation_error": run.validation_error,
                "test_error": run.test_error,
                "test_errors": run.test_errors,
                "test_images": run.test_images,
                "interval_95": list(run.interval()),
                "train_seconds": run.train_seconds,
                "cpu_seconds": run.cpu_seconds,
                "machine": asdict(run.machine) if run.machine else None,
                "versions": dict(run.versions),
                "sizes": dict(run.sizes),
                "notes": list(run.notes),
                "recipe": run.recipe,
            }
            for run in result.runs
        ],
    }


def _subject(subject: Subject) -> dict[str, Any]:
    facts: dict[str, Any] = {"label": subject.label, "source": subject.source, "left_out": subject.left_out}
    found = subject.account
    if found is None:
        return facts
    stored = sum(item.stored_bytes.get("weights", 0) for item in found.layers)
    return facts | {
        "memory": {
            "weights": found.num_weights,
            "float32_weight_bytes": 4 * found.num_weights,
            "packed_weight_bytes": stored,
            "float32_bytes": found.float32_bytes,
            "file_bytes": found.file_bytes,
            "paper_ratio": paper.MEMORY_RATIO,
        },
        "energy": {
            "assumptions": list(ASSUMPTIONS),
            "packed": _energy(found.energy.packed),
            "float32": _energy(found.energy.float32),
        },
        "xnor_popcount": {
            "paper_cycles_per_word": dict(paper.CYCLES),
            "eight_bit_macs": found.macs("8-bit"),
            "layers": [_instructions(count) for count in subject.instructions],
            "total": _instructions(total(subject.instructions)),
        },
        "filter_repetition": {
            "paper_per_layer": paper.UNIQUE_FILTERS,
            "layers": [asdict(item) for item in found.repetition],
        },
        "first_layer": _first_layer(subject.first_layer),
    }


def _energy(energy: Energy) -> dict[str, Any]:
    items = {
        part: [
            {"name": item.name, "count": item.count, "each_pj": list(item.each_pj), "total_pj": list(item.total_pj)}
            for item in getattr(energy, part)
        ]
        for part in ("arithmetic", "memory")
    }
    return {**items, "total_pj": list(energy.total_pj)}


def _instructions(count: Instructions) -> dict[str, Any]:
    return {
        **asdict(count),
        "instructions": count.instructions,
        "cycles": count.cycles,
        "speedup": count.speedup if count.cycles else None,
    }


def _first_layer(layer: FirstLayer | None) -> dict[str, Any] | None:
    if layer is None:
        return None
    filters, channels, rows, columns = layer.bits.shape
    facts: dict[str, Any] = {
        "name": layer.name,
        "kind": layer.kind,
        "filters": filters,
        "channels": channels,
        "size": [rows, columns],
    }
    if layer.kind == "convolution":
        patterns, counts = distinct(layer.bits)
        facts["distinct"] = [
            {"rows": ["".join("+-"[not bit] for bit in row) for row in pattern], "count": int(count)}
            for pattern, count in zip(patterns, counts, strict=True)
        ]
    return facts
