"""A packed network ready to use: load, predict, save."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any, overload

import numpy as np
import numpy.typing as npt

from binarynet import fileformat
from binarynet.errors import UsageError
from binarynet.fileformat import PackedNetwork
from binarynet.graph import Graph
from binarynet.runtime.session import Session

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Prediction:
    """What a network says about n images.

    Attributes:
        labels: int64 ``[n]``, index of the highest score, the first one on ties.
        scores: float32 ``[n, classes]``, as the network's last normalization gives them.
        names: class name of each label (the label as text where the network has no class names).
    """

    labels: npt.NDArray[np.int64]
    scores: npt.NDArray[np.float32]
    names: list[str]

    def __len__(self) -> int:
        return len(self.labels)


class Model:
    """A packed network with its class names, image policy and provenance. Needs no torch.

    Args:
        network: what a .bnn file holds.
        engine, num_threads, device: as for :class:`Session`.
    """

    def __init__(
        self,
        network: PackedNetwork,
        *,
        engine: str | None = None,
        num_threads: int | None = None,
        device: str | None = None,
    ) -> None:
        self.network = network
        self.session = Session(network.graph, engine=engine, num_threads=num_threads, device=device)

    @property
    def graph(self) -> Graph:
        return self.network.graph

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in the order of the scores; empty where the network has none."""
        return self.network.classes

    @property
    def input_shape(self) -> tuple[int, ...]:
        """``(rows, columns, channels)`` or ``(features,)``."""
        return self.graph.input.shape

    @property
    def engine(self) -> str:
        """Name of the engine in use."""
        return self.session.engine

    @property
    def device(self) -> str:
        """Where it runs: "cpu" or "cuda:0"."""
        return self.session.device

    @overload
    def scores(self, images: Array) -> npt.NDArray[np.float32]: ...
    @overload
    def scores(self, images: Any) -> Any: ...
    def scores(self, images: Any) -> Any:
        """float32 ``[n, classes]`` for uint8 images ``[n, *input_shape]`` (a network that ends in signs: packed bits).

        One image without the batch axis is taken as a batch of one; grey images may leave their channel axis out
        (or one grey image both). On a GPU, images may be a batch in its memory (:meth:`Session.run`): then the scores
        are there, too.

        Raises:
            ShapeError: another dtype or shape; nothing is converted silently.
        """
        return self.session.run(self._batched(images))

    def predict(self, images: Any) -> Prediction:
        """Labels and scores; arguments and errors as for :meth:`scores`.

        Raises:
            UsageError: the network's result is not a vector of scores.
        """
        output = self.graph.output_type
        if output.kind != "f32" or len(output.shape) != 1:
            raise UsageError(f"this network returns {output}, not scores; use model.session.run(images)")
        scores = np.asarray(self.scores(images))
        labels = np.argmax(scores, axis=1)
        return Prediction(labels, scores, [self.classes[i] if self.classes else str(i) for i in labels])

    def save(self, path: str | os.PathLike[str]) -> int:
        """Write a .bnn file, whole or not at all; returns its size in bytes."""
        return fileformat.write(path, self.network)

    def _batched(self, images: Any) -> Any:
        shape = self.input_shape
        if isinstance(images, np.ndarray):
            if type(images) is not np.ndarray and not isinstance(images, np.ma.MaskedArray):
                images = np.asarray(images)  # an np.matrix keeps two axes
            if images.shape == shape:
                return images[np.newaxis]
            if shape[-1] == 1 and len(shape) == images.ndim == 3 and images.shape[1:] == shape[:2]:
                return images[..., np.newaxis]
            if shape[-1] == 1 and images.ndim == 2 and images.shape == shape[:2]:
                return images[np.newaxis, ..., np.newaxis]
        return images

    def __repr__(self) -> str:
        shape = " x ".join(map(str, self.input_shape))
        where = "" if self.device == "cpu" else f" on {self.device}"
        return f"<binarynet.Model {shape} -> {self.graph.output_type}, engine {self.engine}{where}>"


def load(
    path: str | os.PathLike[str],
    *,
    engine: str | None = None,
    num_threads: int | None = None,
    device: str | None = None,
) -> Model:
    """Read a .bnn file, or a network that comes with the package.

    Args:
        path: the file, or ``zoo:NAME`` (:mod:`binarynet.zoo`).
        engine, num_threads, device: as for :class:`Session`.

    Raises:
        FileFormatError: the file is missing, damaged, newer than this binarynet, or not a .bnn file at all.
        UsageError: the zoo has no network of this name.
    """
    return Model(fileformat.read(path), engine=engine, num_threads=num_threads, device=device)
