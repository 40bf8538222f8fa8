from __future__ import annotations

import io
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest

from binarynet.data import _files, load
from binarynet.data._arrays import read_npy_file
from binarynet.errors import DataError, UsageError


def arrays(n: int = 20, *shape: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(5)
    return {"x": rng.integers(0, 256, (n, *(shape or (4, 6))), dtype=np.uint8), "y": np.arange(n) % 2}


def save(path: Path, content: dict[str, object], *, compressed: bool = True) -> Path:
    (np.savez_compressed if compressed else np.savez)(path, **content)
    return path


@pytest.fixture
def file(tmp_path) -> Path:
    return tmp_path / "own.npz"


@pytest.mark.parametrize("compressed", [True, False])
@pytest.mark.parametrize(
    ("shape", "policy_shape"),
    [((4, 6), (4, 6, 1)), ((4, 6, 3), (4, 6, 3)), ((4, 6, 16), (4, 6, 16)), ((9,), (1, 1, 9))],
)
def test_shapes(file, shape, policy_shape, compressed):
    content = arrays(20, *shape)
    data = load(save(file, content, compressed=compressed))
    assert data.policy.shape == policy_shape
    assert data.classes == ("0", "1")
    assert [len(split) for split in data.splits().values()] == [14, 2, 4]
    got = np.concatenate([split.images.reshape(len(split), -1) for split in data.splits().values()])
    expected = content["x"].reshape(20, -1)
    assert sorted(map(bytes, got)) == sorted(map(bytes, expected))


def test_labels_stay_with_their_samples(file):
    content = arrays(200, 1)
    content["x"][:, 0] = np.arange(200)
    content["y"] = np.arange(200) % 3
    for split in load(save(file, content)).splits().values():
        np.testing.assert_array_equal(split.labels, split.images.ravel() % 3)


def test_split_is_the_same_every_time(file):
    content = arrays(20, 1)
    content["x"][:, 0] = np.arange(20)
    data = load(save(file, content))
    assert data.test.images.ravel().tolist() == [5, 6, 7, 8]
    assert data.validation.images.ravel().tolist() == [0, 17]


def test_given_parts_are_used(file):
    train, validation, test = arrays(8), arrays(4), arrays(6)
    content = train | {"x_test": test["x"], "y_test": test["y"]}
    assert [len(split) for split in load(save(file, content)).splits().values()] == [6, 2, 6]
    content |= {"x_validation": validation["x"], "y_validation": validation["y"]}
    data = load(save(file, content))
    np.testing.assert_array_equal(data.train.images[..., 0], train["x"])
    np.testing.assert_array_equal(data.validation.images[..., 0], validation["x"])
    np.testing.assert_array_equal(data.test.images[..., 0], test["x"])


@pytest.mark.parametrize("dtype", ["uint8", "int32", ">i8", "uint64"])
def test_label_dtypes_and_class_names(file, dtype):
    content = arrays() | {"classes": np.array(["cat", "dög"])}
    content["y"] = content["y"].astype(dtype)
    data = load(save(file, content))
    assert data.classes == ("cat", "dög")
    assert data.train.labels.dtype == np.int64


def test_fortran_order(file):
    content = arrays()
    data = load(save(file, content | {"x": np.asfortranarray(content["x"])}))
    np.testing.assert_array_equal(data.test.images, load(save(file, content)).test.images)


def test_options(file):
    policy = load(save(file, arrays()), resize="stretch", background=0).policy
    assert (policy.resize, policy.background) == ("stretch", 0)
    with pytest.raises(UsageError, match="no option 'image_size'; it takes resize, background"):
        load(file, image_size=3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": None}, "lacks array 'x'; expected x, y and, if wanted, x_validation, y_validation, x_test"),
        ({"x": None, "y": None}, "lacks arrays 'x', 'y'"),
        ({"z": np.zeros(1)}, "holds the unknown array 'z'; expected x, y"),
        (
            {"x": np.zeros((20, 4, 6), np.float32)},
            r"x is float32, expected uint8 \(0..255\); scale it to 0..255, round",
        ),
        ({"x": np.zeros((20, 4, 6), np.int64)}, "x is int64, expected uint8"),
        ({"x": np.zeros((20, 4, 6), bool)}, "x is bool, expected uint8"),
        ({"x": np.zeros(20, np.uint8)}, r"x has shape \[20\], expected \[n, height, width\], \[n, height, width, chan"),
        ({"x": np.zeros((20, 1, 4, 6, 1), np.uint8)}, r"x has shape \[20, 1, 4, 6, 1\], expected"),
        ({"x": np.zeros((20, 0, 6), np.uint8)}, r"x has shape \[20, 0, 6\], expected"),
        ({"x": np.zeros((20, 3, 4, 32), np.uint8)}, r"32 channels, expected 1 to 16 .*; x.transpose\(0, 2, 3, 1\)"),
        ({"x": np.zeros((20, 40, 4, 32), np.uint8)}, "32 channels, expected 1 to 16 as the last axis$"),
        ({"x": np.zeros((19, 4, 6), np.uint8)}, "x holds 19 samples but y 20 labels: the counts must be equal"),
        ({"x": np.zeros((0, 4, 6), np.uint8), "y": np.zeros(0, int)}, "x holds no samples"),
        ({"y": np.zeros(20)}, "y is float64, expected integers"),
        ({"y": np.zeros((20, 1), int)}, r"y has shape \[20, 1\], expected \[n\]"),
        ({"y": np.arange(20) - 1}, r"y: label -1 at position 0 is out of range, expected 0\.\.65535"),
        ({"y": np.arange(20) + 2**40}, "y: label 1099511627776 at position 0 is out of range"),
        ({"y": np.full(20, 2**64 - 1, np.uint64)}, "y: label 18446744073709551615 at position 0 is out of range"),
        ({"y": np.zeros(20, int)}, "1 class, at least 2 are needed"),
        ({"y": np.arange(20) % 2 * 2}, r"no sample of class 1 \('1'\) in y"),
        ({"classes": np.array(["a", "b", "c"])}, r"no sample of class 2 \('c'\) in y"),
        ({"classes": np.array(["a"])}, "1 class, at least 2 are needed"),
        ({"classes": np.array(["a", "a"])}, r"class names must differ, got \['a', 'a'\]"),
        ({"classes": np.array(["a", ""])}, "class name '' is empty or holds control characters"),
        ({"classes": np.array(["a", "b\x1b[2J"])}, r"class name 'b\\x1b\[2J' is empty or holds control characters"),
        ({"classes": np.array([b"a", b"b"])}, r"classes is \|S1 \[2\], expected text \[number of classes\]"),
        ({"classes": np.array([["a", "b"]])}, r"classes is <U1 \[1, 2\], expected text"),
        ({"y": np.arange(20) % 3, "classes": np.array(["a", "b"])}, r"y: label 2 at position 2 .*, expected 0\.\.1"),
        ({"x_test": np.zeros((3, 4, 6), np.uint8)}, "holds x_test but not y_test: give both or neither"),
        ({"y_validation": np.zeros(3, int)}, "holds y_validation but not x_validation: give both or neither"),
        (
            {"x_test": np.zeros((3, 4, 7), np.uint8), "y_test": np.zeros(3, int)},
            r"x_test has samples of \[4, 7\], x of \[4, 6\]: they must be equal",
        ),
        (
            {"x_test": np.zeros((3, 4, 6), np.uint8), "y_test": np.full(3, 2)},
            r"y_test: label 2 at position 0 is out of range, expected 0\.\.1",
        ),
        ({"y": np.array([0] * 18 + [1] * 2)}, "class '1' has 2 samples, at least 3 are needed to split it"),
        ({"y": np.array([{"a": 1}] * 20)}, "array 'y': holds Python objects, which only pickle can read .* refused"),
        ({"y": np.zeros(20, [("a", "i4")])}, "array 'y': dtype .* is not a plain one"),
    ],
)
def test_wrong_content(file, change, message):
    content = {name: value for name, value in (arrays() | change).items() if value is not None}
    with pytest.raises(DataError, match=message) as caught:
        load(save(file, content))
    assert str(caught.value).startswith(str(file))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kept", [0, 10, 100, 0.5, 0.9, -1])
