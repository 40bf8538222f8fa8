"""What comes out of a run."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from binarynet.training.progress import EpochRow, Progress
from binarynet.training.run_directory import RunDirectory


@dataclass(frozen=True)
class RunResult:
    """What came out of a run.

    Attributes:
        directory: where it lies.
        best_epoch: the selected epoch, from 1.
        validation_error, test_error: of the selected weights, 0 to 1.
        test_errors, test_images: the same as counts.
        train_seconds, cpu_seconds: wall and processor time of training with validation.
        history: one row per epoch.
        process: which of the run's processes this is; all have the same result, the first (0) wrote the files.
    """

    directory: Path
    best_epoch: int
    validation_error: float
    test_error: float
    test_errors: int
    test_images: int
    train_seconds: float
    cpu_seconds: float
    history: tuple[EpochRow, ...]
    process: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Numbers, strings, and lists and dicts of them."""
        return {**asdict(self), "directory": str(self.directory), "history": [asdict(row) for row in self.history]}

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> RunResult:
        """Inverse of :meth:`to_dict`."""
        history = tuple(EpochRow(**row) for row in content["history"])
        return cls(**{**content, "directory": Path(content["directory"]), "history": history})


def result_of(run: RunDirectory, record: dict[str, Any], progress: Progress) -> RunResult:
    """The result of a finished run, by its record and its last checkpoint."""
    return RunResult(
        directory=run.path,
        best_epoch=progress.best_epoch,
        validation_error=progress.best_error,
        test_error=record["test_error"],
        test_errors=record["test_errors"],
        test_images=record["test_images"],
        train_seconds=progress.train_seconds,
        cpu_seconds=progress.cpu_seconds,
        history=tuple(progress.history),
    )
