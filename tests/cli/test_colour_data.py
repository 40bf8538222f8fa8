"""CIFAR-10 and SVHN from files in their true formats to a packed network that equals torch: every command once."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat

from binarynet.data import cifar10

TINY = (
    "model.blocks=[[4],[4]]",
    "model.dense=[8]",
    "training.epochs=1",
    "training.batch_size=20",
    "training.threads=1",
)


def pictures(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """``[n, 32, 32, 3]``, the brighter the higher the label; every label equally often."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(count) % 10)
    noise = rng.integers(0, 30, (count, 32, 32, 3))
    return (noise + 25 * labels[:, None, None, None]).astype(np.uint8), labels


@pytest.fixture
def cifar_files(tmp_path):
    """Binary batches with 40 records each instead of 10,000."""
    folder = tmp_path / "data" / cifar10.FORMS[0].folder
    folder.mkdir(parents=True)
    for number, name in enumerate(cifar10.BATCHES):
        images, labels = pictures(40, number)
        planes = images.transpose(0, 3, 1, 2).reshape(40, -1)
        (folder / f"{name}.bin").write_bytes(np.concatenate([labels[:, None], planes], 1).astype(np.uint8).tobytes())
    return tmp_path / "data"


def write_mat(path: Path, count: int, seed: int) -> None:
    """X [32, 32, 3, n] and y [n, 1], in which 10 is the digit 0."""
    images, labels = pictures(count, seed)
    labels = np.where(labels == 0, 10, labels).astype(np.uint8)[:, None]
    savemat(path, {"X": images.transpose(1, 2, 3, 0), "y": labels}, do_compression=True)


@pytest.fixture
def svhn_files(tmp_path):
    """The train and the test file."""
    folder = tmp_path / "data"
    folder.mkdir()
    write_mat(folder / "train_32x32.mat", 120, 1)
    write_mat(folder / "test_32x32.mat", 40, 2)
    return folder


def road(run, tmp_path, recipe, data, sizes):
    """Train, evaluate, pack, verify, evaluate again; the run's record."""
    folder, file = tmp_path / "run", tmp_path / "model.bnn"
    settings = [part for setting in TINY for part in ("--set", setting)]
    assert run("train", recipe, "--data", data, "--out", folder, *settings).code == 0
    record = json.loads((folder / "run.json").read_text())
    assert list(record["dataset"]["sizes"].values()) == sizes
    assert record["test_images"] == sizes[2]
    result = run("evaluate", folder, "--data", data, "--json")
    assert result.code == 0
    facts = json.loads(result.out)
    assert (facts["images"], facts["error"]) == (sizes[2], record["test_error"])
    assert run("pack", folder, "-o", file).code == 0
    verified = run("verify", folder, file, "--data", data, "--json")
    assert verified.code == 0
    checked = json.loads(verified.out)
    assert checked["exact"]
    assert checked["images"] == sizes[2]
    assert "torch" in (checked["baseline"], *checked["engines"])
    again = json.loads(run("evaluate", file, "--data", data, "--json").out)
    assert (again["wrong"], again["images"]) == (record["test_errors"], sizes[2])
    return record


@pytest.mark.parametrize("recipe", ["cifar10-theano", "cifar10-torch7-quick"])
def test_cifar10(run, tmp_path, cifar_files, recipe):
    record = road(run, tmp_path, recipe, cifar_files, [180, 20, 40])
    notes = record["dataset"]["notes"]
    for name in cifar10.BATCHES:
        (note,) = [note for note in notes if f"{name}.bin: content differs from the published {name}.bin (md5 " in note]
        assert note.endswith(", 40 images)")
    assert "200 training images instead of 50,000: the last 20 are for validation" in notes
    assert "40 test images instead of 10,000" in notes


def test_preprocessed_runs_are_evaluated_and_not_packed(run, tmp_path, svhn_files):
    write_mat(svhn_files / "extra_32x32.mat", 60, 3)
    folder, settings = tmp_path / "run", [part for setting in TINY for part in ("--set", setting)]
    assert run("train", "svhn-torch7-lcn", "--data", svhn_files, "--out", folder, *settings).code == 0
    assert run("evaluate", folder, "--data", svhn_files).code == 0
    result = run("pack", folder, "-o", tmp_path / "model.bnn")
    assert result.code == 1
    assert "preprocess (ContrastNormalization): real-valued preprocessing has no exact 8-bit form" in result.error
    assert "as in cifar10-torch7 and svhn-torch7" in result.error
    assert not (tmp_path / "model.bnn").exists()


@pytest.mark.parametrize(
    ("recipe", "extra", "sizes"),
    [("svhn-theano-quick", False, [110, 10, 40]), ("svhn-torch7", True, [160, 20, 40])],
)
def test_svhn(run, tmp_path, svhn_files, recipe, extra, sizes):
    if extra:
        write_mat(svhn_files / "extra_32x32.mat", 60, 3)
    notes = road(run, tmp_path, recipe, svhn_files, sizes)["dataset"]["notes"]
    assert any("train_32x32.mat: differs from the published train_32x32.mat (sha256 " in note for note in notes)
    assert "120 images instead of 73,257 in train_32x32.mat: the first 1 of each class are for validation" in notes
    assert "40 test images instead of 26,032" in notes
    assert any(note.startswith("without extra_32x32.mat") for note in notes) != extra
