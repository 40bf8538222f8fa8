"""MNIST on small files in the true format (plus the real ones, marked ``data``)."""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
from pathlib import Path

import numpy as np
import pytest

from binarynet.data import _files, load, mnist, status
from binarynet.errors import DataError

NAMES = [file.name for file in mnist.FILES]


def idx(array: np.ndarray) -> bytes:
    extents = b"".join(extent.to_bytes(4, "big") for extent in array.shape)
    return bytes((0, 0, 8, array.ndim)) + extents + array.tobytes()


def contents(train: int = 60, test: int = 20) -> dict[str, bytes]:
    """Uncompressed content of the four files, by published name."""
    rng = np.random.default_rng(3)
    made = {}
    for part, count in (("train", train), ("t10k", test)):
        made[f"{part}-images-idx3-ubyte.gz"] = idx(rng.integers(0, 256, (count, 28, 28), dtype=np.uint8))
        made[f"{part}-labels-idx1-ubyte.gz"] = idx((np.arange(count) % 10).astype(np.uint8))
    return made


def write(directory: Path, made: dict[str, bytes], *, compressed: bool = True) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    for name, content in made.items():
        if compressed:
            (directory / name).write_bytes(gzip.compress(content, mtime=0))
        else:
            (directory / name.removesuffix(".gz")).write_bytes(content)
    return directory


@pytest.fixture
def published(monkeypatch):
    """Small files, made the published ones."""
    made = contents()
    files = []
    for file in mnist.FILES:
        compressed = gzip.compress(made[file.name], mtime=0)
        files.append(
            dataclasses.replace(
                file,
                size_bytes=len(compressed),
                sha256=hashlib.sha256(compressed).hexdigest(),
                content_sha256=hashlib.sha256(made[file.name]).hexdigest(),
            )
        )
    monkeypatch.setattr(mnist, "FILES", tuple(files))
    return made


@pytest.fixture
def server(web, monkeypatch):
    """The folder of a web server that is the second mirror; the first one has nothing."""
    root, base = web
    monkeypatch.setattr(mnist, "MIRRORS", (f"{base}nothing-here/", base))
    return root


@pytest.mark.parametrize("compressed", [True, False])
@pytest.mark.parametrize("sub_folder", ["", "mnist"])
def test_files_in_data_dir(tmp_path, published, compressed, sub_folder):
    write(tmp_path / "d" / sub_folder, published, compressed=compressed)
    data = load("mnist", tmp_path / "d")
    assert data.notes == ("60 training images instead of 60,000: the last 10 are for validation",)
    assert [len(split) for split in data.splits().values()] == [50, 10, 20]
    images = np.frombuffer(published[NAMES[0]], np.uint8, offset=16).reshape(60, 28, 28, 1)
    np.testing.assert_array_equal(data.train.images, images[:50])
    np.testing.assert_array_equal(data.validation.images, images[50:])
    np.testing.assert_array_equal(data.validation.labels, np.arange(50, 60) % 10)
    assert data.train.images.flags.writeable


def test_plain_content_under_a_gz_name_and_dotted_names(tmp_path, published):
    for name, content in published.items():
        (tmp_path / name).write_bytes(content)
    assert len(load("mnist", tmp_path).test) == 20
    for name in published:
        (tmp_path / name).rename(tmp_path / name.removesuffix(".gz").replace("-idx", ".idx"))
    assert len(load("mnist", tmp_path).test) == 20


def test_environment_variable(tmp_path, published, monkeypatch):
    write(tmp_path / "env" / "mnist", published)
    monkeypatch.setenv("BINARYNET_DATA", str(tmp_path / "env"))
    assert len(load("mnist").test) == 20
    (tmp_path / "empty").mkdir()
    assert len(load("mnist", tmp_path / "empty").test) == 20


def test_data_dir_goes_before_the_environment(tmp_path, published, monkeypatch):
    write(tmp_path / "env", contents(train=12))
    write(tmp_path / "named", published)
    monkeypatch.setenv("BINARYNET_DATA", str(tmp_path / "env"))
    assert len(load("mnist", tmp_path / "named").train) == 50
    assert len(load("mnist").train) == 10


