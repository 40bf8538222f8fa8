"""What run.json must hold. Checked whole whenever one is read, so that nobody else has to."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from binarynet.errors import FileFormatError
from binarynet.training._recipe_text import describe

FORMAT = "binarynet-run"
VERSION = 1

_LONGEST_MESSAGE = 400

Count = Annotated[int, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class _Part(BaseModel):
    """Values are not converted; keys that a reader adds for himself are left alone."""

    model_config = ConfigDict(extra="ignore", strict=True, frozen=True)


class _Sizes(_Part):
    train: Count
    validation: Count
    test: Count


class _Dataset(_Part):
    name: Annotated[str, Field(min_length=1)]
    sizes: _Sizes
    classes: Annotated[list[str], Field(min_length=1)]
    policy: dict[str, Any]
    notes: list[str] = []


class _Network(_Part):
    binary_weights: Count
    parameters: Count


class _Machine(_Part):
    processor: str
    cores: int | None
    threads: Annotated[int, Field(ge=1, le=1024)]
    system: str
    device: str
    processes: Annotated[int, Field(ge=1)] = 1
    nodes: Annotated[int, Field(ge=1)] = 1
    strategy: str = "auto"


class _Record(_Part):
    status: Literal["running", "interrupted", "failed", "finished"]
    reason: str | None
    recipe: str
    seed: int
    dataset: _Dataset
    network: _Network
    versions: dict[str, str]
    machine: _Machine | None
    started: str
    commits: list[str] = []
    finished: str | None
    resumed: Count
    epochs: Count
    best_epoch: Annotated[int, Field(ge=1)] | None
    validation_error: Share | None
    train_seconds: Seconds
    cpu_seconds: Seconds
    test_error: Share | None = None
    test_errors: Count | None = None
    test_images: Annotated[int, Field(ge=1)] | None = None

    @model_validator(mode="after")
    def _values_must_fit_together(self) -> _Record:
        if (self.best_epoch is None) != (self.validation_error is None) or (self.best_epoch or 0) > self.epochs:
            raise ValueError(
                f"best_epoch {self.best_epoch}, validation_error {self.validation_error} and epochs {self.epochs} "
                "contradict one another"
            )
        test = (self.test_error, self.test_errors, self.test_images)
        if self.status == "finished" and None in (*test, self.best_epoch):
            raise ValueError("status is 'finished', but best_epoch, test_error, test_errors or test_images is missing")
        if self.test_error is not None and self.test_errors is not None and self.test_images is not None:
            if self.test_error != self.test_errors / self.test_images:
                raise ValueError(
                    f"test_error {self.test_error}, test_errors {self.test_errors} and test_images {self.test_images} "
                    "contradict one another"
                )
        elif test != (None, None, None):
            raise ValueError("test_error, test_errors and test_images: expected all of them or none")
        return self


def check(content: Any, origin: str) -> dict[str, Any]:
    """The content of a run.json, once every field of it is known to be right.

    Args:
        content: what the JSON holds.
        origin: opens error messages.

    Raises:
        FileFormatError: another format or version, or a missing or wrong field, by its name.
    """
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise FileFormatError(f"{origin}: not the record of a run of binarynet")
    version = content.get("version")
    if type(version) is not int or version != VERSION:
        raise FileFormatError(f"{origin}: run record version {version!r}, this binarynet reads version {VERSION}")
    try:
        _Record.model_validate(content)
    except ValidationError as error:
        problems = "; ".join(describe(problem, _Record) for problem in error.errors(include_url=False))
        if len(problems) > _LONGEST_MESSAGE:
            problems = problems[:_LONGEST_MESSAGE] + "..."
        raise FileFormatError(f"{origin}: {problems}") from None
    return content
