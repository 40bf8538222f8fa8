"""SVHN on small .mat files in the true format."""

from __future__ import annotations

import dataclasses
import hashlib
import io
from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat

from binarynet.data import load, load_like, status, svhn
from binarynet.errors import DataError, UsageError

TRAIN, EXTRA, TEST = [file.name for file in svhn.FILES]


def mat(images: np.ndarray, digits: np.ndarray, **others: object) -> bytes:
    """Images ``[n, row, column, channel]`` and digits as published: X [32, 32, 3, n], y [n, 1] with 10 for 0."""
    labels = np.where(digits == 0, 10, digits).astype(np.uint8)[:, None]
    buffer = io.BytesIO()
    savemat(buffer, {"X": images.transpose(1, 2, 3, 0), "y": labels, **others}, do_compression=True)
    return buffer.getvalue()


def pictures(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8), rng.permutation(np.arange(count) % 10)


PARTS = {TRAIN: pictures(30, 1), EXTRA: pictures(50, 2), TEST: pictures(12, 3)}
CONTENTS = {name: mat(*part) for name, part in PARTS.items()}
NOTES = (
    f"30 images instead of 73,257 in {TRAIN}: the first 1 of each class are for validation",
    f"50 images instead of 531,131 in {EXTRA}: the first 1 of each class are for validation",
    "12 test images instead of 26,032",
)


def write(directory: Path, **changes: bytes) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    for name, content in CONTENTS.items():
        (directory / name).write_bytes(changes.get(name.split("_")[0], content))
    return directory


@pytest.fixture(autouse=True)
def published(monkeypatch):
    """Small files, made the published ones."""
    files = [dataclasses.replace(f, sha256=hashlib.sha256(CONTENTS[f.name]).hexdigest()) for f in svhn.FILES]
    monkeypatch.setattr(svhn, "FILES", tuple(files))
    monkeypatch.setattr(svhn, "MIRRORS", ())


def split_by_hand(name: str, per_class: int) -> tuple[list[int], list[int]]:
    """Indices of train and validation."""
    seen, train, validation = [0] * 10, [], []
    for i, digit in enumerate(PARTS[name][1]):
        seen[digit] += 1
        (validation if seen[digit] <= per_class else train).append(i)
    return train, validation


def expected(indices: tuple[list[int], list[int]]) -> tuple[np.ndarray, np.ndarray]:
    images = [PARTS[name][0][chosen] for name, chosen in zip((TRAIN, EXTRA), indices, strict=True)]
    labels = [PARTS[name][1][chosen] for name, chosen in zip((TRAIN, EXTRA), indices, strict=True)]
    return np.concatenate(images), np.concatenate(labels)


@pytest.mark.parametrize("sub_folder", ["", "svhn"])
def test_split(tmp_path, sub_folder):
    write(tmp_path / sub_folder)
    data = load("svhn", tmp_path)
    assert data.notes == NOTES
    assert [len(split) for split in data.splits().values()] == [60, 20, 12]
    train, validation = zip(split_by_hand(TRAIN, 1), split_by_hand(EXTRA, 1), strict=True)
    for split, indices in ((data.train, train), (data.validation, validation)):
        images, labels = expected(indices)
        np.testing.assert_array_equal(split.images, images)
        np.testing.assert_array_equal(split.labels, labels)
    np.testing.assert_array_equal(data.test.images, PARTS[TEST][0])
    np.testing.assert_array_equal(data.test.labels, PARTS[TEST][1])
    assert np.bincount(data.validation.labels).tolist() == [2] * 10
    assert data.classes == tuple("0123456789")


def test_the_papers_numbers_per_class(tmp_path, monkeypatch):
    """With as many pictures as published, validation takes its whole number of each class from each file."""
    monkeypatch.setattr(svhn, "NUM_IMAGES", (30, 50, 12))
    monkeypatch.setattr(svhn, "VALIDATION_PER_CLASS", (2, 3))
    monkeypatch.setattr(svhn, "_COPY_IMAGES", 7)
    data = load("svhn", write(tmp_path))
    assert data.notes == ()
    train, validation = zip(split_by_hand(TRAIN, 2), split_by_hand(EXTRA, 3), strict=True)
    for split, indices in ((data.train, train), (data.validation, validation)):
        images, labels = expected(indices)
        np.testing.assert_array_equal(split.images, images)
        np.testing.assert_array_equal(split.labels, labels)


