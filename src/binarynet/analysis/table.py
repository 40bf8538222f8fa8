"""Table 1 of the paper with own results beside it: which cell a run belongs to, and in what it is not the paper's.

Works on plain values (a recipe as nested dicts, counts), so that it needs no torch.
"""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from binarynet.analysis.paper import EXPERIMENTS, Experiment

NOT_PART_OF_A_RESULT = frozenset(
    {
        "name",
        "description",
        "seed",
        "dataset.name",
        "model.name",
        "training.evaluation_batch_size",
        "training.checkpoint_every_steps",
        "training.log_every_steps",
        "training.compile",
        "training.accelerator",
        "training.strategy",
        "training.tf32",
        "training.threads",
    }
)
"""Keys of a recipe that make no other result: names (of data and networks too: their sizes are compared), the seed, and
what only changes speed or rounding."""

_LABELS = {
    "training.epochs": "epochs",
    "training.batch_size": "batch size",
    "training.drop_last": "incomplete last batch left out",
    "training.average": "averaging of weights",
    "training.statistics_of_each_process": "separate batch statistics",
    "model.hidden": "hidden units",
    "model.blocks": "convolution channels",
    "model.dense": "dense units",
    "model.kernel_size": "kernel size",
    "model.preprocessing": "preprocessing",
    "model.weights": "binarization of weights",
    "model.dropout_in": "dropout of inputs",
    "model.dropout_hidden": "dropout of hidden units",
    "optimizer.learning_rate": "learning rate",
    "optimizer.final_learning_rate": "final learning rate",
    "optimizer.halve_every": "epochs per halving",
    "optimizer.glorot_scaling": "Glorot scaling",
    "optimizer.glorot_power_of_two": "Glorot factors as powers of two",
    "augmentation.flip": "flips",
    "augmentation.crop_padding": "crops, padding",
    "augmentation.crop_fill": "fill of crops",
    "augmentation.rotation": "rotation, degrees",
    "augmentation.scale": "scaling",
    "augmentation.shift": "shifts, pixels",
    "augmentation.bend": "bending, pixels",
    "dataset.options.extra": "the extra training file",
}
_WIDTHS = ("model.hidden", "model.blocks", "model.dense")
Form = Literal["paper", "changed"]


@dataclass(frozen=True)
class Machine:
    """Where a run was trained: processor, its cores, threads used, device."""

    processor: str
    cores: int | None
    threads: int
    device: str


@dataclass(frozen=True)
class TrainedRun:
    """A run as plain values.

    Attributes:
        path: its folder.
        recipe: nested dicts, every key written out.
        data: name of the data set.
        sizes: images for training, validation and test.
        notes: what the data set says about itself.
        weights: binary weights of the network.
        epochs, best_epoch: trained, and selected by validation error.
        validation_error: of the selected weights, 0 to 1.
        test_errors, test_images: counts.
        train_seconds, cpu_seconds: wall and processor time of training with validation.
        machine: None where the record does not say.
        versions: package to version.
        finished: False for a run that was stopped before the epochs of its recipe were over.
    """

    path: str
    recipe: Mapping[str, Any]
    data: str
    sizes: Mapping[str, int]
    notes: tuple[str, ...]
    weights: int
    epochs: int
    best_epoch: int
    validation_error: float
    test_errors: int
    test_images: int
    train_seconds: float
    cpu_seconds: float
    machine: Machine | None
    versions: Mapping[str, str]
    finished: bool = True

    @property
    def seed(self) -> int:
        return int(self.recipe["seed"])

    @property
    def test_error(self) -> float:
        """0 to 1."""
        return self.test_errors / self.test_images

    def interval(self) -> tuple[float, float]:
        """Wilson's 95 % interval of the test error, 0 to 1: what so few test images leave open."""
        z, n, p = 1.959964, self.test_images, self.test_error
        center = p + z * z / (2 * n)
        half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
        scale = 1 + z * z / n
        return max(0.0, (center - half) / scale), min(1.0, (center + half) / scale)