def test_differing_file_of_the_user_gets_a_note(tmp_path, published, caplog):
    path = write(tmp_path, {**published, NAMES[3]: idx(np.zeros(20, np.uint8))}) / NAMES[3]
    data = load("mnist", tmp_path)
    note = f"{path}: content differs from the published {NAMES[3]} (sha256 "
    assert [n for n in data.notes if n.startswith(note)]
    assert note in caplog.text
    assert data.test.labels.tolist() == [0] * 20


def test_differing_file_in_the_cache_is_fetched_again(tmp_path, published, server):
    write(server, published)
    cache = write(tmp_path / "cache" / "mnist", {**published, NAMES[3]: idx(np.zeros(20, np.uint8))})
    assert load("mnist").test.labels.tolist() == [i % 10 for i in range(20)]
    assert gzip.decompress((cache / NAMES[3]).read_bytes()) == published[NAMES[3]]


def test_download_into_the_cache_then_no_more(tmp_path, published, server):
    write(server, published)
    assert len(load("mnist").test) == 20
    assert sorted(path.name for path in (tmp_path / "cache" / "mnist").iterdir()) == sorted(NAMES)
    for path in server.iterdir():
        path.unlink()
    assert len(load("mnist").test) == 20


def test_download_with_a_wrong_checksum_leaves_nothing(tmp_path, published, server):
    write(server, {**published, NAMES[0]: published[NAMES[0]] + b"!"})
    with pytest.raises(DataError, match=r"its content differs from the published checksum.* name their folder with"):
        load("mnist")
    assert not list((tmp_path / "cache").rglob("train*"))


def test_nothing_to_download_from(published, server):
    with pytest.raises(DataError, match=r"mnist: not found in .*download failed .*HTTP status 404.*--data"):
        load("mnist")


def test_no_connection(published, monkeypatch):
    monkeypatch.setattr(mnist, "MIRRORS", ("http://127.0.0.1:9/",))
    with pytest.raises(DataError, match=r"download failed \(http://127.0.0.1:9/: no connection\)"):
        load("mnist")


