"""`binarynet bench gemm` and `layers`: every layer is the one that was asked for, and wrong ones are not timed."""

from __future__ import annotations

import functools
import json
from contextlib import contextmanager

import numpy as np
import pytest
from bench_output import NATIVE, OURS, needs_native, needs_peers, rows_of

from binarynet.analysis import random_convnet, random_mlp
from binarynet.cli._benching import suites
from binarynet.cli._benching.measuring import Contender
from binarynet.cli._benching.parties import Parties
from binarynet.cli._benching.single import in_words, layers_of, random_layer
from binarynet.cli._peers_common import Absence
from binarynet.encoding import pack_bits
from binarynet.errors import UsageError, VerificationError
from binarynet.fileformat import PackedNetwork, write
from binarynet.graph import evaluate
from binarynet.runtime import Session


@needs_peers
def test_gemm(run):
    document = json.loads(run("bench", "gemm", "--sizes", 64, "--shapes", "3x70x130", "--seconds", 0, "--json").out)
    assert [table["name"] for table in document["tables"]] == ["64 x 64 x 64", "3 x 70 x 130"]
    assert [table["macs"] for table in document["tables"]] == [64**3, 3 * 70 * 130]
    assert document["suite"] == "gemm"
    assert [absence["name"] for absence in document["absent"]] == ["openvino binary"]
    assert "130 channels" in document["absent"][0]["why"]
    for table, (num_rows, columns) in zip(document["tables"], [(64, 64), (3, 70)], strict=True):
        rows = {row["name"]: row for row in table["rows"]}
        for engine in OURS:
            assert {f"binarynet {engine}, bits out", f"binarynet {engine}, int32 out"} <= set(rows)
        assert {"torch float32", "numpy float32"} <= set(rows)
        assert {row["arithmetic"] for row in rows.values()} >= {"packed", "float32", "int8"}
        assert {port["engine"] for port in table["limits"]["ports"]} == set(NATIVE)
        for engine in NATIVE:
            assert rows[f"binarynet {engine}, bits out"]["method"]
            sizes = [rows[f"binarynet {engine}, {output} out"]["read_bytes"] for output in ("bits", "int32")]
            assert sizes == [reading["bytes"] for reading in table["limits"]["reading"]]
            words = -(-columns // 64)
            assert sizes[1] - sizes[0] == num_rows * (4 * columns - 8 * words)
        for port in table["limits"]["ports"]:
            assert rows[f"binarynet {port['engine']}, bits out"]["share_of_ports"]["median"] > 0
            assert port["macs_per_cycle"]["median"] > 1
        assert table["limits"]["read_bytes_per_cycle"]["median"] > 0


def test_every_reason_of_an_absence_is_kept(monkeypatch):
    @contextmanager
    def contenders(layer, outputs, engine_names, num_threads, gpu):
        run = functools.partial(Session(layer.graph("bits"), engine="reference").run, layer.packed_inputs)
        yield Parties(
            (Contender("reference", "packed", run, lambda: run),), (), (Absence("peer", f"not {layer.shape.in_c}"),)
        )

    monkeypatch.setattr(suites, "layer_contenders", contenders)
    found = suites.measure_gemm(list(suites.gemm_layers([(1, 2, 3), (1, 2, 4), (2, 2, 3)])), ["reference"], 2, 0.0)
    assert [absence.why for absence in found.absent] == ["not 3", "not 4"]


@pytest.mark.parametrize("only", ["", "conv,", ",", " "])
def test_an_empty_word_is_wrong_usage(run, file, only):
    outcome = run("bench", "layers", file, "--only", only)
    assert outcome.code == 2
    assert "--only must be words with commas between" in outcome.error


@needs_native
def test_notes_are_about_columns_and_rows_that_are_there(run, file):
    arguments = ("--seconds", 0, "--engine", OURS[-1])
    assert "cold weights" not in run("bench", "gemm", "--sizes", 16, *arguments).out
    assert "cold weights: before each call" in " ".join(run("bench", "layers", file, *arguments).out.split())


@needs_peers
def test_layers_of_a_file(run, tmp_path):
    path = tmp_path / "model.bnn"
    write(path, PackedNetwork(random_convnet((8, 8, 3), [[16, 16]], [20], classes=4)))
    outcome = run("bench", "layers", path, "--seconds", 0, "--only", "conv,20 -> 4")
    assert outcome.code == 0, outcome.err
    names = [
        "conv1: 3x3, 3 -> 16 channels at 8x8",
        "conv2: 3x3, 16 -> 16 channels at 8x8",
        "dense4: 20 -> 4",
    ]
    tables = rows_of(outcome.out)
    assert list(tables) == [heading for name in names for heading in (name, f"{name}, cold weights")]
    for rows in tables.values():
        assert rows[: len(OURS)] == [f"binarynet {name}" for name in OURS]
        assert "torch float32" in rows
    assert "times faster than" in outcome.out
    refused = run("bench", "layers", path, "--only", "nothing")
    assert refused.code == 2
    assert "no such layer; there are: conv1: 3x3" in refused.error


def test_the_papers_layers_each_shape_once():
    names = [layer.name for layer in suites.paper_layers(1)]
    assert len(names) == len(set(names)) == 12
    for shape in ("128 -> 128 channels at 32x32", "256 -> 256 channels at 16x16", "512 -> 512 channels at 8x8"):
        (name,) = [name for name in names if shape in name]
        assert "3x3" in name
    assert "MLP dense2: 4096 -> 4096" in names


@pytest.mark.parametrize("graph", [random_convnet((9, 7, 3), [[24, 70]], [40], 5), random_mlp(30, [70, 20], 7)])
def test_layers_of_a_network_compute_what_they_compute_in_it(graph):
    images = np.random.default_rng(0).integers(0, 256, (3, *graph.input.shape), dtype=np.uint8)
    found = list(layers_of(graph, 3))
    values = evaluate(graph, images, graph.types)
    for layer in found:
        node = graph.node(layer.name)
        alone = layer.graph("int32")
        given = values[node.source]
        assert np.array_equal(evaluate(alone, given)["sums"], values[layer.name])
    assert [layer.signed for layer in found] == [True] * (len(found) - 1) + [False]
    assert [layer.shape.first for layer in found] == [True] + [False] * (len(found) - 1)


def test_tasks_count_what_a_call_does():
    convolution = random_layer("c", (5, 6, 64), 70, 2, kernel=3, padding=1)
    task = convolution.task("bits")
    assert task.macs == 2 * 5 * 6 * 70 * 9 * 64
    assert task.read_bytes == 8 * (70 * 9 + 2 * 30 * 1 + 2 * 30 * 2)
    assert convolution.task("int32").read_bytes == 8 * (70 * 9 + 2 * 30 * 1) + 4 * 2 * 30 * 70
    assert in_words(convolution.shape) == "3x3, 64 -> 70 channels at 5x6"
    first = random_layer("f", (1, 1, 100), 10, 4, first=True).task("bits")
    assert (first.macs, first.read_bytes) == (4000, 10 * 16 + 4 * 100 + 4 * 8)


@pytest.mark.parametrize("output", ["bits", "int32"])
@pytest.mark.parametrize("wrong_row", [0, 29])
def test_a_wrong_result_is_refused(output, wrong_row):
    """The last row of a product, too, for which nobody asks the reference."""
    layer = random_layer("product", (1, 1, 100), 12, 30)
    right = Session(layer.graph(output), engine="reference").run(layer.packed_inputs)
    layer.check([("right", output, right)])
    wrong = right.copy()
    wrong[wrong_row, 0] ^= 1
    with pytest.raises(VerificationError, match=r"wrong one differs from .* in 1 of"):
        layer.check([("right", output, right), ("wrong one", output, wrong)])


@needs_native
def test_a_wrong_engine_is_not_timed(run, monkeypatch):
    correct = Session.run

    def wrong(self, images):
        result = correct(self, images)
        flipped = self.engine == NATIVE[-1] and self.graph.output == "bits"
        return result ^ pack_bits(np.ones(1, bool)) if flipped else result

    monkeypatch.setattr(Session, "run", wrong)
    outcome = run("bench", "gemm", "--sizes", 16, "--seconds", 0)
    assert outcome.code == 1
    assert f"binarynet {NATIVE[-1]}, bits out differs from the NumPy reference" in outcome.error


@pytest.mark.parametrize("text", ["", "0", "a", "1,,2", "40000", "-1", "1.5"])
def test_wrong_sizes_are_wrong_usage(run, text):
    with pytest.raises(UsageError, match="--sizes must be numbers from 1 to 32768"):
        suites.parse_sizes(text)
    assert run("bench", "gemm", f"--sizes={text}").code == 2


@pytest.mark.parametrize("text", ["", "1", "1x2", "1x2x3x4", "0x1x1", "1x2x3,", "axbxc"])
def test_wrong_shapes_are_wrong_usage(text):
    with pytest.raises(UsageError, match="--shapes must be MxNxK"):
        suites.parse_shapes(text)


def test_one_engine_alone(run):
    document = json.loads(run("bench", "gemm", "--sizes", 16, "--seconds", 0, "--engine", OURS[-1], "--json").out)
    (table,) = document["tables"]
    ours = [row["name"] for row in table["rows"] if row["arithmetic"] == "packed"]
    assert ours == [f"binarynet {OURS[-1]}, bits out", f"binarynet {OURS[-1]}, int32 out"]
    assert run("bench", "gemm", "--engine", "none").code == 2


@needs_native
def test_several_threads_are_held_against_one(run):
    document = json.loads(
        run("bench", "gemm", "--sizes", 16, "--seconds", 0, "--engine", NATIVE[0], "--threads", 2, "--json").out
    )
    (table,) = document["tables"]
    rows = {row["name"]: row for row in table["rows"]}
    several, one = f"binarynet {NATIVE[0]}, bits out", f"binarynet {NATIVE[0]}, bits out, 1 thread"
    ratios = {ratio["over"]: ratio for ratio in rows[several]["ratios"]}
    assert ratios["one thread"]["name"] == one
    assert "one thread" not in {ratio["over"] for ratio in rows[one]["ratios"]}
    assert "limits" not in table


def test_sizes_and_shapes():
    assert suites.parse_sizes("8,16") == [(8, 8, 8), (16, 16, 16)]
    assert suites.parse_shapes("1x2x3,4x5x6") == [(1, 2, 3), (4, 5, 6)]