@dataclass(frozen=True)
class Difference:
    """A key of a recipe whose value is not the paper's.

    Attributes:
        key: dotted.
        paper: its value there (or, where the paper is silent, in the authors' program); None if there is nothing of
            the kind.
        here: its value in the recipe.
        assumed: neither paper nor program states it; ``paper`` is then what this package's full form takes.
    """

    key: str
    paper: Any
    here: Any
    assumed: bool = False

    @property
    def here_in_short(self) -> str:
        """Only what it is in the recipe."""
        return f"{_LABELS.get(self.key, self.key)} {in_words(self.here)}"

    def __str__(self) -> str:
        wanted = "the paper has none" if self.paper is None else f"paper {in_words(self.paper)}"
        if self.assumed:
            wanted = f"the full form {in_words(self.paper)}, the paper states none"
        return f"{self.here_in_short} ({wanted})"


@dataclass(frozen=True)
class Result:
    """Runs of one recipe that differ in their seed only.

    Attributes:
        experiment: the cell of Table 1 that they belong to; None where there is none.
        runs: at least one.
        differences: between recipe and experiment; empty: the recipe is the paper's.
        why_not: why there is no cell; "" where there is one.
    """

    experiment: Experiment | None
    runs: tuple[TrainedRun, ...]
    differences: tuple[Difference, ...]
    why_not: str

    @property
    def name(self) -> str:
        return str(self.runs[0].recipe["name"])

    @property
    def by_the_paper(self) -> bool:
        """Whether it was trained as the paper's cell was. (Missing images do not count, but are told.)"""
        return self.experiment is not None and not self.differences and self.finished

    @property
    def finished(self) -> bool:
        """False for a run that was stopped before its last epoch; it is a result of its own."""
        return all(run.finished for run in self.runs)

    @property
    def in_short(self) -> str:
        """How it is not the paper's: "unfinished", "shorter", "narrower", "altered" (in other constants); else ""."""
        words = [] if self.finished else ["unfinished"]
        changed = {difference.key for difference in self.differences}
        if self.experiment is not None:
            epochs, weights = self.runs[0].recipe["training"]["epochs"], self.runs[0].weights
            if epochs != self.experiment.epochs:
                words.append("shorter" if epochs < self.experiment.epochs else "longer")
            if weights != self.experiment.weights:
                words.append("narrower" if weights < self.experiment.weights else "wider")
        if changed - {"training.epochs", *_WIDTHS}:
            words.append("altered")
        elif changed & set(_WIDTHS) and not {"narrower", "wider"} & set(words):
            words.append("other widths")
        return ", ".join(words)

    @property
    def mean(self) -> float:
        """Mean test error, 0 to 1."""
        return statistics.fmean(run.test_error for run in self.runs)

    @property
    def deviation(self) -> float | None:
        """Sample standard deviation of the test error over seeds; None for a single run."""
        return statistics.stdev(run.test_error for run in self.runs) if len(self.runs) > 1 else None

    def missing_images(self) -> tuple[str, ...]:
        """Where fewer (or more) images were there than the paper had, in words."""
        if self.experiment is None:
            return ()
        return tuple(
            f"{self.runs[0].sizes[part]:,} of {number:,} {'training' if part == 'train' else part} images"
            for part, number in self.experiment.sizes.items()
            if self.runs[0].sizes[part] != number
        )


def results(runs: Iterable[TrainedRun]) -> tuple[tuple[Result, ...], tuple[str, ...]]:
    """Group runs by recipe, in the order of their first run.

    Returns:
        the results, and remarks on runs that were left out: a second run with recipe and seed of another one is no
        second measurement.
    """
    groups: dict[str, dict[int, TrainedRun]] = {}
    remarks = []
    for run in runs:
        flat = _of_a_result(run.recipe)
        stopped = None if run.finished else run.epochs
        group = groups.setdefault(json.dumps([run.data, flat, dict(run.sizes), stopped], sort_keys=True), {})
        if (known := group.setdefault(run.seed, run)) is not run:
            remarks.append(f"{run.path}: left out of the table: same recipe and seed ({run.seed}) as {known.path}")
    return tuple(_result(tuple(group.values())) for group in groups.values()), tuple(remarks)


