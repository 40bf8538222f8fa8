"""A run's directory: what lies where, and reading a finished (or stopped) run back.

RUN/
  recipe.toml             the recipe with every key written out
  run.json                provenance: versions, machine, seed, data set, errors, times
  metrics.csv             one row per epoch
  curves.png              training curves, drawn at the end
  checkpoints/last.ckpt   to resume from
  checkpoints/best.ckpt   weights of the epoch with the lowest validation error
  tensorboard/            events
"""

from __future__ import annotations

import json
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from binarynet import models
from binarynet.data import ImagePolicy
from binarynet.errors import BinaryNetError, FileFormatError, UsageError
from binarynet.files import write_whole
from binarynet.training import checkpoint, record
from binarynet.training import recipe as recipes
from binarynet.training.progress import Progress
from binarynet.training.recipe import Recipe

BEST = "best weights"
TRAINING = "training state"


class RunDirectory:
    """The paths of a run, and its two documents."""

    def __init__(self, path: str | PathLike[str]) -> None:
        self.path = Path(path)
        self.recipe = self.path / "recipe.toml"
        self.provenance = self.path / "run.json"
        self.metrics = self.path / "metrics.csv"
        self.curves = self.path / "curves.png"
        self.last = self.path / "checkpoints" / "last.ckpt"
        self.best = self.path / "checkpoints" / "best.ckpt"
        self.tensorboard = self.path / "tensorboard"

    def exists(self) -> bool:
        """True if there is anything at the path but an empty folder."""
        return self.path.is_file() or (self.path.is_dir() and any(self.path.iterdir()))

    def create(self) -> None:
        """Make the folders, and remove what a killed process left half-written."""
        self.last.parent.mkdir(parents=True, exist_ok=True)
        for folder in (self.path, self.last.parent):
            for leftover in folder.glob(".*.tmp"):
                leftover.unlink()

    def read_recipe(self) -> Recipe:
        """The run's recipe; UsageError where there is none."""
        if not self.recipe.is_file():
            raise UsageError(f"{self.path}: not a run: it holds no recipe.toml")
        return recipes.load(self.recipe)

    def read_provenance(self) -> dict[str, Any]:
        """The content of run.json, every field of it checked.

        Raises:
            UsageError: there is none.
            FileFormatError: it is damaged, of another version, or a field of it is wrong.
        """
        if not self.provenance.is_file():
            raise UsageError(f"{self.path}: not a run: it holds no run.json")
        try:
            content = json.loads(self.provenance.read_text(encoding="utf-8"))
        except (ValueError, RecursionError) as error:
            raise FileFormatError(f"{self.provenance}: not valid JSON: {error}") from None
        checked = record.check(content, str(self.provenance))
        input_of(checked, self.provenance)
        return checked

    def write_provenance(self, content: dict[str, Any]) -> None:
        """Write run.json, whole."""
        text = json.dumps({"format": record.FORMAT, "version": record.VERSION, **content}, indent=2, ensure_ascii=False)
        write_whole(self.provenance, text + "\n")

    def read_last(self, provenance: dict[str, Any] | None) -> tuple[Progress, dict[str, Any]]:
        """Where the run stands, and the checkpoint that says so; both empty before the first one was written.

        Args:
            provenance: the content of run.json, None where there is none.

        Raises:
            FileFormatError: it is damaged or foreign, or missing although epochs were finished.
        """
        if not self.last.is_file():
            if provenance is not None and provenance["epochs"]:
                raise FileFormatError(
                    f"{self.last}: no such checkpoint, but {self.provenance} says that {provenance['epochs']} epochs "
                    "were finished; put it back, or train in another directory"
                )
            return Progress(), {}
        content = checkpoint.load(self.last, TRAINING)
        return Progress.from_dict(content.get("progress"), str(self.last)), content


class LoadedRun(NamedTuple):
    """A run read back.

    Attributes:
        model: the network with the selected weights, in evaluation mode, on the CPU.
        recipe: what it was trained by.
        provenance: the content of ``run.json``, with ``best_epoch`` and ``validation_error`` of these weights;
            ``provenance["dataset"]`` has ``classes`` and ``policy``.
    """

    model: nn.Module
    recipe: Recipe
    provenance: dict[str, Any]


