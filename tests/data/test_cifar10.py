"""CIFAR-10 on small batches in the true formats (plus the real ones, marked ``data``)."""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import io
import os
import pickle
import random
import tarfile
from pathlib import Path

import numpy as np
import pytest

from binarynet.data import cifar10, load, status
from binarynet.errors import DataError

BINARY, PYTHON = cifar10.FORMS
COUNTS = (5, 4, 3, 5, 3, 6)
RNG = np.random.default_rng(5)
PIXELS = [RNG.integers(0, 256, (count, 3072), dtype=np.uint8) for count in COUNTS]
LABELS = [(np.arange(count) + i) % 10 for i, count in enumerate(COUNTS)]
TRAIN_LABELS = np.concatenate(LABELS[:5])
TRAIN_IMAGES = np.concatenate(PIXELS[:5]).reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)


def binary_batch(pixels: np.ndarray, labels: np.ndarray) -> bytes:
    return np.concatenate([labels[:, None].astype(np.uint8), pixels], axis=1).tobytes()


def python_batch(pixels: np.ndarray, labels: np.ndarray) -> bytes:
    """As Python 2's cPickle wrote the published batches: protocol 2, byte strings, numpy.core.multiarray."""

    def text(value: bytes) -> bytes:
        return b"U" + bytes([len(value)]) + value

    def numbers(values: np.ndarray) -> bytes:
        return b"(" + b"".join(b"K" + bytes([value]) for value in values) + b"e"

    content = pixels.tobytes()
    array = (
        b"cnumpy.core.multiarray\n_reconstruct\nq\x06cnumpy\nndarray\nq\x07K\x00\x85" + text(b"b") + b"\x87Rq\x08"
        b"(K\x01M" + len(pixels).to_bytes(2, "little") + b"M\x00\x0c\x86cnumpy\ndtype\nq\x09" + text(b"u1")
        + b"K\x00K\x01\x87Rq\x0a(K\x03" + text(b"|") + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89"
        + b"T" + len(content).to_bytes(4, "little") + content + b"tb"
    )  # fmt: skip
    names = b"(" + b"".join(text(b"photo_%d.png" % i) for i in range(len(labels))) + b"e"
    return (
        b"\x80\x02}q\x01(" + text(b"batch_label") + b"q\x02" + text(b"training batch 1 of 5") + b"q\x03"
        + text(b"labels") + b"q\x04]q\x05" + numbers(labels) + text(b"data") + array
        + text(b"filenames") + b"]r\x00\x01\x00\x00" + names + b"u."
    )  # fmt: skip


WRITERS = {BINARY.folder: binary_batch, PYTHON.folder: python_batch}


def contents(form: cifar10.Form) -> dict[str, bytes]:
    write = WRITERS[form.folder]
    return {name: write(PIXELS[i], LABELS[i]) for i, name in enumerate(form.checksums())}


def tar(members: dict[str, bytes], *, folder: str = "") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(f"{folder}{name}")
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return gzip.compress(buffer.getvalue(), mtime=0)


def archive_of(form: cifar10.Form, **changes: bytes) -> bytes:
    return tar({"readme.html": b"<html>", **contents(form), **changes}, folder=f"{form.folder}/")


ARCHIVES = {form.folder: archive_of(form) for form in cifar10.FORMS}


def extract(directory: Path, form: cifar10.Form) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    for name, content in contents(form).items():
        (directory / name).write_bytes(content)
    return directory


@pytest.fixture
def published(monkeypatch):
    """Small files, made the published ones."""
    forms = []
    for form in cifar10.FORMS:
        content = ARCHIVES[form.folder]
        archive = dataclasses.replace(form.archive, sha256=hashlib.sha256(content).hexdigest())
        md5 = tuple(hashlib.md5(batch).hexdigest() for batch in contents(form).values())
        forms.append(dataclasses.replace(form, archive=archive, md5=md5))
    monkeypatch.setattr(cifar10, "FORMS", tuple(forms))


@pytest.fixture
def server(web, monkeypatch):
    root, base = web
    monkeypatch.setattr(cifar10, "MIRRORS", (f"{base}nothing-here/", base))
    return root


NOTES = (
    "20 training images instead of 50,000: the last 2 are for validation",
    "6 test images instead of 10,000",
)


