"""`binarynet reproduce` on tiny runs: what it reads, trains, prints and writes, and what it refuses."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from binarynet.analysis.paper import EXPERIMENTS
from binarynet.analysis.table import differences, place
from binarynet.errors import INSTALL_TRAIN
from binarynet.training import recipe as recipes
from binarynet.training import train

TINY = ("model.hidden=[16, 12]", "training.epochs=2", "training.threads=1")
RECIPE = """
[dataset]
name = "digits"
[model]
name = "mlp"
hidden = [8]
[optimizer]
learning_rate = 1e-3
final_learning_rate = 1e-4
[training]
epochs = 2
threads = 1
"""


@pytest.fixture(scope="session")
def finished_runs(tmp_path_factory) -> Path:
    """A folder with two seeds of a perceptron, and a ConvNet."""
    folder = tmp_path_factory.mktemp("runs")
    for seed in (1, 2):
        train("digits-mlp", overrides=(*TINY, f"seed={seed}"), out=folder / f"mlp-{seed}", show="off")
    small = ("model.blocks=[[8, 8]]", "model.dense=[8]", "training.epochs=1")
    train("digits-convnet", overrides=small, out=folder / "conv", show="off")
    return folder


@pytest.fixture(autouse=True)
def _coarse_pictures(monkeypatch):
    """Which takes less time."""
    monkeypatch.setattr("binarynet.analysis.pictures._style.DOTS_PER_INCH", 30)


@pytest.fixture
def mnist_run(finished_runs, tmp_path) -> Path:
    """The perceptron as if it had been trained on MNIST: its record says so."""
    folder = tmp_path / "as-mnist"
    shutil.copytree(finished_runs / "mlp-1", folder)
    record = json.loads((folder / "run.json").read_text())
    record["dataset"] |= {"name": "mnist", "sizes": {"train": 50000, "validation": 10000, "test": 10000}}
    (folder / "run.json").write_text(json.dumps(record))
    return folder


def document(outcome) -> dict:
    assert outcome.code == 0, outcome.err
    return json.loads(outcome.out)


@pytest.mark.parametrize("experiment", EXPERIMENTS, ids=lambda experiment: experiment.recipe)
def test_the_packaged_recipe_is_the_papers_and_its_short_form_is_not(experiment):
    """A new key of recipes whose default is not "off" must be told apart in analysis.paper or analysis.table."""
    recipe = recipes.load(experiment.recipe).model_dump(mode="json")
    assert place(experiment.data, recipe) == (experiment, "")
    assert [str(difference) for difference in differences(recipe, experiment)] == []
    quick = recipes.load(f"{experiment.recipe}-quick").model_dump(mode="json")
    assert place(experiment.data, quick) == (experiment, "")
    assert "training.epochs" in {difference.key for difference in differences(quick, experiment)}


def test_without_runs_it_is_the_papers_table(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    outcome = run("reproduce")
    assert outcome.code == 0
    assert re.search(r"^  BNN \(Theano\) +0\.96 +2\.80 +11\.40 +N A Q", outcome.out, flags=re.MULTILINE)
    assert re.search(r"^    own, by the paper's recipe +- +- +-", outcome.out, flags=re.MULTILINE)
    assert re.search(r"^  No regularization +1\.30 ± 0\.20 +2\.44 +10\.94 +N Q", outcome.out, flags=re.MULTILINE)
    for experiment in EXPERIMENTS:
        assert f"binarynet reproduce {experiment.recipe} " in outcome.out
    assert sorted(path.name for path in (tmp_path / "runs" / "reproduction").iterdir()) == [
        "report.json",
        "report.txt",
        "table1.png",
    ]


def test_runs_are_read_and_written_down(run, finished_runs, tmp_path):
    runs = [finished_runs / name for name in ("mlp-1", "mlp-2", "conv")]
    outcome = run("reproduce", *runs, "--out", tmp_path / "out", "--no-pictures")
    assert outcome.code == 0
    found = {name: json.loads((finished_runs / name / "run.json").read_text()) for name in ("mlp-1", "mlp-2")}
    for seed in (1, 2):
        record = found[f"mlp-{seed}"]
        assert (
            f"seed {seed}      {100 * record['test_error']:.2f} % ({record['test_errors']} of 360 wrong" in outcome.out
        )
    mean = sum(record["test_error"] for record in found.values()) / 2
    assert f"{100 * mean:.2f} % ± " in outcome.out
    assert "mean and standard deviation over 2 seeds" in outcome.out
    assert "none of Table 1: the paper has no results on digits" in outcome.out
    assert "memory, energy and operations: as of mlp-1, the same layers" in outcome.out
    report = (tmp_path / "out" / "report.txt").read_text()
    assert max(map(len, report.splitlines())) <= 100
    assert report == "\n".join(line.rstrip() for line in outcome.out.splitlines()) + "\n"
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"report.txt", "report.json"}


@pytest.mark.parametrize("columns", [80, 100])
def test_lines_fit_into_the_terminal(run, mnist_run, finished_runs, tmp_path, monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", str(columns))
    out = tmp_path / "out"
    outcome = run("reproduce", mnist_run, finished_runs / "conv", "--out", out, "--no-pictures")
    lines = [line for line in outcome.out.splitlines() if str(tmp_path.parent) not in line]
    assert max(map(len, lines)) <= columns
    assert re.search(r"^    own, digits-mlp +\d\d\.\d\d +\[1\] not the paper's$", outcome.out, flags=re.MULTILINE)


def test_a_quick_run_never_stands_for_the_papers_cell(run, mnist_run, tmp_path):
    outcome = run("reproduce", mnist_run, "--out", tmp_path / "out", "--no-pictures")
    assert re.search(r"^    own, by the paper's recipe +- +- +- *$", outcome.out, flags=re.MULTILINE)
    assert "not the paper's: its setting, BNN (Theano), but shorter, narrower, altered" in outcome.out
    assert re.search(r"^differs in +epochs 2 \(paper 1000\)", outcome.out, flags=re.MULTILINE)
    assert "binarynet reproduce mnist-theano " in outcome.out


def test_json(run, mnist_run, finished_runs, tmp_path):
    outcome = run("reproduce", mnist_run, finished_runs / "conv", "--json", "--out", tmp_path, "--no-pictures")
    found = document(outcome)
    assert found == json.loads((tmp_path / "report.json").read_text())
    assert (found["format"], found["version"], found["pictures"]) == ("binarynet-reproduction", 1, [])
    mnist, digits = found["results"]
    assert (mnist["data"], mnist["setting"], mnist["by_the_paper"]) == ("mnist", "theano", False)
    assert mnist["paper_test_error_percent"] == 0.96
    assert mnist["differences"][0] == {"key": "training.epochs", "paper": 1000, "here": 2, "assumed": False}
    assert digits["setting"] is None
    record = json.loads((mnist_run / "run.json").read_text())
    told = mnist["runs"][0]
    for key in ("epochs", "best_epoch", "validation_error", "test_error", "test_errors", "test_images", "versions"):
        assert told[key] == record[key]
    assert told["machine"]["threads"] == 1
    assert len(found["missing"]) == 6
    mlp, conv = found["networks"]
    assert mlp["memory"]["float32_weight_bytes"] == 32 * mlp["memory"]["packed_weight_bytes"]
    assert mlp["filter_repetition"]["layers"] == []
    assert [layer["layer"] for layer in conv["filter_repetition"]["layers"]] == ["conv1", "conv2"]
    assert sum(entry["count"] for entry in conv["first_layer"]["distinct"]) == 8
    packed = conv["energy"]["packed"]
    assert sum(item["total_pj"][0] for part in ("arithmetic", "memory") for item in packed[part]) == pytest.approx(
        packed["total_pj"][0]
    )


def test_every_key_of_the_document_is_documented(run, finished_runs, tmp_path):
    import binarynet.analysis.reproduction as module

    found = document(run("reproduce", finished_runs / "conv", "--json", "--out", tmp_path, "--no-pictures"))
    names = set(re.findall(r"``(\w+)``", module.__doc__))
    assert set(found) <= names
    assert set(found["results"][0]) <= names
    assert set(found["results"][0]["runs"][0]) <= names
    assert set(found["networks"][0]) <= names
    assert set(found["figure_1"]["curves"][0]) <= names


def test_a_file_has_no_row_but_costs(run, finished_runs, tmp_path):
    assert run("pack", finished_runs / "conv", "-o", tmp_path / "net.bnn").code == 0
    found = document(run("reproduce", tmp_path / "net.bnn", "--json", "--out", tmp_path / "a", "--no-pictures"))
    assert found["results"] == found["figure_1"]["curves"] == []
    of_run = document(run("reproduce", finished_runs / "conv", "--json", "--out", tmp_path / "b", "--no-pictures"))
    assert found["networks"][0] | {"label": "", "source": ""} == of_run["networks"][0] | {"label": "", "source": ""}


def test_files_need_no_torch_and_text_no_matplotlib(run, finished_runs, tmp_path):
    assert run("pack", finished_runs / "conv", "-o", tmp_path / "net.bnn").code == 0
    arguments = ["reproduce", str(tmp_path / "net.bnn"), "--out", str(tmp_path / "out")]
    code = (
        "import sys\nfor name in ('torch', 'lightning', 'matplotlib'): sys.modules[name] = None\n"
        f"from binarynet.cli import app\napp.main({arguments!r} + sys.argv[1:])"
    )
    command = [sys.executable, "-c", code]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert result.stderr == f"error: this needs matplotlib, which is not installed; {INSTALL_TRAIN}\n"
    assert not (tmp_path / "out").exists()
    result = subprocess.run([*command, "--no-pictures"], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert "Network net (" in result.stdout


def test_a_recipe_is_trained_then_only_read(run, tmp_path):
    (tmp_path / "mine.toml").write_text(RECIPE)
    arguments = ("reproduce", tmp_path / "mine.toml", "--runs", tmp_path / "runs", "--json", "--no-pictures")
    first = run(*arguments)
    assert "epoch 2/2" in first.err
    again = run(*arguments)
    assert "epoch" not in again.err
    assert document(first) == document(again)
    assert document(first)["results"][0]["runs"][0]["path"] == str(tmp_path / "runs" / "mine")
    (found,) = document(run("reproduce", "--runs", tmp_path / "runs", "--json", "--no-pictures"))["results"]
    assert found["name"] == "mine"


def test_a_stopped_recipe_is_gone_on_with(run, tmp_path):
    (tmp_path / "mine.toml").write_text(RECIPE)
    folder = tmp_path / "runs" / "mine"
    assert run("train", tmp_path / "mine.toml", "--out", folder).code == 0
    whole = json.loads((folder / "run.json").read_text())
    for name in ("checkpoints/last.ckpt", "checkpoints/best.ckpt"):
        (folder / name).unlink()
    stopped = {**whole, "status": "interrupted", "reason": "Ctrl-C", "epochs": 0}
    stopped |= dict.fromkeys(("best_epoch", "validation_error", "test_error", "test_errors", "test_images"))
    (folder / "run.json").write_text(json.dumps(stopped))

    refused = run("reproduce", folder)
    assert refused.code == 2
    assert refused.error == (
        f"{folder}: this run is not finished (interrupted, Ctrl-C; 2 epochs done); go on with it: "
        f"binarynet train --resume --out {folder}"
    )
    none_left = run("reproduce", "--runs", tmp_path / "runs", "--no-pictures")
    assert none_left.code == 2
    assert f"left out: {folder}: this run is not finished" in none_left.err
    assert f"error: no finished runs in {tmp_path / 'runs'}; name runs, " in none_left.err
    assert not (tmp_path / "runs" / "reproduction").exists()

    (folder / "run.json").write_text(json.dumps(stopped | {"status": "running", "reason": None}))
    (folder / "metrics.csv").unlink()
    assert "(stopped or still running; 0 epochs done)" in run("reproduce", folder).error

    outcome = run("reproduce", tmp_path / "mine.toml", "--runs", tmp_path / "runs", "--json", "--no-pictures")
    assert document(outcome)["results"][0]["runs"][0]["test_error"] == whole["test_error"]
    assert json.loads((folder / "run.json").read_text())["resumed"] == 1


def test_what_is_damaged_is_found_before_anything_is_trained(run, finished_runs, tmp_path):
    (tmp_path / "mine.toml").write_text(RECIPE)
    shutil.copytree(finished_runs / "conv", tmp_path / "damaged")
    (tmp_path / "damaged" / "checkpoints" / "best.ckpt").write_bytes(b"no checkpoint")
    outcome = run("reproduce", tmp_path / "mine.toml", tmp_path / "damaged", "--runs", tmp_path / "runs")
    assert outcome.code == 1
    assert "best.ckpt" in outcome.error
    assert not (tmp_path / "runs" / "mine").exists()


def test_seeds(run, tmp_path):
    (tmp_path / "mine.toml").write_text(RECIPE)
    arguments = ("--seed", 1234, "--seed", 7, "--runs", tmp_path / "runs", "--json", "--no-pictures")
    (found,) = document(run("reproduce", tmp_path / "mine.toml", *arguments))["results"]
    assert [(Path(one["path"]).name, one["seed"]) for one in found["runs"]] == [("mine", 1234), ("mine-seed-7", 7)]
    assert found["test_error"]["n"] == 2


def test_threads_of_a_recipe_are_those_it_was_begun_with(run, tmp_path):
    (tmp_path / "mine.toml").write_text(RECIPE)
    arguments = ("reproduce", tmp_path / "mine.toml", "--runs", tmp_path / "runs", "--json", "--no-pictures")
    for more in (("--threads", 2), (), ("--threads", 3)):
        (found,) = document(run(*arguments, *more))["results"]
        assert found["runs"][0]["recipe"]["training"]["threads"] == 2


def test_the_same_run_twice_is_one(run, finished_runs, tmp_path):
    twice = (finished_runs / "conv", finished_runs / ".." / finished_runs.name / "conv")
    found = document(run("reproduce", *twice, "--json", "--out", tmp_path, "--no-pictures"))
    assert len(found["results"]) == len(found["networks"]) == 1


def test_a_run_that_cannot_be_packed_keeps_its_row(run, tmp_path):
    whitened = ("model.preprocessing=zca", "model.blocks=[[8]]", "model.dense=[]", "training.epochs=1")
    train("digits-convnet", overrides=whitened, out=tmp_path / "zca", show="off")
    outcome = run("reproduce", tmp_path / "zca", "--out", tmp_path / "out")
    assert outcome.code == 0
    assert "no memory, energy, operations and filters: it cannot be packed: preprocess (Whitening)" in outcome.out
    assert "[1] digits-convnet: digits" in outcome.out
    assert sorted(path.name for path in (tmp_path / "out").glob("*.png")) == ["figure1-digits.png", "table1.png"]


def test_svg_and_all_filters(run, finished_runs, tmp_path):
    outcome = run("reproduce", finished_runs / "conv", "--out", tmp_path, "--svg", "--all-filters")
    assert outcome.code == 0
    pictures = {path.stem for path in tmp_path.glob("*.png")}
    assert pictures == {path.stem for path in tmp_path.glob("*.svg")}
    of_network = {"figure2-conv", "figure2-all-conv", "costs-conv", "repetition-conv"}
    assert pictures == {"table1", "figure1-digits", *of_network}
    named = (tmp_path / "report.txt").read_text().rsplit("\nPictures: ", 1)[1].strip().split(", ")
    written = {path.name for path in tmp_path.iterdir()}
    assert written == {"report.txt", "report.json", *named}
    assert json.loads((tmp_path / "report.json").read_text())["pictures"] == named


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["nope"], 2, "nope: no such run folder, .bnn file or recipe; recipes are "),
        (["{folder}"], 2, "not a run: it holds no run.json"),
        (["{folder}/none.bnn"], 1, "there is no such file"),
        (["{folder}/none.toml"], 2, "none.toml: cannot be read"),
        (["{runs}/conv", "--seed", "3"], 2, "--seed is for recipes"),
        (["{runs}/conv", "--threads", "1"], 2, "--threads is for recipes"),
        (["--runs", "{folder}/gone"], 2, "gone; name runs, recipes or .bnn files, or leave out --runs for the"),
        (["{runs}/conv", "--svg", "--no-pictures"], 2, "are about pictures; leave out --no-pictures"),
        (["{runs}/conv", "--out", "{folder}/file"], 1, "file: cannot be made: "),
        (["{folder}/mine.toml", "--runs", "{folder}/runs"], 1, "gone.npz: no such file or folder"),
    ],
)
def test_errors_are_one_line(run, finished_runs, tmp_path, arguments, code, message):
    (tmp_path / "file").touch()
    (tmp_path / "mine.toml").write_text(RECIPE.replace('"digits"', '"gone.npz"'))
    outcome = run("reproduce", *[argument.format(folder=tmp_path, runs=finished_runs) for argument in arguments])
    assert outcome.code == code
    assert message in outcome.error


@pytest.mark.parametrize("named", [True, False])
def test_a_damaged_run(run, finished_runs, tmp_path, named):
    shutil.copytree(finished_runs / "conv", tmp_path / "runs" / "damaged")
    record = tmp_path / "runs" / "damaged" / "run.json"
    record.write_text("{}")
    shutil.copytree(finished_runs / "conv", tmp_path / "runs" / "whole")
    where = [record.parent] if named else ["--runs", tmp_path / "runs"]
    outcome = run("reproduce", *where, "--out", tmp_path / "out", "--no-pictures")
    if named:
        assert outcome.code == 1
        assert str(record) in outcome.error
    else:
        assert outcome.code == 0
        assert f"left out: {record}" in outcome.err
