"""Trained networks that come with the package: packed files, each with a card that says what it is and how it was made.

    bn.load("zoo:mnist-mlp")

Wherever a packed network is named, by path, ``zoo:NAME`` names one of these. Cards are written by ``tools/zoo.py`` from
recorded runs. Needs no torch.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from binarynet.errors import FileFormatError, UsageError, nearest

PREFIX = "zoo:"
FORMAT = "binarynet-card"
VERSION = 1

_FOLDER = Path(__file__).parent

__all__ = ["PREFIX", "Card", "available", "card", "cards", "is_name", "path_of", "resolve"]


@dataclass(frozen=True)
class Card:
    """What is known of a network.

    Attributes:
        name: without ``zoo:``.
        title: one line for a reader.
        bytes, sha256: of the packed file.
        network: architecture, as in recipes.
        binary_weights: their number.
        data: the data set that it was trained and tested on.
        data_sha256: its parts' checksums (:meth:`binarynet.data.Split.sha256`).
        data_notes: what the data set says about itself, e.g. that images are missing.
        test_errors, test_images: wrong answers of the packed file, and images in the whole test set.
        setting: of the paper, "theano" or "torch7"; None where it is neither.
        paper_error_percent: the paper's test error for this cell, in percent; None where there is none.
        differences: in what its training differs from the paper's, in words.
        recipe, overrides: what it was trained by: a recipe that comes along, and texts ``key=value`` for ``--set``.
        seed: of the run.
        commits: of the programs that trained it, in order; empty where not known.
        epochs, planned_epochs, best_epoch: trained, asked for, and selected by validation error.
        validation_error: of the selected epoch, 0 to 1.
        train_seconds, cpu_seconds: wall and processor time of training.
        machine: where it was trained, in words.
        started: date and time, ISO 8601 in UTC.
        verification: comparisons of the packed file with the trained network, each with ``images``, ``baseline``,
            ``engines``, ``compared`` (values) and ``differences``.
        record: the recorded run, from the root of the repository.
        make_again: commands, in a checkout.
    """

    name: str
    title: str
    bytes: int
    sha256: str
    network: str
    binary_weights: int
    data: str
    data_sha256: dict[str, str]
    data_notes: list[str]
    test_errors: int
    test_images: int
    setting: str | None
    paper_error_percent: float | None
    differences: list[str]
    recipe: str
    overrides: list[str]
    seed: int
    commits: list[str]
    epochs: int
    planned_epochs: int
    best_epoch: int
    validation_error: float
    train_seconds: float
    cpu_seconds: float
    machine: str
    started: str
    verification: list[dict[str, Any]]
    record: str
    make_again: list[str]

    @property
    def test_error(self) -> float:
        """0 to 1."""
        return self.test_errors / self.test_images

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, ``test_error`` among them."""
        return {"format": FORMAT, "version": VERSION, **asdict(self), "test_error": self.test_error}


def available() -> tuple[str, ...]:
    """Names of the networks, sorted."""
    return tuple(sorted(file.stem for file in _FOLDER.glob("*.bnn")))


def card(name: str) -> Card:
    """A network's card.

    Args:
        name: with or without ``zoo:``.

    Raises:
        UsageError: there is no such network.
        FileFormatError: its card is missing or damaged.
    """
    file = path_of(name).with_suffix(".json")
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise FileFormatError(f"{file}: the card cannot be read: {error}; install binarynet again") from None
    known = [field.name for field in fields(Card)]
    if not isinstance(content, dict) or (content.get("format"), content.get("version")) != (FORMAT, VERSION):
        raise FileFormatError(f"{file}: not a card of version {VERSION}; install binarynet again")
    if missing := [key for key in known if key not in content]:
        raise FileFormatError(f"{file}: the card does not say {', '.join(missing)}; install binarynet again")
    return Card(**{key: content[key] for key in known})


def cards() -> tuple[Card, ...]:
    """All cards, by name; errors as for :func:`card`."""
    return tuple(card(name) for name in available())


def is_name(path: str | os.PathLike[str]) -> bool:
    """True for ``zoo:NAME``, whether there is such a network or not. (A file called so: its absolute path.)"""
    return os.fspath(path).startswith(PREFIX)


def path_of(name: str) -> Path:
    """The packed file of a network, ``name`` with or without ``zoo:``; UsageError where there is none."""
    known = available()
    wanted = name.removeprefix(PREFIX)
    if wanted not in known:
        there = f"there are {', '.join(known)}" if known else "it is empty in this installation"
        raise UsageError(f"the zoo has no network {wanted!r}{nearest(wanted, known)}; {there} (see: binarynet zoo)")
    return _FOLDER / f"{wanted}.bnn"


def resolve(path: str | os.PathLike[str]) -> Path:
    """The file behind a path or a ``zoo:NAME``; UsageError for a name that the zoo does not have."""
    return path_of(os.fspath(path)) if is_name(path) else Path(path)