def check(data) -> None:
    assert [len(split) for split in data.splits().values()] == [18, 2, 6]
    np.testing.assert_array_equal(data.train.images, TRAIN_IMAGES[:18])
    np.testing.assert_array_equal(data.validation.images, TRAIN_IMAGES[18:])
    np.testing.assert_array_equal(data.train.labels, TRAIN_LABELS[:18])
    np.testing.assert_array_equal(data.validation.labels, TRAIN_LABELS[18:])
    np.testing.assert_array_equal(data.test.labels, LABELS[5])
    assert data.test.images[1, 2, 3].tolist() == PIXELS[5][1].reshape(3, 32, 32)[:, 2, 3].tolist()
    assert data.classes[3] == "cat"
    assert data.train.images.flags.writeable


def test_the_pickle_of_these_tests_is_a_true_one():
    found = pickle.loads(python_batch(PIXELS[0], LABELS[0]), encoding="bytes")
    np.testing.assert_array_equal(found[b"data"], PIXELS[0])
    assert found[b"labels"] == LABELS[0].tolist()
    assert found[b"filenames"][1] == b"photo_1.png"


@pytest.mark.parametrize("form", cifar10.FORMS, ids=lambda form: form.folder)
@pytest.mark.parametrize("sub_folder", ["", "cifar10"])
@pytest.mark.parametrize("how", ["flat", "folder", "archive", "plain tar"])
def test_every_form_in_every_place(tmp_path, published, form, sub_folder, how):
    directory = tmp_path / "d" / sub_folder
    if how == "flat":
        extract(directory, form)
    elif how == "folder":
        extract(directory / form.folder, form)
    else:
        directory.mkdir(parents=True)
        content = ARCHIVES[form.folder]
        (directory / form.archive.name).write_bytes(content if how == "archive" else gzip.decompress(content))
    data = load("cifar10", tmp_path / "d")
    check(data)
    if how == "plain tar":
        assert "differs from the published cifar-10" in data.notes[0]
        assert data.notes[1:] == NOTES
    else:
        assert data.notes == NOTES


@pytest.mark.parametrize("protocol", [3, 4])
def test_batches_that_python_3_wrote(tmp_path, published, protocol):
    extract(tmp_path, PYTHON)
    batch = {"labels": LABELS[5].tolist(), "data": PIXELS[5]}
    (tmp_path / "test_batch").write_bytes(pickle.dumps(batch, protocol=protocol))
    data = load("cifar10", tmp_path)
    check(data)
    assert data.notes[0].startswith(f"{tmp_path / 'test_batch'}: content differs from the published test_batch (md5 ")


def test_the_last_5000_are_for_validation(tmp_path, published):
    extract(tmp_path, BINARY)
    records = np.zeros((9_990, 3073), np.uint8)
    records[:, 0] = np.arange(9_990) % 10
    (tmp_path / "data_batch_5.bin").write_bytes(records.tobytes())
    data = load("cifar10", tmp_path)
    assert [len(split) for split in data.splits().values()] == [10_007 - 5_000, 5_000, 6]
    assert "10,007 training images instead of 50,000: the last 5,000 are for validation" in data.notes


def test_a_file_that_differs_gets_a_note(tmp_path, published, caplog):
    extract(tmp_path, BINARY)
    path = tmp_path / "data_batch_2.bin"
    path.write_bytes(binary_batch(PIXELS[1][:3], LABELS[1][:3]))
    notes = load("cifar10", tmp_path).notes
    assert notes[0].startswith(f"{path}: content differs from the published data_batch_2.bin (md5 ")
    assert notes[0] in caplog.text
    assert len(notes) == 3


def test_complete_before_incomplete_and_extracted_before_archive(tmp_path, published):
    extract(tmp_path / BINARY.folder, BINARY)
    (tmp_path / PYTHON.archive.name).write_bytes(ARCHIVES[PYTHON.folder])
    assert status(tmp_path)[3].where == str(tmp_path / BINARY.folder)
    (tmp_path / BINARY.folder / "test_batch.bin").unlink()
    check(load("cifar10", tmp_path))
    (tmp_path / PYTHON.archive.name).unlink()
    with pytest.raises(DataError, match=r"holds 5 of its 6 files, it lacks test_batch\.bin; put all of them into one"):
        load("cifar10", tmp_path)


def test_environment_variable(tmp_path, published, monkeypatch):
    extract(tmp_path / "env" / "cifar10" / PYTHON.folder, PYTHON)
    monkeypatch.setenv("BINARYNET_DATA", str(tmp_path / "env"))
    check(load("cifar10"))


