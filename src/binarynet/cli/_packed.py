"""A packed network on a data set: error and speed. Needs no torch."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from binarynet.data import Dataset, Split
    from binarynet.runtime import Model

BATCH = 1000


@dataclass(frozen=True)
class Score:
    """How a network did on ``images`` images: ``wrong`` of them, in ``seconds``."""

    wrong: int
    images: int
    seconds: float

    @property
    def error(self) -> float:
        """Share of wrong answers, 0..1."""
        return self.wrong / self.images


def inputs(split: Split, model: Model) -> npt.NDArray[np.uint8]:
    """The split's images as the network takes them: ``[n, h, w, c]`` or ``[n, features]``."""
    return split.images.reshape(len(split), *model.input_shape)


def load_data(model: Model, path: Path, wanted: str | None, data_dir: Path | None) -> Dataset:
    """The data set that is asked for, else the one that the network was trained on, brought to its input.

    Raises:
        UsageError: no data set is known.
        DataError: it is missing, damaged, or has other classes than the network.
    """
    from binarynet.cli._networks import dataset_name, policy_of, refusals_explained
    from binarynet.data import load_like
    from binarynet.data.registry import is_there
    from binarynet.errors import DataError

    name = dataset_name(model.network, path, wanted)
    if wanted is None and not is_there(name, data_dir):
        raise DataError(
            f"{path}: was trained on {name}, which is not found from here; say where the data are: --dataset PATH"
        )
    with refusals_explained(model.network, path):
        dataset = load_like(name, policy_of(model.network), data_dir, None if wanted else _options(model))
    if model.classes and dataset.classes != model.classes:
        raise DataError(
            f"{dataset.name}: its classes ({_some(dataset.classes)}) are not those of {path} ({_some(model.classes)})"
        )
    return dataset


def _options(model: Model) -> dict[str, Any]:
    """Of the data set, as the file says that the network was trained on it; empty where it does not say so."""
    found: Any = model.network.provenance
    for key in ("recipe", "dataset", "options"):
        found = found.get(key) if isinstance(found, dict) else None
    return dict(found) if isinstance(found, dict) else {}


def measure(model: Model, split: Split) -> Score:
    """Classify a whole split."""
    images = inputs(split, model)
    start = time.perf_counter()
    wrong = 0
    for i in range(0, len(split), BATCH):
        labels = model.predict(images[i : i + BATCH]).labels
        wrong += int((labels != split.labels[i : i + BATCH]).sum())
    return Score(wrong, len(split), time.perf_counter() - start)


def facts(model: Model, path: Path, dataset: Dataset, part: str) -> dict[str, Any]:
    """JSON-able result of evaluating a file on one part of a data set."""
    score = measure(model, dataset.splits()[part])
    return {
        "file": str(path),
        "dataset": dataset.name,
        "split": part,
        "error": score.error,
        "wrong": score.wrong,
        "images": score.images,
        "engine": model.engine,
        "device": model.device,
        "threads": model.session.num_threads,
        "seconds": score.seconds,
        "images_per_second": score.images / score.seconds,
        "notes": list(dataset.notes),
    }


def _some(names: tuple[str, ...]) -> str:
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
