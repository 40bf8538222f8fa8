"""Where a run stands, and its history: what a checkpoint holds beside weights and moments."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

from binarynet.errors import FileFormatError


@dataclass(frozen=True)
class EpochRow:
    """One finished epoch.

    Attributes:
        epoch: its number, from 1.
        steps: optimizer steps since the start of the run.
        learning_rate: of this epoch, before Glorot scaling.
        training_cost: mean squared hinge loss over the epoch's batches, in training mode.
        validation_cost: the same over the validation split, in evaluation mode, at the epoch's end.
        validation_error: share of errors on the validation split, 0 to 1.
        seconds: wall time of the epoch with its validation.
    """

    epoch: int
    steps: int
    learning_rate: float
    training_cost: float
    validation_cost: float
    validation_error: float
    seconds: float


@dataclass
class Progress:
    """Where a run stands.

    Attributes:
        epoch, step: the next thing to do is this step of this epoch, both from 0.
        cost_sum: sum of the costs of the current epoch's steps so far, over all processes.
        train_seconds, cpu_seconds: wall and processor time of training with validation, over all resumptions; the
            latter of all processes.
        epoch_seconds: wall time of the current epoch so far.
        best_epoch, best_error: the epoch (from 1; 0 is none yet) of the lowest validation error, the latest of equals.
        history: one row per finished epoch.
    """

    epoch: int = 0
    step: int = 0
    cost_sum: float = 0.0
    train_seconds: float = 0.0
    cpu_seconds: float = 0.0
    epoch_seconds: float = 0.0
    best_epoch: int = 0
    best_error: float = math.inf
    history: list[EpochRow] = field(default_factory=list)

    def finish_epoch(self, row: EpochRow) -> bool:
        """Take in a finished epoch; True if it is the best so far (a tie goes to the later one, as in the original)."""
        self.history.append(row)
        self.epoch, self.step, self.cost_sum, self.epoch_seconds = row.epoch, 0, 0.0, 0.0
        if row.validation_error > self.best_error:
            return False
        self.best_epoch, self.best_error = row.epoch, row.validation_error
        return True

    def copy(self) -> Progress:
        """One that changes by itself."""
        return replace(self, history=list(self.history))

    def become(self, other: Progress) -> None:
        """Take over everything of another one."""
        for f in fields(self):
            setattr(self, f.name, getattr(other, f.name))

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, lists and dicts."""
        return asdict(self)

    @classmethod
    def from_dict(cls, content: Any, origin: str) -> Progress:
        """Inverse of :meth:`to_dict`; FileFormatError, opening with ``origin``, where it is not one."""
        try:
            values = dict(content)
            values["history"] = [EpochRow(**_numbers(EpochRow, row)) for row in values["history"]]
            _numbers(cls, {key: value for key, value in values.items() if key != "history"}, skip="history")
            progress = cls(**values)
        except (TypeError, ValueError, KeyError) as error:
            raise FileFormatError(f"{origin}: its record of progress is not usable: {error}") from None
        if progress.epoch != len(progress.history) or progress.step < 0 or not progress._selection_fits():
            raise FileFormatError(f"{origin}: its record of progress contradicts itself")
        return progress

    def _selection_fits(self) -> bool:
        """Whether going through the history again selects the same epoch."""
        again = Progress()
        for number, row in enumerate(self.history, start=1):
            if row.epoch != number:
                return False
            again.finish_epoch(row)
        return (again.best_epoch, again.best_error) == (self.best_epoch, self.best_error)


def _numbers(kind: type, row: Any, skip: str = "") -> dict[str, Any]:
    """Numbers by the names and types of a class's fields; a share of errors is one."""
    expected = {f.name: (int,) if f.type == "int" else (int, float) for f in fields(kind) if f.name != skip}
    if set(row) != set(expected):
        raise ValueError(f"expected numbers named {', '.join(sorted(expected))}")
    for name, value in row.items():
        if type(value) not in expected[name] or math.isnan(value):
            raise ValueError(
                f"{name} is {value!r}, expected {'an integer' if expected[name] == (int,) else 'a number'}"
            )
        if name == "validation_error" and not 0 <= value <= 1:
            raise ValueError(f"{name} is {value!r}, expected a share from 0 to 1")
    return dict(row)


def from_csv(text: str, origin: str) -> Progress:
    """Where a run stands after the last epoch of a table that :func:`to_csv` made.

    Raises:
        FileFormatError: opening with ``origin``: it is no such table.
    """
    kinds = {f.name: int if f.type == "int" else float for f in fields(EpochRow)}
    progress = Progress()
    try:
        for number, row in enumerate(csv.DictReader(io.StringIO(text)), start=1):
            values = _numbers(EpochRow, {name: kinds[name](value) for name, value in row.items()})
            if values["epoch"] != number:
                raise ValueError(f"row {number} is of epoch {values['epoch']}")
            progress.finish_epoch(EpochRow(**values))
            progress.train_seconds += values["seconds"]
    except (KeyError, TypeError, ValueError) as error:
        raise FileFormatError(f"{origin}: not a table of epochs: {error}") from None
    return progress


def to_csv(history: Iterable[EpochRow]) -> str:
    """The history as a table with a heading."""
    text = io.StringIO()
    writer = csv.DictWriter(text, [f.name for f in fields(EpochRow)], lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(row) for row in history)
    return text.getvalue()
