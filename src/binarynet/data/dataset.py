"""What a data set is, once loaded: three splits of 8-bit images, class names, and the policy for further pictures."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from binarynet.data.images import ImagePolicy
from binarynet.errors import DataError, ShapeError

Images = npt.NDArray[np.uint8]
Labels = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Split:
    """One part of a data set.

    Attributes:
        images: uint8 ``[n, height, width, channels]``, C-contiguous. Feature vectors are ``[n, 1, 1, features]``.
        labels: int64 ``[n]``, class indices from 0.
    """

    images: Images
    labels: Labels

    def __post_init__(self) -> None:
        images, labels = self.images, self.labels
        if images.dtype != np.uint8 or images.ndim != 4 or not images.flags.c_contiguous:
            raise ShapeError(
                f"images: expected contiguous uint8 [n, height, width, channels], "
                f"got {images.dtype} {list(images.shape)}"
            )
        if labels.dtype != np.int64 or labels.ndim != 1:
            raise ShapeError(f"labels: expected int64 [n], got {labels.dtype} {list(labels.shape)}")
        if len(images) != len(labels):
            raise ShapeError(f"{len(images):,} images but {len(labels):,} labels: the counts must be equal")

    def __len__(self) -> int:
        return len(self.labels)

    def sha256(self) -> str:
        """Hash of shape, pixels and labels: the same for the same images in whatever files they came."""
        digest = hashlib.sha256(repr(self.images.shape).encode())
        digest.update(self.images.data)
        digest.update(self.labels.astype("<i8").data)
        return digest.hexdigest()


@dataclass(frozen=True, eq=False)
class Dataset:
    """A data set as training and evaluation take it.

    Attributes:
        name: its registered name, or the path it was read from.
        train, validation, test: never empty, all of the policy's image shape.
        classes: class names; label ``i`` means ``classes[i]``.
        policy: how any further picture becomes an input; travels into the packed file.
        notes: what a reader of the results must know (a differing checksum, a missing class, ...); usually empty.
    """

    name: str
    train: Split
    validation: Split
    test: Split
    classes: tuple[str, ...]
    policy: ImagePolicy
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if len(self.classes) < 2:
            raise DataError(f"{self.name}: {len(self.classes)} class, at least 2 are needed")
        if len(set(self.classes)) != len(self.classes):
            raise DataError(f"{self.name}: class names must differ, got {list(self.classes)}")
        for name in self.classes:
            if not name or not name.isprintable():
                raise DataError(f"{self.name}: class name {name!r} is empty or holds control characters")
        for part, split in self.splits().items():
            if len(split) == 0:
                raise DataError(f"{self.name}: the {part} split is empty")
            if split.images.shape[1:] != self.policy.shape:
                raise DataError(
                    f"{self.name}: {part} images are {list(split.images.shape[1:])}, "
                    f"expected {list(self.policy.shape)} (height, width, channels)"
                )
            check_labels(split.labels, len(self.classes), f"{self.name}: {part} labels")

    def splits(self) -> dict[str, Split]:
        """The three parts by name, in the order train, validation, test."""
        return {"train": self.train, "validation": self.validation, "test": self.test}


def check_labels(labels: npt.NDArray[np.integer], num_classes: int, what: str) -> None:
    """Raise DataError, naming the first offender, unless every label is in ``0 .. num_classes - 1``."""
    wrong = np.flatnonzero((labels < 0) | (labels >= num_classes))
    if wrong.size:
        first = int(wrong[0])
        raise DataError(
            f"{what}: label {int(labels[first])} at position {first} is out of range, expected 0..{num_classes - 1}"
        )
