"""train, pack, verify and evaluate on real (tiny) runs."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import binarynet
from binarynet.errors import INSTALL_TRAIN
from binarynet.fileformat import PackedNetwork, read, read_with_sections, write
from binarynet.graph import Graph
from binarynet.runtime import engines
from binarynet.training import train

TINY = ("model.hidden=[16, 12]", "training.epochs=2", "training.threads=1")
SETTINGS = [part for override in TINY for part in ("--set", override)]
NUM_WEIGHTS = 64 * 16 + 16 * 12 + 12 * 10


@pytest.fixture(scope="session")
def trained(tmp_path_factory) -> Path:
    """A finished run."""
    folder = tmp_path_factory.mktemp("runs") / "tiny"
    train("digits-mlp", overrides=TINY, out=folder, show="off")
    return folder


@pytest.fixture
def packed(run, trained, tmp_path) -> Path:
    """The run as a file."""
    assert run("pack", trained, "-o", tmp_path / "model.bnn").code == 0
    return tmp_path / "model.bnn"


def record(folder: Path) -> dict:
    return json.loads((folder / "run.json").read_text())


def test_train(run, tmp_path, trained):
    result = run("train", "digits-mlp", "--out", tmp_path / "run", *SETTINGS)
    assert result.code == 0
    assert [line.split()[:2] for line in result.err.splitlines()] == [["epoch", "1/2"], ["epoch", "2/2"]]
    found = record(tmp_path / "run")
    assert found["test_error"] == record(trained)["test_error"]
    error, images = found["test_errors"], found["test_images"]
    assert f"test error  {100 * error / images:.2f} %  ({error} of {images} wrong)" in result.out
    assert f"next        binarynet pack {tmp_path / 'run'} -o model.bnn" in result.out
    assert (tmp_path / "run" / "curves.png").stat().st_size > 1000


def test_train_json_resume_and_default_folder(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    first = json.loads(run("train", "digits-mlp", *SETTINGS[2:], "--set", "model.hidden=[8]", "--json").out)
    assert first["directory"] == "runs/digits-mlp"
    assert len(first["history"]) == 2
    again = json.loads(run("train", "--resume", "--out", "runs/digits-mlp", "--json").out)
    assert again == first


def test_train_threads(run, tmp_path):
    assert run("train", "digits-mlp", "--out", tmp_path / "run", *SETTINGS[:4], "--threads", "1").code == 0
    assert "threads = 1" in (tmp_path / "run" / "recipe.toml").read_text()


def test_train_help_says_whose_threads_it_takes(run):
    assert "default: the recipe's, else one per core" in " ".join(run("train", "--help").out.replace("│", "").split())


@pytest.mark.parametrize("command", [["pack"], ["evaluate"], ["train", "--resume", "--out"]])
@pytest.mark.parametrize(
    ("key", "value"), [("version", 99), ("format", "other"), ("test_error", "abc"), ("resumed", "x"), ("dataset", {})]
)
def test_a_damaged_record_is_one_line(run, trained, tmp_path, command, key, value):
    shutil.copytree(trained, tmp_path / "copy")
    (tmp_path / "copy" / "run.json").write_text(json.dumps({**record(trained), key: value}))
    result = run(*command, tmp_path / "copy")
    assert result.code == 1
    assert result.error.startswith(f"{tmp_path / 'copy' / 'run.json'}: ")
    assert key in result.error or key == "format"


@pytest.mark.parametrize("hidden", ["[100000000]", "[16000000, 16000000]"])
def test_train_a_network_larger_than_memory(run, tmp_path, monkeypatch, hidden):
    monkeypatch.chdir(tmp_path)
    result = run("train", "digits-mlp", "--set", f"model.hidden={hidden}")
    assert result.code == 2
    assert "the network needs" in result.error or "fan-in" in result.error
    assert not list(tmp_path.iterdir())


def test_train_without_a_recipe_lists_them(run):
    result = run("train")
    assert result.code == 0
    assert "digits-mlp " in result.out
    assert "mnist-theano-quick " in result.out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--out", "x"], "name a recipe: "),
        (["--resume"], "name a recipe: "),
        (["nope"], "there is no recipe 'nope'"),
        (["digits-mlp", "--set", "epochs"], "expected key=value"),
        (["digits-mlp", "--set", "training.epoch=1"], "unknown key 'training.epoch' (did you mean 'epochs'?)"),
        (["digits-mlp", "--set", "training.epochs=many"], "training.epochs: expected"),
        (["digits-mlp", "--out", "{trained}"], "exists already"),
        (["digits-mlp", "--out", "{trained}", "--resume"], "was trained by another recipe"),
        (["digits-mlp", "--out", "nothing-there", "--resume"], "there is no run to resume"),
        (["--out", "nothing-there", "--resume"], "there is no run to resume"),
        (["digits-mlp", "--set", "dataset.name=mnits", "--out", "x"], "unknown data set 'mnits'"),
        (["digits-mlp", "--set", "dataset.options={size=3}", "--out", "x"], "has no option 'size'; it takes none"),
    ],
)
def test_train_wrong_usage(run, tmp_path, monkeypatch, trained, arguments, message):
    monkeypatch.chdir(tmp_path)
    result = run("train", *[argument.replace("{trained}", str(trained)) for argument in arguments])
    assert result.code == 2
    assert message in result.error
    assert not list(tmp_path.iterdir())


def test_train_without_torch(tmp_path):
    code = (
        "import sys\nsys.modules['torch'] = None\nfrom binarynet.cli import app\n"
        f"app.main(['train', 'digits-mlp', '--out', {str(tmp_path / 'run')!r}])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert result.stderr == f"error: this needs torch, which is not installed; {INSTALL_TRAIN}\n"
    assert not (tmp_path / "run").exists()


@pytest.mark.skipif(not hasattr(os, "killpg"), reason="needs POSIX signals")
def test_ctrl_c_while_training(run, tmp_path):
    folder = tmp_path / "run"
    command = [sys.executable, "-m", "binarynet.cli.app", "train", "digits-mlp", "--out", str(folder)]
    command += [*SETTINGS, "--set", "training.epochs=100000"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr.readline().startswith("epoch 1/100000")
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert out == ""
    assert err.splitlines()[-1].startswith(f"error: interrupted; {folder} is complete up to epoch ")
    assert "Traceback" not in err
    assert record(folder)["status"] == "interrupted"
    assert run("evaluate", folder).code == 0
    assert run("pack", folder).code == 0
    assert "test_error" not in read(folder / "model.bnn").provenance


def test_pack(run, trained, tmp_path):
    file = tmp_path / "model.bnn"
    result = run("pack", trained, "-o", file)
    assert (result.code, result.err) == (0, "")
    lines = result.out.splitlines()
    stored = sum(section.num_bytes for section in read_with_sections(file)[1] if section.name.endswith(".weights"))
    assert stored == NUM_WEIGHTS // 8
    assert lines[1].split()[:6] == [
        f"{NUM_WEIGHTS:,}",
        "weights",
        f"{NUM_WEIGHTS * 4:,}",
        "bytes",
        str(stored),
        "bytes",
    ]
    assert f"{file.stat().st_size:,} bytes" in lines[2]
    assert f"written: {file}" in result.out
    assert lines[-1] == f"next: binarynet verify {trained} {file}"
    network = read(file)
    assert network.classes == tuple("0123456789")
    assert network.image_policy == record(trained)["dataset"]["policy"]
    assert network.provenance["dataset"] == "digits"
    assert network.provenance["test_error"] == record(trained)["test_error"]
    assert network.provenance["recipe"]["model"]["hidden"] == [16, 12]


def test_pack_says_where_the_data_must_be_named(run, trained, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(trained, folder)
    of_mnist = record(folder)
    of_mnist["dataset"]["name"] = "mnist"
    (folder / "run.json").write_text(json.dumps(of_mnist))
    hint = (
        f"next: binarynet verify {folder} {folder / 'model.bnn'} (and --data DIR if mnist lies in a folder of your own)"
    )
    assert run("pack", folder).out.splitlines()[-1] == hint


def test_packing_twice_gives_the_same_bytes(run, trained, tmp_path):
    first = json.loads(run("pack", trained, "-o", tmp_path / "a.bnn", "--json").out)
    assert run("pack", trained, "-o", tmp_path / "b.bnn").code == 0
    assert (tmp_path / "a.bnn").read_bytes() == (tmp_path / "b.bnn").read_bytes()
    assert first["file_bytes"] == (tmp_path / "a.bnn").stat().st_size
    assert first["weights"] == NUM_WEIGHTS


def test_pack_into_the_run(run, trained, tmp_path):
    shutil.copytree(trained, tmp_path / "copy")
    assert run("pack", tmp_path / "copy").code == 0
    assert binarynet.load(tmp_path / "copy" / "model.bnn").classes == tuple("0123456789")


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["nope"], 1, "nope: no such run folder"),
        (["{folder}"], 2, "not a run: it holds no recipe.toml"),
        (["{folder}/file"], 2, "is a file; expected the folder of a trained run"),
        (["{trained}", "-o", "{folder}/no/model.bnn"], 1, "cannot be written"),
    ],
)
def test_pack_errors(run, trained, tmp_path, arguments, code, message):
    (tmp_path / "file").touch()
    result = run("pack", *[argument.format(folder=tmp_path, trained=trained) for argument in arguments])
    assert result.code == code
    assert message in result.error


def test_pack_of_a_damaged_checkpoint(run, trained, tmp_path):
    shutil.copytree(trained, tmp_path / "copy")
    path = tmp_path / "copy" / "checkpoints" / "best.ckpt"
    path.write_bytes(path.read_bytes()[:-500])
    result = run("pack", tmp_path / "copy")
    assert result.code == 1
    assert str(path) in result.error
    assert not (tmp_path / "copy" / "model.bnn").exists()


def test_verify_against_the_run(run, trained, packed):
    result = run("verify", trained, packed)
    assert (result.code, result.err) == (0, "")
    lines = result.out.splitlines()
    assert lines[0] == f"{packed}: all 360 test images of digits, compared with torch"
    others = ["reference", *(e.name for e in engines() if e.available and e.name != "reference")]
    assert lines[2].split() == ["layer", "kind", "values", *others]
    assert lines[-1].startswith("exact: 0 differences in ")


def test_verify_sees_a_changed_weight(run, trained, packed):
    network = read(packed)
    dense = next(node for node in network.graph if node.name == "dense2")
    weights = dense.weights.copy()
    weights[3, 0] ^= 1
    object.__setattr__(dense, "weights", weights)
    write(packed, PackedNetwork(network.graph, network.classes, network.image_policy, network.provenance))
    result = run("verify", trained, packed)
    assert result.code == 1
    assert "reference differs from torch in 'sign2'" in result.err
    assert "channel 3" in result.err
    assert run("verify", packed).code == 0  # the engines agree with one another


def test_verify_with_a_file_of_another_network(run, trained, tmp_path, packed):
    network = read(packed)
    assert isinstance(network.graph, Graph)
    other = tmp_path / "other"
    train("digits-mlp", overrides=("model.hidden=[16]", "training.epochs=1"), out=other, show="off")
    result = run("verify", other, packed)
    assert result.code == 1
    assert f"{packed} was not packed from {other}, its layers differ: " in result.error


@pytest.mark.parametrize("split", ["test", "validation", "train"])
def test_evaluate_a_run_and_its_file_alike(run, trained, packed, split):
    from_run = json.loads(run("evaluate", trained, "--split", split, "--json").out)
    from_file = json.loads(run("evaluate", packed, "--split", split, "--json").out)
    assert from_run["engine"] == "torch"
    for key in ("dataset", "split", "error", "wrong", "images"):
        assert from_run[key] == from_file[key]
    if split == "test":
        assert from_run["error"] == record(trained)["test_error"]


def test_evaluate_a_run_whose_pictures_have_moved(run, tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    there, here = tmp_path / "there", tmp_path / "here"
    for folder in (there, here):
        folder.mkdir()
    x, y = rng.integers(0, 256, (60, 6, 6), dtype=np.uint8), np.arange(60) % 2
    np.savez(there / "pictures.npz", x=x, y=y)
    monkeypatch.chdir(there)
    options = ("model.hidden=[8]", "training.epochs=1", "training.batch_size=10", "dataset.name=pictures.npz")
    assert (
        run("train", "digits-mlp", *(part for o in options for part in ("--set", o)), "--out", here / "run").code == 0
    )
    before = json.loads(run("evaluate", here / "run", "--json").out)
    monkeypatch.chdir(here)
    result = run("evaluate", here / "run")
    assert result.code == 1
    assert "pictures.npz" in result.error
    moved = there / "moved.npz"
    (there / "pictures.npz").rename(moved)
    after = json.loads(run("evaluate", here / "run", "--dataset", moved, "--json").out)
    assert (after["wrong"], after["images"]) == (before["wrong"], before["images"])


def test_evaluate_a_run_takes_no_engine(run, trained):
    result = run("evaluate", trained, "--engine", "portable")
    assert result.code == 2
    assert "--engine is for .bnn files" in result.error


def test_evaluate_shows_the_error(run, trained):
    found = record(trained)
    result = run("evaluate", trained, "--threads", "1")
    assert result.out.startswith(
        f"test error  {100 * found['test_error']:.2f} %  ({found['test_errors']} of 360 wrong)"
    )
    assert "torch, 1 thread\n" in result.out