def test_without_pooch(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pooch", None)
    with pytest.raises(DataError, match=r'needs pooch, which is not installed; pip install "binarynet\[train\]"'):
        load("mnist")


def test_data_dir_that_does_not_exist(tmp_path, monkeypatch):
    with pytest.raises(DataError, match=r"nowhere: no such folder \(given by --data\)"):
        load("mnist", tmp_path / "nowhere")
    monkeypatch.setenv("BINARYNET_DATA", str(tmp_path / "away"))
    with pytest.raises(DataError, match=r"away: no such folder \(given by BINARYNET_DATA\)"):
        load("mnist")


def test_some_files_only(tmp_path, published):
    write(tmp_path, published)
    (tmp_path / NAMES[2]).unlink()
    with pytest.raises(DataError, match=r"holds 3 of its 4 files, it lacks t10k-images-idx3-ubyte\.gz; put all"):
        load("mnist", tmp_path)


def damaged(name: str, content: bytes, message: str, *, compress: bool = True) -> object:
    return pytest.param(name, content, message, compress, id=message[:30])


IMAGES, LABELS = contents()[NAMES[0]], contents()[NAMES[1]]
IMAGES_GZ = gzip.compress(IMAGES, mtime=0)


@pytest.mark.parametrize(
    ("name", "content", "message", "compress"),
    [
        damaged(NAMES[0], LABELS, "with 3 axes: magic is 00000801, expected 00000803"),
        damaged(NAMES[1], IMAGES, "with 1 axis: magic is 00000803, expected 00000801"),
        damaged(NAMES[1], b"\0\0\x0d\x01" + LABELS[4:], "magic is 00000d01"),
        damaged(NAMES[0], IMAGES[:-1], "truncated: 47,039 bytes of content, its header says 47,040"),
        damaged(NAMES[0], IMAGES[:7], "truncated: 7 bytes, not even a whole header"),
        damaged(NAMES[0], b"", "truncated: 0 bytes, not even a whole header", compress=False),
        damaged(NAMES[0], IMAGES + b"x", "trailing bytes after the 47,040 that its header says"),
        damaged(NAMES[0], IMAGES_GZ[:2000], r"truncated \(its compressed content ends early\)", compress=False),
        damaged(NAMES[0], IMAGES_GZ + b"more", "damaged", compress=False),
        damaged(NAMES[0], IMAGES_GZ[:-6] + bytes(6), r"damaged \(CRC check failed", compress=False),
        damaged(NAMES[0], IMAGES_GZ[:500] + bytes(90) + IMAGES_GZ[590:], "damaged", compress=False),
        damaged(NAMES[0], b"<html>404 Not Found</html>", "magic is 3c68746d, expected 00000803", compress=False),
        damaged(NAMES[0], IMAGES[:4] + b"\x7f" + IMAGES[5:], "more than its .* bytes can honestly hold: damaged, or"),
        damaged(NAMES[0], IMAGES[:4] + b"\xff" * 12 + IMAGES[16:], "can honestly hold"),
        damaged(NAMES[1], idx(np.full(60, 10, np.uint8)), "label 10 at position 0 is out of range, expected 0..9"),
        damaged(NAMES[1], idx(np.zeros(59, np.uint8)), "holds 60 images, but .* holds 59 labels: the counts must"),
        damaged(NAMES[0], idx(np.zeros((60, 28, 27), np.uint8)), r"images are \[28, 27\], expected \[28, 28\]"),
        damaged(NAMES[2], idx(np.zeros((0, 28, 28), np.uint8)), "holds 0 images, but"),
    ],
)
def test_damaged_files(tmp_path, published, name, content, message, compress):
    write(tmp_path, published)
    (tmp_path / name).write_bytes(gzip.compress(content) if compress else content)
    with pytest.raises(DataError, match=message) as caught:
        load("mnist", tmp_path)
    assert str(tmp_path / name) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_gzip_bomb(tmp_path, published, monkeypatch):
    monkeypatch.setattr(_files, "FREE_EXPANSION_BYTES", 1 << 20)
    write(tmp_path, published)
    bomb = bytes((0, 0, 8, 3)) + b"".join(n.to_bytes(4, "big") for n in (20_000, 28, 28)) + bytes(20_000 * 784)
    (tmp_path / NAMES[0]).write_bytes(gzip.compress(bomb))
    with pytest.raises(DataError, match="damaged, or a decompression bomb"):
        load("mnist", tmp_path)
    assert status(tmp_path)[1].files[0].check == "damaged"


def test_empty_files(tmp_path, published):
    write(tmp_path, contents(train=0, test=0))
    with pytest.raises(DataError, match="holds no images"):
        load("mnist", tmp_path)


def test_too_few_for_validation(tmp_path, published):
    write(tmp_path, contents(train=5))
    with pytest.raises(DataError, match="only 5 images, too few to take a validation part from"):
        load("mnist", tmp_path)


def test_status(tmp_path, published, monkeypatch):
    found = status()[1]
    assert not found.ready
    assert "downloaded on first use" in found.detail
    assert [file.check for file in found.files] == ["missing"] * 4

    write(tmp_path / "mnist", published)
    found = status(tmp_path)[1]
    assert found.ready
    assert found.where == str(tmp_path / "mnist")
    assert found.detail == "checksums as published"

    (tmp_path / "mnist" / NAMES[1]).write_bytes(idx(np.ones(60, np.uint8)))
    found = status(tmp_path)[1]
    assert found.ready
    assert found.detail == "checksums DIFFER from the published ones"
    assert [file.check for file in found.files] == ["published", "differs", "published", "published"]

    (tmp_path / "mnist" / NAMES[1]).write_bytes(gzip.compress(LABELS)[:20])
    (tmp_path / "mnist" / NAMES[3]).unlink()
    found = status(tmp_path)[1]
    assert not found.ready
    assert found.detail == f"{NAMES[1]} damaged; {NAMES[3]} missing"


@pytest.mark.data
def test_the_real_files(real_data):
    if not (real_data / "mnist" / NAMES[0]).exists():
        pytest.skip(f"no MNIST in {real_data}")
    for file in mnist.FILES:
        content = (real_data / "mnist" / file.name).read_bytes()
        assert len(content) == file.size_bytes
        assert hashlib.md5(content).hexdigest() == file.md5
        assert hashlib.sha256(content).hexdigest() == file.sha256
    data = load("mnist", real_data)
    assert data.notes == ()
    assert [len(split) for split in data.splits().values()] == [50_000, 10_000, 10_000]
    assert data.train.labels[:5].tolist() == [5, 0, 4, 1, 9]
    assert data.test.labels[:5].tolist() == [7, 2, 1, 0, 4]
    assert np.bincount(data.test.labels).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    assert status(real_data)[1].detail == "checksums as published"
