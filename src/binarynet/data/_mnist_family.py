"""MNIST and what has its form: two IDX files for training, two for test; the end of training is validation."""

from __future__ import annotations

from dataclasses import dataclass
from os import PathLike
from pathlib import Path

import numpy as np

from binarynet.data._files import (
    DATA_VARIABLE,
    Place,
    PublishedFile,
    content_sha256,
    download,
    file_sha256,
    is_gzip,
    places,
)
from binarynet.data._idx import read_idx
from binarynet.data.dataset import Dataset, Images, Labels, Split, check_labels
from binarynet.data.images import ImagePolicy
from binarynet.data.status import Check, DatasetStatus, FileStatus
from binarynet.errors import DataError

NUM_TRAINING, NUM_VALIDATION = 60_000, 10_000


@dataclass(frozen=True)
class Family:
    """One data set in the form of MNIST.

    Attributes:
        name, summary, classes, policy: as for every data set; images are 28 x 28 grey.
        files: training images, training labels, test images, test labels.
        mirrors: addresses of folders that hold them.
        others: sha256 (of the file or of its content) of the test labels of data sets that use the same file names;
            a folder that holds them is passed over.
    """

    name: str
    summary: str
    classes: tuple[str, ...]
    policy: ImagePolicy
    files: tuple[PublishedFile, ...]
    mirrors: tuple[str, ...]
    others: tuple[str, ...]


def load_family(family: Family, data_dir: str | PathLike[str] | None) -> Dataset:
    """Load from ``data_dir``, ``BINARYNET_DATA`` or the cache, else download into the cache.

    Files in the user's own folders may differ from the published ones, which then is a note of the data set;
    a differing file in the cache is fetched again.

    Raises:
        DataError: files missing and not to be downloaded, damaged, or of the wrong shape.
    """
    files = family.files
    found, place = _locate(family, data_dir)
    notes: list[str] = []
    train_images, train_labels = _read_pair(family, files[0], files[1], found, place, notes)
    test_images, test_labels = _read_pair(family, files[2], files[3], found, place, notes)
    total = len(train_labels)
    num_validation = NUM_VALIDATION if total == NUM_TRAINING else total // 6
    if num_validation == 0:
        raise DataError(f"{found[files[0].name]}: only {total} images, too few to take a validation part from")
    if total != NUM_TRAINING:
        notes.append(
            f"{total:,} training images instead of {NUM_TRAINING:,}: the last {num_validation:,} are for validation"
        )
    border = total - num_validation
    return Dataset(
        name=family.name,
        train=Split(train_images[:border], train_labels[:border]),
        validation=Split(train_images[border:], train_labels[border:]),
        test=Split(test_images, test_labels),
        classes=family.classes,
        policy=family.policy,
        notes=tuple(notes),
    )


def family_status(family: Family, data_dir: str | PathLike[str] | None) -> DatasetStatus:
    """Where the files are on this machine and whether they are the published ones; downloads nothing."""
    best: dict[str, Path] = {}
    where = ""
    for place in places(family.name, data_dir):
        found = _files_in(family, place.directory)
        if len(found) > len(best):
            best, where = found, str(place.directory)
    files = tuple(_file_status(file, best.get(file.name)) for file in family.files)
    ready = all(file.check not in ("missing", "damaged") for file in files)
    if not best:
        size = sum(file.size_bytes for file in family.files) / 1e6
        detail = f"downloaded on first use ({size:.0f} MB); or --data DIR, or {DATA_VARIABLE}"
    elif ready:
        detail = "checksums as published"
        if any(file.check == "unchecked" for file in files):
            detail = "checksums are published for the .gz files only"
        if any(file.check == "differs" for file in files):
            detail = "checksums DIFFER from the published ones"
    else:
        detail = "; ".join(f"{file.name} {file.check}" for file in files if file.check in ("missing", "damaged"))
    return DatasetStatus(family.name, family.summary, ready, where, detail, files)


