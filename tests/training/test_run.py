"""A run from recipe to result: what it writes, what it refuses, and how failures leave it."""

import csv
import errno
import json
import logging
import os
import resource
import warnings

import numpy as np
import pytest
import torch
from PIL import Image

from binarynet import data, models, training
from binarynet.errors import (
    BackendUnavailableError,
    DataError,
    FileFormatError,
    NonFiniteError,
    RecipeError,
    UsageError,
)
from binarynet.layers import BinaryLayer
from binarynet.training import recipe
from binarynet.training.module import Classifier


@pytest.fixture(scope="module")
def run(quick_recipe, tmp_path_factory):
    """A finished run's directory, and its result."""
    path = tmp_path_factory.mktemp("runs") / "one"
    train = training.train  # Lightning sets its loggers up when it is imported
    generator, threads = torch.get_rng_state(), torch.get_num_threads()
    level = logging.getLogger("lightning.pytorch").level
    before = set(os.listdir())
    result = train(quick_recipe, out=path, show="off")
    assert torch.equal(generator, torch.get_rng_state())
    assert torch.get_num_threads() == threads
    assert logging.getLogger("lightning.pytorch").level == level
    assert set(os.listdir()) == before
    return path, result


def test_it_learns_and_says_how_well(run):
    path, result = run
    assert result.directory == path
    assert result.test_images == 360
    assert result.test_error == result.test_errors / 360 < 0.6
    assert [row.epoch for row in result.history] == [1, 2, 3]
    assert [row.steps for row in result.history] == [20, 40, 60]
    rates = [row.learning_rate for row in result.history]
    assert rates[0] == 3e-3
    assert rates == pytest.approx([3e-3 * 0.01 ** (epoch / 3) for epoch in range(3)])
    assert result.history[-1].training_cost < result.history[0].training_cost
    assert result.validation_error == min(row.validation_error for row in result.history)


def test_everything_lies_in_the_runs_directory(run):
    path, result = run
    files = {str(file.relative_to(path)) for file in path.rglob("*") if file.is_file()}
    events = {file for file in files if file.startswith("tensorboard/events.out.tfevents.")}
    assert len(events) == 1
    assert files - events == {
        "recipe.toml",
        "run.json",
        "metrics.csv",
        "curves.png",
        "checkpoints/last.ckpt",
        "checkpoints/best.ckpt",
    }
    rows = list(csv.DictReader((path / "metrics.csv").read_text().splitlines()))
    assert [float(row["validation_error"]) for row in rows] == [row.validation_error for row in result.history]
    with Image.open(path / "curves.png") as picture:
        assert picture.format == "PNG"
        assert min(picture.size) > 500


def test_events_hold_the_history(run):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    path, result = run
    events = EventAccumulator(str(path / "tensorboard")).Reload()
    errors = [(event.step, event.value) for event in events.Scalars("error/validation")]
    assert errors == [(row.epoch, np.float32(row.validation_error)) for row in result.history]
    assert set(events.Tags()["scalars"]) == {
        "cost/training",
        "cost/validation",
        "error/validation",
        "learning_rate",
    }


def test_provenance(run):
    path, result = run
    record = json.loads((path / "run.json").read_text())
    assert (record["format"], record["version"], record["status"]) == ("binarynet-run", 1, "finished")
    assert (record["recipe"], record["seed"], record["epochs"]) == ("digits-mlp", 1234, 3)
    assert record["dataset"]["sizes"] == {"train": 1200, "validation": 237, "test": 360}
    assert record["dataset"]["classes"] == list("0123456789")
    assert record["network"] == {"binary_weights": 64 * 24 + 240, "parameters": 64 * 24 + 240 + 2 * 34}
    assert record["versions"]["torch"] == torch.__version__
    assert record["test_error"] == result.test_error
    assert record["machine"]["threads"] == 1
    assert record["started"] <= record["finished"]


