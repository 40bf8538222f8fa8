"""A run from recipe to result: train, resume, evaluate."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from dataclasses import replace
from os import PathLike, fspath
from pathlib import Path
from typing import Any, Literal

import torch
from lightning.pytorch import Callback
from torch import nn

from binarynet import data
from binarynet.data import Dataset
from binarynet.errors import (
    BackendUnavailableError,
    BinaryNetError,
    ConnectionLostError,
    DataError,
    FileFormatError,
    PeerError,
    UsageError,
)
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
from binarynet.training.averaging import WeightAverage
from binarynet.training.batches import EvaluationBatches, TrainingBatches
from binarynet.training.evaluation import Evaluation, evaluate
from binarynet.training.interrupt import Interrupt, Stopped
from binarynet.training.module import Classifier
from binarynet.training.progress import Progress
from binarynet.training.randomness import Purpose, derive, seed_torch
from binarynet.training.recipe import Recipe
from binarynet.training.recorder import Recorder
from binarynet.training.result import RunResult, result_of
from binarynet.training.resuming import check_same_data, last_state, look_at
from binarynet.training.run_directory import (
    RunDirectory,
    build_network,
    check_best,
    load_best,
    load_run,
    outline_network,
)
from binarynet.training.surroundings import quiet, tf32, torch_state
from binarynet.training.world import World

DEFAULT_FOLDER = Path("runs")


class TrainingInterrupted(KeyboardInterrupt):
    """Ctrl-C while training; the message says what is usable and how to go on."""


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

    Of several processes (``training.devices``, ``training.nodes``) all call this, with the same arguments. Where nobody
    has started them, as torchrun would, this starts the others by running the program (``sys.argv``) again.

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
        PeerError: of several processes another one failed or was stopped, and the first one raises why.
        ConnectionLostError: another process has ended.
        TrainingInterrupted: Ctrl-C.
    """
    asked, run = _asked_for(recipe, overrides, out, resume)
    with quiet(), World(asked, run.path) as world, world.lost_connections_told():
        start: dict[str, Any] = {}
        dataset, error = None, None
        try:
            if world.first:
                start = look_at(run, asked, resume)
                if "result" in start and world.starts_the_others:
                    return RunResult.from_dict(start["result"])
            if "result" not in start:
                dataset = _load_data(asked, data_dir)
            if dataset is not None and world.first and start["resuming"]:
                start["state"] = last_state(run, asked, dataset)
        except BinaryNetError as raised:
            error = raised
        world.connect()
        world.agree(error)
        start = world.share(start)
        if "result" in start:
            return replace(RunResult.from_dict(start["result"]), process=world.rank)
        assert dataset is not None
        training = asked.training
        with memory.kept(), tf32(training.tf32), torch_state(training.threads or start["threads"]):
            with world.together():
                job = _prepare(asked, run, world, dataset, start)
            return job.carry_out(show, start["resuming"])


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
    check_same_data(record, dataset, RunDirectory(run_dir))
    return evaluate(model, dataset.splits()[split], batch_size=recipe.training.evaluation_batch_size)