def test_download_into_the_cache_then_no_more(tmp_path, published, server):
    (server / BINARY.archive.name).write_bytes(ARCHIVES[BINARY.folder])
    check(load("cifar10"))
    (server / BINARY.archive.name).unlink()
    check(load("cifar10"))
    assert [path.name for path in (tmp_path / "cache" / "cifar10").iterdir()] == [BINARY.archive.name]


def test_differing_archive_in_the_cache_is_fetched_again(tmp_path, published, server):
    (server / BINARY.archive.name).write_bytes(ARCHIVES[BINARY.folder])
    cached = tmp_path / "cache" / "cifar10" / BINARY.archive.name
    cached.parent.mkdir(parents=True)
    cached.write_bytes(archive_of(BINARY, **{"data_batch_1.bin": binary_batch(PIXELS[5], LABELS[5])}))
    check(load("cifar10"))
    assert cached.read_bytes() == ARCHIVES[BINARY.folder]


def test_nothing_to_download_from(published, server):
    with pytest.raises(DataError, match=r"cifar10: not found in .*HTTP status 404.* Get cifar-10-binary.* --data"):
        load("cifar10")


def test_wrong_download(published, server, tmp_path):
    (server / BINARY.archive.name).write_bytes(ARCHIVES[PYTHON.folder])
    with pytest.raises(DataError, match="its content differs from the published checksum"):
        load("cifar10")
    assert not list((tmp_path / "cache").rglob("*.gz"))


BATCH = python_batch(PIXELS[0], LABELS[0])


def python_value(value: object) -> bytes:
    return pickle.dumps(value, protocol=4)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("data_batch_1.bin", b"", r"0 bytes, expected whole records of 3,073 bytes"),
        (
            "data_batch_1.bin",
            bytes(3072),
            r"3,072 bytes, expected whole records .*: truncated, or not a CIFAR-10 batch",
        ),
        ("test_batch.bin", bytes([10]) + bytes(3072), r"label 10 at position 0 is out of range, expected 0\.\.9"),
        ("data_batch_1", BATCH[:-500], "truncated or damaged"),
        ("data_batch_1", BATCH + b"x", "1 trailing bytes"),
        ("data_batch_1", python_value([1]), "lacks 'data', expected a dictionary"),
        ("data_batch_1", python_value({"data": PIXELS[0], "fine_labels": [1] * 5}), "lacks 'labels'"),
        ("data_batch_1", python_value({"data": b"", "labels": []}), r"'data' is bytes, expected uint8 \[n, 3072\]"),
        ("data_batch_1", python_value({"data": PIXELS[0][:, :3], "labels": [1] * 5}), r"'data' is \[5, 3\], expected"),
        ("data_batch_1", python_value({"data": PIXELS[0], "labels": ["1"] * 5}), "'labels' is not a list of integers"),
        ("data_batch_1", python_value({"data": PIXELS[0], "labels": [1] * 4}), "5 images but 4 labels"),
        ("data_batch_1", python_value({"data": PIXELS[0][:0], "labels": []}), "holds no images"),
        ("data_batch_1", python_value({"data": PIXELS[0], "labels": [-1] * 5}), "label -1 at position 0"),
        ("data_batch_1", python_value({"data": os.getcwd}), "calls for 'posix.getcwd', which could run code: refused"),
    ],
)
def test_damaged_batches(tmp_path, published, name, content, message):
    extract(tmp_path, BINARY if name.endswith(".bin") else PYTHON)
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        load("cifar10", tmp_path)
    assert str(tmp_path / name) in str(caught.value)
    assert "\n" not in str(caught.value)
    found = status(tmp_path)[3]
    assert not found.ready
    assert found.detail == f"{name} damaged"


def test_a_batch_too_long_to_be_one(tmp_path, published, monkeypatch):
    extract(tmp_path, BINARY)
    monkeypatch.setattr(cifar10, "MAX_BATCH_BYTES", 3 * 3073)
    with pytest.raises(DataError, match="is longer than 9,219 bytes, which none of the published files comes near"):
        load("cifar10", tmp_path)


def linked() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        info = tarfile.TarInfo("cifar-10-batches-bin/data_batch_1.bin")
        info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(info)
    return buffer.getvalue()


