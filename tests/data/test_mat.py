"""MATLAB 5 files, as SciPy writes them and as bytes put together here."""

from __future__ import annotations

import io
import random
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat

from binarynet.data import _files
from binarynet.data._mat import read_mat
from binarynet.errors import DataError

RNG = np.random.default_rng(4)
X = RNG.integers(0, 256, (5, 4, 3, 7), dtype=np.uint8)
Y = np.arange(7, dtype=np.uint8)[:, None]


def saved(compressed: bool = True, **arrays: object) -> bytes:
    buffer = io.BytesIO()
    savemat(buffer, arrays, do_compression=compressed)
    return buffer.getvalue()


def part(kind: int, content: bytes) -> bytes:
    return struct.pack("<II", kind, len(content)) + content + bytes(-len(content) % 8)


def small(kind: int, content: bytes) -> bytes:
    return struct.pack("<HH", kind, len(content)) + content.ljust(4, b"\0")


def array(
    values: bytes, *, shape: tuple[int, ...] = (2, 2), name: bytes = b"X", flags: int = 9, stored: int = 2
) -> bytes:
    extents = part(5, struct.pack(f"<{len(shape)}i", *shape))
    return part(14, part(6, struct.pack("<II", flags, 0)) + extents + part(1, name) + part(stored, values))


HEADER = b"MATLAB 5.0 MAT-file, Platform: GLNXA64".ljust(124) + b"\x00\x01IM"


def packed(element: bytes) -> bytes:
    stream = zlib.compress(element)
    return struct.pack("<II", 15, len(stream)) + stream


def read(path: Path, content: bytes, *names: str) -> dict[str, np.ndarray]:
    path.write_bytes(content)
    return read_mat(path, names)


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "some.mat"


@pytest.mark.parametrize("compressed", [True, False])
def test_what_scipy_writes(path, compressed):
    others = {"text": "not wanted", "cell": np.array([1, "a"], dtype=object), "complex": np.array([1j])}
    found = read(path, saved(compressed, **others, X=X, y=Y), "X", "y")
    assert list(found) == ["X", "y"]
    np.testing.assert_array_equal(found["X"], X.transpose(3, 2, 1, 0))
    np.testing.assert_array_equal(found["y"], Y.T)
    assert found["X"].flags.c_contiguous
    assert found["X"].flags.writeable


@pytest.mark.parametrize("dtype", ["i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f4", "f8"])
@pytest.mark.parametrize("count", [0, 1, 3, 4, 5, 300_000])
def test_types_and_sizes(path, dtype, count):
    values = np.arange(count).astype(dtype)[:, None]
    found = read(path, saved(values=values), "values")["values"]
    assert found.dtype == dtype
    np.testing.assert_array_equal(found, values.T)


def test_data_in_the_tag_and_narrower_than_in_matlab(path):
    body = part(6, struct.pack("<II", 6, 0)) + part(5, struct.pack("<ii", 3, 1)) + small(1, b"y") + small(2, b"\1\2\3")
    for element in (part(14, body), packed(part(14, body))):
        found = read(path, HEADER + element, "y")["y"]
        assert found.tolist() == [[1, 2, 3]]


GOOD = array(b"abcd")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not a MATLAB 5.0 file, which begins with 'MATLAB 5.0 MAT-file'"),
        (b"<html>404 Not Found</html>" * 9, "not a MATLAB 5.0 file"),
        (b"MATLAB 7.3 MAT-file".ljust(600), "not a MATLAB 5.0 file"),
        (HEADER[:100], "not a MATLAB 5.0 file"),
        (HEADER[:126] + b"MI" + GOOD, "not a little-endian MATLAB file"),
        (HEADER, "lacks the array X"),
        (HEADER + array(b"abcd", name=b"Y"), "lacks the array X"),
        (HEADER + GOOD + GOOD, "holds 'X' twice"),
        (HEADER + GOOD[:-1], "truncated: 199 bytes, an element needs 200"),
        (HEADER + GOOD + b"abc", "truncated or damaged: no array at byte 200"),
        (HEADER + part(2, b"abcd"), "truncated or damaged: no array at byte 128"),
        (HEADER + part(14, b""), "an element ends early"),
        (HEADER + array(b"abcd", flags=4), "'X' is not an array of real numbers"),
        (HEADER + array(b"abcd", flags=9 | 0x800), "'X' is not an array of real numbers"),
        (HEADER + array(b"abcd", stored=14), "'X' is stored as type 14, which is none of numbers"),
        (HEADER + array(b"abcde"), r"'X' has shape \[2, 2\] of uint8, but 5 bytes of values"),
        (HEADER + array(b"abcd", shape=(2,)), "an array without flags or extents"),
        (HEADER + array(b"abcd", shape=(-2, -2)), r"an array of shape \[-2, -2\]"),
        (HEADER + array(b"abcd", shape=(1,) * 9), "a part of type 5 with 36 bytes where type 5 is expected"),
        (HEADER + array(b"abcd", name=b"X" * 65), "a part of type 1 with 65 bytes"),
        (HEADER + part(14, GOOD[8:] + bytes(8)), "8 trailing bytes in an element"),
        (HEADER + part(14, small(6, b"")), "an array without flags|an element ends early"),
        (HEADER + part(14, struct.pack("<HHI", 6, 9, 0)), "9 bytes in a tag, which has room for 4"),
        (HEADER + packed(GOOD)[:-1], "truncated: "),
        (HEADER + packed(GOOD[:-9]), "a compressed element ends early"),
        (HEADER + packed(GOOD + b"x"), "a compressed element does not end where it should"),
        (HEADER + packed(part(15, b"")), "an element of type 15 with 0 bytes"),
        (HEADER + packed(GOOD)[:-4] + b"abcd", "incorrect data check"),
        (HEADER + part(15, b"x" * 32), "incorrect header check"),
    ],
)
def test_damaged(path, content, message):
    with pytest.raises(DataError, match=message) as caught:
        read(path, content, "X")
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_bombs(path, monkeypatch):
    monkeypatch.setattr(_files, "FREE_EXPANSION_BYTES", 1 << 16)
    bomb = HEADER + packed(array(bytes(1 << 20), shape=(1 << 10, 1 << 10)))
    with pytest.raises(DataError, match=r"decompression bomb: an element of type 14 with 1,048,6\d\d bytes"):
        read(path, bomb, "X")
    body = array(b"abcd", shape=(1 << 14, 1 << 14))
    lie = body.replace(struct.pack("<II", 2, 4), struct.pack("<II", 2, 1 << 28))
    for element in (lie, packed(lie)):
        with pytest.raises(DataError, match=r"'X' claims 268,435,456 bytes: damaged, or a decompression bomb"):
            read(path, HEADER + element, "X")


def test_missing_file(tmp_path):
    with pytest.raises(DataError, match="no such file"):
        read_mat(tmp_path / "no.mat", ("X",))


@pytest.mark.parametrize("compressed", [True, False])
def test_random_damage_is_data_or_an_error(path, compressed):
    content, rng, messages = saved(compressed, X=X, y=Y), random.Random(1), []
    for _ in range(500):
        changed = bytearray(content)
        for _ in range(rng.choice((1, 2, 5))):
            changed[rng.randrange(100, len(changed))] = rng.choice((0, 255, 1, 14, 15, rng.randrange(256)))
        try:
            read(path, bytes(changed[: rng.randrange(len(changed)) if rng.random() < 0.2 else None]), "X", "y")
        except DataError as error:
            messages.append(str(error))
    assert len(messages) > 100
    assert all(str(path) in message and "\n" not in message for message in messages)