def test_the_loaded_run_gives_the_reported_errors(run):
    path, result = run
    model, loaded_recipe, provenance = training.load_run(path)
    assert not model.training
    assert loaded_recipe.training.epochs == 3
    assert provenance["best_epoch"] == result.best_epoch
    test = data.load("digits").test
    assert training.evaluate(model, test).num_errors == result.test_errors
    assert training.evaluate_run(path) == training.evaluate(model, test)
    assert training.evaluate_run(path, split="validation").error == result.validation_error
    assert all(m.weight.abs().max() <= 1 for m in model.modules() if isinstance(m, BinaryLayer))


def test_the_same_seed_gives_the_same_weights_and_another_one_others(run, quick_recipe, tmp_path):
    torch.manual_seed(99)
    weights = [training.load_run(run[0]).model.state_dict()]
    for number, seed in enumerate((1234, 1235)):
        training.train(quick_recipe, overrides=[f"seed={seed}"], out=tmp_path / str(number), show="off")
        weights.append(training.load_run(tmp_path / str(number)).model.state_dict())
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert not torch.equal(weights[0]["dense1.weight"], weights[2]["dense1.weight"])


def test_a_finished_run_is_only_read_again(run, monkeypatch):
    path, result = run
    before = {file: file.stat().st_mtime_ns for file in path.rglob("*")}
    monkeypatch.setattr(data, "load", None)
    assert training.train(out=path, resume=True, show="off") == result
    assert {file: file.stat().st_mtime_ns for file in path.rglob("*")} == before


def test_the_incomplete_batch_and_convolutions(tmp_path):
    overrides = [
        "training.epochs=2",
        "training.batch_size=70",
        "training.drop_last=false",
        "training.threads=1",
        "model.blocks=[[4],[6]]",
        "model.dense=[]",
    ]
    result = training.train("digits-convnet", overrides=overrides, out=tmp_path / "run", show="off")
    assert [row.steps for row in result.history] == [18, 36]  # 1200 = 17 * 70 + 10
    assert training.evaluate_run(tmp_path / "run").num_errors == result.test_errors


def test_an_existing_directory_is_not_touched(run, quick_recipe, tmp_path):
    with pytest.raises(UsageError, match="exists already; resume it, or choose another directory"):
        training.train(quick_recipe, out=run[0], show="off")
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match="exists already"):
        training.train(quick_recipe, out=tmp_path, show="off")
    with pytest.raises(UsageError, match=r"not a run: it holds no recipe\.toml"):
        training.train(quick_recipe, out=tmp_path, resume=True, show="off")
    assert [file.name for file in tmp_path.iterdir()] == ["notes.txt"]


def test_nothing_is_written_before_the_arguments_are_known_to_be_right(quick_recipe, tmp_path):
    for overrides, error in (
        (["dataset.name=digit"], UsageError),
        (["dataset.name=./none.npz"], DataError),
        (["dataset.options.image_size=9"], UsageError),
        (["model.hidden=[0]"], UsageError),
        (["training.batch_size=5000"], UsageError),
        (["training.epochs=0"], RecipeError),
        (["training.accelerator=mps"], BackendUnavailableError),
    ):
        with pytest.raises(error):
            training.train(quick_recipe, overrides=overrides, out=tmp_path / "run", show="off")
    with pytest.raises(UsageError, match="there is no run to resume; leave out --resume to start one"):
        training.train(quick_recipe, out=tmp_path / "run", resume=True, show="off")
    with pytest.raises(UsageError, match="there is no run to resume"):
        training.train(out=tmp_path / "run", resume=True, show="off")
    with pytest.raises(UsageError, match="name a recipe, or the directory of a run to resume"):
        training.train(out=tmp_path / "run", show="off")
    assert list(tmp_path.iterdir()) == []


def test_a_run_is_not_resumed_by_another_recipe(run, quick_recipe):
    with pytest.raises(UsageError, match=r"another recipe \(it differs in model.hidden, training.epochs\)"):
        training.train(quick_recipe, overrides=["training.epochs=9", "model.hidden=[9]"], out=run[0], resume=True)


