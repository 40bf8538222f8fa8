"""MNIST: 28 x 28 grey digits; 50,000 training, the last 10,000 of the training file validation, 10,000 test.

Y. LeCun, C. Cortes, C. J. C. Burges, "The MNIST database of handwritten digits"; CC BY-SA 3.0.
"""

from __future__ import annotations

from os import PathLike
from pathlib import Path

import numpy as np

from binarynet.data._files import DATA_VARIABLE, Place, PublishedFile, content_sha256, download, places
from binarynet.data._idx import read_idx
from binarynet.data.dataset import Dataset, Images, Labels, Split, check_labels
from binarynet.data.images import ImagePolicy
from binarynet.data.status import Check, DatasetStatus, FileStatus
from binarynet.errors import DataError

SUMMARY = "handwritten digits, 28 x 28 grey, 10 classes, 50,000 / 10,000 / 10,000"
CLASSES = tuple("0123456789")
POLICY = ImagePolicy(height=28, width=28, channels=1, resize="pad", background=0)
NUM_VALIDATION = 10_000

MIRRORS = (
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
)
FILES = (
    PublishedFile(
        name="train-images-idx3-ubyte.gz",
        size_bytes=9_912_422,
        md5="f68b3c2dcbeaaa9fbdd348bbdeb94873",
        sha256="440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
        content_sha256="ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    ),
    PublishedFile(
        name="train-labels-idx1-ubyte.gz",
        size_bytes=28_881,
        md5="d53e105ee54ea40749a09fcbcd1e9432",
        sha256="3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
        content_sha256="65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    ),
    PublishedFile(
        name="t10k-images-idx3-ubyte.gz",
        size_bytes=1_648_877,
        md5="9fb629c4189551a2d022fa330f9573f3",
        sha256="8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
        content_sha256="0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    ),
    PublishedFile(
        name="t10k-labels-idx1-ubyte.gz",
        size_bytes=4_542,
        md5="ec29112dd5afa0611ce80d1b7f02629c",
        sha256="f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
        content_sha256="ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
    ),
)


def load(data_dir: str | PathLike[str] | None = None) -> Dataset:
    """Load MNIST from ``data_dir``, ``BINARYNET_DATA`` or the cache, else download it into the cache.

    Files in the user's own folders may differ from the published ones, which then is a note of the data set;
    a differing file in the cache is fetched again.

    Raises:
        DataError: files missing and not to be downloaded, damaged, or of the wrong shape.
    """
    found, place = _locate(data_dir)
    notes: list[str] = []
    train_images, train_labels = _read_pair(FILES[0], FILES[1], found, place, notes)
    test_images, test_labels = _read_pair(FILES[2], FILES[3], found, place, notes)
    total = len(train_labels)
    num_validation = NUM_VALIDATION if total == 60_000 else total // 6
    if num_validation == 0:
        raise DataError(f"{found[FILES[0].name]}: only {total} images, too few to take a validation part from")
    if total != 60_000:
        notes.append(f"{total:,} training images instead of 60,000: the last {num_validation:,} are for validation")
    border = total - num_validation
    return Dataset(
        name="mnist",
        train=Split(train_images[:border], train_labels[:border]),
        validation=Split(train_images[border:], train_labels[border:]),
        test=Split(test_images, test_labels),
        classes=CLASSES,
        policy=POLICY,
        notes=tuple(notes),
    )


def status(data_dir: str | PathLike[str] | None = None) -> DatasetStatus:
    """Where MNIST is on this machine and whether its files are the published ones; downloads nothing."""
    best: dict[str, Path] = {}
    where = ""
    for place in places("mnist", data_dir):
        found = _files_in(place.directory)
        if len(found) > len(best):
            best, where = found, str(place.directory)
    files = tuple(_file_status(file, best.get(file.name)) for file in FILES)
    ready = all(file.check in ("published", "differs") for file in files)
    if not best:
        detail = f"downloaded on first use (12 MB); or --data DIR, or {DATA_VARIABLE}"
    elif ready:
        same = all(file.check == "published" for file in files)
        detail = "checksums as published" if same else "checksums DIFFER from the published ones"
    else:
        detail = "; ".join(f"{file.name} {file.check}" for file in files if file.check in ("missing", "damaged"))
    return DatasetStatus("mnist", SUMMARY, ready, where, detail, files)


def _file_status(file: PublishedFile, path: Path | None) -> FileStatus:
    check: Check = "missing"
    if path is not None:
        try:
            check = "published" if content_sha256(path) == file.content_sha256 else "differs"
        except DataError:
            check = "damaged"
    size_bytes = path.stat().st_size if path is not None else None
    return FileStatus(file.name, check, path, size_bytes, file.md5, file.sha256)


def _files_in(directory: Path) -> dict[str, Path]:
    """The four files by published name; also accepted without .gz, and with the dot of the unpacked originals."""
    found = {}
    for file in FILES:
        plain = file.name.removesuffix(".gz")
        dotted = plain.replace("-idx", ".idx")
        for name in (file.name, plain, f"{dotted}.gz", dotted):
            if (directory / name).is_file():
                found[file.name] = directory / name
                break
    return found


def _locate(data_dir: str | PathLike[str] | None) -> tuple[dict[str, Path], Place]:
    searched = places("mnist", data_dir)
    for place in searched:
        found = _files_in(place.directory)
        if len(found) == len(FILES):
            if place.origin != "cache" or all(
                _file_status(file, found[file.name]).check == "published" for file in FILES
            ):
                return found, place
        elif found and place.origin != "cache":
            missing = [file.name for file in FILES if file.name not in found]
            raise DataError(
                f"mnist: {place.directory} holds {len(found)} of its {len(FILES)} files, "
                f"it lacks {', '.join(missing)}; put all of them into one folder"
            )
    cache = searched[-1]
    try:
        return {file.name: download(file, MIRRORS, cache.directory) for file in FILES}, cache
    except DataError as error:
        raise DataError(
            f"mnist: not found in {', '.join(str(place.directory) for place in searched)}; {error}. "
            f"Get the four files ({FILES[0].name}, ...) and name their folder with --data or {DATA_VARIABLE}"
        ) from error


def _read_pair(
    images_file: PublishedFile, labels_file: PublishedFile, found: dict[str, Path], place: Place, notes: list[str]
) -> tuple[Images, Labels]:
    arrays = []
    for file, num_axes in ((images_file, 3), (labels_file, 1)):
        path = found[file.name]
        array, sha256 = read_idx(path, num_axes)
        if sha256 != file.content_sha256:
            if place.origin == "cache":
                raise DataError(f"{path}: differs from the published file; delete it, it will be fetched again")
            notes.append(f"{path}: content differs from the published {file.name} (sha256 {sha256[:16]}...)")
        arrays.append(array)
    images, labels = arrays
    if images.shape[1:] != (POLICY.height, POLICY.width):
        raise DataError(f"{found[images_file.name]}: images are {list(images.shape[1:])}, expected [28, 28]")
    if len(images) != len(labels):
        raise DataError(
            f"{found[images_file.name]} holds {len(images):,} images, but {found[labels_file.name]} "
            f"holds {len(labels):,} labels: the counts must be equal"
        )
    if len(images) == 0:
        raise DataError(f"{found[images_file.name]}: holds no images")
    check_labels(labels, len(CLASSES), str(found[labels_file.name]))
    return images[..., np.newaxis], labels.astype(np.int64)
