"""Runs, recipes and files that `binarynet reproduce` is given: told apart, trained where needed, and read."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from binarynet.cli._records import is_record, read_record, records_in, table_run
from binarynet.errors import BinaryNetError, DataError, NonFiniteError, UnsupportedLayerError, UsageError
from binarynet.zoo import is_name, resolve

if TYPE_CHECKING:
    from binarynet.analysis import Account
    from binarynet.analysis.reproduction import Curve, Reproduction, Subject
    from binarynet.analysis.table import TrainedRun
    from binarynet.training import Recipe, RunResult

log = logging.getLogger("binarynet.reproduce")


@dataclass(frozen=True)
class Given:
    """One thing to look at.

    Attributes:
        kind: "file" (.bnn), "run" (a finished one), "record" (a recorded one) or "recipe" (train, resume or read its
            run).
        path: of the file or of the run's folder.
        recipe: what to train by.
    """

    kind: Literal["file", "run", "record", "recipe"]
    path: Path
    recipe: Recipe | None = None


def understand(
    arguments: Sequence[str],
    runs: Path,
    seeds: Sequence[int] = (),
    threads: int | None = None,
    records: Sequence[Path] = (),
) -> list[Given]:
    """What the arguments mean, all of them checked before anything is trained.

    Without arguments it is every finished run in ``runs`` and every recorded one in ``records``, maybe none.

    Args:
        arguments: names of recipes, ``.toml`` files, folders of runs or recorded runs, or with several of them,
            ``.bnn`` files.
        runs: where recipes have their runs, in folders of their names.
        seeds: train recipes with each of these instead of their own seed, in ``runs/NAME-seed-SEED``.
        threads: train recipes with so many instead of their own number.
        records: folders with recorded runs.

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
        given += [
            Given("record", path) for folder in records for path in records_in(folder) if not _is_one_of(path, given)
        ]
    seen: dict[Path, Given] = {}
    for one in given:
        seen.setdefault(one.path.resolve(), one)
    return list(seen.values())


def _understand(argument: str, runs: Path, seeds: Sequence[int], threads: int | None) -> Iterator[Given]:
    path = Path(argument).expanduser()
    if is_name(argument):
        resolve(argument)
        yield Given("file", path)
    elif path.is_dir() and not _is_recipe(argument):
        if is_record(path):
            yield Given("record", path)
        elif several := [*_finished_in(path)]:
            yield from several
        else:
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
    """Every finished or recorded run in a folder; others are named in a note."""
    for path in sorted(runs.iterdir()) if runs.is_dir() else ():
        if is_record(path):
            yield Given("record", path)
            continue
        if not (path / "run.json").is_file():
            continue
        try:
            _require_finished(path)
        except BinaryNetError as error:
            log.warning("left out: %s", error)
        else:
            yield Given("run", path)


def _is_one_of(record: Path, runs: Sequence[Given]) -> bool:
    """Whether a recorded run is given as a run already."""
    from binarynet.cli._runs import provenance_of

    keys = ("recipe", "seed", "started")
    mine = provenance_of(record)
    return any(all(provenance_of(one.path)[key] == mine[key] for key in keys) for one in runs)


@dataclass(frozen=True)
class _Part:
    """What one given thing contributes; a file has neither run nor curve, a recorded run maybe no network."""

    subject: Subject | None
    run: TrainedRun | None = None
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
        tuple(part.subject for part in ordered if part.subject is not None),
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
    if one.kind == "record":
        return _recorded_part(one.path, label)
    result = _train(one, data_dir, show)
    run = _table_run(one.path, result)
    return _Part(_run_subject(one.path, label), run, _curve(label, run, result))


def _recorded_part(path: Path, label: str) -> _Part:
    """Of a recorded run; its network is at hand where the zoo has it."""
    from binarynet import zoo

    found = read_record(path)
    run = found.table_run()
    told = label if run.finished else f"{label}, {run.epochs} of {found.recipe.training.epochs} epochs"
    sha256 = (found.summary["packed"] or {}).get("sha256")
    kept = [card.name for card in zoo.cards() if card.sha256 == sha256]
    subject = _file_subject(Path(f"{zoo.PREFIX}{kept[0]}"), f"{label}, zoo:{kept[0]}") if kept else None
    return _Part(subject, run, _curve(told, run, found.result()))


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


def _table_run(path: Path, result: RunResult) -> TrainedRun:
    from binarynet.training.run_directory import RunDirectory

    run = RunDirectory(path)
    return table_run(path, run.read_recipe(), run.read_provenance(), result.test_errors, result.test_images)


def _curve(label: str, run: TrainedRun, result: RunResult) -> Curve:
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