def test_divergence_is_reported_and_the_last_checkpoint_stays_finite(quick_recipe, tmp_path, monkeypatch):
    path = tmp_path / "run"
    with pytest.raises(NonFiniteError, match=r"cost is (nan|inf) in epoch 1, step 7; train with a smaller"):
        training.train(
            quick_recipe,
            overrides=["optimizer.learning_rate=1e38", "optimizer.final_learning_rate=1e37"],
            out=path,
            show="off",
        )
    assert json.loads((path / "run.json").read_text())["status"] == "failed"
    assert not list((path / "checkpoints").iterdir())
    with pytest.raises(UsageError, match="no epoch of this run was finished yet"):
        training.load_run(path)


def stopped_after_one_epoch(path, chosen, monkeypatch):
    """A run with one finished epoch."""
    from binarynet.training.interrupt import Stopped
    from binarynet.training.module import Classifier

    training_step = Classifier.training_step

    def stop(self, batch, batch_idx):
        if self.current_epoch == 1:
            raise Stopped
        return training_step(self, batch, batch_idx)

    with monkeypatch.context() as patch:
        patch.setattr(Classifier, "training_step", stop)
        with pytest.raises(training.TrainingInterrupted):
            training.train(chosen, out=path, show="off")


@pytest.mark.parametrize("how", ["no space", "file size limit"])
def test_a_full_disk_stops_the_run_and_leaves_its_last_checkpoint(quick_recipe, tmp_path, monkeypatch, how):
    path = tmp_path / "run"
    stopped_after_one_epoch(path, quick_recipe, monkeypatch)
    kept = {file: file.read_bytes() for file in (path / "checkpoints").iterdir()}
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)

    def full(*arguments):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        if how == "no space":
            patch.setattr(os, "fsync", full)
        else:
            resource.setrlimit(resource.RLIMIT_FSIZE, (8000, limits[1]))  # really: the checkpoints are larger
        try:
            with pytest.raises(DataError, match=r"cannot be written: ") as caught:
                training.train(out=path, resume=True, show="off")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "\n" not in str(caught.value)
    assert {file: file.read_bytes() for file in (path / "checkpoints").iterdir()} == kept
    assert training.train(out=path, resume=True, show="off").history[-1].epoch == 3


def damage(path, how):
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2] if how == "truncated" else b"garbage")


@pytest.mark.parametrize("how", ["truncated", "foreign"])
def test_damaged_checkpoints_are_refused_in_one_line(quick_recipe, tmp_path, monkeypatch, how):
    path = tmp_path / "run"
    stopped_after_one_epoch(path, quick_recipe, monkeypatch)
    damage(path / "checkpoints" / "last.ckpt", how)
    with pytest.raises(FileFormatError, match=r"last\.ckpt: not a checkpoint, or truncated") as caught:
        training.train(out=path, resume=True, show="off")
    assert "\n" not in str(caught.value)
    damage(path / "checkpoints" / "best.ckpt", how)
    with pytest.raises(FileFormatError, match=r"best\.ckpt: not a checkpoint, or truncated"):
        training.load_run(path)


def test_a_checkpoint_of_another_network_is_refused(quick_recipe, tmp_path, monkeypatch):
    path = tmp_path / "run"
    stopped_after_one_epoch(path, quick_recipe, monkeypatch)
    file = path / "checkpoints" / "last.ckpt"
    content = torch.load(file, weights_only=True)

    def rewritten(**changes):
        torch.save({**content, **changes}, file)
        with pytest.raises(FileFormatError) as caught:
            training.train(out=path, resume=True, show="off")
        return str(caught.value)

    optimizer = content["optimizer"]
    moments = {**optimizer["state"], 0: {**optimizer["state"][0], "exp_avg": torch.zeros(3)}}
    assert "belongs to another network" in rewritten(optimizer={**optimizer, "state": moments})
    assert "optimizer state is not usable" in rewritten(optimizer={"state": {}, "param_groups": []})
    assert "holds no optimizer state" in rewritten(optimizer=3)
    assert "lacks 'dense1.weight'" in rewritten(network={})
    assert "record of progress contradicts itself" in rewritten(progress={**content["progress"], "epoch": 3})
    assert "beyond the end of what the recipe asks" in rewritten(progress={**content["progress"], "step": 20})


