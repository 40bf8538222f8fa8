"""`binarynet bench`: the peers compute the same network, wrong engines are not timed, absent ones are named."""

from __future__ import annotations

import importlib.util
import json
import re
import sys

import numpy as np
import pytest

from binarynet.analysis import random_convnet
from binarynet.cli import _benching
from binarynet.cli.bench import milliseconds, parse_batches, warn_if_busy
from binarynet.errors import UsageError
from binarynet.fileformat import PackedNetwork, write
from binarynet.graph import Graph
from binarynet.runtime import REFERENCE, Session, engines

NATIVE = [engine.name for engine in engines() if engine.available and engine.name != REFERENCE]

needs_peers = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("torch", "onnx", "onnxruntime", "openvino")),
    reason="needs torch, onnx, onnxruntime and openvino",
)


def small_convnet() -> Graph:
    return random_convnet((12, 10, 3), [[24, 16], [32]], [40], classes=5)


def rows_of(out: str) -> dict[str, list[str]]:
    """Heading of each table to the names of its rows."""
    tables: dict[str, list[str]] = {}
    for block in out.split("\n\n"):
        lines = block.splitlines()
        if re.match(r"batch \d+", lines[0]):
            tables[re.split(r"  +", lines[0])[0]] = [re.split(r"  +", line)[0] for line in lines[1:-1]]
    return tables


@needs_peers
def test_all_parties_are_in_every_table(run, tmp_path):
    path = tmp_path / "convnet.bnn"
    write(path, PackedNetwork(small_convnet()))
    outcome = run("bench", path, "--seconds", 0, "--batch", "1,3")
    assert outcome.code == 0
    peers = ["torch float32", "torch float32, channels last", "torch int8", "onnxruntime float32", "onnxruntime int8"]
    peers += ["openvino float32", "openvino int8"]
    expected = [*(f"binarynet {name}" for name in NATIVE or [REFERENCE]), *peers]
    assert rows_of(outcome.out) == {"batch 1": expected, "batch 1, cold caches": expected, "batch 3": expected}
    assert "equal the NumPy reference bit for bit" in outcome.out or not NATIVE
    assert f"{path.stat().st_size:,} bytes packed" in outcome.out


@needs_peers
def test_json(run, file):
    outcome = run("bench", file, "--seconds", 0, "--batch", 2, "--json")
    document = json.loads(outcome.out)
    assert document["threads"] == 1
    assert document["clock"] == "processor time"
    assert document["absent"] == []
    assert set(document["machine"]) >= {"processor", "cores", "load", "python", "engines"}
    (network,) = document["networks"]
    assert network["packed_bytes"] == file.stat().st_size
    assert network["weights"] == 70 * 64 + 700
    assert network["equal_to_reference"] == NATIVE
    (batch,) = network["batches"]
    assert (batch["batch"], batch["baseline"]) == (2, "torch float32")
    rows = {row["name"]: row for row in batch["rows"]}
    assert rows["torch float32"]["speedup"] == {"median": 1.0, "low": 1.0, "high": 1.0}
    for row in rows.values():
        assert row["ms"]["low"] <= row["ms"]["median"] <= row["ms"]["high"]
        assert row["images_per_second"] == pytest.approx(2000 / row["ms"]["median"])
        assert len(row["rounds_ms"]) >= 3


def test_absent_peers_are_named(run, file, monkeypatch):
    for name in ("torch", "onnx", "onnxruntime", "openvino"):
        monkeypatch.setitem(sys.modules, name, None)
    outcome = run("bench", file, "--seconds", 0, "--batch", 2)
    assert outcome.code == 0
    assert "absent: torch, not installed" in outcome.out
    assert "absent: onnxruntime, not installed" in outcome.out
    assert "absent: openvino, not installed" in outcome.out
    assert rows_of(outcome.out)["batch 2"][0].startswith("binarynet ")
    assert "as fast as" not in outcome.out


