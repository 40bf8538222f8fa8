"""The user's own arrays: an .npz file with x and y, and optionally validation and test parts and class names."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from binarynet.data._arrays import read_npz_file
from binarynet.data._splits import TEST_PERCENT, VALIDATION_PERCENT, split_by_percent
from binarynet.data.dataset import Dataset, Images, Labels, Split, check_labels
from binarynet.data.images import ImagePolicy, Resize
from binarynet.errors import DataError

MAX_CHANNELS = 16
MAX_CLASSES = 65_536

_OPTIONAL = ("x_validation", "y_validation", "x_test", "y_test", "classes")
_LAYOUTS = "[n, height, width], [n, height, width, channels] or [n, features]"


def load(file: Path, *, resize: Resize = "crop", background: int | None = 255) -> Dataset:
    """Load ``x`` (uint8 images or features) and ``y`` (integer labels from 0) from an ``.npz`` file.

    ``x_test, y_test`` and ``x_validation, y_validation`` are used where given; else they are taken from ``x, y``,
    stratified, the same ones every time (20 % test, 10 % validation). ``classes`` is an array of class names.

    Args:
        file: the ``.npz`` file.
        resize, background: the policy for pictures given to ``predict`` later; the arrays are taken as they are.

    Raises:
        DataError: see the tests for every way in which such a file can be wrong.
    """
    arrays = read_npz_file(file, required=("x", "y"), optional=_OPTIONAL)
    for part in ("validation", "test"):
        pair = (f"x_{part}", f"y_{part}")
        if (pair[0] in arrays) != (pair[1] in arrays):
            lone, other = pair if pair[0] in arrays else pair[::-1]
            raise DataError(f"{file}: holds {lone} but not {other}: give both or neither")
    parts = {"": _pair(arrays, "", file)}
    for part in ("validation", "test"):
        if f"x_{part}" in arrays:
            parts[part] = _pair(arrays, f"_{part}", file)
            if parts[part][0].shape[1:] != parts[""][0].shape[1:]:
                raise DataError(
                    f"{file}: x_{part} has samples of {list(arrays[f'x_{part}'].shape[1:])}, "
                    f"x of {list(arrays['x'].shape[1:])}: they must be equal"
                )
    classes = _classes(arrays, parts, file)
    splits = _splits(parts, classes, file)
    height, width, channels = parts[""][0].shape[1:]
    return Dataset(
        name=str(file),
        classes=classes,
        policy=ImagePolicy(height, width, channels, resize, background),
        train=splits["train"],
        validation=splits["validation"],
        test=splits["test"],
    )


def _pair(arrays: Mapping[str, npt.NDArray[Any]], suffix: str, file: Path) -> tuple[Images, Labels]:
    x, y = arrays[f"x{suffix}"], arrays[f"y{suffix}"]
    if x.dtype != np.uint8:
        remedy = "scale it to 0..255, round, and convert" if x.dtype.kind == "f" else "convert it"
        raise DataError(f"{file}: x{suffix} is {x.dtype}, expected uint8 (0..255); {remedy} with .astype('uint8')")
    if y.dtype.kind not in "iu":
        raise DataError(f"{file}: y{suffix} is {y.dtype}, expected integers (class indices from 0)")
    if y.ndim != 1:
        raise DataError(f"{file}: y{suffix} has shape {list(y.shape)}, expected [n] (one class index per sample)")
    images = _as_images(x, f"{file}: x{suffix}")
    if len(x) != len(y):
        raise DataError(
            f"{file}: x{suffix} holds {len(x):,} samples but y{suffix} {len(y):,} labels: the counts must be equal"
        )
    if len(x) == 0:
        raise DataError(f"{file}: x{suffix} holds no samples")
    check_labels(y, MAX_CLASSES, f"{file}: y{suffix}")
    return images, y.astype(np.int64)


def _as_images(x: npt.NDArray[np.uint8], what: str) -> Images:
    if x.ndim not in (2, 3, 4) or 0 in x.shape[1:]:
        raise DataError(f"{what} has shape {list(x.shape)}, expected {_LAYOUTS}")
    if x.ndim == 4 and x.shape[3] > MAX_CHANNELS:
        raise DataError(
            f"{what} has shape {list(x.shape)}: {x.shape[3]} channels, expected 1 to {MAX_CHANNELS} as the last axis"
            + ("; x.transpose(0, 2, 3, 1) moves them there" if x.shape[1] <= MAX_CHANNELS else "")
        )
    if x.ndim == 2:
        return np.ascontiguousarray(x[:, np.newaxis, np.newaxis, :])
    if x.ndim == 3:
        return np.ascontiguousarray(x[..., np.newaxis])
    return np.ascontiguousarray(x)


def _classes(
    arrays: Mapping[str, npt.NDArray[Any]], parts: Mapping[str, tuple[Images, Labels]], file: Path
) -> tuple[str, ...]:
    if "classes" in arrays:
        names = arrays["classes"]
        if names.dtype.kind != "U" or names.ndim != 1:
            raise DataError(
                f"{file}: classes is {names.dtype} {list(names.shape)}, expected text [number of classes], "
                f"as np.array(['cat', 'dog']) gives"
            )
        classes = tuple(str(name) for name in names)
        if len(set(classes)) != len(classes):
            raise DataError(f"{file}: class names must differ, got {list(classes)}")
    else:
        classes = tuple(str(i) for i in range(int(parts[""][1].max()) + 1))
    if len(classes) < 2:
        raise DataError(f"{file}: {len(classes)} class, at least 2 are needed")
    for part, (_, labels) in parts.items():
        check_labels(labels, len(classes), f"{file}: y{'_' + part if part else ''}")
    counts = np.bincount(parts[""][1], minlength=len(classes))
    empty = [f"{i} ('{classes[i]}')" for i in np.flatnonzero(counts == 0)]
    if empty:
        raise DataError(f"{file}: no sample of class {', '.join(empty[:5])}{', ...' if len(empty) > 5 else ''} in y")
    return classes


def _splits(parts: Mapping[str, tuple[Images, Labels]], classes: tuple[str, ...], file: Path) -> dict[str, Split]:
    images, labels = parts[""]
    wanted = {"test": TEST_PERCENT, "validation": VALIDATION_PERCENT}
    missing = [part for part in wanted if part not in parts]
    splits = {part: Split(*parts[part]) for part in wanted if part in parts}
    if not missing:
        return {**splits, "train": Split(images, labels)}
    keys = [str(i) for i in range(len(labels))]
    indices = split_by_percent(labels, keys, classes, [wanted[part] for part in missing], str(file))
    for part, chosen in zip([*missing, "train"], indices, strict=True):
        splits[part] = Split(images[chosen], labels[chosen])
    return splits
