"""`binarynet bench training`: the parties train the same network."""

from __future__ import annotations

import json

import pytest
from bench_output import rows_of


class TestTraining:
    @pytest.fixture(autouse=True)
    def small_networks(self, monkeypatch):
        pytest.importorskip("torch")
        from binarynet import models
        from binarynet.cli._benching import training as training_step

        def build(name, **options):
            return lambda: models.build(name, input_shape=(8, 8, 3), classes=10, **options)

        networks = [
            training_step.TrainingNetwork("MLP", (8, 8, 3), build("mlp", hidden=(64, 32)), (20,)),
            training_step.TrainingNetwork("ConvNet", (8, 8, 3), build("convnet", blocks=[[16, 16]], dense=[32]), (10,)),
        ]
        monkeypatch.setattr(training_step, "paper_networks", lambda: networks)

    def test_all_parties_are_in_every_table(self, run):
        outcome = run("bench", "training", "--seconds", 0)
        assert outcome.code == 0, outcome.err
        expected = ["binarynet", "torch, straightforward", "torch, real weights and ReLU"]
        assert rows_of(outcome.out) == {"batch 20": expected, "batch 10": expected}
        assert "8,480 binary weights" in outcome.out or "14,656 binary weights" in outcome.out

    def test_json(self, run):
        document = json.loads(run("bench", "training", "--seconds", 0, "--batch", 12, "--json").out)
        assert [network["batches"][0]["batch"] for network in document["networks"]] == [12, 12]
        for network in document["networks"]:
            rows = {row["name"]: row for row in network["batches"][0]["rows"]}
            assert rows["torch, straightforward"]["speedup"] == {"median": 1.0, "low": 1.0, "high": 1.0}
            assert rows["binarynet"]["ms"]["low"] > 0

    def test_another_network_is_not_timed(self, run, monkeypatch):
        from binarynet.cli._benching import straightforward

        def wrong(network, **options):
            changed = right(network, **options)
            with torch.no_grad():
                straightforward.latent_weights(changed)[0][0].neg_()
            return changed

        import torch

        right = straightforward.binary
        monkeypatch.setattr(straightforward, "binary", wrong)
        outcome = run("bench", "training", "--seconds", 0)
        assert outcome.code == 1
        assert "do not train the same network" in outcome.err

    def test_the_option_does_the_same(self, run):
        assert rows_of(run("bench", "--training", "--seconds", 0).out).keys() == {"batch 20", "batch 10"}

    def test_refusals(self, run, file):
        assert run("bench", file, "--training").code == 2
        assert run("bench", "--compiled").code == 2


def test_straightforward_gradients_are_those_of_the_layers():
    torch = pytest.importorskip("torch")
    from binarynet import models, optim
    from binarynet.cli._benching import straightforward
    from binarynet.training.loss import squared_hinge

    torch.manual_seed(1)
    ours = models.build("convnet", input_shape=(8, 8, 3), classes=10, blocks=[[16, 16]], dense=[32])
    images, labels = torch.randint(0, 256, (30, 3, 8, 8), dtype=torch.uint8), torch.arange(30) % 10
    squared_hinge(ours(images), labels).backward()
    for compilable in (False, True):
        plain = straightforward.binary(ours, compilable=compilable)
        squared_hinge(plain(images), labels).backward()
        for mine, theirs in zip(optim.latent_weights(ours), straightforward.latent_weights(plain), strict=True):
            torch.testing.assert_close(theirs.grad, mine.grad, rtol=1e-3, atol=1e-6)
