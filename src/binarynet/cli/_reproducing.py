"""Runs, recipes and files that `binarynet reproduce` is given: told apart, trained where needed, and read."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from binarynet.errors import BinaryNetError, DataError, NonFiniteError, UnsupportedLayerError, UsageError

if TYPE_CHECKING:
    from binarynet.analysis import Account
    from binarynet.analysis.reproduction import Curve, Reproduction, Subject
    from binarynet.analysis.table import FinishedRun
    from binarynet.training import Recipe, RunResult

log = logging.getLogger("binarynet.reproduce")


@dataclass(frozen=True)
class Given:
    """One thing to look at.

    Attributes:
        kind: "file" (.bnn), "run" (a finished one) or "recipe" (train, resume or read its run).
        path: of the file or of the run's folder.
        recipe: what to train by.
    """

    kind: Literal["file", "run", "recipe"]
    path: Path
    recipe: Recipe | None = None


def understand(
    arguments: Sequence[str], runs: Path, seeds: Sequence[int] = (), threads: int | None = None
) -> list[Given]:
    """What the arguments mean, all of them checked before anything is trained.

    Without arguments it is every finished run in ``runs``, maybe none.

    Args:
        arguments: names of recipes, ``.toml`` files, folders of runs, ``.bnn`` files.
        runs: where recipes have their runs, in folders of their names.
        seeds: train recipes with each of these instead of their own seed, in ``runs/NAME-seed-SEED``.
        threads: train recipes with so many instead of their own number.

    Raises:
        UsageError: an argument that is none of these, or an unfinished run.
        FileFormatError: a run with a damaged record.
    """
    given = [one for argument in arguments for one in _understand(argument, runs, seeds, threads)]
    for option, used in (("--seed", bool(seeds)), ("--threads", threads is not None)):
        if used and not any(one.kind == "recipe" for one in given):
            raise UsageError(f"{option} is for recipes, which are trained; name one")
    if not arguments:
        given = list(_finished_in(runs))
    seen: dict[Path, Given] = {}
    for one in given:
        seen.setdefault(one.path.resolve(), one)
    return list(seen.values())


def _understand(argument: str, runs: Path, seeds: Sequence[int], threads: int | None) -> Iterator[Given]:
    path = Path(argument).expanduser()
    if path.is_dir() and not _is_recipe(argument):
        _require_finished(path)
        yield Given("run", path)
    elif path.suffix == ".bnn":
        if not path.is_file():
            raise DataError(f"{path}: there is no such file")
        yield Given("file", path)
    elif _is_recipe(argument) or path.suffix == ".toml":
        yield from _of_recipe(argument, runs, seeds, threads)
    else:
        from binarynet.training import recipe as recipes

        raise UsageError(
            f"{argument}: no such run folder, .bnn file or recipe; recipes are {', '.join(recipes.available())}, or a "
            ".toml file"
        )


def _is_recipe(argument: str) -> bool:
    try:
        from binarynet.training import recipe as recipes
    except ImportError:  # without the extra `train` there are no recipes, and files can still be looked at
        return False
    return argument in recipes.available()


def _of_recipe(argument: str, runs: Path, seeds: Sequence[int], threads: int | None) -> Iterator[Given]:
    from binarynet.training import recipe as recipes

    changes = [] if threads is None else [f"training.threads={threads}"]
    own = recipes.load(argument, changes)
    if not seeds:
        yield Given("recipe", runs / own.name, own)
    for seed in seeds:
        chosen = recipes.load(argument, [*changes, f"seed={seed}"])
        yield Given("recipe", runs / (own.name if seed == own.seed else f"{own.name}-seed-{seed}"), chosen)


def _require_finished(path: Path) -> None:
    from binarynet.cli._runs import provenance_of

    record = provenance_of(path)
    if record["status"] != "finished":
        status = "stopped or still running" if record["status"] == "running" else record["status"]
        why = f", {record['reason']}" if record["reason"] else ""
        raise UsageError(
            f"{path}: this run is not finished ({status}{why}; {_epochs_done(path, record)} epochs done); go on with "
            f"it: binarynet train --resume --out {path}"
        )


def _epochs_done(path: Path, record: Mapping[str, Any]) -> int:
    """By metrics.csv, which grows with every epoch; the record of a run that was killed still says how it began."""
    from binarynet.training.run_directory import RunDirectory

    metrics = RunDirectory(path).metrics
    if not metrics.is_file():
        return int(record["epochs"])
    return max(0, len(metrics.read_bytes().splitlines()) - 1)


def _finished_in(runs: Path) -> Iterator[Given]:
    """Every finished run in a folder; others are named in a note."""
    for path in sorted(runs.iterdir()) if runs.is_dir() else ():
        if not (path / "run.json").is_file():
            continue
        try:
            _require_finished(path)
        except BinaryNetError as error:
            log.warning("left out: %s", error)
        else:
            yield Given("run", path)


@dataclass(frozen=True)
class _Part:
    """What one given thing contributes; a file has neither run nor curve."""

    subject: Subject
    run: FinishedRun | None = None
    curve: Curve | None = None


def carry_out(given: Sequence[Given], data_dir: Path | None, show: Literal["bar", "lines"]) -> Reproduction:
    """Read what is finished, then train the rest; all in the order given.

    Raises:
        DataError: missing or damaged data of a recipe.
        FileFormatError: a damaged run or file.
        TrainingInterrupted: Ctrl-C; what was trained stays and is gone on with next time.
    """
    from binarynet.analysis.reproduction import Reproduction
    from binarynet.analysis.table import results

    labels = _labels(given)
    parts: dict[int, _Part] = {}
    for number in sorted(range(len(given)), key=lambda number: _needs_training(given[number])):
        parts[number] = _part(given[number], labels[number], data_dir, show)
    ordered = [parts[number] for number in range(len(given))]
    found, remarks = results(part.run for part in ordered if part.run is not None)
    return Reproduction(
        found,
        tuple(part.curve for part in ordered if part.curve is not None),
        tuple(part.subject for part in ordered),
        remarks,
    )


def _needs_training(one: Given) -> bool:
    """So that what is damaged is found before hours of training, not after them."""
    if one.recipe is None:
        return False
    from binarynet.cli._runs import provenance_of

    return not (one.path / "run.json").is_file() or provenance_of(one.path)["status"] != "finished"


def _part(one: Given, label: str, data_dir: Path | None, show: Literal["bar", "lines"]) -> _Part:
    if one.kind == "file":
        return _Part(_file_subject(one.path, label))
    result = _train(one, data_dir, show)
    run = _finished_run(one.path, result)
    return _Part(_run_subject(one.path, label), run, _curve(label, run, result))


def _labels(given: Sequence[Given]) -> list[str]:
    """Short names, no two alike."""
    labels: list[str] = []
    for one in given:
        name = one.path.stem if one.kind == "file" else one.path.resolve().name
        label, number = name, 2
        while label in labels:
            label, number = f"{name}-{number}", number + 1
        labels.append(label)
    return labels


def _train(one: Given, data_dir: Path | None, show: Literal["bar", "lines"]) -> RunResult:
    """The run's result; a finished run is only read, and one that was begun goes on with its own number of threads."""
    from binarynet.training import recipe as recipes
    from binarynet.training import train
    from binarynet.training.run_directory import RunDirectory

    run, recipe = RunDirectory(one.path), one.recipe
    if recipe is not None and run.exists():
        recipe = recipes.load(recipe, [f"training.threads={run.read_recipe().training.threads}"])
    return train(recipe, data_dir=data_dir, out=one.path, resume=recipe is None or run.exists(), show=show)


