"""Recording a run: pack it, verify the file on the test set, count its errors, and keep what is small.

What a record is made of: ``_records.py``.
"""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from binarynet.cli._records import FORMAT, SUMMARY, VERSION, Record, in_short, is_record, read_record
from binarynet.errors import BinaryNetError, NonFiniteError, UnsupportedLayerError, UsageError, VerificationError
from binarynet.files import write_whole

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from binarynet.cli._runs import PackedRun
    from binarynet.data import Dataset
    from binarynet.training import Recipe

REFERENCE_MACS = 20_000_000_000
"""Multiply-accumulates that the NumPy reference is asked for: some 20 seconds where there are convolutions."""
_ATTEMPTS = 5
Progress = Callable[[str], None]


def record(
    run: Path,
    out: Path,
    data_dir: Path | None,
    *,
    commits: Sequence[str] = (),
    images: int | None = None,
    threads: int | None = None,
    progress: Progress = lambda _: None,
) -> Record:
    """Record a run, finished or not; its packed network is left in ``run/model.bnn``.

    Every engine of this machine's CPU must equal torch in every layer and score on all test images, and the NumPy
    reference on the first of them; the packed file's errors on the test set must be those of the run.

    Args:
        run: the run's folder; training may go on in it meanwhile.
        out: the record's folder, new or with an older record of the same run.
        data_dir: where the data set lies.
        commits: of the programs that trained it, where ``run.json`` does not say.
        images: verify the first so many test images only.
        threads: of torch and the engines.
        progress: told what is being done.

    Raises:
        UsageError: not a run, or one without a finished epoch; another run's record in ``out``.
        DataError, FileFormatError: missing or damaged data, or a damaged run.
        VerificationError: the packed network is not the one that was trained.
    """
    from binarynet.cli._runs import packed

    with _standing_still(run) as folder:
        _check_free(out, folder)
        progress("packing")
        try:
            found: PackedRun | None = packed(folder)
            left_out = ""
        except (UnsupportedLayerError, NonFiniteError) as error:
            found, left_out = None, f"it cannot be packed: {error}"
        return _record(run, folder, out, data_dir, found, left_out, list(commits), images, threads, progress)


def _record(
    run: Path,
    folder: Path,
    out: Path,
    data_dir: Path | None,
    found: PackedRun | None,
    left_out: str,
    commits: list[str],
    images: int | None,
    threads: int | None,
    progress: Progress,
) -> Record:
    from binarynet import data
    from binarynet.cli._runs import without_folders
    from binarynet.training import load_run
    from binarynet.training.resuming import check_same_data
    from binarynet.training.run_directory import RunDirectory

    directory = RunDirectory(folder)
    recipe, facts = directory.read_recipe(), directory.read_provenance()
    progress("reading the data")
    dataset = data.load(recipe.dataset.name, data_dir, **recipe.dataset.options)
    check_same_data(facts, dataset, RunDirectory(run))
    checks: list[dict[str, Any]] = []
    about_file = None
    if found is None:
        from binarynet.training import evaluate

        wrong = evaluate(load_run(folder).model, dataset.test, batch_size=1000).num_errors
    else:
        file = run / "model.bnn"
        found.model.save(file)
        content = file.read_bytes()
        about_file = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        checks = list(_verify(folder, file, dataset, images, threads, progress))
        progress("counting the packed file's errors")
        wrong = _errors(file, dataset, threads)
    if facts["status"] == "finished" and wrong != facts["test_errors"]:
        raise VerificationError(
            f"{run}: {wrong} test images are wrong here, but run.json says {facts['test_errors']}; "
            "is the data the same?"
        )
    known = facts.get("commits", [])
    if known and commits and known != commits:
        raise UsageError(f"{run}: run.json says that it was trained by {', '.join(known)}; leave --commit out")
    facts["commits"] = known or commits
    facts["dataset"] = {**facts["dataset"], "notes": without_folders(facts["dataset"].get("notes", []))}
    if facts["status"] != "finished":
        stands, _ = directory.read_last(facts)
        facts |= {"epochs": stands.epoch, "best_epoch": stands.best_epoch, "validation_error": stands.best_error}
        facts |= {"train_seconds": round(stands.train_seconds, 3), "cpu_seconds": round(stands.cpu_seconds, 3)}
    summary = {
        "format": FORMAT,
        "version": VERSION,
        **in_short(recipe, facts, wrong, len(dataset.test)),
        "commits": facts["commits"],
        "data": {
            "name": dataset.name,
            "sizes": facts["dataset"]["sizes"],
            "sha256": {part: split.sha256() for part, split in dataset.splits().items()},
            "notes": without_folders(dataset.notes),
        },
        "packed": about_file,
        "left_out": left_out,
        "verification": checks,
        **_made_by(recipe, out, facts),
    }
    return _write(out, directory, facts, summary)


def _write(out: Path, directory: Any, facts: dict[str, Any], summary: dict[str, Any]) -> Record:
    """The folder, its summary last; read back, so that nothing is kept that cannot be read."""
    from binarynet.training.progress import to_csv
    from binarynet.training.run_directory import RunDirectory

    out.mkdir(parents=True, exist_ok=True)
    kept = RunDirectory(out)
    write_whole(kept.recipe, directory.recipe.read_bytes())
    kept.write_provenance(facts)
    write_whole(kept.metrics, to_csv(directory.read_last(facts)[0].history))
    write_whole(out / SUMMARY, json.dumps(summary, indent=2, ensure_ascii=False, allow_nan=False) + "\n")
    return read_record(out)


