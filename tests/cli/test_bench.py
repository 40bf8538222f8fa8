"""`binarynet bench`: the peers compute the same network, wrong engines are not timed, absent ones are named."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest
from bench_output import NATIVE, OURS, needs_native, needs_peers, rows_of

from binarynet.analysis import random_convnet
from binarynet.cli import _peers
from binarynet.cli._benching import networks
from binarynet.cli._benching.text import milliseconds
from binarynet.cli.bench import parse_batches, warn_if_busy, with_command
from binarynet.errors import UsageError
from binarynet.fileformat import PackedNetwork, write
from binarynet.graph import Graph
from binarynet.runtime import Session


def small_convnet() -> Graph:
    return random_convnet((12, 10, 3), [[24, 16], [32]], [40], classes=5)


@needs_peers
def test_all_parties_are_in_every_table(run, tmp_path):
    path = tmp_path / "convnet.bnn"
    write(path, PackedNetwork(small_convnet()))
    outcome = run("bench", path, "--seconds", 0, "--batch", "1,3")
    assert outcome.code == 0
    peers = ["torch float32", "torch float32, channels last", "torch int8", "onnxruntime float32", "onnxruntime int8"]
    peers += ["openvino float32", "openvino int8"]
    peers += ["openvino binary, float32 first layer", "openvino binary, int8 first layer"]
    expected = [*(f"binarynet {name}" for name in OURS), *peers]
    assert rows_of(outcome.out) == {"batch 1": expected, "batch 1, cold weights": expected, "batch 3": expected}
    assert "equal the NumPy reference bit for bit" in outcome.out or not NATIVE
    assert f"{path.stat().st_size:,} bytes packed" in outcome.out


def test_the_reference_alone_has_no_limits_of_instructions(run, file):
    outcome = run("bench", file, "--seconds", 0, "--batch", 2, "--engine", "reference")
    assert outcome.code == 0, outcome.err
    assert rows_of(outcome.out)["batch 2"][0] == "binarynet reference"
    assert "checked:" not in outcome.out


@needs_peers
def test_json(run, file):
    outcome = run("bench", file, "--seconds", 0, "--batch", 2, "--json")
    document = json.loads(outcome.out)
    assert document["threads"] == 1
    assert document["clock"] == "processor time"
    assert {absence["name"].split(",")[0] for absence in document["absent"]} == {"openvino binary"}
    assert all("70 channels" in absence["why"] for absence in document["absent"])
    assert set(document["machine"]) >= {"processor", "cores", "load", "python", "engines"}
    (network,) = document["networks"]
    assert network["packed_bytes"] == file.stat().st_size
    assert network["weights"] == 70 * 64 + 700
    assert network["equal_to_reference"] == NATIVE
    (batch,) = network["batches"]
    assert (batch["batch"], batch["baseline"]) == (2, "torch float32")
    rows = {row["name"]: row for row in batch["rows"]}
    assert rows["torch float32"]["speedup"] == {"median": 1.0, "low": 1.0, "high": 1.0}
    assert {row["arithmetic"] for row in rows.values()} >= {"packed", "float32", "int8"}
    assert batch["macs"] == 2 * network["weights"]
    for row in rows.values():
        assert row["ms"]["low"] <= row["ms"]["median"] <= row["ms"]["high"]
        assert row["gmacs_per_second"] == pytest.approx(batch["macs"] / 1e6 / row["ms"]["median"])
        assert row["macs_per_cycle"]["median"] > 0
        assert row["share_of_ports"] is None
        assert (row["share_of_reading"] is not None) == (row["arithmetic"] == "packed")
        assert row["peak_bytes"] is None
        assert row["images_per_second"] == pytest.approx(2000 / row["ms"]["median"])
        assert len(row["rounds_ms"]) >= 3
    ours = min((row for row in rows.values() if row["arithmetic"] == "packed"), key=lambda row: row["ms"]["median"])
    for ratio in ours["ratios"]:
        assert ratio["over"] in {"torch float32", "best float32", "best int8", "best binary"}
        rounds = zip(rows[ratio["name"]]["rounds_ms"], ours["rounds_ms"], strict=True)
        assert ratio["median"] == pytest.approx(np.median([theirs / mine for theirs, mine in rounds]))
    assert {ratio["over"] for ratio in ours["ratios"]} >= {"torch float32", "best float32", "best int8"}
    assert 0.1 < batch["limits"]["clock_ghz"]["median"] < 10


@needs_peers
def test_memory_is_that_of_a_process_for_every_party(run, file):
    document = json.loads(run("bench", file, "--seconds", 0, "--batch", 2, "--memory", "--json").out)
    rows = {row["name"]: row for row in document["networks"][0]["batches"][0]["rows"]}
    peaks = {name: row["peak_bytes"] for name, row in rows.items()}
    ours = peaks[f"binarynet {OURS[0]}"]
    assert 10e6 < ours < peaks["torch float32"]  # nothing of torch is in a process of ours
    for row in rows.values():
        assert row["peak_bytes"] > row["file_bytes"] > 0
    assert rows[f"binarynet {OURS[0]}"]["file_bytes"] <= file.stat().st_size  # which has class names, too


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


@needs_native
def test_a_wrong_engine_is_not_timed(run, file, monkeypatch):
    correct = Session.run

    def wrong(self, images):
        scores = correct(self, images)
        return np.nextafter(scores, np.float32(np.inf)) if self.engine == NATIVE[0] else scores

    monkeypatch.setattr(Session, "run", wrong)
    outcome = run("bench", file, "--seconds", 0)
    assert outcome.code == 1
    assert f"{NATIVE[0]} differs from reference in 'scores'" in outcome.error


@needs_native
@pytest.mark.parametrize("wrong_image", [0, 5])
def test_a_method_of_larger_batches_is_checked_on_the_timed_images(run, file, monkeypatch, wrong_image):
    correct = Session.run

    def wrong(self, images):
        scores = correct(self, images)
        if len(images) == 6 and self.engine == NATIVE[-1]:
            scores[wrong_image, 3] = -scores[wrong_image, 3]
        return scores

    monkeypatch.setattr(Session, "run", wrong)
    assert run("bench", file, "--seconds", 0, "--batch", 5, "--engine", NATIVE[-1]).code == 0
    outcome = run("bench", file, "--seconds", 0, "--batch", 6, "--engine", NATIVE[-1])
    assert outcome.code == 1
    assert outcome.error == (f"binarynet {NATIVE[-1]} differs from the exact scores at batch 6 in 1 of 60 values")


@needs_native
def test_what_was_compared_is_told(run, file):
    outcome = run("bench", file, "--seconds", 0, "--batch", "1,7", "--engine", OURS[-1])
    told = "against the NumPy reference (batch 1), the portable engine with 4 images at a time (batch 7)"
    assert told in outcome.out


@needs_native
@pytest.mark.parametrize("command", [(), ("gemm", "--sizes", 16), ("layers",)])
def test_a_forced_engine_is_timed_alone(run, file, monkeypatch, command):
    monkeypatch.setenv("BINARYNET_FORCE_ISA", "portable")
    arguments = [*command, *((file,) if "gemm" not in command else ()), "--seconds", 0]
    arguments += ["--batch", 1] if not command else []
    outcome = run("bench", *arguments)
    assert outcome.code == 0
    ours = {name.split(",")[0] for rows in rows_of(outcome.out).values() for name in rows if "binarynet" in name}
    assert ours == {"binarynet portable"}
    assert "note: BINARYNET_FORCE_ISA=portable: no other engine" in outcome.err
    if not command:
        explicit = run("bench", *arguments, "--engine", NATIVE[0])
        assert f"binarynet {NATIVE[0]}" in explicit.out
        assert "note: BINARYNET_FORCE_ISA" not in explicit.err


@needs_native
def test_figure3_takes_the_forced_engine(run, monkeypatch):
    monkeypatch.setenv("BINARYNET_FORCE_ISA", "portable")
    outcome = run("bench", "figure3", "--size", 16, "--seconds", 0)
    assert "binarynet portable" in outcome.out
    assert "note: BINARYNET_FORCE_ISA=portable" in outcome.err


@pytest.mark.parametrize("command", ["model", "gemm", "layers", "training", "figure3"])
def test_seconds_end(run, command):
    outcome = run("bench", command, "--seconds", "inf")
    assert outcome.code == 2
    assert outcome.error == "--seconds must be a finite number of seconds, as in 3; got inf"
    assert run("bench", command, "--seconds", "nan").code == 2


@needs_peers
def test_an_inexact_peer_is_absent_and_the_rest_is_timed(run, file, monkeypatch):
    monkeypatch.setitem(_peers.ROUNDED_TOLERANCE, "int8", 0.0)
    outcome = run("bench", file, "--seconds", 0, "--batch", 2)
    assert outcome.code == 0
    assert "absent: torch int8, too inexact here: differs from the same network in float64 by" in outcome.out
    assert "torch int8" not in rows_of(outcome.out)["batch 2"]
    assert "torch float32" in rows_of(outcome.out)["batch 2"]


def test_the_papers_networks_are_measured_by_default():
    mlp, convnet = networks.paper_networks()
    assert (mlp.num_weights, mlp.batches) == (36_806_656, (1, 256))
    assert (convnet.num_weights, convnet.batches) == (14_022_016, (1, 64))
    assert mlp.float32_bytes / mlp.packed_bytes > 31


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ([], ["model"]),
        (["--batch", "1"], ["model", "--batch", "1"]),
        (["x.bnn", "--json"], ["model", "x.bnn", "--json"]),
        (["model", "x.bnn"], ["model", "x.bnn"]),
        (["gemm", "--sizes", "64"], ["gemm", "--sizes", "64"]),
        (["./gemm"], ["model", "./gemm"]),
        (["-h"], ["-h"]),
        (["--training", "--batch", "2"], ["training", "--batch", "2"]),
    ],
)
def test_bench_alone_is_bench_model(typed, meant, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "gemm").touch()
    assert with_command(typed, ["model", "gemm", "training"]) == meant


def test_an_unknown_word_is_told_what_there_is(run):
    outcome = run("bench", "gem")
    assert outcome.code == 2
    assert "bench gem: neither a file nor one of model, layers, gemm" in outcome.error


@pytest.mark.parametrize("command", ["model", "layers", "gemm", "training", "figure3"])
def test_help_of_every_command(run, command):
    assert f" {command} " in run("bench", "--help").out
    outcome = run("bench", command, "--help")
    assert (outcome.code, outcome.err) == (0, "")
    assert f"binarynet bench {command}" in outcome.out


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


def test_more_threads_than_cores_are_warned_about(capsys):
    warn_if_busy({"load": 0.0, "cores": 2}, 3)
    error = " ".join(capsys.readouterr().err.split())
    assert "more threads (3) than cores (2)" in error
    assert "busy" not in error


def test_a_missing_file_is_one_line(run, tmp_path):
    outcome = run("bench", tmp_path / "none.bnn")
    assert outcome.code == 1
    assert "there is no such file" in outcome.error


def test_milliseconds_keep_three_digits():
    given = [12_345, 123_456, 1_234_567, 12_345_678, 123_456_789, 1_234_567_890]
    assert list(map(milliseconds, given)) == ["0.0123", "0.123", "1.23", "12.3", "123", "1,235"]
