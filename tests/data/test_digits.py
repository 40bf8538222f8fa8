from __future__ import annotations

import hashlib
import subprocess
import sys

import numpy as np
import pytest

from binarynet.data import digits, load, status
from binarynet.data._splits import split_exactly
from binarynet.data.dataset import Split
from binarynet.errors import DataError, UsageError


def test_split_is_the_fixed_one():
    data = load("digits")
    assert [len(split) for split in data.splits().values()] == [1200, 237, 360]
    digest = hashlib.sha256()
    for split in data.splits().values():
        digest.update(split.images.tobytes())
        digest.update(split.labels.astype("<i8").tobytes())
    assert digest.hexdigest() == "4d7c104a29a41c67f1c6575ce4f2fb51a08902566cc19e2138c6547e799bee83"


def test_checksums_tell_parts_from_each_other_and_notice_a_change():
    splits = load("digits").splits()
    sums = [split.sha256() for split in splits.values()]
    assert sums == [split.sha256() for split in load("digits").splits().values()]
    assert len({*sums}) == 3
    test = splits["test"]
    images, labels = test.images.copy(), test.labels.copy()
    images[0, 0, 0, 0] ^= 1
    labels[-1] = (labels[-1] + 1) % 10
    reshaped = test.images.reshape(len(test), 4, 16, 1)
    changed = [Split(images, test.labels), Split(test.images, labels), Split(reshaped, test.labels), test]
    assert [split.sha256() == sums[2] for split in changed] == [False, False, False, True]


def test_shapes_and_values():
    data = load("digits")
    assert data.policy.shape == (8, 8, 1)
    assert data.classes == tuple("0123456789")
    assert data.notes == ()
    values = np.unique(np.concatenate([split.images.ravel() for split in data.splits().values()]))
    assert values.tolist() == [int(255 * v / 16 + 0.5) for v in range(17)]


def test_every_class_is_in_every_split_in_proportion():
    total = sum(np.bincount(split.labels) for split in load("digits").splits().values())
    for split in load("digits").splits().values():
        share = np.bincount(split.labels) - total * len(split) / total.sum()
        assert np.abs(share).max() <= 1


def test_splits_do_not_overlap():
    labels = np.arange(100) % 7
    parts = split_exactly(labels, [str(i) for i in range(100)], "salt", (60, 25, 15))
    assert [len(part) for part in parts] == [60, 25, 15]
    assert sorted(np.concatenate(parts).tolist()) == list(range(100))


def test_other_data_than_the_known_ones_are_refused(monkeypatch):
    monkeypatch.setattr(digits, "CONTENT_SHA256", "0" * 64)
    with pytest.raises(DataError, match="the data of this scikit-learn differ from the known ones"):
        load("digits")


def test_without_scikit_learn(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(DataError, match=r'not installed; pip install "binarynet\[train\]"'):
        load("digits")


def test_digits_take_no_options():
    with pytest.raises(UsageError, match="data set 'digits' has no option 'image_size'; it takes none"):
        load("digits", image_size=3)


def test_status_imports_no_scikit_learn():
    code = (
        "import sys; from binarynet.data import status; s = status()[0]; "
        "assert s.ready and s.name == 'digits', s; assert 'sklearn' not in sys.modules and 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_status_names_the_version():
    assert status()[0].where.startswith("scikit-learn 1.")
