"""SVHN, cropped house numbers: 32 x 32 colour, 10 digits; 598,388 training, 6,000 validation, 26,032 test.

Y. Netzer, T. Wang, A. Coates, A. Bissacco, B. Wu, A. Y. Ng, "Reading Digits in Natural Images with Unsupervised Feature
Learning", 2011; for non-commercial use. Read from the published MATLAB files. In them label 10 is the digit 0; here
label and class are the digit itself.

The split is the paper's: training is the train and the extra file (604,388 pictures) without the validation part, which
is, of every class, 400 of the train file and 200 of the extra file. The paper does not say which ones; here they are
the first of each class in the order of the file.
"""

from __future__ import annotations

from os import PathLike
from pathlib import Path

import numpy as np
import numpy.typing as npt

from binarynet.data._files import DATA_VARIABLE, Place, PublishedFile, download, file_sha256, places
from binarynet.data._mat import read_mat
from binarynet.data.dataset import Dataset, Images, Labels, Split
from binarynet.data.images import ImagePolicy
from binarynet.data.status import Check, DatasetStatus, FileStatus
from binarynet.errors import DataError, UsageError

SUMMARY = "house numbers, 32 x 32 colour, 10 classes, 598,388 / 6,000 / 26,032"
CLASSES = tuple("0123456789")
POLICY = ImagePolicy(height=32, width=32, channels=3, resize="crop", background=255)

MIRRORS = ("http://ufldl.stanford.edu/housenumbers/",)
FILES = (
    PublishedFile(
        name="train_32x32.mat",
        size_bytes=182_040_794,
        md5="e26dedcc434d2e4c54c9b2d4a06d8373",
        sha256="435e94d69a87fde4fd4d7f3dd208dfc32cb6ae8af2240d066de1df7508d083b8",
    ),
    PublishedFile(
        name="extra_32x32.mat",
        size_bytes=1_329_278_602,
        md5="a93ce644f1a588dc4d68dda5feec44a7",
        sha256="a133a4beb38a00fcdda90c9489e0c04f900b660ce8a316a5e854838379a71eb3",
    ),
    PublishedFile(
        name="test_32x32.mat",
        size_bytes=64_275_384,
        md5="eb5a983be6a315427106f1b164d9cef3",
        sha256="cdce80dfb2a2c4c6160906d0bd7c68ec5a99d7ca4831afa54f09182025b6a75b",
    ),
)
NUM_IMAGES = (73_257, 531_131, 26_032)
VALIDATION_PER_CLASS = (400, 200)
"""Of the train file, of the extra file."""

_COPY_IMAGES = 4096


def load(data_dir: str | PathLike[str] | None = None, *, extra: bool = True) -> Dataset:
    """Load SVHN from ``data_dir``, ``BINARYNET_DATA`` or the cache, else download it (1.6 GB) into the cache.

    Files in the user's own folders may differ from the published ones, which then is a note of the data set. Of a train
    or extra file with another number of pictures, validation takes a share in proportion (at least one of each class).
    The published files need about 4 GB of memory while they are read, 2 GB afterwards.

    Args:
        data_dir: where to look first.
        extra: take the extra file, as the paper does; without it (0.25 GB to download) 69,257 pictures are for training
            and 4,000 for validation, and a note says so.

    Returns:
        Images uint8 ``[n, 32, 32, 3]`` (RGB); labels are the digits. Train and validation have the pictures of the
        train file first, then those of the extra file, each in the file's order.

    Raises:
        DataError: files missing and not to be downloaded, damaged, or of the wrong shape.
        UsageError: ``extra`` is not a bool.
    """
    if not isinstance(extra, bool):
        raise UsageError(f"svhn: extra must be true or false, got {extra!r}")
    files = FILES if extra else (FILES[0], FILES[2])
    found, place = _locate(data_dir, files)
    notes = [] if extra else [f"without {FILES[1].name}: training and validation are of {FILES[0].name} alone"]
    for file in files:
        path = found[file.name]
        if place.origin != "cache" and (sha256 := file_sha256(path)) != file.sha256:
            notes.append(f"{path}: differs from the published {file.name} (sha256 {sha256[:16]}...)")
    train, validation = _training(found, notes)
    test = _Pictures(found[FILES[2].name])
    if len(test.labels) != NUM_IMAGES[2]:
        notes.append(f"{len(test.labels):,} test images instead of {NUM_IMAGES[2]:,}")
    everything = np.ones(len(test.labels), dtype=np.bool_)
    return Dataset(
        name="svhn",
        train=train,
        validation=validation,
        test=_gather([test], [everything]),
        classes=CLASSES,
        policy=POLICY,
        notes=tuple(notes),
    )


def status(data_dir: str | PathLike[str] | None = None) -> DatasetStatus:
    """Where SVHN is on this machine and whether its files are the published ones; downloads nothing."""
    best: dict[str, Path] = {}
    where = ""
    for place in places("svhn", data_dir):
        found = _files_in(place.directory)
        if len(found) > len(best):
            best, where = found, str(place.directory)
    files = tuple(_file_status(file, best.get(file.name)) for file in FILES)
    ready = all(file.check in ("published", "differs") for file in files)
    if not best:
        size = sum(file.size_bytes for file in FILES) / 1e9
        detail = f"downloaded on first use ({size:.1f} GB); or --data DIR, or {DATA_VARIABLE}"
    elif ready:
        same = all(file.check == "published" for file in files)
        detail = "checksums as published" if same else "checksums DIFFER from the published ones"
    else:
        detail = "; ".join(f"{file.name} {file.check}" for file in files if file.check in ("missing", "damaged"))
    return DatasetStatus("svhn", SUMMARY, ready, where, detail, files)