def _finished_run(path: Path, result: RunResult) -> FinishedRun:
    from binarynet.analysis.table import FinishedRun, Machine
    from binarynet.training.run_directory import RunDirectory

    run = RunDirectory(path)
    record: dict[str, Any] = run.read_provenance()
    machine = record["machine"]
    known = ("processor", "cores", "threads", "device")
    return FinishedRun(
        path=str(path),
        recipe=run.read_recipe().model_dump(mode="json"),
        data=record["dataset"]["name"],
        sizes=record["dataset"]["sizes"],
        notes=tuple(record["dataset"].get("notes", ())),
        weights=record["network"]["binary_weights"],
        epochs=record["epochs"],
        best_epoch=result.best_epoch,
        validation_error=result.validation_error,
        test_errors=result.test_errors,
        test_images=result.test_images,
        train_seconds=result.train_seconds,
        cpu_seconds=result.cpu_seconds,
        machine=Machine(**{key: machine[key] for key in known}) if machine is not None else None,
        versions=record["versions"],
    )


def _curve(label: str, run: FinishedRun, result: RunResult) -> Curve:
    from binarynet.analysis.reproduction import Curve

    return Curve(
        label,
        run.data,
        tuple(row.epoch for row in result.history),
        tuple(row.validation_error for row in result.history),
        tuple(row.training_cost for row in result.history),
        result.best_epoch,
        result.test_error,
    )


def _file_subject(path: Path, label: str) -> Subject:
    from binarynet.analysis import account
    from binarynet.analysis.reproduction import Subject

    return Subject(label, str(path), account(path))


def _run_subject(path: Path, label: str) -> Subject:
    from binarynet.analysis.reproduction import Subject

    try:
        found = _packed_account(path)
    except (UnsupportedLayerError, NonFiniteError) as error:
        return Subject(label, str(path), None, f"it cannot be packed: {error}")
    return Subject(label, str(path), found)


def _packed_account(path: Path) -> Account:
    """Of the run, packed (and so proved equal) to a file that is gone afterwards."""
    from binarynet.analysis import account
    from binarynet.cli._runs import packed

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.bnn"
        packed(path).model.save(file)
        return account(file)
