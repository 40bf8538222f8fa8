"""What lies in a run's directory already: a result, a state to go on from, or something in the way."""

from __future__ import annotations

from typing import Any

from binarynet.data import Dataset
from binarynet.errors import FileFormatError, UsageError
from binarynet.training.recipe import Recipe
from binarynet.training.result import RunResult, result_of
from binarynet.training.run_directory import (
    RunDirectory,
    check_best,
    check_best_of_unfinished,
    input_of,
    load_best,
)


def look_at(run: RunDirectory, asked: Recipe, resume: bool) -> dict[str, Any]:
    """What a run's directory says before any training.

    Args:
        run: the directory.
        asked: the recipe.
        resume: whether to go on with the run that is there.

    Returns:
        ``result`` (:meth:`RunResult.to_dict`) of a finished run; or else ``resuming``, whether there is a run to go on
        with, and ``threads``, how many its first part used (0: not known).

    Raises:
        UsageError: there is no run to resume, or one in the way, or one by another recipe.
        FileFormatError: it is damaged.
    """
    if not run.exists():
        if resume:
            raise UsageError(f"{run.path}: there is no run to resume; leave out --resume to start one")
        return {"resuming": False, "threads": 0}
    if not resume:
        raise UsageError(f"{run.path} exists already; resume it, or choose another directory")
    stored = run.read_recipe()
    if differing := _differences(asked.model_dump(), stored.model_dump()):
        raise UsageError(
            f"{run.path} was trained by another recipe (it differs in {', '.join(differing)}); resume it with the "
            "recipe it has, or train in another directory"
        )
    if (finished := _finished(run, stored)) is not None:
        return {"result": finished.to_dict()}
    return {"resuming": True, "threads": _threads_before(run)}


def _threads_before(run: RunDirectory) -> int:
    """Threads of the run's first part, so that its other part rounds sums alike; 0 where they are not known."""
    machine = run.read_provenance()["machine"] if run.provenance.is_file() else None
    return int(machine["threads"]) if machine is not None else 0


def _differences(a: dict[str, Any], b: dict[str, Any], prefix: str = "") -> list[str]:
    keys: list[str] = []
    for key in dict.fromkeys([*a, *b]):
        mine, theirs = a.get(key), b.get(key)
        if isinstance(mine, dict) and isinstance(theirs, dict):
            keys += _differences(mine, theirs, f"{prefix}{key}.")
        elif mine != theirs:
            keys.append(prefix + key)
    return keys


def last_state(run: RunDirectory, recipe: Recipe, dataset: Dataset) -> dict[str, Any]:
    """A run's last checkpoint, empty where it was stopped before the first one.

    Raises:
        UsageError: other data than the run was trained on.
        FileFormatError: a damaged, missing or foreign file.
    """
    record = run.read_provenance() if run.provenance.is_file() else None
    if record is not None:
        check_same_data(record, dataset, run)
    progress, content = run.read_last(record)
    best = load_best(run, recipe, dataset.policy.shape, len(dataset.classes)) if run.best.is_file() else None
    check_best_of_unfinished(run, best, progress)
    return content


def check_same_data(record: dict[str, Any], dataset: Dataset, run: RunDirectory) -> None:
    """Raise UsageError unless a run's record speaks of a data set like this one."""
    shape, classes = input_of(record, run.provenance)
    sizes = {part: len(split) for part, split in dataset.splits().items()}
    if shape != dataset.policy.shape or classes != len(dataset.classes) or record["dataset"].get("sizes") != sizes:
        raise UsageError(
            f"{run.path} was trained on other data: {record['dataset'].get('sizes')} images of {list(shape)} in "
            f"{classes} classes, but {dataset.name} now has {sizes} of {list(dataset.policy.shape)} in "
            f"{len(dataset.classes)}; use the same data (--data)"
        )


def _finished(run: RunDirectory, recipe: Recipe) -> RunResult | None:
    """The result of a run that needs no more training, from its files; None for others."""
    record = run.read_provenance() if run.provenance.is_file() else None
    if record is None or record["status"] != "finished":
        return None
    progress, _ = run.read_last(record)
    says = (record["epochs"], record["best_epoch"], record["validation_error"])
    if (found := (progress.epoch, progress.best_epoch, progress.best_error)) != says:
        raise FileFormatError(
            f"{run.last}: stands after epoch {found[0]}, the best {found[1]} with validation error {found[2]}, but "
            f"{run.provenance} says {says[0]}, {says[1]} and {says[2]}; it belongs to another run"
        )
    best = load_best(run, recipe, *input_of(record, run.provenance)) if run.best.is_file() else None
    check_best(run, best, (record["best_epoch"], record["validation_error"]), run.provenance)
    return result_of(run, record, progress)
