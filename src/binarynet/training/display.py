"""What a person sees while training: a bar on a terminal, a line per epoch in a log, or nothing."""

from __future__ import annotations

import sys
from typing import Any, Literal

from lightning.pytorch import Callback, Trainer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from binarynet.training import progress

Display = Literal["auto", "bar", "lines", "off"]
"""``auto`` is a bar where standard error is a terminal, else nothing."""


def callback(display: Display, state: progress.Progress, epochs: int, num_steps: int) -> Callback | None:
    """The callback that shows a run's progress, on standard error."""
    if display == "auto":
        display = "bar" if sys.stderr.isatty() else "off"
    if display == "bar":
        return _Bar(state, epochs, num_steps)
    return _Lines(state, epochs) if display == "lines" else None


def _summary(state: progress.Progress) -> str:
    if not state.history:
        return ""
    row = state.history[-1]
    return (
        f"cost {row.training_cost:.4f}  validation error {100 * row.validation_error:.2f} %  "
        f"best {100 * state.best_error:.2f} % (epoch {state.best_epoch})"
    )


def _short(state: progress.Progress) -> str:
    """What fits beside a bar on 80 columns."""
    if not state.history:
        return ""
    error = 100 * state.history[-1].validation_error
    return f"error {error:.2f} %, best {100 * state.best_error:.2f} % ({state.best_epoch})"


class _Lines(Callback):
    def __init__(self, state: progress.Progress, epochs: int) -> None:
        self._state = state
        self._epochs = epochs

    def on_train_epoch_end(self, trainer: Trainer, pl_module: Any) -> None:
        seconds = self._state.history[-1].seconds
        line = f"epoch {self._state.epoch}/{self._epochs}  {_summary(self._state)}  {seconds:.1f} s"
        print(line, file=sys.stderr, flush=True)


class _Bar(Callback):
    def __init__(self, state: progress.Progress, epochs: int, num_steps: int) -> None:
        self._state = state
        self._num_steps = num_steps
        self._bar = Progress(
            MofNCompleteColumn(),
            TextColumn("epochs"),
            BarColumn(bar_width=12),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(compact=True),
            TextColumn("{task.fields[summary]}"),
            console=Console(stderr=True),
            refresh_per_second=4,
        )
        self._task = self._bar.add_task("", total=epochs, summary=_short(state))
        self._bar.update(self._task, completed=state.epoch + state.step / num_steps)

    def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
        self._bar.start()

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        self._bar.update(self._task, completed=trainer.current_epoch + (batch.step + 1) / self._num_steps)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: Any) -> None:
        self._bar.update(self._task, completed=self._state.epoch, summary=_short(self._state))

    def on_train_end(self, trainer: Trainer, pl_module: Any) -> None:
        self._bar.stop()

    def on_exception(self, trainer: Trainer, pl_module: Any, exception: BaseException) -> None:
        self._bar.stop()
