"""CIFAR-10: 32 x 32 colour pictures of 10 classes; 45,000 training, the last 5,000 of the training files validation,
10,000 test.

A. Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009. Taken in both published forms, each as the
tar.gz archive or extracted: the binary version (records of 1 label byte and 3,072 pixel bytes: red, green and blue
planes of 32 x 32, row by row) and the Python version (pickles, read as data only: nothing in them is run). The split is
the paper's: first 45,000, last 5,000.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from binarynet.data._files import DATA_VARIABLE, Place, PublishedFile, download, file_sha256, places, read_whole
from binarynet.data._plain_pickle import read_plain_pickle
from binarynet.data._tar import read_tar_members
from binarynet.data.dataset import Dataset, Images, Labels, Split, check_labels
from binarynet.data.images import ImagePolicy
from binarynet.data.status import Check, DatasetStatus, FileStatus
from binarynet.errors import DataError

SUMMARY = "small photographs, 32 x 32 colour, 10 classes, 45,000 / 5,000 / 10,000"
CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
POLICY = ImagePolicy(height=32, width=32, channels=3, resize="crop", background=255)
NUM_TRAINING, NUM_VALIDATION, NUM_TEST = 50_000, 5_000, 10_000
PIXEL_BYTES = 3 * 32 * 32
RECORD_BYTES = 1 + PIXEL_BYTES

MAX_BATCH_BYTES = 1 << 28
MAX_ARCHIVE_BYTES = 1 << 29
"""Of one batch, and of a decompressed archive; the published ones have 31 and 184 million bytes."""

MIRRORS = ("https://www.cs.toronto.edu/~kriz/", "https://cave.cs.toronto.edu/kriz/")
BATCHES = ("data_batch_1", "data_batch_2", "data_batch_3", "data_batch_4", "data_batch_5", "test_batch")


@dataclass(frozen=True)
class Form:
    """One of the published forms: its archive, and the six files in it with their md5 sums, in the order of BATCHES."""

    folder: str
    suffix: str
    archive: PublishedFile
    md5: tuple[str, ...]

    def checksums(self) -> dict[str, str]:
        """Published md5 by file name."""
        return {batch + self.suffix: md5 for batch, md5 in zip(BATCHES, self.md5, strict=True)}


FORMS = (
    Form(
        folder="cifar-10-batches-bin",
        suffix=".bin",
        archive=PublishedFile(
            name="cifar-10-binary.tar.gz",
            size_bytes=170_052_171,
            md5="c32a1d4ab5d03f1284b67883e8d87530",
            sha256="c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
        ),
        md5=(
            "5dd7e06a14cb22eb9f671a540d1b7c25",
            "5ea93a67294ea407fff1d09f752e9692",
            "942cd6a4bcdd0dd3c604fbe906cb4421",
            "ae636b3ba5c66a11e91e8cb52e771fcb",
            "53f37980c15c3d472c316c40844f3f0d",
            "803d5f7f4d78ea53de84dbe85f74fb6d",
        ),
    ),
    Form(
        folder="cifar-10-batches-py",
        suffix="",
        archive=PublishedFile(
            name="cifar-10-python.tar.gz",
            size_bytes=170_498_071,
            md5="c58f30108f718f92721af3b95e74349a",
            sha256="6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce",
        ),
        md5=(
            "c99cafc152244af753f735de768cd75f",
            "d4bba439e000b95fd0a9bffe97cbabec",
            "54ebc095f3ab1f0389bbae665268c751",
            "634d18415352ddfa80567beed471001a",
            "482c414d41f54cd18b22e5b47cb7c3cb",
            "40351d587109b95175f43aff81a1287e",
        ),
    ),
)


@dataclass(frozen=True)
class _Source:
    """Where batches are: a folder (which may lack some of them) or an archive."""

    form: Form
    path: Path
    is_archive: bool
    missing: tuple[str, ...] = ()


def load(data_dir: str | PathLike[str] | None = None) -> Dataset:
    """Load CIFAR-10 from ``data_dir``, ``BINARYNET_DATA`` or the cache, else download it into the cache.

    In each folder, the batches or the archive may lie in the folder itself, in ``cifar-10-batches-bin`` or in
    ``cifar-10-batches-py``. A batch may hold any number of whole records; where the user's files differ from the
    published ones, the notes say so. Validation is the last 5,000 training records (a tenth of them, where there are
    fewer than 10,000).

    Returns:
        Images uint8 ``[n, 32, 32, 3]`` (RGB), labels as in the files.

    Raises:
        DataError: files missing and not to be downloaded, damaged, or holding anything but plain data.
    """
    source = _locate(data_dir)
    notes: list[str] = []
    batches = _read(source, notes)
    test_images, test_labels = batches.pop()
    images = np.concatenate([batch[0] for batch in batches])
    labels = np.concatenate([batch[1] for batch in batches])
    del batches
    total = len(labels)
    num_validation = NUM_VALIDATION if total >= 2 * NUM_VALIDATION else total // 10
    if num_validation == 0:
        raise DataError(f"{source.path}: only {total} training images, too few to take a validation part from")
    if total != NUM_TRAINING:
        notes.append(
            f"{total:,} training images instead of {NUM_TRAINING:,}: the last {num_validation:,} are for validation"
        )
    if len(test_labels) != NUM_TEST:
        notes.append(f"{len(test_labels):,} test images instead of {NUM_TEST:,}")
    border = total - num_validation
    return Dataset(
        name="cifar10",
        train=Split(images[:border], labels[:border]),
        validation=Split(images[border:], labels[border:]),
        test=Split(test_images, test_labels),
        classes=CLASSES,
        policy=POLICY,
        notes=tuple(notes),
    )


def status(data_dir: str | PathLike[str] | None = None) -> DatasetStatus:
    """Where CIFAR-10 is on this machine and whether its files are the published ones; downloads nothing."""
    sources = [source for place in places("cifar10", data_dir) for source in _sources(place)]
    if not sources:
        archive = FORMS[0].archive
        detail = f"downloaded on first use ({archive.size_bytes / 1e6:.0f} MB); or --data DIR, or {DATA_VARIABLE}"
        absent = FileStatus(archive.name, "missing", None, None, archive.md5, archive.sha256)
        return DatasetStatus("cifar10", SUMMARY, False, "", detail, (absent,))
    source = next((source for source in sources if not source.missing), sources[0])
    files = _archive_status(source) if source.is_archive else _folder_status(source)
    ready = all(file.check in ("published", "differs") for file in files)
    if ready:
        same = all(file.check == "published" for file in files)
        detail = "checksums as published" if same else "checksums DIFFER from the published ones"
    else:
        detail = "; ".join(f"{file.name} {file.check}" for file in files if file.check in ("missing", "damaged"))
    where = str(source.path.parent if source.is_archive else source.path)
    return DatasetStatus("cifar10", SUMMARY, ready, where, detail, files)


def _archive_status(source: _Source) -> tuple[FileStatus, ...]:
    archive, check = source.form.archive, _check_archive(source)
    return (FileStatus(archive.name, check, source.path, source.path.stat().st_size, archive.md5, archive.sha256),)


def _check_archive(source: _Source) -> Check:
    try:
        if file_sha256(source.path) == source.form.archive.sha256:
            return "published"
        _read(source, [])
    except DataError:
        return "damaged"
    return "differs"


def _folder_status(source: _Source) -> tuple[FileStatus, ...]:
    files = []
    for name, md5 in source.form.checksums().items():
        path = source.path / name
        check: Check = "missing"
        if name not in source.missing:
            try:
                content = read_whole(path, MAX_BATCH_BYTES)
                check = "published" if _md5(content) == md5 else "differs"
                if check == "differs":
                    _batch(source.form, content, str(path))
            except DataError:
                check = "damaged"
        found = check != "missing"
        files.append(FileStatus(name, check, path if found else None, path.stat().st_size if found else None, md5, ""))
    return tuple(files)


def _sources(place: Place) -> list[_Source]:
    """What a place holds: extracted batches before archives, complete before incomplete, binary before Python.

    The cache holds archives only.
    """
    sources = []
    if place.origin != "cache":
        for form in FORMS:
            for directory in (place.directory, place.directory / form.folder):
                missing = tuple(name for name in form.checksums() if not (directory / name).is_file())
                if len(missing) < len(BATCHES):
                    sources.append(_Source(form, directory, False, missing))
    for form in FORMS:
        archive = place.directory / form.archive.name
        if archive.is_file():
            sources.append(_Source(form, archive, True))
    return sorted(sources, key=lambda source: bool(source.missing))


def _locate(data_dir: str | PathLike[str] | None) -> _Source:
    searched = places("cifar10", data_dir)
    for place in searched:
        for source in _sources(place):
            if source.missing:
                held = len(BATCHES) - len(source.missing)
                raise DataError(
                    f"cifar10: {source.path} holds {held} of its {len(BATCHES)} files, "
                    f"it lacks {', '.join(source.missing)}; put all of them into one folder"
                )
            if place.origin != "cache" or file_sha256(source.path) == source.form.archive.sha256:
                return source
    cache, form = searched[-1], FORMS[0]
    try:
        return _Source(form, download(form.archive, MIRRORS, cache.directory), True)
    except DataError as error:
        raise DataError(
            f"cifar10: not found in {', '.join(str(place.directory) for place in searched)}; {error}. "
            f"Get {form.archive.name} (or {FORMS[1].archive.name}) and name its folder with --data or {DATA_VARIABLE}"
        ) from error


def _read(source: _Source, notes: list[str]) -> list[tuple[Images, Labels]]:
    """The six batches in the order of BATCHES; notes get what differs from the published files."""
    checksums = source.form.checksums()
    if not source.is_archive:
        batches = []
        for name, md5 in checksums.items():
            path = source.path / name
            content = read_whole(path, MAX_BATCH_BYTES)
            batches.append(_batch(source.form, content, str(path)))
            if (found := _md5(content)) != md5:
                held = f"md5 {found[:16]}..., {len(batches[-1][1]):,} images"
                notes.append(f"{path}: content differs from the published {name} ({held})")
        return batches
    archive = source.form.archive
    if (found := file_sha256(source.path)) != archive.sha256:
        notes.append(f"{source.path}: differs from the published {archive.name} (sha256 {found[:16]}...)")
    contents = read_tar_members(source.path, checksums, MAX_BATCH_BYTES, MAX_ARCHIVE_BYTES)
    missing = [name for name in checksums if name not in contents]
    if missing:
        raise DataError(f"{source.path}: lacks {', '.join(missing)}; fetch it again")
    return [_batch(source.form, contents.pop(name), f"{source.path}: {name}") for name in checksums]


def _batch(form: Form, content: bytes, what: str) -> tuple[Images, Labels]:
    pixels, labels = _from_records(content, what) if form.suffix == ".bin" else _from_pickle(content, what)
    check_labels(labels, len(CLASSES), what)
    images = np.ascontiguousarray(pixels.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))
    return images, labels


def _from_records(content: bytes, what: str) -> tuple[Images, Labels]:
    num_records, rest = divmod(len(content), RECORD_BYTES)
    if rest or not num_records:
        raise DataError(
            f"{what}: {len(content):,} bytes, expected whole records of {RECORD_BYTES:,} bytes (30,730,000 as "
            f"published): truncated, or not a CIFAR-10 batch"
        )
    records = np.frombuffer(content, dtype=np.uint8).reshape(num_records, RECORD_BYTES)
    return records[:, 1:], records[:, 0].astype(np.int64)


def _from_pickle(content: bytes, what: str) -> tuple[Images, Labels]:
    batch: Any = read_plain_pickle(content, what)
    for key in ("data", "labels"):
        if not isinstance(batch, dict) or key not in batch:
            raise DataError(f"{what}: lacks '{key}', expected a dictionary with 'data' and 'labels'")
    pixels, labels = batch["data"], batch["labels"]
    if not isinstance(pixels, np.ndarray) or pixels.ndim != 2 or pixels.shape[1] != PIXEL_BYTES:
        shape = list(pixels.shape) if isinstance(pixels, np.ndarray) else type(pixels).__name__
        raise DataError(f"{what}: 'data' is {shape}, expected uint8 [n, {PIXEL_BYTES}]")
    if not isinstance(labels, list) or any(type(label) is not int for label in labels):
        raise DataError(f"{what}: 'labels' is not a list of integers")
    if len(pixels) != len(labels):
        raise DataError(f"{what}: {len(pixels):,} images but {len(labels):,} labels: the counts must be equal")
    if not labels:
        raise DataError(f"{what}: holds no images")
    return pixels, np.array(labels, dtype=np.int64)


def _md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()
