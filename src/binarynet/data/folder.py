"""The user's own pictures: a folder with one sub-folder per class, or with such folders for train, validation, test.

    pictures/cat/1.png ...            pictures/train/cat/1.png ...
    pictures/dog/7.jpg ...     or     pictures/validation/cat/...   (optional; also "val", "valid")
                                      pictures/test/cat/...         (optional)

What is not given is taken from the training pictures, stratified, the same ones every time (20 % test,
10 % validation; a picture's place follows from its path, so adding pictures moves few of the others).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from binarynet.data._splits import TEST_PERCENT, VALIDATION_PERCENT, split_by_percent
from binarynet.data.dataset import Dataset, Split
from binarynet.data.images import (
    PICTURE_SUFFIXES,
    ImagePolicy,
    PictureSizeError,
    Resize,
    is_grey_picture,
    picture_size,
    read_image,
)
from binarynet.errors import DataError, UsageError

Colour = Literal["auto", "grey", "rgb"]

SPLIT_NAMES = {
    "train": ("train", "training"),
    "validation": ("validation", "val", "valid"),
    "test": ("test",),
}
_OTHER_PICTURES = (".bmp", ".gif", ".webp", ".tif", ".tiff", ".heic", ".avif", ".ppm", ".pgm")


@dataclass(frozen=True)
class _Listing:
    """Picture files with their class indices."""

    files: list[Path]
    labels: list[int]


def load(
    directory: Path,
    *,
    image_size: int | Sequence[int] | None = None,
    colour: Colour = "auto",
    resize: Resize = "crop",
    background: int | None = 255,
) -> Dataset:
    """Load a folder of class folders with PNG and JPEG pictures.

    Args:
        directory: the folder; class names are the names of its sub-folders, in alphabetical order.
        image_size: pixels per side, or [height, width]. Left out, all pictures must have the same size.
        colour: ``grey``, ``rgb``, or ``auto``: grey if every picture is stored as grey.
        resize, background: see :class:`~binarynet.data.images.ImagePolicy`.

    Raises:
        DataError: no class folders, an empty class, a file that is no picture, pictures of several sizes, ...
        UsageError: an option has a wrong value.
    """
    size = _checked_size(image_size)
    if colour not in ("auto", "grey", "rgb"):
        raise UsageError(f"colour must be auto, grey or rgb, got {colour!r}")
    notes: list[str] = []
    roots = _split_roots(directory)
    classes = _class_names(roots["train"])
    listings = {part: _list(root, classes, notes) for part, root in roots.items()}
    if missing := [part for part in ("test", "validation") if part not in listings]:
        listings |= _take(listings.pop("train"), missing, classes, directory)
    files = [file for listing in listings.values() for file in listing.files]
    if colour == "auto":
        colour = "grey" if all(is_grey_picture(file) for file in files) else "rgb"
    policy = ImagePolicy(*(size or picture_size(files[0])), 1 if colour == "grey" else 3, resize, background)
    splits = {part: _read(listing, policy, files[0], any_size=size is not None) for part, listing in listings.items()}
    return Dataset(
        name=str(directory),
        train=splits["train"],
        validation=splits["validation"],
        test=splits["test"],
        classes=classes,
        policy=policy,
        notes=tuple(notes),
    )


def _checked_size(image_size: int | Sequence[int] | None) -> tuple[int, int] | None:
    if image_size is None:
        return None
    sides = [image_size, image_size] if isinstance(image_size, int) else list(image_size)
    if len(sides) != 2 or any(type(side) is not int or not 1 <= side <= 4096 for side in sides):
        raise UsageError(f"image_size must be pixels per side or [height, width], each 1..4096, got {image_size!r}")
    return sides[0], sides[1]


def _visible(directory: Path) -> list[Path]:
    try:
        entries = sorted(directory.iterdir(), key=lambda entry: entry.name)
    except OSError as error:
        raise DataError(f"{directory}: cannot be listed ({error.strerror})") from error
    return [entry for entry in entries if not entry.name.startswith((".", "__"))]


def _hidden_with_pictures(directory: Path) -> list[Path]:
    """Folders that would be classes, were they not hidden. Those without pictures (.git) are nobody's classes."""
    visible = _visible(directory)
    folders = sorted(entry for entry in directory.iterdir() if entry not in visible and entry.is_dir())
    return [
        folder
        for folder in folders
        if any(entry.suffix.lower() in PICTURE_SUFFIXES and entry.is_file() for entry in _visible(folder))
    ]


def _some(entries: Sequence[Path]) -> str:
    return entries[0].name + ("" if len(entries) == 1 else ", ...")


