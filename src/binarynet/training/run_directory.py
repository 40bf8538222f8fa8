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
from binarynet.training import checkpoint
from binarynet.training import recipe as recipes
from binarynet.training.recipe import Recipe

BEST = "best weights"
TRAINING = "training state"
_FORMAT = {"format": "binarynet-run", "version": 1}


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
        """The content of run.json.

        Raises:
            UsageError: there is none.
            FileFormatError: it is damaged.
        """
        if not self.provenance.is_file():
            raise UsageError(f"{self.path}: not a run: it holds no run.json")
        try:
            content = json.loads(self.provenance.read_text(encoding="utf-8"))
        except (ValueError, RecursionError) as error:
            raise FileFormatError(f"{self.provenance}: not valid JSON: {error}") from None
        if not isinstance(content, dict) or content.items() < _FORMAT.items() or "dataset" not in content:
            raise FileFormatError(f"{self.provenance}: not the record of a run that this binarynet can read")
        return content

    def write_provenance(self, content: dict[str, Any]) -> None:
        """Write run.json, whole."""
        write_whole(self.provenance, json.dumps({**_FORMAT, **content}, indent=2, ensure_ascii=False) + "\n")


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
    if not run.best.is_file():
        raise UsageError(f"{run.path}: no epoch of this run was finished yet; resume it first")
    model, selected = load_best(run, recipe, *input_of(provenance, run.provenance))
    return LoadedRun(model, recipe, {**provenance, **selected})


def load_best(
    run: RunDirectory, recipe: Recipe, input_shape: tuple[int, int, int], classes: int
) -> tuple[nn.Module, dict[str, Any]]:
    """The network with the selected weights, in evaluation mode, and their ``best_epoch`` and ``validation_error``.

    Memory is bounded by the checkpoint's size.
    """
    with torch.device("meta"):
        model = build_network(recipe, input_shape, classes)
    content = checkpoint.load(run.best, BEST)
    checkpoint.load_network(model, content.get("network"), run.best)
    epoch, error = content.get("epoch"), content.get("validation_error")
    if type(epoch) is not int or type(error) is not float:
        raise FileFormatError(f"{run.best}: does not say of which epoch it is")
    return model.eval(), {"best_epoch": epoch, "validation_error": error}


def build_network(recipe: Recipe, input_shape: tuple[int, int, int], classes: int) -> nn.Module:
    """The recipe's network with fresh weights, on torch's default device."""
    return models.build(recipe.model.name, input_shape=input_shape, classes=classes, **recipe.model.options())


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