def _result(runs: Sequence[TrainedRun]) -> Result:
    experiment, why_not = place(runs[0].data, runs[0].recipe)
    differing = () if experiment is None else differences(runs[0].recipe, experiment)
    return Result(experiment, tuple(runs), differing, why_not)


def place(data: str, recipe: Mapping[str, Any]) -> tuple[Experiment | None, str]:
    """The cell that a recipe belongs to, by its data set and its setting; or None, and why.

    A setting is told by three keys together: the binarization of activations while training, the normalization, and
    the optimizer. A recipe that mixes the two settings belongs to neither.
    """
    candidates = [experiment for experiment in EXPERIMENTS if experiment.data == data]
    if not candidates:
        return None, f"the paper has no results on {data}"
    flat = flatten(recipe)
    sizes = next(key for key in _WIDTHS if key in candidates[0].constants)
    if sizes not in flat:
        kind = {"model.hidden": "a multi-layer perceptron", "model.blocks": "a ConvNet"}[sizes]
        return None, f"the paper's network for {data} is {kind}, this one is {flat['model.name']!r}"
    keys = ("model.activation", "model.normalization", "optimizer.name")
    for experiment in candidates:
        if all(flat[key] in experiment.constants[key] for key in keys):
            return experiment, ""
    mixture = ", ".join(f"{key} {flat[key]!r}" for key in keys)
    return None, f"neither of the paper's settings: {mixture}"


def differences(recipe: Mapping[str, Any], experiment: Experiment) -> tuple[Difference, ...]:
    """Keys whose values are not the paper's: epochs and widths first, then as in the recipe.

    A key that the paper has nothing to say about (augmentation, another input) must be absent, empty or off.
    """
    found = []
    for key, here in _of_a_result(recipe).items():
        allowed = experiment.constants.get(key)
        if allowed is None:
            if here not in (None, False, "", "none", [], {}, 0):
                found.append(Difference(key, None, here))
        elif here not in allowed:
            found.append(Difference(key, allowed[0], here, key in experiment.assumed))
    first = ("training.epochs", *_WIDTHS)
    return tuple(sorted(found, key=lambda d: first.index(d.key) if d.key in first else len(first)))


def _of_a_result(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """The dotted keys that make another result. Several processes count as one with their joined batch."""
    flat = {key: value for key, value in flatten(recipe).items() if key not in NOT_PART_OF_A_RESULT}
    processes = flat.pop("training.devices", 1) * flat.pop("training.nodes", 1)
    if not flat.pop("training.share_batch", False) and "training.batch_size" in flat:
        flat["training.batch_size"] *= processes
    if flat.pop("training.synchronize_statistics", True) is False and processes > 1:
        flat["training.statistics_of_each_process"] = True
    return flat


def flatten(recipe: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested tables as dotted keys; an empty table has none, tuples become lists."""
    flat: dict[str, Any] = {}
    for key, value in recipe.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = _plain(value)
    return flat


def in_words(value: Any) -> str:
    """A recipe's value for a reader: [4096, 4096, 4096] is "3 x 4096", powers of two below 1/16 are "2^-6"."""
    if isinstance(value, bool) or value is None:
        return {True: "on", False: "off", None: "none"}[value]
    if isinstance(value, float) and 0 < value < 1 / 16 and math.frexp(value)[0] == 0.5:
        return f"2^{math.frexp(value)[1] - 1}"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, list):
        return _list_in_words(value)
    return str(value)


def _list_in_words(values: list[Any]) -> str:
    if values and all(isinstance(value, list) for value in values):
        return ", ".join(_list_in_words(value) for value in values)
    if len(values) > 1 and len(set(values)) == 1:
        return f"{len(values)} x {values[0]}"
    return ", ".join(map(str, values)) if values else "none"


def _plain(value: Any) -> Any:
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value