def _split_roots(directory: Path) -> dict[str, Path]:
    """The folders that hold class folders, by split; the given one is "train" if it has no split folders."""
    folders = [entry for entry in _visible(directory) if entry.is_dir()]
    roots: dict[str, Path] = {}
    for part, names in SPLIT_NAMES.items():
        matching = [folder for folder in folders if folder.name.lower() in names]
        if len(matching) > 1:
            raise DataError(f"{directory}: several {part} folders: {', '.join(f.name for f in matching)}; keep one")
        if matching:
            roots[part] = matching[0]
    if not roots:
        return {"train": directory}
    others = [folder.name for folder in folders if folder not in roots.values()]
    if others or "train" not in roots:
        found = ", ".join(folder.name for folder in folders)
        raise DataError(
            f"{directory}: expected either class folders, or train and (optionally) validation and test folders "
            f"with class folders in each; found {found}"
        )
    return roots


def _class_names(root: Path) -> tuple[str, ...]:
    names = tuple(entry.name for entry in _visible(root) if entry.is_dir())
    if len(names) < 2:
        found = f"only {names[0]}" if names else "none"
        raise DataError(f"{root}: expected at least 2 class folders with PNG or JPEG pictures, found {found}")
    return names


def _list(root: Path, classes: tuple[str, ...], notes: list[str]) -> _Listing:
    present = [entry.name for entry in _visible(root) if entry.is_dir()]
    unknown = [name for name in present if name not in classes]
    if unknown:
        raise DataError(
            f"{root}: class folder {', '.join(unknown)} is not among the training classes ({', '.join(classes)})"
        )
    hidden = _hidden_with_pictures(root)
    if hidden:
        what = "the hidden folder is" if len(hidden) == 1 else f"{len(hidden)} hidden folders are"
        notes.append(f"{root}: {what} no class and skipped, with the pictures in it ({_some(hidden)})")
    listing = _Listing([], [])
    ignored: list[Path] = []
    for label, name in enumerate(classes):
        if name not in present:
            notes.append(f"{root}: no pictures of class {name}")
            continue
        pictures = _pictures(root / name, ignored)
        if not pictures:
            raise DataError(f"{root / name}: the class is empty: no PNG or JPEG picture in it")
        listing.files.extend(pictures)
        listing.labels.extend([label] * len(pictures))
    if ignored:
        what = (
            "1 file that is no picture was" if len(ignored) == 1 else f"{len(ignored)} files that are no pictures were"
        )
        notes.append(f"{root}: {what} ignored ({_some(ignored)})")
    if not listing.files:
        raise DataError(f"{root}: no PNG or JPEG pictures in class folders")
    return listing


def _pictures(folder: Path, ignored: list[Path]) -> list[Path]:
    pictures = []
    for entry in _visible(folder):
        suffix = entry.suffix.lower()
        if entry.is_dir():
            raise DataError(f"{entry}: a folder within a class folder; pictures must lie directly in {folder.name}")
        if suffix in PICTURE_SUFFIXES:
            pictures.append(entry)
        elif suffix in _OTHER_PICTURES:
            raise DataError(f"{entry}: only PNG and JPEG pictures are read; convert it")
        else:
            ignored.append(entry)
    return pictures


def _take(train: _Listing, missing: list[str], classes: tuple[str, ...], directory: Path) -> dict[str, _Listing]:
    """Split the training pictures into the missing parts and the rest."""
    percents = {"test": TEST_PERCENT, "validation": VALIDATION_PERCENT}
    keys = [f"{file.parent.name}/{file.name}" for file in train.files]
    indices = split_by_percent(
        np.array(train.labels, dtype=np.int64), keys, classes, [percents[part] for part in missing], str(directory)
    )
    return {
        part: _Listing([train.files[i] for i in chosen], [train.labels[i] for i in chosen])
        for part, chosen in zip([*missing, "train"], indices, strict=True)
    }


def _read(listing: _Listing, policy: ImagePolicy, first: Path, *, any_size: bool) -> Split:
    shape = (len(listing.files), *policy.shape)
    try:
        images = np.empty(shape, dtype=np.uint8)
    except MemoryError as error:
        gigabytes = np.prod(shape, dtype=np.float64) / 1e9
        raise DataError(
            f"{first.parent.parent}: {shape[0]:,} pictures of {list(policy.shape)} take {gigabytes:.1f} GB, more than "
            f"this machine has; choose a smaller image_size"
        ) from error
    reading = policy if any_size else replace(policy, resize="refuse")
    for i, file in enumerate(listing.files):
        try:
            images[i] = read_image(file, reading)
        except PictureSizeError as error:
            if any_size:  # the policy refuses, whatever the other pictures are
                raise
            raise DataError(
                f"{file}: pictures differ in size, {first} has {policy.height} x {policy.width} pixels; "
                f"set image_size to bring all of them to one size"
            ) from error
    return Split(images, np.array(listing.labels, dtype=np.int64))