def test_the_papers_sizes():
    """The paper's program: train + extra 604,388, of which 6,000 validation and 598,388 training; test 26,032."""
    train, extra, test = svhn.NUM_IMAGES
    assert train + extra == 604_388
    assert 10 * sum(svhn.VALIDATION_PER_CLASS) == 6_000
    assert f"{train + extra - 6_000:,} / 6,000 / {test:,}" in svhn.SUMMARY


def test_a_smaller_file_gives_its_share(tmp_path, monkeypatch):
    monkeypatch.setattr(svhn, "NUM_IMAGES", (60, 50, 12))
    monkeypatch.setattr(svhn, "VALIDATION_PER_CLASS", (4, 2))
    data = load("svhn", write(tmp_path))
    assert data.notes == (f"30 images instead of 60 in {TRAIN}: the first 2 of each class are for validation",)
    assert np.bincount(data.validation.labels).tolist() == [4] * 10


def test_a_differing_file_gets_a_note(tmp_path, caplog):
    images, digits = PARTS[TEST]
    path = write(tmp_path, test=mat(images[::-1], digits[::-1], other="kept out")) / TEST
    data = load("svhn", tmp_path)
    assert data.notes[0].startswith(f"{path}: differs from the published {TEST} (sha256 ")
    assert data.notes[0] in caplog.text
    assert data.notes[1:] == NOTES
    np.testing.assert_array_equal(data.test.labels, digits[::-1])


def test_labels_of_another_type(tmp_path):
    buffer = io.BytesIO()
    images, digits = PARTS[TEST]
    savemat(buffer, {"X": images.transpose(1, 2, 3, 0), "y": np.where(digits == 0, 10, digits).astype(float)})
    data = load("svhn", write(tmp_path, test=buffer.getvalue()))
    np.testing.assert_array_equal(data.test.labels, digits)


