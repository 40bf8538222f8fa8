"""A run from recipe to result: train, resume, evaluate."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from os import PathLike, fspath
from pathlib import Path
from typing import Any, Literal

import torch
from lightning.fabric.utilities.warnings import PossibleUserWarning
from lightning.pytorch import Callback, Trainer
from torch import nn

from binarynet import data
from binarynet.data import Dataset
from binarynet.errors import BackendUnavailableError, BinaryNetError, DataError, FileFormatError, UsageError
from binarynet.files import write_whole
from binarynet.training import (
    augmentation,
    checkpoint,
    curves,
    display,
    memory,
    optimizer_state,
    preprocessing,
    provenance,
)
from binarynet.training import recipe as recipes
from binarynet.training.batches import EvaluationBatches, TrainingBatches
from binarynet.training.evaluation import Evaluation, evaluate
from binarynet.training.interrupt import Interrupt, Stopped
from binarynet.training.module import Classifier
from binarynet.training.progress import EpochRow, Progress
from binarynet.training.randomness import Purpose, derive, seed_torch
from binarynet.training.recipe import Recipe
from binarynet.training.recorder import Recorder
from binarynet.training.run_directory import (
    RunDirectory,
    build_network,
    check_best,
    check_best_of_unfinished,
    input_of,
    load_best,
    load_run,
    outline_network,
)

DEFAULT_FOLDER = Path("runs")


class TrainingInterrupted(KeyboardInterrupt):
    """Ctrl-C while training; the message says what is usable and how to go on."""


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


def train(
    recipe: str | PathLike[str] | Recipe | None = None,
    *,
    overrides: Iterable[str] = (),
    data_dir: str | PathLike[str] | None = None,
    out: str | PathLike[str] | None = None,
    resume: bool = False,
    show: display.Display = "auto",
) -> RunResult:
    """Train by a recipe, select the weights with the lowest validation error, and count their errors on the test split.

    A resumed run ends with the same weights, to the bit, as one that was never stopped (same device and threads).
    Resuming a finished run only reads its result.

    Args:
        recipe: a packaged recipe's name, a ``.toml`` file, or a recipe; may be left out with ``resume``.
        overrides: texts ``key=value``, see :func:`binarynet.training.recipe.load`.
        data_dir: where the data set lies.
        out: the run's directory; ``runs/<recipe's name>`` by default.
        resume: go on with the run in ``out``, or start it if nothing of it was written yet but its recipe.
        show: "bar", "lines" (one per epoch), "off", or "auto"; all on standard error.

    Raises:
        UsageError: ``out`` exists without ``resume``; there is nothing to resume, or it follows another recipe; the
            network does not fit into memory.
        RecipeError: a wrong recipe.
        BackendUnavailableError: an accelerator that this machine does not have.
        DataError: missing or damaged data; a full disk (the last complete checkpoint stays).
        FileFormatError: a damaged, missing or foreign checkpoint, or a damaged run.json.
        NonFiniteError: training diverged.
        TrainingInterrupted: Ctrl-C.
    """
    chosen, run, resuming = _choose(recipe, overrides, out, resume)
    if resuming and (finished := _finished(run, chosen)) is not None:
        return finished
    _check_accelerator(chosen.training.accelerator)
    dataset = data.load(chosen.dataset.name, data_dir, **chosen.dataset.options)
    outline = outline_network(chosen, dataset.policy.shape, len(dataset.classes))
    memory.check_fits(outline, chosen.training.accelerator)
    with _quiet(), memory.kept(), _torch_state(chosen.training.threads or (_threads_before(run) if resuming else 0)):
        seed_torch(derive(chosen.seed, Purpose.INITIAL_WEIGHTS), torch.device("cpu"))
        with memory.told(outline):
            network = build_network(chosen, dataset.policy.shape, len(dataset.classes))
        progress, moments = _restore(run, chosen, network, dataset) if resuming else (Progress(), None)
        job = _Job(chosen, run, dataset, network, progress, moments)
        return job.carry_out(show, resuming)


def evaluate_run(
    run_dir: str | PathLike[str],
    *,
    data_dir: str | PathLike[str] | None = None,
    dataset_path: str | PathLike[str] | None = None,
    split: Literal["train", "validation", "test"] = "test",
) -> Evaluation:
    """Count the errors of a run's selected weights on a split of its data set.

    Args:
        run_dir: the run.
        data_dir: where the data set lies.
        dataset_path: where the user's own data set (a folder of pictures, an .npz) lies now, if it has moved.
        split: the part to evaluate on.

    Raises:
        UsageError, RecipeError, FileFormatError: see :func:`load_run`.
        DataError: missing or damaged data, or other data than the run was trained on.
    """
    model, recipe, record = load_run(run_dir)
    name = recipe.dataset.name if dataset_path is None else fspath(dataset_path)
    try:
        dataset = data.load(name, data_dir, **recipe.dataset.options)
    except UsageError as error:
        if dataset_path is not None or name in data.available():
            raise
        raise DataError(
            f"{run_dir} was trained on {name}, which is not found from here; say where it is (--dataset PATH)"
        ) from error
    _check_same_data(record, dataset, RunDirectory(run_dir))
    return evaluate(model, dataset.splits()[split], batch_size=recipe.training.evaluation_batch_size)


class _Job:
    """One call of :func:`train`, once everything that can be wrong with its arguments has been looked at."""

    def __init__(
        self,
        recipe: Recipe,
        run: RunDirectory,
        dataset: Dataset,
        network: nn.Module,
        progress: Progress,
        moments: dict[str, Any] | None,
    ) -> None:
        self.recipe = recipe
        self.run = run
        self.dataset = dataset
        self.progress = progress
        self.batches = TrainingBatches(
            dataset.train,
            recipe.training.batch_size,
            seed=recipe.seed,
            drop_last=recipe.training.drop_last,
            first_epoch=progress.epoch,
            first_step=progress.step,
            augmentation=augmentation.of_recipe(recipe, dataset.policy.shape),
        )
        if progress.step >= self.batches.num_steps or progress.epoch > recipe.training.epochs:
            raise FileFormatError(f"{run.last}: its record of progress is beyond the end of what the recipe asks for")
        preprocessing.fit(network, dataset.train)
        self.module = Classifier(network, recipe, optimizer_state=moments, cost_sum=progress.cost_sum)
        if moments is not None:
            steps = progress.epoch * self.batches.num_steps + progress.step
            optimizer_state.check(self.module.new_optimizer(), moments, steps, run.last)
        self.record: dict[str, Any] = {}

    def carry_out(self, show: display.Display, resuming: bool) -> RunResult:
        self.run.create()
        write_whole(self.run.recipe, self.recipe.to_toml())
        self._open_record(resuming)
        try:
            with memory.told(self.module.network):
                self._fit(show)
                return self._conclude()
        except (Stopped, KeyboardInterrupt):
            self._note_end("interrupted", "Ctrl-C")
            raise TrainingInterrupted(self._how_to_go_on()) from None
        except BinaryNetError as error:
            self._note_end("failed", str(error))
            raise

    def _fit(self, show: display.Display) -> None:
        epochs = self.recipe.training.epochs
        if self.progress.epoch >= epochs:
            return
        with Interrupt() as interrupt:
            callbacks: list[Callback] = [Recorder(self.run, self.module, self.progress, self.batches, interrupt)]
            shown = display.callback(show, self.progress, epochs, self.batches.num_steps)
            if shown is not None:
                callbacks.append(shown)
            trainer = Trainer(
                max_epochs=epochs,
                accelerator=self.recipe.training.accelerator,
                devices=1,
                callbacks=callbacks,
                logger=False,
                enable_checkpointing=False,
                enable_progress_bar=False,
                enable_model_summary=False,
                num_sanity_val_steps=0,
                use_distributed_sampler=False,
                default_root_dir=self.run.path,
            )
            self.record["machine"] = provenance.machine(str(trainer.strategy.root_device))
            self._write_record("running")
            # Lightning's own resume restores its loops only at the end of an epoch; all that it needs to know is this.
            trainer.fit_loop.epoch_progress.current.increment_by(self.progress.epoch)
            validation = EvaluationBatches(self.dataset.validation, self.recipe.training.evaluation_batch_size)
            trainer.fit(self.module, self.batches, validation)

    def _conclude(self) -> RunResult:
        best = load_best(self.run, self.recipe, self.dataset.policy.shape, len(self.dataset.classes))
        check_best(self.run, best, (self.progress.best_epoch, self.progress.best_error), self.run.last)
        test = evaluate(best.model.eval(), self.dataset.test, batch_size=self.recipe.training.evaluation_batch_size)
        title = f"{self.recipe.name}, seed {self.recipe.seed}"
        history, best_epoch = self.progress.history, self.progress.best_epoch
        write_whole(self.run.curves, curves.draw(history, title, best_epoch=best_epoch, test_error=test.error))
        self.record |= {"test_error": test.error, "test_errors": test.num_errors, "test_images": test.num_images}
        self.record["finished"] = provenance.now()
        self._write_record("finished")
        return _result(self.run, self.record, self.progress)

    def _open_record(self, resuming: bool) -> None:
        self.record = {
            "status": "running",
            "reason": None,
            "recipe": self.recipe.name,
            "seed": self.recipe.seed,
            "dataset": provenance.describe_dataset(self.dataset),
            "augmentation": self.recipe.augmentation.model_dump(),
            "network": provenance.describe_network(self.module.network),
            "versions": provenance.versions(),
            "machine": None,
            "started": provenance.now(),
            "finished": None,
            "resumed": 0,
        }
        if resuming and self.run.provenance.is_file():
            before = self.run.read_provenance()
            self.record |= {"started": before["started"], "resumed": before["resumed"] + 1}
            self.record["machine"] = before["machine"]

    def _write_record(self, status: str, reason: str | None = None) -> None:
        progress = self.progress
        self.record |= {
            "status": status,
            "reason": reason,
            "epochs": progress.epoch,
            "best_epoch": progress.best_epoch or None,
            "validation_error": progress.best_error if progress.best_epoch else None,
            "train_seconds": round(progress.train_seconds, 3),
            "cpu_seconds": round(progress.cpu_seconds, 3),
        }
        self.run.write_provenance(self.record)

    def _note_end(self, status: str, reason: str) -> None:
        with contextlib.suppress(DataError):  # the disk may be what failed; that error is on its way already
            self._write_record(status, reason)

    def _how_to_go_on(self) -> str:
        where = f"{self.run.path} is complete up to epoch {self.progress.epoch}"
        if self.progress.step:
            where += f", step {self.progress.step} of the next"
        return f"interrupted; {where}. Resume it to go on, with the same result as without the interruption."


def _choose(
    recipe: str | PathLike[str] | Recipe | None,
    overrides: Iterable[str],
    out: str | PathLike[str] | None,
    resume: bool,
) -> tuple[Recipe, RunDirectory, bool]:
    """The recipe, the directory, and whether there is something to resume in it."""
    overrides = list(overrides)
    if recipe is None and (out is None or not resume):
        raise UsageError("name a recipe, or the directory of a run to resume")
    chosen = None if recipe is None else recipes.load(recipe, overrides)
    path = Path(out) if out is not None else DEFAULT_FOLDER / (chosen.name if chosen else "")
    run = RunDirectory(path)
    if not run.exists():
        if chosen is None:
            raise UsageError(f"{path}: there is no run to resume")
        if resume:
            raise UsageError(f"{path}: there is no run to resume; leave out --resume to start one")
        return chosen, run, False
    if not resume:
        raise UsageError(f"{path} exists already; resume it, or choose another directory")
    stored = run.read_recipe()
    if chosen is None:
        chosen = recipes.load(stored, overrides)
    if differing := _differences(chosen.model_dump(), stored.model_dump()):
        raise UsageError(
            f"{path} was trained by another recipe (it differs in {', '.join(differing)}); resume it with the recipe "
            "it has, or train in another directory"
        )
    return stored, run, True


def _check_accelerator(name: str) -> None:
    mps = torch.backends.mps.is_available()
    if not {"gpu": torch.cuda.is_available() or mps, "mps": mps}.get(name, True):
        raise BackendUnavailableError(
            f'training.accelerator = "{name}", but torch {torch.__version__} finds none on this machine; '
            'use "auto" or "cpu"'
        )


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


def _restore(
    run: RunDirectory, recipe: Recipe, network: nn.Module, dataset: Dataset
) -> tuple[Progress, dict[str, Any] | None]:
    """Put a run's last checkpoint into the network; where it stands, and the optimizer's state."""
    record = run.read_provenance() if run.provenance.is_file() else None
    if record is not None:
        _check_same_data(record, dataset, run)
    progress, content = run.read_last(record)
    best = load_best(run, recipe, dataset.policy.shape, len(dataset.classes)) if run.best.is_file() else None
    check_best_of_unfinished(run, best, progress)
    if not content:
        return progress, None  # stopped before the first checkpoint
    checkpoint.load_network(network, content.get("network"), run.last)
    moments = content.get("optimizer")
    if not isinstance(moments, dict):
        raise FileFormatError(f"{run.last}: holds no optimizer state")
    return progress, moments


def _check_same_data(record: dict[str, Any], dataset: Dataset, run: RunDirectory) -> None:
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
    return _result(run, record, progress)


def _result(run: RunDirectory, record: dict[str, Any], progress: Progress) -> RunResult:
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


@contextmanager
def _torch_state(threads: int) -> Iterator[None]:
    """Leave torch's generators and number of threads as they were found."""
    before = torch.get_num_threads()
    with torch.random.fork_rng(range(torch.cuda.device_count())):
        if threads:
            torch.set_num_threads(threads)
        try:
            yield
        finally:
            torch.set_num_threads(before)


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence Lightning's remarks on what it found and its advice, which say nothing about this run."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", PossibleUserWarning)
            for kind in (DeprecationWarning, FutureWarning):
                warnings.filterwarnings("ignore", category=kind, module=r"lightning\.")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