def test_truncated(file, kept):
    content = save(file, arrays()).read_bytes()
    file.write_bytes(content[: int(len(content) * kept) if isinstance(kept, float) else kept])
    with pytest.raises(DataError, match=r"own\.npz: not an \.npz file, or truncated or damaged"):
        load(file)


@pytest.mark.parametrize("compressed", [True, False])
def test_damaged_content(file, compressed):
    content = bytearray(save(file, arrays(500), compressed=compressed).read_bytes())
    content[3000:3010] = b"\xa5" * 10
    file.write_bytes(content)
    with pytest.raises(DataError, match=r"truncated or damaged|cannot be read"):
        load(file)


def test_text_named_npz(file):
    file.write_text("x,y\n1,2\n")
    with pytest.raises(DataError, match=r"not an \.npz file"):
        load(file)


def test_a_pickle_is_not_run(file, tmp_path):
    class Harm:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "harm"),)

    np.savez(file, x=arrays()["x"], y=np.array([Harm()] * 20))
    with pytest.raises(DataError, match="could run code: refused"):
        load(file)
    assert not (tmp_path / "harm").exists()


def npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def claim(descr: str, shape: str, content: bytes = b"") -> bytes:
    header = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode() + content


def test_zip_bomb(file, monkeypatch):
    monkeypatch.setattr(_files, "FREE_EXPANSION_BYTES", 1 << 20)
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.npy", claim("|u1", "(20000, 1000)", bytes(20_000_000)))
        archive.writestr("y.npy", npy(np.zeros(20_000, np.uint8)))
    with pytest.raises(DataError, match=r"claims to decompress to more than .* bytes: refused as a decompression bomb"):
        load(file)


