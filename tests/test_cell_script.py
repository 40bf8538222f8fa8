"""tools/cell.py, zoo.py and results.py: from a recipe to a recorded run, a network of the zoo, and README's table."""

from __future__ import annotations

import importlib.util
import json
import shutil
import sys
from pathlib import Path

import pytest

import binarynet as bn
import binarynet.zoo
from binarynet.cli import _recording
from binarynet.cli._records import read_record
from binarynet.errors import FileFormatError
from binarynet.training import recipe as recipes

ROOT = Path(__file__).parent.parent


def script(name):
    specification = importlib.util.spec_from_file_location(f"{name}_script", ROOT / "tools" / f"{name}.py")
    module = importlib.util.module_from_spec(specification)
    sys.modules[specification.name] = module
    specification.loader.exec_module(module)
    return module


CELL, ZOO, RESULTS = script("cell"), script("zoo"), script("results")
REHEARSAL = ("digits-mlp", "--rehearse", "--threads", "1")


def call(module, *arguments):
    """main() with these arguments; its exit code."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [module.__name__, *map(str, arguments)])
        try:
            return module.main()
        except SystemExit as end:
            return end.code


@pytest.fixture(scope="module")
def rehearsed(tmp_path_factory):
    """A folder with runs/ and records/, both with the finished digits-mlp-seed-7."""
    folder = tmp_path_factory.mktemp("cell")
    where = ("--runs", folder / "runs", "--out", folder / "records")
    assert call(CELL, *REHEARSAL, "--seed", 7, *where) == 0
    return folder


@pytest.fixture
def cell(rehearsed, tmp_path):
    """The same, to be changed."""
    shutil.copytree(rehearsed, tmp_path / "cell")
    return tmp_path / "cell"


def change(file, **values):
    content = json.loads(file.read_text())
    file.write_text(json.dumps(content | values))
    return content


def unfinish(run):
    """As a run looks while it is training: its record is as old as its start, and more epochs are to come."""
    nothing = dict.fromkeys(("best_epoch", "validation_error", "test_error", "test_errors", "test_images"))
    change(run / "run.json", status="running", epochs=0, finished=None, **nothing)
    recipe = run / "recipe.toml"
    recipe.write_text(recipe.read_text().replace("epochs = 1\n", "epochs = 9\n"))


def test_a_record_is_small_and_tells_everything(rehearsed):
    run, record = (rehearsed / kind / "digits-mlp-seed-7" for kind in ("runs", "records"))
    assert sorted(path.name for path in record.iterdir()) == ["metrics.csv", "recipe.toml", "run.json", "summary.json"]
    for name in ("metrics.csv", "recipe.toml", "run.json"):
        assert (record / name).read_text() == (run / name).read_text()
    summary, facts = (json.loads((record / name).read_text()) for name in ("summary.json", "run.json"))
    assert summary["test"] == {"error": facts["test_error"], "errors": facts["test_errors"], "images": 360}
    assert (summary["finished"], summary["epochs"], summary["planned_epochs"], summary["seed"]) == (True, 1, 1, 7)
    assert summary["packed"]["bytes"] == (run / "model.bnn").stat().st_size
    assert summary["network"]["binary_weights"] == 64 * 16 + 16 * 16 + 16 * 10
    assert summary["commits"] == facts["commits"]
    (check,) = summary["verification"]
    assert (check["images"], check["differences"], check["baseline"]) == (360, 0, "torch")
    assert {"reference", "portable"} <= set(check["engines"])
    assert "--set 'model.hidden=[16, 16]' --set training.epochs=1" in " ".join(summary["make_again"])
    assert str(rehearsed) not in "".join(path.read_text() for path in record.iterdir())


def test_the_overrides_make_the_same_recipe(rehearsed):
    recipe = read_record(rehearsed / "records" / "digits-mlp-seed-7").recipe
    name, changes = _recording.overrides(recipe)
    assert recipes.load(name, changes).model_dump() == recipe.model_dump()
    halving = recipes.load("mnist-theano", ["optimizer.schedule=halving", "optimizer.halve_every=3", "seed=4"])
    name, changes = _recording.overrides(halving)
    assert recipes.load(name, changes) == halving
    assert "optimizer.final_learning_rate=none" in changes
    assert _recording.overrides(recipes.load("digits-mlp", ["name=own"])) == ("", [])


def test_a_finished_cell_is_not_trained_again(cell, capsys):
    run = cell / "runs" / "digits-mlp-seed-7"
    before = (run / "run.json").read_bytes()
    kept = [f"--set={text}" for text in ("training.epochs=1", "model.hidden=[16, 16]")]
    where = ("--runs", cell / "runs", "--out", cell / "again")
    assert call(CELL, "digits-mlp", "--seed", 7, *kept, *where) == 0
    assert (run / "run.json").read_bytes() == before
    first, again = (
        json.loads((cell / folder / run.name / "summary.json").read_text()) for folder in ("records", "again")
    )
    assert first == again


def test_an_unfinished_run_is_recorded_as_such(cell, capsys):
    run = cell / "runs" / "digits-mlp-seed-7"
    finished = read_record(cell / "records" / run.name)
    unfinish(run)
    assert call(CELL, "--record", run, "--out", cell / "so-far") == 0
    assert "epoch 1 of 1/9 (not finished)" in capsys.readouterr().out
    found = read_record(cell / "so-far" / run.name)
    assert (found.summary["finished"], found.summary["planned_epochs"], found.run["epochs"]) == (False, 9, 1)
    assert found.summary["test"] == finished.summary["test"]
    assert found.progress.history == finished.progress.history
    assert found.result().test_errors == finished.summary["test"]["errors"]
    assert "after epoch 1" in " ".join(found.summary["make_again"])
    assert [path.name for path in (cell / "runs").iterdir()] == [run.name]
    (table,) = bn.analysis.table.results([found.table_run()])[0]
    assert (table.finished, table.by_the_paper) == (False, False)


def test_between_two_checkpoints_it_waits(cell, monkeypatch):
    unfinish(cell / "runs" / "digits-mlp-seed-7")
    answers = iter([False, True])
    monkeypatch.setattr(_recording, "_same_epoch", lambda *_: next(answers))
    with _recording._standing_still(cell / "runs" / "digits-mlp-seed-7") as copy:
        assert (copy / "checkpoints" / "best.ckpt").is_file()
    assert next(answers, None) is None
    assert not copy.exists()


def test_what_was_not_trained_here_is_not_recorded(cell, capsys):
    run, record = (cell / kind / "digits-mlp-seed-7" for kind in ("runs", "records"))
    facts = change(run / "run.json", test_errors=3, test_error=3 / 360)
    assert call(CELL, "--record", run, "--out", cell / "other") == 1
    assert "but run.json says 3; is the data the same?" in capsys.readouterr().err
    assert not (cell / "other").exists()
    (run / "run.json").write_text(json.dumps(facts | {"started": "2001-01-01T00:00:00+00:00"}))
    assert call(CELL, "--record", run, "--out", cell / "records") == 1
    assert "is the record of another run" in capsys.readouterr().err
    (record / "summary.json").unlink()
    assert call(CELL, "--record", run, "--out", cell / "records") == 1
    assert "is no recorded run" in capsys.readouterr().err
    assert call(CELL, "--record", run, "--commit", "0123abc", "--out", cell / "other") == 1
    assert "no such commit" in capsys.readouterr().err


def test_commits_are_those_of_the_run(cell, capsys):
    run = cell / "runs" / "digits-mlp-seed-7"
    change(run / "run.json", commits=[])
    head = CELL.full_commit("HEAD")
    assert call(CELL, "--record", run, "--commit", "HEAD", "--out", cell / "records") == 0
    assert read_record(cell / "records" / run.name).summary["commits"] == [head]
    change(run / "run.json", commits=["abc"])
    assert call(CELL, "--record", run, "--commit", "HEAD", "--out", cell / "records") == 1
    assert "was trained by abc; leave --commit out" in capsys.readouterr().err


def test_changes_that_were_not_committed_are_told(rehearsed):
    recipe = read_record(rehearsed / "records" / "digits-mlp-seed-7").recipe
    facts = {"commits": ["abc", "def-dirty"], "status": "finished"}
    commands = _recording._made_by(recipe, Path("out"), facts)["make_again"]
    assert commands[:2] == ["git checkout abc", "git checkout def    # and changes that were not committed"]


def test_a_network_that_cannot_be_packed_is_recorded_without(cell, monkeypatch, capsys):
    def refuse(folder):
        raise bn.errors.UnsupportedLayerError("0: real numbers")

    monkeypatch.setattr("binarynet.cli._runs.packed", refuse)
    run = cell / "runs" / "digits-mlp-seed-7"
    assert call(CELL, "--record", run, "--out", cell / "records") == 0
    summary = read_record(cell / "records" / run.name).summary
    assert (summary["packed"], summary["verification"]) == (None, [])
    assert summary["left_out"] == "it cannot be packed: 0: real numbers"
    assert call(ZOO, "digits", cell / "records" / run.name, run / "model.bnn", "--folder", cell) == 1
    assert "is not the network that" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("file", "damage"),
    [
        ("summary.json", lambda text: text.replace('"errors": ', '"errors": 1')),
        ("summary.json", lambda text: text.replace('"seed": 7', '"seed": 8')),
        ("summary.json", lambda text: text.replace('"version": 1', '"version": 2')),
        ("summary.json", lambda text: text[:-9]),
        ("recipe.toml", lambda text: text.replace("seed = 7", "seed = 8")),
        ("run.json", lambda text: text.replace('"epochs": 1', '"epochs": 2')),
        ("metrics.csv", lambda text: text.replace("\n1,", "\n2,")),
        ("metrics.csv", lambda text: text.replace("epoch,", "epochs,")),
        ("metrics.csv", lambda text: text[: text.index("\n") + 1]),
    ],
)
def test_a_changed_record_is_refused(cell, file, damage):
    record = cell / "records" / "digits-mlp-seed-7"
    text = (record / file).read_text()
    assert damage(text) != text
    (record / file).write_text(damage(text))
    with pytest.raises(FileFormatError):
        read_record(record)


# The zoo


def test_a_network_of_the_zoo_has_the_records_card(cell, monkeypatch, capsys):
    run, record = (cell / kind / "digits-mlp-seed-7" for kind in ("runs", "records"))
    zoo = cell / "zoo"
    zoo.mkdir()
    assert call(ZOO, "digits", record, run / "model.bnn", "--folder", zoo) == 0
    monkeypatch.setattr(binarynet.zoo, "_FOLDER", zoo)
    (card,) = binarynet.zoo.cards()
    summary = json.loads((record / "summary.json").read_text())
    assert (card.name, card.title) == ("digits", "digits, MLP 2 x 16")
    assert (card.test_errors, card.seed, card.sha256) == (summary["test"]["errors"], 7, summary["packed"]["sha256"])
    assert bn.load("zoo:digits").network.provenance["seed"] == 7
    assert call(ZOO, "--remove", "digits", "--folder", zoo) == 0
    assert binarynet.zoo.available() == ()


def test_only_what_was_recorded_and_verified_gets_in(cell, capsys):
    run, record = (cell / kind / "digits-mlp-seed-7" for kind in ("runs", "records"))
    zoo = cell / "zoo"
    zoo.mkdir()
    with (run / "model.bnn").open("ab") as file:
        file.write(b"\0")
    assert call(ZOO, "digits", record, run / "model.bnn", "--folder", zoo) == 1
    assert "is not the network that" in capsys.readouterr().err
    assert call(CELL, "--record", run, "--verify", 50, "--out", cell / "records") == 0
    assert call(ZOO, "digits", record, run / "model.bnn", "--folder", zoo) == 1
    assert "not all test images were verified" in capsys.readouterr().err
    assert call(ZOO, "../digits", record, run / "model.bnn", "--folder", zoo) == 1
    assert not list(zoo.iterdir())


# Tables


def test_readme_is_what_the_records_say():
    """`make results` writes it."""
    assert call(RESULTS, "--check") == 0


@pytest.fixture
def checkout(cell):
    """A README.md and a folder of results with two seeds, and a run that was not finished."""
    root = cell / "root"
    folder = root / "benchmarks" / "results" / "2026-01-02_paper"
    folder.mkdir(parents=True)
    (root / "README.md").write_text(f"before\n{RESULTS.BEGIN}\n{RESULTS.END}\nafter\n")
    run = cell / "runs" / "digits-mlp-seed-7"
    shutil.copytree(cell / "records" / run.name, folder / "a")
    shutil.copytree(folder / "a", folder / "b")
    for name in ("recipe.toml", "run.json", "summary.json"):
        file = folder / "b" / name
        file.write_text(file.read_text().replace("seed = 7", "seed = 8").replace('"seed": 7', '"seed": 8'))
    unfinish(run)
    assert call(CELL, "--record", run, "--name", "c", "--out", folder) == 0
    return root


def test_tables_are_made_of_the_records(checkout, capsys):
    assert call(RESULTS, "--root", checkout, "--check") == 1
    assert capsys.readouterr().err.count("run: make results") == 2
    assert call(RESULTS, "--root", checkout) == 0
    assert call(RESULTS, "--root", checkout, "--check") == 0
    text = (checkout / "README.md").read_text()
    assert text.startswith("before\n")
    assert text.endswith("\nafter\n")
    rows = [line for line in text.splitlines() if line.startswith("| `digits-mlp`")]
    error = 100 * read_record(checkout / "benchmarks/results/2026-01-02_paper/a").summary["test"]["error"]
    assert len(rows) == 2
    assert f"| 2 x 16 | 1 | {error:.2f} % ± 0.00 (2 seeds) |" in rows[0]
    assert f"| 2 x 16 | 1 of 9, not finished | {error:.2f} % |" in rows[1]
    page = (checkout / "benchmarks/results/2026-01-02_paper/README.md").read_text()
    assert page.startswith("# 2026-01-02: paper\n")
    assert "[a](a/summary.json)" in page
    assert "0 differences in" in page


def test_a_changed_figure_is_noticed(checkout, capsys):
    assert call(RESULTS, "--root", checkout) == 0
    readme = checkout / "README.md"
    text = readme.read_text()
    readme.write_text(text.replace("(2 seeds)", "(3 seeds)"))
    assert call(RESULTS, "--root", checkout, "--check") == 1
    readme.write_text(text.replace(RESULTS.END, ""))
    capsys.readouterr()
    assert call(RESULTS, "--root", checkout, "--check") == 1
    assert "has no place for its table" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("digits-mlp", "--record", "run"),
        ("--record", "run", "--seed", "1"),
        ("--record", "a", "b", "--name", "c"),
        ("digits-mlp", "--commit", "HEAD"),
    ],
)
def test_wrong_arguments(arguments, capsys):
    assert call(CELL, *arguments) == 2
    assert "error:" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["mnist-theano", "cifar10-torch7", "svhn-theano"])
def test_a_rehearsal_is_the_recipe_in_tiny(name):
    recipe = recipes.load(name)
    small = recipes.load(recipe, CELL.tiny(recipe))
    assert small.training.epochs == 1
    widths = small.model.options()
    first = widths["hidden"][0] if "hidden" in widths else widths["blocks"][0][0]
    assert first <= 128
    assert small.optimizer == recipe.optimizer
