"""`binarynet bench figure3`: three kernels, the same integers, scores and errors."""

from __future__ import annotations

import json

import numpy as np
import pytest
from bench_output import OURS
from PIL import Image

from binarynet.analysis import Spread, Timing, random_convnet, random_mlp
from binarynet.cli._benching import figure3
from binarynet.data import load
from binarynet.errors import UsageError, VerificationError
from binarynet.fileformat import PackedNetwork, read, write
from binarynet.graph import evaluate


def test_the_figure(run, file, tmp_path):
    out = tmp_path / "figure.png"
    outcome = run("bench", "figure3", "--model", file, "--size", 96, "--seconds", 0, "--out", out, "--json")
    assert outcome.code == 0, outcome.err
    product, network = json.loads(outcome.out)["tasks"]
    assert product["name"] == "product 96 x 96 x 96"
    assert [bar["kernel"] for bar in product["kernels"]] == ["baseline", "blas", "xnor", "xnor, packing"]
    assert network["name"].startswith("network 64-70-10, ")
    bars = {bar["kernel"]: bar for bar in network["kernels"]}
    assert list(bars) == ["baseline", "blas", "xnor"]
    test = load("digits").test
    scores = evaluate(read(file).graph, test.images)["scores"]
    wrong = np.count_nonzero(scores.argmax(axis=1) != test.labels)
    assert {bar["wrong"] for bar in bars.values()} == {wrong}
    assert network["images"] == len(test)
    for bar in (*product["kernels"], *bars.values()):
        assert bar["seconds"]["low"] > 0
    assert bars["xnor"]["library"] == f"binarynet {OURS[0]}"
    assert bars["xnor"]["xnor_is_faster"] == {"median": 1.0, "low": 1.0, "high": 1.0}
    with Image.open(out) as picture:
        assert picture.size[0] > 1000


def test_as_text_without_a_network(run):
    outcome = run("bench", "figure3", "--size", 40, "--seconds", 0)
    assert outcome.code == 0, outcome.err
    assert "product 40 x 40 x 40" in outcome.out
    assert "network" not in outcome.out.split("time:")[0]


def test_scaled_times(monkeypatch):
    monkeypatch.setattr(figure3, "SLICE_MACS", 10 * 50**2)
    whole, *others = figure3.measure_product(50, OURS[0], 1, 0.0)
    assert whole.rows == 10
    assert {bar.rows for bar in others} == {None}


def test_bars_by_hand():
    timings = {"baseline": Timing("baseline", (2e9, 4e9, 3e9), 3), "xnor": Timing("xnor", (1e9, 1e9, 2e9), 3)}
    baseline, xnor = figure3._bars(timings, {"baseline": "numpy"}, "ours", {"baseline": 0.25}, {"baseline": 7})
    assert baseline.seconds == Spread(12.0, 8.0, 16.0)  # a quarter of the work took 3 seconds
    assert baseline.speedup == Spread(8.0, 6.0, 16.0)
    assert (baseline.library, baseline.rows, xnor.library, xnor.rows) == ("numpy", 7, "ours", None)
    assert xnor.speedup == Spread(1.0, 1.0, 1.0)


@pytest.mark.parametrize("graph", [random_mlp(20, [70, 33], 4), random_mlp(9, [], 3)])
def test_float_layers_give_the_scores_of_the_reference(graph):
    images = np.random.default_rng(1).integers(0, 256, (7, *graph.input.shape), dtype=np.uint8)
    expected = evaluate(graph, images)[graph.output]
    layers = figure3.FloatLayers(graph)
    for product in (figure3.baseline_product, figure3.blas_product()[1]):
        assert np.array_equal(layers.scores(images, product), expected)


def test_a_kernel_that_differs_is_refused(file, monkeypatch):
    def wrong(x, weights):
        sums = x @ weights.T
        sums[-1, -1] += 2
        return sums

    monkeypatch.setattr(figure3, "blas_product", lambda: ("wrong", wrong))
    with pytest.raises(VerificationError, match="does not compute the same integers as wrong"):
        figure3.measure_product(30, OURS[0], 1, 0.0)
    network = figure3.Figure3Network("x", read(file).graph, load("digits").test)
    with pytest.raises(VerificationError, match="blas does not give the same scores"):
        figure3.measure_network(network, OURS[0], 1, 0.0)


def test_networks_with_convolutions_are_refused(run, tmp_path):
    path = tmp_path / "convnet.bnn"
    graph = random_convnet((8, 8, 1), [[8]], [8], classes=10)
    write(path, PackedNetwork(graph, provenance={"dataset": "digits"}))
    outcome = run("bench", "figure3", "--model", path)
    assert outcome.code == 2
    assert "networks of dense layers" in outcome.error
    with pytest.raises(UsageError, match="'conv1' is a convolution"):
        figure3.FloatLayers(graph)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--out", "x.pdf"], "ends in .png or .svg"),
        (["--data", "x"], "name one with --model"),
        (["--size", "0"], "--size"),
        (["--model", "none.bnn"], "no such file"),
    ],
)
def test_refusals(run, arguments, message):
    outcome = run("bench", "figure3", *arguments)
    assert outcome.code in (1, 2)
    assert message in outcome.error