@pytest.mark.parametrize(
    ("member", "message"),
    [
        (claim("|u1", "(1000000000000, 4, 6)"), r"truncated: shape \[1000000000000, 4, 6\] of uint8 needs 24,000,000"),
        (claim("|u1", "(20, 4, 6)", bytes(481)), "array 'x': 1 trailing bytes after the array"),
        (claim("|u1", "(20, 4, 6)", bytes(479)), "needs 480 bytes, 479 are there"),
        (claim("|u1", "(-20, 4, 6)"), "array 'x': negative shape"),
        (claim("|u1", "(20, 'a')"), r"not an \.npy array, or a damaged one"),
        (claim("|u1", "(20, ((("), r"not an \.npy array, or a damaged one"),
        (claim("|q9", "(20,)"), r"not an \.npy array, or a damaged one"),
        (b"\x93NUMPY\x09\x00" + bytes(100), "damaged one|version 9.0 is unknown"),
        (b"", r"not an \.npy array"),
        (b"\x93NUMPY\x01\x00\xff\xff{'descr': " + b"(" * 60_000, r"not an \.npy array"),
    ],
)
def test_hostile_members(file, member, message):
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("x.npy", member)
        archive.writestr("y.npy", npy(np.zeros(20, np.uint8)))
    with pytest.raises(DataError, match=message):
        load(file)


def test_member_twice(file):
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("x.npy", npy(arrays()["x"]))
        archive.writestr("x", npy(arrays()["x"]))
        archive.writestr("y.npy", npy(arrays()["y"]))
    with pytest.raises(DataError, match="holds 'x' twice"):
        load(file)


def test_encrypted(file):
    content = bytearray(save(file, arrays(), compressed=False).read_bytes())
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        start = 0
        while (start := content.find(signature, start)) >= 0:
            content[start + offset] |= 1
            start += 4
    file.write_bytes(content)
    with pytest.raises(DataError, match=r"own\.npz: cannot be read \(.*encrypted"):
        load(file)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (npy(arrays()["x"])[:-5], "truncated: shape .* needs 480 bytes, 475 are there"),
        (npy(arrays()["x"]) + b"!", "1 trailing bytes after the array"),
        (claim("|u1", "(99999999999999,)"), "truncated: shape .* needs 99,999,999,999,999 bytes, 0 are there"),
        (b"text", r"not an \.npy array, or a damaged one"),
        (npy(np.array([None])), "holds Python objects"),
    ],
)
def test_npy_files(tmp_path, content, message):
    (tmp_path / "x.npy").write_bytes(content)
    with pytest.raises(DataError, match=rf"x\.npy: {message}"):
        read_npy_file(tmp_path / "x.npy")
