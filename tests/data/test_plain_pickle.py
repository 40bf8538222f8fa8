"""Pickles as data: what plain data and NumPy need is read, everything else is refused before anything happens."""

from __future__ import annotations

import collections
import os
import pickle
import random

import numpy as np
import pytest

from binarynet.data._plain_pickle import read_plain_pickle
from binarynet.errors import DataError

VALUE = {
    "batch_label": "training batch 1 of 5",
    "labels": [i % 10 for i in range(2500)] + [-1, 70_000, 300],
    "data": np.arange(24, dtype=np.uint8).reshape(4, 6),
    "filenames": [f"picture_{i}.png" for i in range(300)],
    "odd": ((), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4), None, True, False, b"bytes", "ä"),
}


@pytest.mark.parametrize("protocol", [3, 4])
def test_what_python_3_writes(protocol):
    content = pickle.dumps(VALUE, protocol=protocol)
    found = read_plain_pickle(content, "x")
    assert list(found) == list(VALUE)
    np.testing.assert_array_equal(found.pop("data"), VALUE["data"])
    assert found == {key: value for key, value in VALUE.items() if key != "data"}


def test_one_array():
    np.testing.assert_array_equal(read_plain_pickle(pickle.dumps(VALUE["data"], protocol=4), "x"), VALUE["data"])


def test_strings_of_python_2_are_bytes_and_keys_text():
    content = b"\x80\x02}q\x01U\x01kq\x02U\x02\xff\xfes."
    assert read_plain_pickle(content, "x") == {"k": b"\xff\xfe"}


class Attack:
    def __init__(self, marker: str) -> None:
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (self.marker,)


@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_code_is_refused_and_not_run(tmp_path, protocol):
    marker = tmp_path / "was-here"
    content = pickle.dumps({"data": Attack(str(marker))}, protocol=protocol)
    with pytest.raises(DataError, match=r"^x: calls for '(posix|nt)\.mkdir', which could run code: refused; only"):
        read_plain_pickle(content, "x")
    assert not marker.exists()
    pickle.loads(content)  # the attack is a real one
    assert marker.exists()


@pytest.mark.parametrize(
    ("value", "protocol", "message"),
    [
        (collections.OrderedDict(a=1), 4, r"calls for 'collections\.OrderedDict'"),
        (b"bytes as Python 3 writes them for Python 2", 2, r"calls for '_codecs\.encode'"),
        (np.arange(3), 4, "holds an array of type 'i8', expected uint8"),
        (np.zeros((2, 3), np.uint8, order="F"), 4, "not row-major uint8"),
        ({1: 2}, 4, "a dictionary key is of type int, expected text"),
        (1.5, 4, "holds the pickle instruction 0x47"),
        ({"a"}, 4, "holds the pickle instruction 0x8f"),
        ([1], 0, "not a pickle of protocol 2, 3 or 4; save it with pickle.dump"),
        ([1], 5, "not a pickle of protocol 2, 3 or 4"),
    ],
)
def test_refused(value, protocol, message):
    with pytest.raises(DataError, match=message):
        read_plain_pickle(pickle.dumps(value, protocol=protocol), "x")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not a pickle, or truncated"),
        (b"\x80\x02", "truncated or damaged"),
        (b"\x80\x02K\x01.x", "1 trailing bytes after the pickle"),
        (b"\x80\x02K\x01K\x02.", "truncated or damaged"),
        (b"\x80\x02.", "truncated or damaged"),
        (b"\x80\x02(.", "truncated or damaged"),
        (b"\x80\x02K\x01t.", "truncated or damaged"),
        (b"\x80\x02h\x01.", "truncated or damaged"),
        (b"\x80\x02T\xff\xff\xff\x7fabc.", "truncated or damaged"),
        (b"\x80\x02}U\x01aK\x01sU\x01aK\x01s.", "the key 'a' twice"),
        (b"\x80\x02}}b.", "sets the state of something that is not an array"),
        (b"\x80\x02cnumpy\nndarray\n)R.", "truncated or damaged"),
        (b"\x80\x02X\x01\x00\x00\x00\xff.", "truncated or damaged"),
        (b"\x80\x02cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\n\x85R.", "an array without content"),
    ],
)
def test_damaged(content, message):
    with pytest.raises(DataError, match=message) as caught:
        read_plain_pickle(content, "x")
    assert "\n" not in str(caught.value)


def test_a_claimed_shape_must_be_there():
    content = pickle.dumps(np.zeros((4, 6), np.uint8), protocol=4)
    assert content.count(b"K\x04K\x06") == 1
    with pytest.raises(DataError, match=r"shape \[255, 6\] with 24 bytes"):
        read_plain_pickle(content.replace(b"K\x04K\x06", b"K\xffK\x06"), "x")


def test_random_damage_is_a_value_or_an_error():
    content, rng, messages = pickle.dumps(VALUE, protocol=4), random.Random(0), []
    for _ in range(500):
        changed = bytearray(content)
        for _ in range(rng.choice((1, 2, 20))):
            changed[rng.randrange(len(changed))] = rng.randrange(256)
        try:
            read_plain_pickle(bytes(changed[: rng.randrange(len(changed) * 2)]), "x")
        except DataError as error:
            messages.append(str(error))
    assert len(messages) > 100
    assert not [message for message in messages if "\n" in message]


def test_shared_values_cannot_grow_out_of_proportion():
    doubling = b"\x80\x04K\x01\x94" + b"".join(b"h%ch%c\x86\x94" % (i, i) for i in range(200))
    name = b"cnumpy\ndtype\n"
    with pytest.raises(DataError, match="truncated or damaged"):
        read_plain_pickle(doubling + name + b"h\xc8\x85R.", "x")
