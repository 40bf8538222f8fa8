"""Recipes: what to train, on what, and how, as TOML; every key and value is checked, and none is ignored.

seed = 1234
[dataset]       name, options
[augmentation]  random flips, crops and warps of training images
[model]         name, and the options of that architecture (``binarynet.models.options``)
[optimizer]     which one, learning rates, Glorot scaling, moments
[training]      epochs, batches, checkpoints, device
"""

from __future__ import annotations

import functools
import math
import tomllib
from collections.abc import Iterable
from importlib import resources
from os import PathLike
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model, field_validator, model_validator

from binarynet import models
from binarynet.errors import RecipeError, nearest
from binarynet.training import _overrides
from binarynet.training._overrides import SCHEDULE_KEYS
from binarynet.training._recipe_text import describe, to_toml

Probability = Annotated[float, Field(ge=0, lt=1)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


CompileMode = Literal["default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs"]


class Section(BaseModel):
    """Base of all tables: unknown keys are refused, values are not converted, nothing changes later."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, validate_default=True)


class DatasetSection(Section):
    """What to train on.

    Attributes:
        name: a name of ``binarynet.data.available()``, or a path of one's own data.
        options: what that data set's loader takes, e.g. ``image_size``.
    """

    name: Annotated[str, Field(min_length=1)]
    options: dict[str, Any] = {}


class ModelSection(Section):
    """The architecture. Once its name is known, its options are fields too."""

    name: str

    def options(self) -> dict[str, Any]:
        """The architecture's options, as ``binarynet.models.build`` takes them."""
        return self.model_dump(exclude={"name"})


class OptimizerSection(Section):
    """How weights are updated, and how the learning rate falls from epoch to epoch.

    Attributes:
        name: "adam" (the paper's Theano setting), or "adamax_shift" (its Torch7 setting), see
            :class:`binarynet.optim.ShiftAdaMax`.
        learning_rate: of the first epoch.
        schedule: "exponential" (Theano): epoch e (from 0) of n has ``learning_rate * (final / first) ** (e / n)``.
            "halving" (Torch7): it has ``learning_rate / 2 ** (e // halve_every)``. "cosine" (not the paper's): it has
            ``final + (first - final) * (1 + cos(pi * e / n)) / 2``.
        final_learning_rate: what the rate falls towards; of the exponential and cosine schedules, which need it.
        halve_every: number of epochs; of the halving schedule, which needs it.
        glorot_scaling: multiply the rate of latent weights by their layer's Glorot factor.
        glorot_power_of_two: round these factors to powers of two, as the paper's CIFAR-10 and SVHN programs do.
        beta1, beta2: decay rates of the two moments.
        eps: added to the second moment (of Adam: to its root); 1e-8 for Adam and 2^-27 for shift-based AdaMax if
            not given.
    """

    name: Literal["adam", "adamax_shift"] = "adam"
    learning_rate: Positive
    schedule: Literal["exponential", "halving", "cosine"] = "exponential"
    final_learning_rate: Positive | None = None
    halve_every: Annotated[int, Field(ge=1)] | None = None
    glorot_scaling: bool = True
    glorot_power_of_two: bool = False
    beta1: Probability = 0.9
    beta2: Probability = 0.999
    eps: Positive = 1e-8

    @model_validator(mode="before")
    @classmethod
    def _eps_of_the_optimizer(cls, given: Any) -> Any:
        if isinstance(given, dict) and given.get("name") == "adamax_shift" and "eps" not in given:
            return {**given, "eps": 2.0**-27}
        return given

    @model_validator(mode="after")
    def _schedule_has_its_keys(self) -> OptimizerSection:
        needed = SCHEDULE_KEYS[self.schedule]
        if getattr(self, needed) is None:
            raise ValueError(f"the key 'optimizer.{needed}' is missing: optimizer.schedule {self.schedule!r} needs it")
        (foreign,) = set(SCHEDULE_KEYS.values()) - {needed}
        if getattr(self, foreign) is not None:
            raise ValueError(
                f"optimizer.{foreign} has no meaning with optimizer.schedule {self.schedule!r}; leave it out "
                f"(as an override: optimizer.{foreign}=none)"
            )
        if self.glorot_power_of_two and not self.glorot_scaling:
            raise ValueError("optimizer.glorot_power_of_two has no meaning without optimizer.glorot_scaling")
        if self.final_learning_rate is not None and self.final_learning_rate > self.learning_rate:
            raise ValueError(
                f"optimizer.final_learning_rate {self.final_learning_rate:g} must not be above "
                f"optimizer.learning_rate {self.learning_rate:g}"
            )
        return self

    def rate(self, epoch: int, epochs: int) -> float:
        """The learning rate of an epoch (from 0) of so many, before Glorot scaling."""
        if self.halve_every is not None:
            return self.learning_rate * 0.5 ** (epoch // self.halve_every)
        assert self.final_learning_rate is not None
        if self.schedule == "cosine":
            left = (1 + math.cos(math.pi * epoch / epochs)) / 2
            return self.final_learning_rate + (self.learning_rate - self.final_learning_rate) * left
        ratio = self.final_learning_rate / self.learning_rate
        return float(self.learning_rate * ratio ** (epoch / epochs))


class TrainingSection(Section):
    """How long, in what batches, on what.

    Attributes:
        epochs: passes over the training split.
        batch_size: samples per step in each process; of one process, also what batch statistics are taken over.
        share_batch: ``batch_size`` is that of all processes together, as in a paper's recipe, and each takes its share.
        drop_last: leave out an incomplete last batch, as the original does (another one each epoch).
        average: evaluate, select and keep an exponential moving average of the weights over the steps, with so much
            weight of the past per step, e.g. 0.999, see :class:`binarynet.training.averaging.WeightAverage`; 0, as in
            the paper: the newest weights.
        evaluation_batch_size: has no influence on results.
        checkpoint_every_steps: write a checkpoint every so many steps within an epoch too; 0 at its end only.
        log_every_steps: how often the cost is looked at while an epoch runs, and NaN found.
        compile: run the network through ``torch.compile``, as one graph: true, or one of torch's modes; of these
            "reduce-overhead" and "max-autotune" use CUDA graphs on a GPU.
        tf32: let NVIDIA GPUs compute the real-valued products of the backward pass in TF32 (10 bits of mantissa); those
            of the forward pass are exact either way.
        accelerator: "auto", "cpu", "gpu" or "mps".
        devices: processes on each machine, one per GPU; on a CPU as many as you say.
        nodes: machines.
        strategy: how several processes train one network; "ddp" (each has all of it, gradients are averaged), which
            is also what "auto" takes. One process alone needs none.
        synchronize_statistics: batch statistics are those of all processes' batches joined, so that several processes
            do what one would with the joined batch; false takes each process's own, and the first one's in the end.
        threads: CPU threads of torch in each process; 0 is torch's own choice, divided among the processes that were
            started together. A resumed run repeats an uninterrupted one bit for bit on the same device with the same
            number of threads and processes.
    """

    epochs: Annotated[int, Field(ge=1)]
    batch_size: Annotated[int, Field(ge=2)] = 100
    share_batch: bool = False
    drop_last: bool = True
    average: Probability = 0.0
    evaluation_batch_size: Annotated[int, Field(ge=1)] = 1000
    checkpoint_every_steps: Annotated[int, Field(ge=0)] = 0
    log_every_steps: Annotated[int, Field(ge=1)] = 50
    compile: bool | CompileMode = False
    tf32: bool = False
    accelerator: Literal["auto", "cpu", "gpu", "mps"] = "auto"
    devices: Annotated[int, Field(ge=1)] = 1
    nodes: Annotated[int, Field(ge=1)] = 1
    strategy: Literal["auto", "ddp"] = "auto"
    synchronize_statistics: bool = True
    threads: Annotated[int, Field(ge=0, le=1024)] = 0

    @field_validator("compile", mode="before")
    @classmethod
    def _compile_mode_is_known(cls, given: Any) -> Any:
        known = get_args(CompileMode)
        if isinstance(given, bool) or (isinstance(given, str) and given in known):
            return given
        hint = nearest(given, known) if isinstance(given, str) else ""
        allowed = ", ".join(map(repr, known))
        raise ValueError(f"training.compile: expected a boolean, {allowed}, got {given!r}{hint}")

    @model_validator(mode="after")
    def _batch_can_be_shared(self) -> TrainingSection:
        processes = self.devices * self.nodes
        if self.share_batch and self.batch_size % processes:
            raise ValueError(
                f"training.batch_size {self.batch_size} cannot be shared among {processes} processes "
                "(training.devices * training.nodes); take a multiple of that"
            )
        return self

    def batch_per_process(self) -> int:
        """Samples per step in each process."""
        return self.batch_size // (self.devices * self.nodes) if self.share_batch else self.batch_size


class AugmentationSection(Section):
    """Random changes of training images, drawn from seed, epoch, step and rank; all off by default, as in the paper.

    Attributes:
        flip: mirror each image left to right with probability 1/2.
        crop_padding: put so many pixels around each image and cut its size out again at a random place; 0 is off.
        crop_fill: the byte that those pixels have, and those around an image that is warped. No byte stands for 0 (the
            network sees 2u - 255, which is odd); 128 stands for +1, 1/255 of the paper's scale. Take 0 for drawings on
            black.
        rotation, scale, shift, bend: warp each image: rotate it by up to so many degrees either way, multiply its size
            by 1 - scale to 1 + scale, shift it by up to so many pixels (and fractions) along both axes, bend it
            smoothly by so many pixels (a standard deviation); see :class:`binarynet.training.warping.Warp`. What is
            warped is flipped and cropped afterwards. 0 is off.
    """

    flip: bool = False
    crop_padding: Annotated[int, Field(ge=0)] = 0
    crop_fill: Annotated[int, Field(ge=0, le=255)] = 128
    rotation: Annotated[float, Field(ge=0, le=180)] = 0.0
    scale: Probability = 0.0
    shift: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    bend: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0

    @model_validator(mode="after")
    def _fill_needs_padding(self) -> AugmentationSection:
        if self.crop_fill != 128 and not self.crop_padding and not self.warps():
            raise ValueError(
                "augmentation.crop_fill has no meaning without augmentation.crop_padding, rotation, scale, shift or "
                "bend"
            )
        return self

    def warps(self) -> dict[str, float]:
        """What :class:`binarynet.training.warping.Warp` is told but the fill; empty where images keep their shape."""
        amounts = {"rotation": self.rotation, "scale": self.scale, "shift": self.shift, "bend": self.bend}
        return amounts if any(amounts.values()) else {}


class Recipe(Section):
    """A complete, checked recipe. Made by :func:`load` or :func:`parse`.

    Attributes:
        name: names the run's directory.
        description: one line for a reader.
        seed: root of all randomness.
        dataset, augmentation, model, optimizer, training: see their classes.
    """

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    description: str = ""
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 1234
    dataset: DatasetSection
    augmentation: AugmentationSection = AugmentationSection()
    model: ModelSection
    optimizer: OptimizerSection
    training: TrainingSection

    def to_toml(self) -> str:
        """The recipe with every key that it has written out; parsing it gives an equal recipe."""
        return to_toml(self.model_dump(exclude_none=True))


def available() -> tuple[str, ...]:
    """Names of the recipes that come with the package, sorted."""
    return tuple(sorted(entry.name.removesuffix(".toml") for entry in _folder().iterdir() if _is_recipe(entry.name)))


def load(recipe: str | PathLike[str] | Recipe, overrides: Iterable[str] = ()) -> Recipe:
    """Read and check a recipe.

    Args:
        recipe: a name of :func:`available`, the path of a ``.toml`` file, or a recipe.
        overrides: texts ``key=value`` with dotted keys, e.g. ``training.epochs=5``; the value is TOML, or else a
            plain string. ``key=none`` leaves the key out, so that its default holds. Another
            ``optimizer.schedule`` or ``model.name`` needs no such thing for the keys of the one it replaces.

    Raises:
        RecipeError: no such recipe, not TOML, or a wrong key or value (named, with what is allowed).
    """
    if isinstance(recipe, Recipe):
        raw, origin = recipe.model_dump(), recipe.name
    else:
        text, origin, stem = _read(recipe)
        try:
            raw = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise RecipeError(f"{origin}: not valid TOML: {error}") from None
        raw.setdefault("name", stem)
    _overrides.apply(raw, overrides)
    return parse(raw, origin)


def parse(raw: dict[str, Any], origin: str = "recipe") -> Recipe:
    """Check a recipe given as nested dicts; ``origin`` opens error messages.

    Raises:
        RecipeError: a wrong key or value.
    """
    section = raw.get("model")
    name = section.get("name") if isinstance(section, dict) else None
    if isinstance(name, str) and name not in models.available():
        known = models.available()
        raise RecipeError(
            f"{origin}: model.name: there is no architecture {name!r}{nearest(name, known)}; "
            f"allowed: {', '.join(known)}"
        )
    schema = _schema(name) if isinstance(name, str) else Recipe
    try:
        return schema.model_validate(raw)
    except ValidationError as error:
        lines = [describe(problem, schema) for problem in error.errors(include_url=False)]
        raise RecipeError(f"{origin}: " + "; ".join(lines)) from None


@functools.cache
def _schema(model_name: str) -> type[Recipe]:
    """The recipe's schema with the options of one architecture as fields of its model section."""
    fields: dict[str, Any] = {}
    for key, option in models.options(model_name).items():
        annotation: Any = Probability if key.startswith("dropout") else option.annotation
        default = _as_lists(option.default)
        fields[key] = (annotation, ... if default is option.empty else default)
    fields["name"] = (Literal[model_name], ...)
    section = create_model("ModelSection", __base__=ModelSection, **fields)
    return create_model("Recipe", __base__=Recipe, model=(section, ...))


def _as_lists(value: Any) -> Any:
    """Tuples of tuples as TOML has them."""
    return [_as_lists(entry) for entry in value] if isinstance(value, tuple) else value


def _read(recipe: str | PathLike[str]) -> tuple[str, str, str]:
    """Text, origin for messages, and stem of a recipe by name or path."""
    name = str(recipe)
    if name in available():
        return (_folder() / f"{name}.toml").read_text(encoding="utf-8"), name, name
    path = Path(recipe).expanduser()
    if path.suffix != ".toml":
        known = available()
        raise RecipeError(
            f"there is no recipe {name!r}{nearest(name, known)}; known: {', '.join(known)}, or the path of a .toml file"
        )
    try:
        return path.read_text(encoding="utf-8"), str(path), path.stem
    except OSError as error:
        raise RecipeError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise RecipeError(f"{path}: not a text file in UTF-8") from None


def _folder() -> Any:
    return resources.files("binarynet") / "recipes"


def _is_recipe(filename: str) -> bool:
    return filename.endswith(".toml")