TAR = gzip.decompress(ARCHIVES[BINARY.folder])
LACKING = tar({name: content for name, content in contents(BINARY).items() if "2" not in name})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not a tar archive, or truncated or damaged"),
        (b"<html>404 Not Found</html>", "not a tar archive, or truncated or damaged"),
        (ARCHIVES[BINARY.folder][:-2000], r"truncated|damaged"),
        (ARCHIVES[BINARY.folder][:-8] + bytes(8), r"damaged \(CRC check failed"),
        (gzip.compress(TAR[:30_000]), "truncated"),
        (tar({"../data_batch_1.bin": b""}), r"holds the path '\.\./data_batch_1\.bin', which leads elsewhere: refused"),
        (tar({"/etc/data_batch_1.bin": b""}), "which leads elsewhere"),
        (tar({"a\\..\\readme": b""}), "which leads elsewhere"),
        (linked(), r"data_batch_1\.bin is not a regular file: refused"),
        (LACKING, r"lacks data_batch_2\.bin; fetch it again"),
        (tar({"data_batch_1.bin": bytes(40_000)}), "claims 40,000 bytes, expected at most 30,730"),
        (tar({"filler": bytes(400_000)}), "decompresses to more than 300,000 bytes: refused as a bomb"),
        (tar({**contents(BINARY), "b/test_batch.bin": b""}), r"holds test_batch\.bin twice"),
    ],
)
def test_damaged_archives(tmp_path, published, monkeypatch, content, message):
    monkeypatch.setattr(cifar10, "MAX_BATCH_BYTES", 10 * 3073)
    monkeypatch.setattr(cifar10, "MAX_ARCHIVE_BYTES", 300_000)
    path = tmp_path / BINARY.archive.name
    path.write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        load("cifar10", tmp_path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert status(tmp_path)[3].files[0].check == "damaged"


@pytest.mark.parametrize("form", cifar10.FORMS, ids=lambda form: form.folder)
def test_random_damage_is_data_or_an_error(tmp_path, published, form):
    content, rng, messages = ARCHIVES[form.folder], random.Random(form.folder), []
    plain = gzip.decompress(content)
    path = tmp_path / form.archive.name
    for turn in range(100):
        changed = bytearray(plain if turn % 2 else content)
        for _ in range(rng.choice((1, 4, 50))):
            changed[rng.randrange(len(changed))] = rng.randrange(256)
        path.write_bytes(changed[: rng.randrange(len(changed)) if turn % 5 == 0 else None])
        try:
            load("cifar10", tmp_path)
        except DataError as error:
            messages.append(str(error))
    assert len(messages) > 30
    assert all(str(path) in message and "\n" not in message for message in messages)


def test_status(tmp_path, published):
    found = status()[3]
    assert (found.name, found.ready, found.where) == ("cifar10", False, "")
    assert found.detail.startswith("downloaded on first use (170 MB)")
    assert [file.check for file in found.files] == ["missing"]

    extract(tmp_path / "cifar10" / BINARY.folder, BINARY)
    found = status(tmp_path)[3]
    assert (found.ready, found.where) == (True, str(tmp_path / "cifar10" / BINARY.folder))
    assert found.detail == "checksums as published"
    assert [file.check for file in found.files] == ["published"] * 6

    (tmp_path / "cifar10" / BINARY.folder / "test_batch.bin").write_bytes(bytes(3073))
    found = status(tmp_path)[3]
    assert (found.ready, found.detail) == (True, "checksums DIFFER from the published ones")
    assert [file.check for file in found.files] == ["published"] * 5 + ["differs"]

    (tmp_path / "cifar10" / BINARY.folder / "test_batch.bin").unlink()
    found = status(tmp_path)[3]
    assert (found.ready, found.detail) == (False, "test_batch.bin missing")


def test_status_of_an_archive(tmp_path, published):
    (tmp_path / PYTHON.archive.name).write_bytes(ARCHIVES[PYTHON.folder])
    found = status(tmp_path)[3]
    assert (found.ready, found.where, found.detail) == (True, str(tmp_path), "checksums as published")
    (tmp_path / PYTHON.archive.name).write_bytes(archive_of(PYTHON, readme=b"changed"))
    found = status(tmp_path)[3]
    assert (found.ready, found.detail) == (True, "checksums DIFFER from the published ones")


@pytest.mark.data
def test_real_batches(real_data):
    if not status(real_data)[3].ready:
        pytest.skip(f"no CIFAR-10 batches in {real_data}")
    data = load("cifar10", real_data)
    assert data.train.images.shape[1:] == (32, 32, 3)
    assert len(data.validation) == 5_000
    assert data.train.labels[:10].tolist() == [6, 9, 9, 4, 1, 1, 2, 7, 8, 3]
    assert data.train.images[0, 0, 0].tolist() == [59, 62, 63]