class _Job:
    """One call of :func:`train`, once everything that can be wrong with its arguments has been looked at."""

    def __init__(
        self,
        recipe: Recipe,
        run: RunDirectory,
        world: World,
        dataset: Dataset,
        network: nn.Module,
        progress: Progress,
        moments: dict[str, Any] | None,
        averaged: dict[str, Any] | None = None,
    ) -> None:
        self.recipe = recipe
        self.run = run
        self.world = world
        self.dataset = dataset
        self.progress = progress
        self.interrupt = Interrupt()
        self.batches = TrainingBatches(
            dataset.train,
            recipe.training.batch_per_process(),
            seed=recipe.seed,
            drop_last=recipe.training.drop_last,
            rank=world.rank,
            world_size=world.size,
            first_epoch=progress.epoch,
            first_step=progress.step,
            augmentation=augmentation.of_recipe(recipe, dataset.policy.shape),
            device=world.trainer.strategy.root_device,
        )
        self.validation = EvaluationBatches(
            dataset.validation, recipe.training.evaluation_batch_size, rank=world.rank, world_size=world.size
        )
        if progress.step >= self.batches.num_steps or progress.epoch > recipe.training.epochs:
            raise FileFormatError(f"{run.last}: its record of progress is beyond the end of what the recipe asks for")
        preprocessing.fit(network, dataset.train)
        steps = progress.epoch * self.batches.num_steps + progress.step
        average = None
        if recipe.training.average:
            average = WeightAverage(network, recipe.training.average, self.batches, steps)
            if averaged is not None:
                checkpoint.load_network(average.network, averaged, run.last)
        self.module = Classifier(
            network, recipe, world=world, average=average, optimizer_state=moments, cost_sum=progress.cost_sum
        )
        if moments is not None:
            optimizer_state.check(self.module.new_optimizer(), moments, steps, run.last)
        self.record: dict[str, Any] = {}

    def carry_out(self, show: display.Display, resuming: bool) -> RunResult:
        with self.world.together():
            if self.world.first:
                self.run.create()
                write_whole(self.run.recipe, self.recipe.to_toml())
                self._open_record(resuming)
        try:
            with memory.told(self.module.network), self.world.lost_connections_told():
                self._fit(show)
                return self._conclude()
        except (Stopped, KeyboardInterrupt, ConnectionLostError) as error:
            if isinstance(error, ConnectionLostError) and not self.interrupt.requested:
                self._note_end("failed", str(error))
                raise
            self._note_end("interrupted", "Ctrl-C")
            if not self.world.first:
                raise PeerError("interrupted") from None
            raise TrainingInterrupted(self._how_to_go_on()) from None
        except BinaryNetError as error:
            self._note_end("failed", str(error))
            raise

    def _fit(self, show: display.Display) -> None:
        epochs = self.recipe.training.epochs
        if self.progress.epoch >= epochs:
            return
        with self.interrupt:
            recorder = Recorder(self.run, self.module, self.progress, self.batches, self.interrupt, self.world)
            callbacks: list[Callback] = [recorder]
            if self.world.first:
                shown = display.callback(show, self.progress, epochs, self.batches.num_steps)
                callbacks += [shown] if shown is not None else []
            trainer = self.world.trainer
            trainer.callbacks += callbacks  # type: ignore[attr-defined]
            self.record["machine"] = provenance.machine(str(trainer.strategy.root_device), self.recipe.training)
            with self.world.together():
                self._write_record("running")
            # Lightning's own resume restores its loops only at the end of an epoch; all that it needs to know is this.
            trainer.fit_loop.epoch_progress.current.increment_by(self.progress.epoch)
            trainer.fit(self.module, self.batches, self.validation)

    def _conclude(self) -> RunResult:
        result: dict[str, Any] = {}
        with self.world.together():
            if self.world.first:
                result = self._select_and_test().to_dict()
        return replace(RunResult.from_dict(self.world.share(result)), process=self.world.rank)

    def _select_and_test(self) -> RunResult:
        best = load_best(self.run, self.recipe, self.dataset.policy.shape, len(self.dataset.classes))
        check_best(self.run, best, (self.progress.best_epoch, self.progress.best_error), self.run.last)
        test = evaluate(best.model.eval(), self.dataset.test, batch_size=self.recipe.training.evaluation_batch_size)
        title = f"{self.recipe.name}, seed {self.recipe.seed}"
        history, best_epoch = self.progress.history, self.progress.best_epoch
        write_whole(self.run.curves, curves.draw(history, title, best_epoch=best_epoch, test_error=test.error))
        self.record |= {"test_error": test.error, "test_errors": test.num_errors, "test_images": test.num_images}
        self.record["finished"] = provenance.now()
        self._write_record("finished")
        return result_of(self.run, self.record, self.progress)

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
            "commits": [],
            "finished": None,
            "resumed": 0,
        }
        if resuming and self.run.provenance.is_file():
            before = self.run.read_provenance()
            self.record |= {"started": before["started"], "resumed": before["resumed"] + 1}
            self.record |= {"machine": before["machine"], "commits": before.get("commits", [])}
        commit = provenance.commit()
        if commit is not None and [commit] != self.record["commits"][-1:]:
            self.record["commits"] = [*self.record["commits"], commit]

    def _write_record(self, status: str, reason: str | None = None) -> None:
        if not self.world.first:
            return
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


def _asked_for(
    recipe: str | PathLike[str] | Recipe | None,
    overrides: Iterable[str],
    out: str | PathLike[str] | None,
    resume: bool,
) -> tuple[Recipe, RunDirectory]:
    """The recipe (without one, that of the run to resume), and the run's directory."""
    overrides = list(overrides)
    if recipe is not None:
        chosen = recipes.load(recipe, overrides)
        return chosen, RunDirectory(out if out is not None else DEFAULT_FOLDER / chosen.name)
    if out is None or not resume:
        raise UsageError("name a recipe, or the directory of a run to resume")
    run = RunDirectory(out)
    if not run.exists():
        raise UsageError(f"{run.path}: there is no run to resume")
    return recipes.load(run.read_recipe(), overrides), run


def _load_data(recipe: Recipe, data_dir: str | PathLike[str] | None) -> Dataset:
    """The data set, once it is known that this machine can train on it."""
    _check_accelerator(recipe.training.accelerator)
    dataset = data.load(recipe.dataset.name, data_dir, **recipe.dataset.options)
    outline, training = outline_network(recipe, dataset.policy.shape, len(dataset.classes)), recipe.training
    memory.check_fits(outline, training.accelerator, averaged=training.average > 0)
    return dataset


def _prepare(recipe: Recipe, run: RunDirectory, world: World, dataset: Dataset, start: dict[str, Any]) -> _Job:
    """Build the network, and go back to where the run stands."""
    shape, classes = dataset.policy.shape, len(dataset.classes)
    seed_torch(derive(recipe.seed, Purpose.INITIAL_WEIGHTS), torch.device("cpu"))
    with memory.told(outline_network(recipe, shape, classes)):
        network = build_network(recipe, shape, classes)
    state = start.get("state")
    if not state:  # a new run, or one that was stopped before its first checkpoint
        return _Job(recipe, run, world, dataset, network, Progress(), None)
    checkpoint.load_network(network, state.get("network"), run.last)
    moments = state.get("optimizer")
    if not isinstance(moments, dict):
        raise FileFormatError(f"{run.last}: holds no optimizer state")
    averaged = state.get("average")
    if recipe.training.average and not isinstance(averaged, dict):
        raise FileFormatError(f"{run.last}: holds no averaged weights, though the recipe has training.average")
    progress = Progress.from_dict(state.get("progress"), str(run.last))
    return _Job(recipe, run, world, dataset, network, progress, moments, averaged)


def _check_accelerator(name: str) -> None:
    mps = torch.backends.mps.is_available()
    if not {"gpu": torch.cuda.is_available() or mps, "mps": mps}.get(name, True):
        raise BackendUnavailableError(
            f'training.accelerator = "{name}", but torch {torch.__version__} finds none on this machine; '
            'use "auto" or "cpu"'
        )