def load_run(run_dir: str | PathLike[str]) -> LoadedRun:
    """Read a run's selected weights, recipe and provenance; the data set is not needed.

    A run that was stopped can be read too, as soon as it has finished an epoch.

    Raises:
        UsageError: not a run.
        RecipeError: its recipe.toml was changed into something wrong.
        FileFormatError: a damaged or foreign checkpoint or run.json.
    """
    run = RunDirectory(run_dir)
    recipe = run.read_recipe()
    provenance = run.read_provenance()
    best = load_best(run, recipe, *input_of(provenance, run.provenance)) if run.best.is_file() else None
    if provenance["status"] == "finished":
        check_best(run, best, (provenance["best_epoch"], provenance["validation_error"]), run.provenance)
    else:  # what a killed run's record says may be long out of date
        check_best_of_unfinished(run, best, run.read_last(provenance)[0])
    if best is None:
        raise UsageError(f"{run.path}: no epoch of this run was finished yet; resume it first")
    selected = {"best_epoch": best.epoch, "validation_error": best.validation_error}
    return LoadedRun(best.model.eval(), recipe, {**provenance, **selected})


class Best(NamedTuple):
    """What best.ckpt holds: the network on the CPU, the epoch (from 1) that it is of, and its validation error."""

    model: nn.Module
    epoch: int
    validation_error: float


def load_best(run: RunDirectory, recipe: Recipe, input_shape: tuple[int, int, int], classes: int) -> Best:
    """Read best.ckpt; whether it is this run's is for :func:`check_best` to say.

    Memory is bounded by the checkpoint's size.

    Raises:
        FileFormatError: missing, damaged, or of another network.
    """
    model = outline_network(recipe, input_shape, classes)
    content = checkpoint.load(run.best, BEST)
    checkpoint.load_network(model, content.get("network"), run.best)
    epoch, error = content.get("epoch"), content.get("validation_error")
    if type(epoch) is not int or epoch < 1 or type(error) is not float or not 0 <= error <= 1:
        raise FileFormatError(
            f"{run.best}: does not say of which epoch it is: epoch {epoch!r}, validation error {error!r}"[:300]
        )
    return Best(model, epoch, error)


def check_best(run: RunDirectory, best: Best | None, selected: tuple[int, float], origin: Path) -> None:
    """Raise FileFormatError unless best.ckpt (None: missing) is of the selected epoch, with its validation error.

    Args:
        run: whose file it is.
        best: its content.
        selected: epoch, and validation error.
        origin: the file that says so.
    """
    epoch, error = selected
    remedy = "put it back, or train in another directory"
    if best is None:
        raise FileFormatError(f"{run.best}: no such checkpoint, but {origin} says that epoch {epoch} is it; {remedy}")
    if (best.epoch, best.validation_error) != selected:
        raise FileFormatError(
            f"{run.best}: of epoch {best.epoch} with validation error {best.validation_error}, but {origin} says that "
            f"epoch {epoch} with {error} is the best; if this file is another run's, {remedy}"
        )


def check_best_of_unfinished(run: RunDirectory, best: Best | None, progress: Progress) -> None:
    """:func:`check_best` by where the run stands.

    A kill between the two checkpoints at an epoch's end leaves best.ckpt one epoch ahead; going on repeats that epoch.
    """
    if best is not None and best.epoch == progress.epoch + 1 and best.validation_error <= progress.best_error:
        return
    if best is not None or progress.best_epoch:
        check_best(run, best, (progress.best_epoch, progress.best_error), run.last)


def build_network(recipe: Recipe, input_shape: tuple[int, int, int], classes: int) -> nn.Module:
    """The recipe's network with fresh weights, on torch's default device."""
    return models.build(recipe.model.name, input_shape=input_shape, classes=classes, **recipe.model.options())


def outline_network(recipe: Recipe, input_shape: tuple[int, int, int], classes: int) -> nn.Module:
    """The recipe's network on the meta device, which takes no memory; UsageError where its size cannot be told."""
    try:
        with torch.device("meta"):
            return build_network(recipe, input_shape, classes)
    except (RuntimeError, TypeError) as error:
        if "overflow" not in str(error).lower():
            raise
        raise UsageError(
            "the network needs more bytes of weights than can be counted; make the [model] smaller"
        ) from None


def input_of(provenance: dict[str, Any], origin: Path) -> tuple[tuple[int, int, int], int]:
    """Input shape (height, width, channels) and number of classes of a run; FileFormatError where they are wrong."""
    try:
        dataset = provenance["dataset"]
        policy = ImagePolicy.from_dict(dataset["policy"])
        classes = dataset["classes"]
        if not isinstance(classes, list) or not all(isinstance(name, str) for name in classes):
            raise TypeError("classes must be a list of names")
    except (KeyError, TypeError, ValueError, BinaryNetError) as error:
        raise FileFormatError(f"{origin}: its record of the data set is not usable: {error}") from None
    return policy.shape, len(classes)