def _file_status(file: PublishedFile, path: Path | None) -> FileStatus:
    check: Check = "missing"
    if path is not None:
        try:
            check = _compare(file, path, content_sha256(path))
        except DataError:
            check = "damaged"
    size_bytes = path.stat().st_size if path is not None else None
    return FileStatus(file.name, check, path, size_bytes, file.md5, file.sha256)


def _compare(file: PublishedFile, path: Path, sha256: str) -> Check:
    """Whether a file is the published one; ``sha256`` is that of its content."""
    if file.content_sha256:
        return "published" if sha256 == file.content_sha256 else "differs"
    if not is_gzip(path):
        return "unchecked"
    return "published" if file_sha256(path) == file.sha256 else "differs"


def _files_in(family: Family, directory: Path) -> dict[str, Path]:
    """The four files by published name; also accepted without .gz, and with the dot of the unpacked originals."""
    found = {}
    for file in family.files:
        plain = file.name.removesuffix(".gz")
        dotted = plain.replace("-idx", ".idx")
        for name in (file.name, plain, f"{dotted}.gz", dotted):
            if (directory / name).is_file():
                found[file.name] = directory / name
                break
    test_labels = found.get(family.files[3].name)
    return {} if test_labels is not None and _is_another(family, test_labels) else found


def _is_another(family: Family, test_labels: Path) -> bool:
    try:
        return file_sha256(test_labels) in family.others or content_sha256(test_labels) in family.others
    except DataError:
        return False


def _locate(family: Family, data_dir: str | PathLike[str] | None) -> tuple[dict[str, Path], Place]:
    searched = places(family.name, data_dir)
    for place in searched:
        found = _files_in(family, place.directory)
        if len(found) == len(family.files):
            if place.origin != "cache" or all(
                _file_status(file, found[file.name]).check == "published" for file in family.files
            ):
                return found, place
        elif found and place.origin != "cache":
            missing = [file.name for file in family.files if file.name not in found]
            raise DataError(
                f"{family.name}: {place.directory} holds {len(found)} of its {len(family.files)} files, "
                f"it lacks {', '.join(missing)}; put all of them into one folder"
            )
    cache = searched[-1]
    try:
        return {file.name: download(file, family.mirrors, cache.directory) for file in family.files}, cache
    except DataError as error:
        raise DataError(
            f"{family.name}: not found in {', '.join(str(place.directory) for place in searched)}; {error}. "
            f"Get the four files ({family.files[0].name}, ...) and name their folder with --data or {DATA_VARIABLE}"
        ) from error


def _read_pair(
    family: Family,
    images_file: PublishedFile,
    labels_file: PublishedFile,
    found: dict[str, Path],
    place: Place,
    notes: list[str],
) -> tuple[Images, Labels]:
    arrays = []
    for file, num_axes in ((images_file, 3), (labels_file, 1)):
        path = found[file.name]
        array, sha256 = read_idx(path, num_axes)
        check = _compare(file, path, sha256)
        if check != "published":
            if place.origin == "cache":
                raise DataError(f"{path}: differs from the published file; delete it, it will be fetched again")
            differs = "content differs from" if check == "differs" else "could not be compared with"
            notes.append(f"{path}: {differs} the published {file.name} (sha256 {sha256[:16]}...)")
        arrays.append(array)
    images, labels = arrays
    if images.shape[1:] != (family.policy.height, family.policy.width):
        raise DataError(f"{found[images_file.name]}: images are {list(images.shape[1:])}, expected [28, 28]")
    if len(images) != len(labels):
        raise DataError(
            f"{found[images_file.name]} holds {len(images):,} images, but {found[labels_file.name]} "
            f"holds {len(labels):,} labels: the counts must be equal"
        )
    if len(images) == 0:
        raise DataError(f"{found[images_file.name]}: holds no images")
    check_labels(labels, len(family.classes), str(found[labels_file.name]))
    return images[..., np.newaxis], labels.astype(np.int64)