def _file_status(file: PublishedFile, path: Path | None) -> FileStatus:
    check: Check = "missing"
    if path is not None:
        try:
            check = "published" if file_sha256(path) == file.sha256 else "differs"
            if check == "differs":
                _Pictures(path)
        except DataError:
            check = "damaged"
    size_bytes = path.stat().st_size if path is not None else None
    return FileStatus(file.name, check, path, size_bytes, file.md5, file.sha256)


def _files_in(directory: Path) -> dict[str, Path]:
    return {file.name: directory / file.name for file in FILES if (directory / file.name).is_file()}


def _locate(data_dir: str | PathLike[str] | None, files: tuple[PublishedFile, ...]) -> tuple[dict[str, Path], Place]:
    searched = places("svhn", data_dir)
    for place in searched:
        held = _files_in(place.directory)
        found = {file.name: held[file.name] for file in files if file.name in held}
        if len(found) == len(files):
            if place.origin != "cache" or all(file_sha256(found[file.name]) == file.sha256 for file in files):
                return found, place
        elif held and place.origin != "cache":
            missing = [file.name for file in files if file.name not in held]
            without = " (or train without it: dataset.options.extra=false)" if missing == [FILES[1].name] else ""
            raise DataError(
                f"svhn: {place.directory} holds {len(held)} of its {len(FILES)} files, "
                f"it lacks {', '.join(missing)}; put all of them into one folder{without}"
            )
    cache = searched[-1]
    try:
        return {file.name: download(file, MIRRORS, cache.directory) for file in files}, cache
    except DataError as error:
        raise DataError(
            f"svhn: not found in {', '.join(str(place.directory) for place in searched)}; {error}. "
            f"Get the files ({', '.join(file.name for file in files)}) and name their folder with --data "
            f"or {DATA_VARIABLE}"
        ) from error


class _Pictures:
    """One file: pixels uint8 ``[n, channel, column, row]`` as MATLAB has them, labels the digits."""

    def __init__(self, path: Path) -> None:
        arrays = read_mat(path, ("X", "y"))
        self.path, self.pixels = path, arrays["X"]
        if self.pixels.dtype != np.uint8 or self.pixels.ndim != 4 or self.pixels.shape[1:] != (3, 32, 32):
            shape = list(self.pixels.shape[::-1])
            raise DataError(f"{path}: X is {self.pixels.dtype} {shape}, expected uint8 [32, 32, 3, n]")
        self.labels = _digits(arrays["y"], path)
        if len(self.pixels) != len(self.labels):
            raise DataError(
                f"{path}: X holds {len(self.pixels):,} images but y {len(self.labels):,} labels: "
                f"the counts must be equal"
            )
        if not len(self.labels):
            raise DataError(f"{path}: holds no images")


def _digits(y: npt.NDArray[np.generic], path: Path) -> Labels:
    if y.ndim != 2 or 1 not in y.shape:
        raise DataError(f"{path}: y has shape {list(y.shape[::-1])}, expected [n, 1]")
    flat = y.reshape(-1)
    wrong = np.flatnonzero(~np.isin(flat, np.arange(1, 11)))
    if wrong.size:
        first = int(wrong[0])
        raise DataError(
            f"{path}: label {flat[first]} at position {first} is out of range, expected 1..10 (10 is the digit 0)"
        )
    return flat.astype(np.int64) % 10


def _training(found: dict[str, Path], notes: list[str]) -> tuple[Split, Split]:
    """Train and validation, of the train and (where it was found) the extra file."""
    files, chosen = [], []
    for file, published, per_class in zip(FILES, NUM_IMAGES, VALIDATION_PER_CLASS, strict=False):
        if file.name not in found:
            continue
        pictures = _Pictures(found[file.name])
        count = len(pictures.labels)
        if count != published:
            per_class = max(1, per_class * count // published)
            notes.append(
                f"{count:,} images instead of {published:,} in {file.name}: the first {per_class} of each class are "
                f"for validation"
            )
        files.append(pictures)
        chosen.append(_first_of_each_class(pictures, per_class))
    return _gather(files, [~mask for mask in chosen]), _gather(files, chosen)


def _first_of_each_class(pictures: _Pictures, count: int) -> npt.NDArray[np.bool_]:
    mask = np.zeros(len(pictures.labels), dtype=np.bool_)
    for digit, name in enumerate(CLASSES):
        members = np.flatnonzero(pictures.labels == digit)
        if len(members) <= count:
            raise DataError(
                f"{pictures.path}: {len(members)} images of class '{name}', more than {count} are needed to take "
                f"{count} for validation"
            )
        mask[members[:count]] = True
    return mask


def _gather(files: list[_Pictures], masks: list[npt.NDArray[np.bool_]]) -> Split:
    """The chosen pictures of all files as ``[n, row, column, channel]``, copied once, in small pieces."""
    images: Images = np.empty((sum(int(mask.sum()) for mask in masks), *POLICY.shape), dtype=np.uint8)
    start = 0
    for pictures, mask in zip(files, masks, strict=True):
        indices = np.flatnonzero(mask)
        for first in range(0, len(indices), _COPY_IMAGES):
            piece = indices[first : first + _COPY_IMAGES]
            images[start : start + len(piece)] = pictures.pixels[piece].transpose(0, 3, 2, 1)
            start += len(piece)
    labels = np.concatenate([pictures.labels[mask] for pictures, mask in zip(files, masks, strict=True)])
    return Split(images, labels)