def test_a_hostile_recipe_in_a_run_takes_no_memory(run, tmp_path):
    path = tmp_path / "copy"
    (path / "checkpoints").mkdir(parents=True)
    for name in ("recipe.toml", "run.json", "checkpoints/best.ckpt"):
        (path / name).write_bytes((run[0] / name).read_bytes())
    huge = recipe.load(path / "recipe.toml", ["model.hidden=[10000000]"])
    (path / "recipe.toml").write_text(huge.to_toml())
    with pytest.raises(FileFormatError, match=r"dense1.weight is torch.float32 \[24, 64\], expected .*10000000"):
        training.load_run(path)
    for text in ("{", "[]", "{}", '{"format": "binarynet-run", "version": 1, "dataset": {"classes": 3}}', "[" * 9999):
        (path / "run.json").write_text(text)
        with pytest.raises(FileFormatError, match=r"run\.json: "):
            training.load_run(path)


def test_a_run_is_not_evaluated_on_other_data(run, tmp_path):
    path = tmp_path / "copy"
    (path / "checkpoints").mkdir(parents=True)
    for name in ("recipe.toml", "run.json", "checkpoints/best.ckpt"):
        (path / name).write_bytes((run[0] / name).read_bytes())
    record = json.loads((path / "run.json").read_text())
    record["dataset"]["sizes"]["test"] = 361
    (path / "run.json").write_text(json.dumps(record))
    with pytest.raises(UsageError, match="was trained on other data"):
        training.evaluate_run(path)


def test_lines_are_written_to_standard_error(quick_recipe, tmp_path, capsys):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        training.train(quick_recipe, overrides=["training.epochs=2"], out=tmp_path / "run", show="lines")
    captured = capsys.readouterr()
    assert captured.out == ""
    lines = captured.err.splitlines()
    assert len(lines) == 2
    assert lines[1].startswith("epoch 2/2  cost ")


def test_the_bar_runs(quick_recipe, tmp_path, capsys):
    training.train(quick_recipe, overrides=["training.epochs=2"], out=tmp_path / "run", show="bar")
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "2/2" in captured.err


def test_nothing_is_shown_where_there_is_no_terminal(quick_recipe, tmp_path, capsys):
    training.train(quick_recipe, overrides=["training.epochs=1"], out=tmp_path / "run")
    assert capsys.readouterr() == ("", "")


def test_a_resumed_run_uses_the_threads_of_its_first_part(quick_recipe, tmp_path, monkeypatch):
    path = tmp_path / "run"
    chosen = recipe.load(quick_recipe, ["training.threads=0"])
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        stopped_after_one_epoch(path, chosen, monkeypatch)
        torch.set_num_threads(2)
        training.train(out=path, resume=True, show="off")
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert training.load_run(path).provenance["machine"]["threads"] == 1


def test_many_compiled_networks_one_after_the_other(quick_recipe, monkeypatch):
    torch_compile = torch.compile
    monkeypatch.setattr(torch, "compile", lambda network, **_: torch_compile(network, backend="eager", fullgraph=True))
    compiled = recipe.load(quick_recipe, ["training.compile=true"])
    for width in range(8, 20):
        network = models.build("mlp", input_shape=(8, 8, 1), classes=10, hidden=[width])
        module = Classifier(network, compiled)
        assert module._run(torch.zeros(4, 1, 8, 8, dtype=torch.uint8)).shape == (4, 10)


def test_the_compiled_network_trains_to_the_same_weights(quick_recipe, tmp_path, monkeypatch):
    # The "eager" backend checks what the recipe's key does without the cost of compiling.
    compiled = []

    def compile_quickly(network, **options):
        compiled.append(network)
        return torch_compile(network, backend="eager", fullgraph=True)

    torch_compile = torch.compile
    monkeypatch.setattr(torch, "compile", compile_quickly)
    training.train(quick_recipe, overrides=["training.compile=true"], out=tmp_path / "compiled", show="off")
    training.train(quick_recipe, out=tmp_path / "eager", show="off")
    assert len(compiled) == 1
    ours, theirs = (training.load_run(tmp_path / name).model.state_dict() for name in ("compiled", "eager"))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