@needs_peers
def test_without_torch_the_ratio_is_to_onnxruntime(run, file, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    outcome = run("bench", file, "--seconds", 0, "--batch", 2)
    assert "as fast as onnxruntime float32" in outcome.out


@pytest.mark.skipif(not NATIVE, reason="needs a native engine")
def test_a_wrong_engine_is_not_timed(run, file, monkeypatch):
    correct = Session.run_tapped

    def wrong(self, images):
        values = correct(self, images)
        if self.engine == NATIVE[0]:
            values["scores"] = np.nextafter(values["scores"], np.float32(np.inf))
        return values

    monkeypatch.setattr(Session, "run_tapped", wrong)
    outcome = run("bench", file, "--seconds", 0)
    assert outcome.code == 1
    assert f"{NATIVE[0]} differs from reference in 'scores'" in outcome.error


def test_the_papers_networks_are_measured_by_default():
    mlp, convnet = _benching.paper_networks()
    assert (mlp.num_weights, mlp.batches) == (36_806_656, (1, 256))
    assert (convnet.num_weights, convnet.batches) == (14_022_016, (1,))
    assert mlp.float32_bytes / mlp.packed_bytes > 31


def test_batches():
    assert parse_batches("1,256") == (1, 256)
    assert parse_batches("7,7") == (7,)


@pytest.mark.parametrize("text", ["", "0", "1,,2", "a", "-1", "65537", "1.5"])
def test_wrong_batches_are_wrong_usage(run, file, text):
    with pytest.raises(UsageError, match="--batch"):
        parse_batches(text)
    outcome = run("bench", file, f"--batch={text}")
    assert outcome.code == 2
    assert "--batch must be numbers" in outcome.error


@pytest.mark.parametrize("arguments", [("--threads", 0), ("--seconds", -1), ("--unknown",)])
def test_wrong_options_are_wrong_usage(run, file, arguments):
    outcome = run("bench", file, *arguments)
    assert outcome.code == 2
    assert arguments[0] in outcome.error


@pytest.mark.parametrize(
    ("threads", "load", "warned"), [(1, 9.0, False), (2, 0.1, False), (2, 1.2, True), (2, None, False)]
)
def test_several_threads_on_a_busy_machine_are_warned_about(capsys, threads, load, warned):
    warn_if_busy({"load": load, "cores": 2}, threads)
    assert ("busy (load 1.2 on 2 cores)" in capsys.readouterr().err) == warned


def test_a_missing_file_is_one_line(run, tmp_path):
    outcome = run("bench", tmp_path / "none.bnn")
    assert outcome.code == 1
    assert "there is no such file" in outcome.error


def test_milliseconds_keep_three_digits():
    given = [12_345, 123_456, 1_234_567, 12_345_678, 123_456_789, 1_234_567_890]
    assert list(map(milliseconds, given)) == ["0.0123", "0.123", "1.23", "12.3", "123", "1,235"]


class TestTraining:
    @pytest.fixture(autouse=True)
    def small_networks(self, monkeypatch):
        pytest.importorskip("torch")
        from binarynet import models
        from binarynet.cli import _training_bench

        def build(name, **options):
            return lambda: models.build(name, input_shape=(8, 8, 3), classes=10, **options)

        networks = [
            _training_bench.TrainingNetwork("MLP", (8, 8, 3), build("mlp", hidden=(64, 32)), (20,)),
            _training_bench.TrainingNetwork(
                "ConvNet", (8, 8, 3), build("convnet", blocks=[[16, 16]], dense=[32]), (10,)
            ),
        ]
        monkeypatch.setattr(_training_bench, "paper_networks", lambda: networks)

    def test_all_parties_are_in_every_table(self, run):
        outcome = run("bench", "--training", "--seconds", 0)
        assert outcome.code == 0, outcome.err
        expected = ["binarynet", "torch, straightforward", "torch, real weights and ReLU"]
        assert rows_of(outcome.out) == {"batch 20": expected, "batch 10": expected}
        assert "8,480 binary weights" in outcome.out or "14,656 binary weights" in outcome.out

    def test_json(self, run):
        document = json.loads(run("bench", "--training", "--seconds", 0, "--batch", 12, "--json").out)
        assert [network["batches"][0]["batch"] for network in document["networks"]] == [12, 12]
        for network in document["networks"]:
            rows = {row["name"]: row for row in network["batches"][0]["rows"]}
            assert rows["torch, straightforward"]["speedup"] == {"median": 1.0, "low": 1.0, "high": 1.0}
            assert rows["binarynet"]["ms"]["low"] > 0

    def test_another_network_is_not_timed(self, run, monkeypatch):
        from binarynet.cli import _straightforward

        def wrong(network, **options):
            changed = right(network, **options)
            with torch.no_grad():
                _straightforward.latent_weights(changed)[0][0].neg_()
            return changed

        import torch

        right = _straightforward.binary
        monkeypatch.setattr(_straightforward, "binary", wrong)
        outcome = run("bench", "--training", "--seconds", 0)
        assert outcome.code == 1
        assert "do not train the same network" in outcome.err

    def test_refusals(self, run, file):
        outcome = run("bench", file, "--training")
        assert outcome.code == 2
        assert "leave out" in outcome.err
        outcome = run("bench", "--compiled")
        assert outcome.code == 2
        assert "--training" in outcome.err


def test_straightforward_gradients_are_those_of_the_layers():
    torch = pytest.importorskip("torch")
    from binarynet import models, optim
    from binarynet.cli import _straightforward
    from binarynet.training.loss import squared_hinge

    torch.manual_seed(1)
    ours = models.build("convnet", input_shape=(8, 8, 3), classes=10, blocks=[[16, 16]], dense=[32])
    images, labels = torch.randint(0, 256, (30, 3, 8, 8), dtype=torch.uint8), torch.arange(30) % 10
    squared_hinge(ours(images), labels).backward()
    for compilable in (False, True):
        plain = _straightforward.binary(ours, compilable=compilable)
        squared_hinge(plain(images), labels).backward()
        for mine, theirs in zip(optim.latent_weights(ours), _straightforward.latent_weights(plain), strict=True):
            torch.testing.assert_close(theirs.grad, mine.grad, rtol=1e-3, atol=1e-6)
