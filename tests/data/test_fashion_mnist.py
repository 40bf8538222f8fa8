"""Fashion-MNIST on small files in the true format, also beside MNIST, whose files have the same names."""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
from pathlib import Path

import numpy as np
import pytest

from binarynet.data import fashion_mnist, load, mnist, status
from binarynet.errors import DataError

PUBLISHED_TEST_LABELS = fashion_mnist.FILES[3].sha256
NAMES = [file.name for file in fashion_mnist.FILES]


def idx(array: np.ndarray) -> bytes:
    extents = b"".join(extent.to_bytes(4, "big") for extent in array.shape)
    return bytes((0, 0, 8, array.ndim)) + extents + array.tobytes()


def contents(seed: int) -> dict[str, bytes]:
    """Compressed content of the four files, by published name."""
    rng = np.random.default_rng(seed)
    made = {}
    for part, count in (("train", 60), ("t10k", 20)):
        made[f"{part}-images-idx3-ubyte.gz"] = idx(rng.integers(0, 256, (count, 28, 28), dtype=np.uint8))
        made[f"{part}-labels-idx1-ubyte.gz"] = idx(((np.arange(count) + seed) % 10).astype(np.uint8))
    return {name: gzip.compress(content, mtime=0) for name, content in made.items()}


FASHION, DIGITS = contents(1), contents(2)


def write(directory: Path, made: dict[str, bytes], *, unpack: bool = False) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    for name, content in made.items():
        path = directory / (name.removesuffix(".gz") if unpack else name)
        path.write_bytes(gzip.decompress(content) if unpack else content)
    return directory


@pytest.fixture(autouse=True)
def published(monkeypatch):
    """Small files, made the published ones of both data sets."""

    def sha256(content: bytes) -> str:
        return hashlib.sha256(content).hexdigest()

    monkeypatch.setattr(
        fashion_mnist,
        "FILES",
        tuple(dataclasses.replace(file, sha256=sha256(FASHION[file.name])) for file in fashion_mnist.FILES),
    )
    monkeypatch.setattr(
        mnist,
        "FILES",
        tuple(
            dataclasses.replace(file, content_sha256=sha256(gzip.decompress(DIGITS[file.name]))) for file in mnist.FILES
        ),
    )
    monkeypatch.setattr(mnist, "OTHERS", (sha256(FASHION[NAMES[3]]),))
    monkeypatch.setattr(mnist, "MIRRORS", ())
    monkeypatch.setattr(fashion_mnist, "MIRRORS", ())


SMALL = "60 training images instead of 60,000: the last 10 are for validation"


@pytest.mark.parametrize("sub_folder", ["", "fashion-mnist"])
def test_files_in_data_dir(tmp_path, sub_folder):
    write(tmp_path / sub_folder, FASHION)
    data = load("fashion-mnist", tmp_path)
    assert data.notes == (SMALL,)
    assert [len(split) for split in data.splits().values()] == [50, 10, 20]
    np.testing.assert_array_equal(data.test.labels, (np.arange(20) + 1) % 10)
    assert data.classes[9] == "Ankle boot"
    found = status(tmp_path)[2]
    assert (found.name, found.ready, found.detail) == ("fashion-mnist", True, "checksums as published")
    assert found.where == str(tmp_path / sub_folder)


def test_unpacked_files_cannot_be_compared(tmp_path):
    write(tmp_path, FASHION, unpack=True)
    notes = load("fashion-mnist", tmp_path).notes
    path = tmp_path / "train-images-idx3-ubyte"
    assert notes[0].startswith(f"{path}: could not be compared with the published {NAMES[0]} (sha256 ")
    assert len(notes) == 5
    found = status(tmp_path)[2]
    assert (found.ready, found.detail) == (True, "checksums are published for the .gz files only")
    assert [file.check for file in found.files] == ["unchecked"] * 4


def test_a_differing_file_gets_a_note(tmp_path):
    path = write(tmp_path, {**FASHION, NAMES[2]: DIGITS[NAMES[2]]}) / NAMES[2]
    notes = load("fashion-mnist", tmp_path).notes
    assert notes[0].startswith(f"{path}: content differs from the published {NAMES[2]} (sha256 ")
    assert notes[1:] == (SMALL,)
    assert status(tmp_path)[2].detail == "checksums DIFFER from the published ones"


@pytest.mark.parametrize("unpack", [False, True])
def test_the_files_of_mnist_are_passed_over(tmp_path, unpack):
    write(tmp_path, DIGITS, unpack=unpack)
    with pytest.raises(DataError, match=r"fashion-mnist: not found in .*; train-images.* download failed"):
        load("fashion-mnist", tmp_path)
    assert [found.ready for found in status(tmp_path)[1:3]] == [True, False]
    write(tmp_path / "fashion-mnist", FASHION)
    assert load("fashion-mnist", tmp_path).test.labels[0] == 1
    assert load("mnist", tmp_path).test.labels[0] == 2
    assert [found.ready for found in status(tmp_path)[1:3]] == [True, True]


def test_mnist_passes_over_the_files_of_fashion_mnist(tmp_path):
    write(tmp_path, FASHION)
    with pytest.raises(DataError, match="mnist: not found in"):
        load("mnist", tmp_path)


def test_download_into_the_cache_then_no_more(tmp_path, web, monkeypatch):
    root, base = web
    write(root, FASHION)
    monkeypatch.setattr(fashion_mnist, "MIRRORS", (base,))
    assert len(load("fashion-mnist").test) == 20
    assert sorted(path.name for path in (tmp_path / "cache" / "fashion-mnist").iterdir()) == sorted(NAMES)
    for path in root.iterdir():
        path.unlink()
    assert load("fashion-mnist").notes == (SMALL,)


def test_status_when_nothing_is_there():
    found = status()[2]
    assert not found.ready
    assert found.detail.startswith("downloaded on first use (31 MB)")


def test_each_knows_the_others_test_labels(monkeypatch):
    assert fashion_mnist._family().others == (mnist.FILES[3].content_sha256,)
    monkeypatch.undo()
    assert mnist.OTHERS == (PUBLISHED_TEST_LABELS,)