def raw(**arrays: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    savemat(buffer, arrays)
    return buffer.getvalue()


X, Y = PARTS[TEST][0].transpose(1, 2, 3, 0), np.ones((12, 1), np.uint8)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (CONTENTS[TEST][:-100], "truncated"),
        (b"<html>", "not a MATLAB 5.0 file"),
        (raw(X=X), "lacks the array y"),
        (raw(X=X.astype(float), y=Y), r"X is float64 \[32, 32, 3, 12\], expected uint8 \[32, 32, 3, n\]"),
        (raw(X=X[:, :, :2], y=Y), r"X is uint8 \[32, 32, 2, 12\], expected uint8 \[32, 32, 3, n\]"),
        (raw(X=X, y=Y[:11]), "X holds 12 images but y 11 labels: the counts must be equal"),
        (raw(X=X, y=np.ones((6, 2))), r"y has shape \[6, 2\], expected \[n, 1\]"),
        (raw(X=X, y=Y * 0), r"label 0 at position 0 is out of range, expected 1\.\.10 \(10 is the digit 0\)"),
        (raw(X=X, y=Y * 11), "label 11 at position 0 is out of range"),
        (raw(X=X, y=Y * 1.5), "label 1.5 at position 0 is out of range"),
        (raw(X=X[:1, :1, :1, :1], y=Y[:1]), r"X is uint8 \[1, 1, 1, 1\], expected"),
        (raw(X=np.zeros((32, 32, 3, 0), np.uint8), y=np.zeros((0, 1))), r"y has shape|holds no images|X is"),
    ],
)
def test_damaged_files(tmp_path, content, message):
    path = write(tmp_path, test=content) / TEST
    with pytest.raises(DataError, match=message) as caught:
        load("svhn", tmp_path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    found = status(tmp_path)[-1]
    assert (found.ready, found.detail) == (False, f"{TEST} damaged")


def test_too_few_of_a_class(tmp_path):
    images, digits = PARTS[TRAIN]
    keep = (digits != 7) | (np.cumsum(digits == 7) == 1)
    write(tmp_path, train=mat(images[keep], digits[keep]))
    with pytest.raises(DataError, match="1 images of class '7', more than 1 are needed to take 1 for validation"):
        load("svhn", tmp_path)


def test_some_files_only(tmp_path):
    write(tmp_path)
    (tmp_path / EXTRA).unlink()
    with pytest.raises(DataError, match=r"svhn: .* holds 2 of its 3 files, it lacks extra_32x32\.mat; put all of them"):
        load("svhn", tmp_path)
    assert status(tmp_path)[-1].detail == "extra_32x32.mat missing"


def test_download_into_the_cache_then_no_more(tmp_path, web, monkeypatch):
    root, base = web
    write(root)
    monkeypatch.setattr(svhn, "MIRRORS", (base,))
    assert len(load("svhn").train) == 60
    cache = tmp_path / "cache" / "svhn"
    assert sorted(path.name for path in cache.iterdir()) == sorted(CONTENTS)
    (cache / TEST).write_bytes(b"damaged")
    assert len(load("svhn").test) == 12
    for path in root.iterdir():
        path.unlink()
    assert load("svhn").notes == NOTES


def test_nothing_to_download_from():
    with pytest.raises(DataError, match=r"svhn: not found in .* Get the files \(train_32x32\.mat, .*--data or"):
        load("svhn")


def test_status(tmp_path):
    found = status()[-1]
    assert (found.name, found.ready, found.where) == ("svhn", False, "")
    assert found.detail.startswith("downloaded on first use (1.6 GB)")
    write(tmp_path / "svhn")
    found = status(tmp_path)[-1]
    assert (found.ready, found.where, found.detail) == (True, str(tmp_path / "svhn"), "checksums as published")
    write(tmp_path / "svhn", test=CONTENTS[TRAIN])
    found = status(tmp_path)[-1]
    assert (found.ready, found.detail) == (True, "checksums DIFFER from the published ones")
    assert [file.check for file in found.files] == ["published", "published", "differs"]


def test_without_the_extra_file(tmp_path):
    write(tmp_path)
    (tmp_path / EXTRA).unlink()
    with pytest.raises(DataError, match=r"it lacks extra_32x32\.mat; put .* \(or train without it: dataset.opt"):
        load("svhn", tmp_path)
    data = load("svhn", tmp_path, extra=False)
    assert data.notes == (f"without {EXTRA}: training and validation are of {TRAIN} alone", NOTES[0], NOTES[2])
    train, validation = split_by_hand(TRAIN, 1)
    np.testing.assert_array_equal(data.train.images, PARTS[TRAIN][0][train])
    np.testing.assert_array_equal(data.validation.labels, PARTS[TRAIN][1][validation])
    assert len(data.test) == 12
    assert load_like("svhn", svhn.POLICY, tmp_path, {"extra": False}).notes == data.notes
    write(tmp_path)
    np.testing.assert_array_equal(load("svhn", tmp_path, extra=False).train.images, data.train.images)


def test_without_the_extra_file_it_is_not_downloaded(tmp_path, monkeypatch, web):
    root, address = web
    monkeypatch.setattr(svhn, "MIRRORS", (address,))
    write(root)
    (root / EXTRA).unlink()
    assert len(load("svhn", extra=False).train) == 20
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / EXTRA).write_bytes(CONTENTS[EXTRA])
    with pytest.raises(DataError, match=r"other holds 1 of its 3 files, it lacks train_32x32\.mat, test_32x32\.mat"):
        load("svhn", tmp_path / "other", extra=False)


def test_extra_is_true_or_false(tmp_path):
    with pytest.raises(UsageError, match="extra must be true or false, got 'no'"):
        load("svhn", write(tmp_path), extra="no")
