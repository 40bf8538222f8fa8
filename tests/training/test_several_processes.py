"""Two processes train one network: started by torchrun and by Lightning, stopped, failing, killed, and going on."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from test_resume import assert_same_runs

from binarynet import training
from binarynet.errors import ConnectionLostError, UsageError
from binarynet.training import recipe
from binarynet.training.world import World

SCRIPT = Path(__file__).parent / "several_processes.py"
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1"}
RANKS = (0, 1)


@pytest.fixture(scope="module")
def two(quick_recipe):
    """Two processes with 30 images each per step; noise differs between them."""
    return recipe.load(
        quick_recipe,
        [
            "training.accelerator=cpu",
            "training.devices=2",
            "training.strategy=ddp",
            "training.share_batch=true",
            "training.checkpoint_every_steps=6",
        ],
    )


@pytest.fixture(scope="module")
def folder(two, tmp_path_factory):
    """What ``several_processes.py`` leaves behind."""
    folder = tmp_path_factory.mktemp("several")
    (folder / "recipe.toml").write_text(two.to_toml())
    still = [
        "model.dropout_in=0",
        "model.dropout_hidden=0",
        "model.activation=sign",
        "training.batch_size=64",
        "training.average=0.9",
    ]
    (folder / "still.toml").write_text(recipe.load(two, [*still, "training.epochs=1"]).to_toml())
    starter = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    result = subprocess.run(
        [*starter, str(SCRIPT), str(folder)], env=ENVIRONMENT, capture_output=True, text=True, timeout=120
    )
    assert "exitcode  : -9" in result.stderr, result.stderr  # process 1, which was killed at the end
    return folder


@pytest.fixture(scope="module")
def outcomes(folder):
    """The outcomes of each process."""
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in RANKS]


def status(run):
    record = json.loads((run / "run.json").read_text())
    return record["status"], record["reason"]


def test_all_have_the_same_result_and_the_first_writes_it(folder, outcomes):
    results = [outcome["whole"] for outcome in outcomes]
    assert [name for name, _ in results] == ["done", "done"]
    assert results[1][1] == results[0][1] | {"process": 1}
    result, record = results[0][1], json.loads((folder / "whole" / "run.json").read_text())
    assert {key: record["machine"][key] for key in ("processes", "nodes", "strategy")} == {
        "processes": 2,
        "nodes": 1,
        "strategy": "ddp",
    }
    assert [row["steps"] for row in result["history"]] == [20, 40, 60]
    # No image is counted twice or left out: one process finds the same numbers.
    assert training.evaluate_run(folder / "whole").num_errors == result["test_errors"]
    validation = training.evaluate_run(folder / "whole", split="validation")
    best = result["history"][result["best_epoch"] - 1]
    assert validation.error == best["validation_error"] == result["validation_error"]
    assert validation.cost == pytest.approx(best["validation_cost"], rel=1e-6)
    assert len(list((folder / "whole" / "tensorboard").iterdir())) == 1


def test_a_finished_run_is_read_again(outcomes):
    for outcome in outcomes:
        assert outcome["read again"] == outcome["whole"]


def test_a_stop_asked_of_any_process_stops_all_and_the_run_goes_on_to_the_same_bits(folder, outcomes):
    assert outcomes[0]["stopped"][0] == "TrainingInterrupted"
    assert "complete up to epoch 1, step 6 of the next" in outcomes[0]["stopped"][1]
    assert outcomes[1]["stopped"][0] == "PeerError"
    assert [outcome["went on"][0] for outcome in outcomes] == ["done", "done"]
    assert_same_runs(folder / "whole", folder / "stopped")


def test_an_error_in_one_process_ends_all_and_the_first_tells_it(folder, outcomes):
    for case, kind, message in (
        ("in the way", "UsageError", "exists already"),
        ("full disk", "DataError", "no space left"),
        ("no data", "DataError", "process 1: digits: not here"),
        ("diverged", "NonFiniteError", "in epoch 1, step 7; train with a smaller"),
    ):
        assert outcomes[0][case][0] == kind, case
        assert message in outcomes[0][case][1], case
        assert outcomes[1][case][0] == "PeerError", case
    assert status(folder / "full") == ("failed", outcomes[0]["full disk"][1])
    assert status(folder / "diverged")[0] == "failed"
    assert not (folder / "none").exists()


def test_without_synchronization_the_first_process_statistics_count(folder, outcomes):
    result = outcomes[0]["apart"][1]
    assert training.evaluate_run(folder / "apart", split="validation").error == result["validation_error"]
    weights = [training.load_run(folder / name).model.state_dict() for name in ("apart", "whole")]
    assert not torch.equal(weights[0]["norm1.running_mean"], weights[1]["norm1.running_mean"])
    averaged = outcomes[0]["apart, averaged"][1]
    assert training.evaluate_run(folder / "apart-averaged", split="validation").error == averaged["validation_error"]


def test_a_killed_run_goes_on_where_lightning_starts_the_processes_to_the_same_bits(folder):
    run = folder / "killed"
    assert status(run)[0] in ("running", "failed")  # torchrun may end the first process before it has written this
    command = [sys.executable, "-m", "binarynet", "train", "--resume", "--out", str(run)]
    result = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("test error") == 1
    assert [line[:9] for line in result.stderr.splitlines()] == ["epoch 2/3", "epoch 3/3"]
    assert status(run) == ("finished", None)
    assert_same_runs(folder / "whole", run)


def test_they_equal_one_process_with_the_joined_batch(folder, outcomes, tmp_path):
    # Without noise only the order differs in which means of gradients are added up.
    one = training.train(folder / "still.toml", overrides=["training.devices=1"], out=tmp_path / "one", show="off")
    two = outcomes[0]["still"][1]
    assert two["history"][0]["steps"] == one.history[0].steps
    assert two["history"][0]["training_cost"] == pytest.approx(one.history[0].training_cost, rel=1e-3)
    averages = [training.load_run(path).model.state_dict() for path in (tmp_path / "one", folder / "still")]
    for name in ("dense1.weight", "norm1.running_mean", "norm1.running_inv_std"):
        assert (averages[0][name] - averages[1][name]).abs().mean() < 0.01 * averages[0][name].abs().mean(), name


def test_another_number_of_processes_is_another_recipe(two, tmp_path):
    (tmp_path / "recipe.toml").write_text(two.to_toml())
    with pytest.raises(UsageError, match=r"another recipe \(it differs in training.devices\)"):
        training.train(two, overrides=["training.devices=1"], out=tmp_path, resume=True)


def test_the_starter_and_the_recipe_must_agree(two, quick_recipe, monkeypatch):
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    with pytest.raises(UsageError, match="nobody says where they meet; start the command on each machine by torchrun"):
        World(recipe.load(two, ["training.nodes=2", "training.batch_size=64"]))
    for name, value in {"TORCHELASTIC_RUN_ID": "x", "WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "2", "RANK": "0"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UsageError, match=r"started 4 processes, 2 on this .* set training.devices=2 training.nodes=2"):
        World(quick_recipe)


def test_a_lost_connection_does_not_promise_that_the_other_process_said_why(two):
    world, told = World(two), r"see what it said, if anything \(it may have been killed\)\. Resume"
    with pytest.raises(ConnectionLostError, match=told), world.lost_connections_told():
        raise RuntimeError("[gloo/transport/tcp/pair.cc] Connection closed by peer")
    with pytest.raises(RuntimeError, match="something else"), world.lost_connections_told():
        raise RuntimeError("something else")
