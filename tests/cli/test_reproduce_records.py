"""`binarynet reproduce` on recorded runs: folders without checkpoints, as a fresh clone has them."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

import binarynet.zoo
from binarynet.cli import _recording
from binarynet.training import train
from binarynet.zoo import Card


@pytest.fixture(scope="module")
def recorded(tmp_path_factory) -> Path:
    """checkout/benchmarks/results/2026-01-02_paper/mlp, checkout/runs/mlp, and the packed network."""
    root = tmp_path_factory.mktemp("checkout")
    small = ("model.hidden=[16, 12]", "training.epochs=2", "training.threads=1")
    train("digits-mlp", overrides=small, out=root / "runs" / "mlp", show="off")
    out = root / "benchmarks" / "results" / "2026-01-02_paper" / "mlp"
    _recording.record(root / "runs" / "mlp", out, None, images=20)
    return root


@pytest.fixture
def clone(recorded, tmp_path, monkeypatch) -> Path:
    """A clone of it, without runs; the working directory."""
    shutil.copytree(recorded / "benchmarks", tmp_path / "clone" / "benchmarks")
    monkeypatch.chdir(tmp_path / "clone")
    monkeypatch.setattr("binarynet.analysis.pictures._style.DOTS_PER_INCH", 30)
    return tmp_path / "clone"


PAPER = "benchmarks/results/2026-01-02_paper"


@pytest.mark.parametrize("arguments", [(), (PAPER,), (f"{PAPER}/mlp",)], ids=str)
def test_records_are_read(run, clone, recorded, arguments):
    outcome = run("reproduce", *arguments, "--json")
    assert outcome.code == 0, outcome.err
    document = json.loads(outcome.out)
    whole = json.loads((recorded / "runs" / "mlp" / "run.json").read_text())
    ((found,),) = (result["runs"] for result in document["results"])
    assert (found["test_errors"], found["epochs"], found["best_epoch"]) == (
        whole["test_errors"],
        2,
        whole["best_epoch"],
    )
    (curve,) = document["figure_1"]["curves"]
    assert curve["label"] == "mlp"
    assert curve["epochs"] == [1, 2]
    assert curve["validation_error"][curve["best_epoch"] - 1] == whole["validation_error"]
    assert document["networks"] == []
    assert {"table1.png", "figure1-digits.png"} <= {path.name for path in Path("runs/reproduction").iterdir()}


def test_a_run_and_its_record_are_one(run, clone, recorded):
    shutil.copytree(recorded / "runs", "runs")
    document = json.loads(run("reproduce", "--no-pictures", "--json").out)
    assert [one["path"] for result in document["results"] for one in result["runs"]] == ["runs/mlp"]
    assert document["remarks"] == []
    assert len(document["networks"]) == 1
    shutil.rmtree("runs")
    outcome = run("reproduce", "--runs", clone / "none")
    assert outcome.code == 2
    assert "no finished runs in" in outcome.error


def test_what_was_not_finished_is_said_to_be_so(run, clone):
    record = clone / PAPER / "mlp"
    recipe = record / "recipe.toml"
    recipe.write_text(recipe.read_text().replace("epochs = 2\n", "epochs = 30\n"))
    facts = json.loads((record / "run.json").read_text())
    facts |= {"status": "interrupted", "reason": "Ctrl-C"} | dict.fromkeys(("test_error", "test_errors", "test_images"))
    facts["dataset"] |= {"name": "mnist"}
    (record / "run.json").write_text(json.dumps(facts))
    summary = json.loads((record / "summary.json").read_text())
    (record / "summary.json").write_text(json.dumps(summary | {"finished": False, "planned_epochs": 30}))
    outcome = run("reproduce", PAPER, "--no-pictures")
    assert re.search(r"^    own, digits-mlp +\d\d\.\d\d +\[1\] not finished$", outcome.out, flags=re.MULTILINE)
    assert re.search(r"^    own, by the paper's recipe +- +- +- *$", outcome.out, flags=re.MULTILINE)
    assert "but unfinished, shorter, narrower, altered" in outcome.out
    assert re.search(r"^epochs +2 of 30 so far, selected \d", outcome.out, flags=re.MULTILINE)
    assert "mlp, 2 of 30 epochs" in outcome.out


def test_its_network_comes_from_the_zoo(run, clone, recorded, tmp_path, monkeypatch):
    zoo = tmp_path / "zoo"
    zoo.mkdir()
    shutil.copy(recorded / "runs" / "mlp" / "model.bnn", zoo / "small.bnn")
    summary = json.loads((clone / PAPER / "mlp" / "summary.json").read_text())
    facts = dict.fromkeys(Card.__dataclass_fields__, 0)
    facts |= {"name": "small", "sha256": summary["packed"]["sha256"]}
    (zoo / "small.json").write_text(json.dumps({"format": "binarynet-card", "version": 1, **facts}))
    monkeypatch.setattr(binarynet.zoo, "_FOLDER", zoo)
    outcome = run("reproduce", PAPER, "--no-pictures")
    assert "Network mlp, zoo:small (zoo:small)" in outcome.out
    assert "memory (bytes)" in outcome.out


def test_a_damaged_record_is_refused(run, clone):
    (clone / PAPER / "mlp" / "summary.json").write_text("{}")
    outcome = run("reproduce", PAPER)
    assert outcome.code == 1
    assert "not the summary of a recorded run of version 1" in outcome.error