@contextmanager
def _standing_still(run: Path) -> Iterator[Path]:
    """The run's folder; of one that may still be training, a copy of what it holds at this moment.

    Files of a run are replaced, never changed, so that links to them stay what they are.
    """
    from binarynet.cli._runs import provenance_of
    from binarynet.training import load_run

    if provenance_of(run)["status"] == "finished":
        yield run
        return
    with tempfile.TemporaryDirectory(dir=run.resolve().parent, prefix=f".{run.name}-") as name:
        copy = Path(name)
        for attempt in range(_ATTEMPTS):
            shutil.rmtree(copy / "checkpoints", ignore_errors=True)
            (copy / "checkpoints").mkdir()
            for file in ("recipe.toml", "run.json", "checkpoints/last.ckpt", "checkpoints/best.ckpt"):
                if (run / file).is_file():
                    os.link(run / file, copy / file) if file.endswith(".ckpt") else shutil.copy(run / file, copy / file)
            try:
                if _same_epoch(copy, load_run(copy).provenance):
                    break
            except BinaryNetError:
                if attempt == _ATTEMPTS - 1:
                    raise
        else:
            raise UsageError(f"{run}: its best weights are of an epoch that was not finished; go on with it first")
        yield copy


def _same_epoch(folder: Path, loaded: dict[str, Any]) -> bool:
    """False in the moment between the two checkpoints of an epoch's end."""
    from binarynet.training.run_directory import RunDirectory

    return bool(RunDirectory(folder).read_last(loaded)[0].best_epoch == loaded["best_epoch"])


def _check_free(out: Path, folder: Path) -> None:
    """UsageError where something else than an older record of the same run lies there."""
    from binarynet.cli._runs import provenance_of

    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    if not is_record(out):
        raise UsageError(f"{out}: exists, and is no recorded run; choose another --name")
    kept, mine = provenance_of(out), provenance_of(folder)
    if any(kept[key] != mine[key] for key in ("recipe", "seed", "started")):
        raise UsageError(f"{out}: is the record of another run, started {kept['started']}; choose another --name")


def _verify(
    folder: Path, file: Path, dataset: Dataset, images: int | None, threads: int | None, progress: Progress
) -> Iterator[dict[str, Any]]:
    """All test images through torch and every engine but the reference, then the first of them through that, too."""
    import binarynet
    from binarynet.analysis import layers
    from binarynet.cli._console import progress_bar
    from binarynet.cli._packed import inputs
    from binarynet.cli._runs import torch_baseline

    model = binarynet.load(file)
    chosen = inputs(dataset.test, model)[:images]
    macs = sum(layer.macs for layer in layers(model.graph))
    few = chosen[: max(1, REFERENCE_MACS // macs)]
    torch = torch_baseline(folder, model.graph, file)

    def compare(some: npt.NDArray[np.uint8], reference: bool) -> dict[str, Any]:
        with progress_bar("verifying", len(some)) as advance:
            result = binarynet.verify(
                model.graph,
                some,
                extra={"torch": torch},
                num_threads=threads,
                device="cpu",
                reference=reference,
                progress=advance,
            )
        result.require_exact()
        return {
            "images": result.num_images,
            "baseline": result.baseline,
            "engines": list(result.engines),
            "compared": sum(check.compared for check in result.checks),
            "differences": sum(sum(check.differences.values()) for check in result.checks),
        }

    progress(f"verifying {len(chosen):,} test images on every engine")
    if len(few) < len(chosen):
        yield compare(chosen, reference=False)
    yield compare(few, reference=True)


def _errors(file: Path, dataset: Dataset, threads: int | None) -> int:
    """Of the packed file, as it was written."""
    import binarynet
    from binarynet.cli._packed import measure

    return measure(binarynet.load(file, num_threads=threads), dataset.test).wrong


def _made_by(recipe: Recipe, out: Path, facts: dict[str, Any]) -> dict[str, Any]:
    """The packaged recipe and what was changed in it, and the commands that make the network again."""
    name, changes = overrides(recipe)
    by = name or str(out / "recipe.toml")
    settings = " ".join(f"--set {shlex.quote(change)}" for change in changes)
    commands = []
    for commit in facts["commits"]:
        clean = commit.removesuffix("-dirty")
        note = "" if clean == commit else "    # and changes that were not committed"
        commands.append(f"git checkout {clean}{note}")
    commands.append(" ".join(f"binarynet train {by} --data DIR --out run {settings}".split()))
    if facts["status"] != "finished":
        commands[-1] += f"    # stop it with Ctrl-C after epoch {facts['epochs']}"
    return {"overrides": changes, "make_again": [*commands, "binarynet pack run -o model.bnn"]}


def overrides(recipe: Recipe) -> tuple[str, list[str]]:
    """The packaged recipe that a recipe was made from, and the texts ``key=value`` that make it again.

    A recipe that was not made so has no such name: "" and no texts.
    """
    from binarynet.analysis.table import flatten
    from binarynet.training import recipe as recipes
    from binarynet.training._recipe_text import format_value

    if recipe.name not in recipes.available():
        return "", []
    before, after = (flatten(one.model_dump(mode="json")) for one in (recipes.load(recipe.name), recipe))
    changes = [
        f"{key}={'none' if after.get(key) is None else format_value(after[key])}"
        for key in dict.fromkeys([*after, *before])
        if before.get(key) != after.get(key) and key != "description"
    ]
    again = recipes.load(recipe.name, changes)
    same = again.model_dump() | {"description": ""} == recipe.model_dump() | {"description": ""}
    return (recipe.name, changes) if same else ("", [])
