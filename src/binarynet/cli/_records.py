"""Recorded runs: small folders without checkpoints that are kept, and what they say.

RECORD/
  recipe.toml    as in the run's folder
  run.json       likewise; of a run that was not finished, brought up to its last finished epoch
  metrics.csv    one row per finished epoch: the curve
  summary.json   what was found out when it was recorded, and everything in short (``_recording.py`` writes it)
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from binarynet.errors import FileFormatError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from binarynet.analysis.table import TrainedRun
    from binarynet.training import Recipe, RunResult
    from binarynet.training.progress import Progress

SUMMARY = "summary.json"
FORMAT = "binarynet-recorded-run"
VERSION = 1


@dataclass(frozen=True)
class Record:
    """A recorded run.

    Attributes:
        path: its folder.
        recipe: what it was trained by.
        run: content of ``run.json``.
        progress: where it stood after its last epoch, by ``metrics.csv``.
        summary: content of ``summary.json``.
    """

    path: Path
    recipe: Recipe
    run: dict[str, Any]
    progress: Progress
    summary: dict[str, Any]

    def table_run(self) -> TrainedRun:
        """The run as the table of results takes it."""
        test = self.summary["test"]
        return table_run(self.path, self.recipe, self.run, test["errors"], test["images"])

    def result(self) -> RunResult:
        """Of an unfinished run: of its best epoch so far."""
        from binarynet.training.result import result_of

        test = self.summary["test"]
        facts = {"test_error": test["error"], "test_errors": test["errors"], "test_images": test["images"]}
        return result_of(_directory(self.path), facts, self.progress)


def is_record(path: Path) -> bool:
    """True for the folder of a recorded run."""
    return (path / SUMMARY).is_file()


def records_in(folder: Path) -> list[Path]:
    """Folders of recorded runs in a folder, by name."""
    return [path for path in sorted(folder.iterdir()) if is_record(path)] if folder.is_dir() else []


def read_record(path: Path) -> Record:
    """Read a recorded run; its files must agree with each other.

    Raises:
        FileFormatError: a file is missing or damaged, or they contradict one another.
    """
    from binarynet.training.progress import from_csv

    directory = _directory(path)
    recipe, run = directory.read_recipe(), directory.read_provenance()
    try:
        progress = from_csv(directory.metrics.read_text(encoding="utf-8"), str(directory.metrics))
        summary = json.loads((path / SUMMARY).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise FileFormatError(f"{path}: not a recorded run: {error}") from None
    if not isinstance(summary, dict) or (summary.get("format"), summary.get("version")) != (FORMAT, VERSION):
        raise FileFormatError(f"{path / SUMMARY}: not the summary of a recorded run of version {VERSION}")
    progress.train_seconds, progress.cpu_seconds = run["train_seconds"], run["cpu_seconds"]
    stands = (progress.epoch, progress.best_epoch, progress.best_error)
    if stands != (run["epochs"], run["best_epoch"], run["validation_error"]):
        raise FileFormatError(f"{path}: run.json and metrics.csv contradict one another")
    try:
        test = (summary["test"]["error"], summary["test"]["errors"], summary["test"]["images"])
        told = in_short(recipe, run, test[1], test[2])
        del told["paper"]  # words, which may change
        agrees = test[0] == test[1] / test[2] and summary | told == summary
    except (KeyError, TypeError, ZeroDivisionError) as error:
        raise FileFormatError(f"{path / SUMMARY}: {type(error).__name__}: {error}") from None
    if not agrees or (run["status"] == "finished" and test != tuple(run[f"test_{key}"] for key in TEST_KEYS)):
        raise FileFormatError(f"{path / SUMMARY}: contradicts recipe.toml or run.json; record the run again")
    return Record(path, recipe, run, progress, summary)


TEST_KEYS = ("error", "errors", "images")


def in_short(recipe: Recipe, run: Mapping[str, Any], test_errors: int, test_images: int) -> dict[str, Any]:
    """The part of a summary that recipe, ``run.json`` and test errors tell."""
    from binarynet.analysis.table import results

    found = table_run(Path(), recipe, run, test_errors, test_images)
    ((result,), _) = results([found])
    experiment = result.experiment
    return {
        "finished": found.finished,
        "recipe": recipe.name,
        "seed": recipe.seed,
        "epochs": found.epochs,
        "planned_epochs": recipe.training.epochs,
        "best_epoch": found.best_epoch,
        "validation_error": found.validation_error,
        "test": dict(zip(TEST_KEYS, (found.test_error, test_errors, test_images), strict=True)),
        "started": run["started"],
        "train_seconds": found.train_seconds,
        "cpu_seconds": found.cpu_seconds,
        "machine": run["machine"],
        "network": {"name": recipe.model.name, "binary_weights": found.weights},
        "paper": {
            "setting": experiment.setting if experiment else None,
            "why_not": result.why_not,
            "test_error_percent": experiment.test_error if experiment else None,
            "by_the_paper": result.by_the_paper,
            "differences": [str(difference) for difference in result.differences],
            "missing_images": list(result.missing_images()),
        },
    }


def table_run(path: Path, recipe: Recipe, record: Mapping[str, Any], test_errors: int, test_images: int) -> TrainedRun:
    """A run as the table of results takes it, by its recipe, its ``run.json`` and its test errors."""
    from binarynet.analysis.table import Machine, TrainedRun

    machine = record["machine"]
    known = ("processor", "cores", "threads", "device")
    return TrainedRun(
        path=str(path),
        recipe=recipe.model_dump(mode="json"),
        data=record["dataset"]["name"],
        sizes=record["dataset"]["sizes"],
        notes=tuple(record["dataset"].get("notes", ())),
        weights=record["network"]["binary_weights"],
        epochs=record["epochs"],
        best_epoch=record["best_epoch"],
        validation_error=record["validation_error"],
        test_errors=test_errors,
        test_images=test_images,
        train_seconds=record["train_seconds"],
        cpu_seconds=record["cpu_seconds"],
        machine=Machine(**{key: machine[key] for key in known}) if machine is not None else None,
        versions=record["versions"],
        finished=record["status"] == "finished",
    )


def _directory(path: Path) -> Any:
    from binarynet.training.run_directory import RunDirectory

    return RunDirectory(path)
