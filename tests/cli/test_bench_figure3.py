"""`binarynet bench figure3`: three kernels, the same integers, scores and errors."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest
from bench_output import OURS
from PIL import Image

from binarynet.analysis import Spread, Timing, random_convnet, random_mlp
from binarynet.cli import _packed
from binarynet.cli._benching import figure3, figure3_shown
from binarynet.data import load
from binarynet.errors import DataError, UsageError, VerificationError
from binarynet.fileformat import PackedNetwork, read, write
from binarynet.graph import evaluate

PROCESSOR = {"processor": "processor", "gpu": None}


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
    one = {"median": 1.0, "low": 1.0, "high": 1.0}
    assert bars["xnor"]["xnor_is_faster"] == one
    assert product["kernels"][3]["xnor_with_packing_is_faster"] == one
    assert {bar["xnor_with_packing_is_faster"] for bar in bars.values()} == {None}
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
    baseline, xnor = figure3.bars_of(timings, {"baseline": "numpy"}, "ours", {"baseline": 0.25}, {"baseline": 7})
    assert baseline.seconds == Spread(12.0, 8.0, 16.0)  # a quarter of the work took 3 seconds
    assert baseline.speedup == Spread(8.0, 6.0, 16.0)
    assert (baseline.library, baseline.rows, xnor.library, xnor.rows) == ("numpy", 7, "ours", None)
    assert xnor.speedup == Spread(1.0, 1.0, 1.0)
    assert (baseline.speedup_packing, xnor.speedup_packing) == (None, None)
    timings["xnor, packing"] = Timing("xnor, packing", (4e9, 4e9, 2e9), 3)
    baseline, xnor, _ = figure3.bars_of(timings, {}, "ours", {"baseline": 0.25}, {})
    assert baseline.speedup_packing == Spread(4.0, 2.0, 6.0)
    assert xnor.speedup_packing == Spread(0.25, 0.25, 1.0)


@pytest.mark.parametrize("graph", [random_mlp(20, [70, 33], 4), random_mlp(9, [], 3)])
def test_float_layers_give_the_scores_of_the_reference(graph):
    images = np.random.default_rng(1).integers(0, 256, (7, *graph.input.shape), dtype=np.uint8)
    expected = evaluate(graph, images)[graph.output]
    layers = figure3.FloatLayers(graph)
    for product in (figure3.baseline_product, figure3.blas_product()[1]):
        assert figure3.same_bits(layers.scores(images, product), expected)


def test_a_kernel_that_differs_is_refused(file, monkeypatch):
    def wrong(x, weights):
        sums = x @ weights.T
        sums[-1, -1] += 2
        return sums

    monkeypatch.setattr(figure3, "blas_product", lambda: ("wrong", wrong))
    with pytest.raises(VerificationError, match="does not compute the same integers as wrong"):
        figure3.measure_product(30, OURS[0], 1, 0.0)
    network = figure3.Figure3Network("x", figure3.FloatLayers(read(file).graph), load("digits").test)
    with pytest.raises(VerificationError, match="blas does not give the same scores"):
        figure3.measure_network(network, OURS[0], 1, 0.0)


def test_zeros_with_another_sign_are_other_scores():
    zeros = np.zeros((2, 3), np.float32)
    assert figure3.same_bits(zeros, zeros.copy())
    for other in (-zeros, zeros.astype(np.float64), zeros.reshape(3, 2)):
        assert not figure3.same_bits(other, zeros)


def test_networks_with_convolutions_are_refused_before_their_images_are_fetched(run, tmp_path, monkeypatch):
    monkeypatch.setattr(_packed, "load_data", lambda *_: pytest.fail("fetches the images"))
    path = tmp_path / "convnet.bnn"
    graph = random_convnet((8, 8, 1), [[8]], [8], classes=10)
    write(path, PackedNetwork(graph, provenance={"dataset": "digits"}))
    outcome = run("bench", "figure3", "--model", path)
    assert outcome.code == 2
    assert "networks of dense layers" in outcome.error
    with pytest.raises(UsageError, match="'conv1' is a convolution"):
        figure3.FloatLayers(graph)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--out", "x.pdf"], 2, "ends in .png or .svg"),
        (["--out", "x"], 2, "ends in .png or .svg"),
        (["--data", "x"], 2, "name one with --model"),
        (["--size", "0"], 2, "--size"),
        (["--model", "none.bnn"], 1, "none.bnn: there is no such file"),
        (["--model", "none"], 1, "none: there is no such file"),
        (["--model", "folder.png"], 2, "folder.png: is a folder; expected a .bnn file"),
        (["--out", "folder.png"], 1, "folder.png: cannot be written: it is not a regular file"),
        (["--out", "none/x.png"], 1, "none/x.png: cannot be written: No such file or directory"),
    ],
)
def test_refusals_come_before_anything_is_measured(run, arguments, code, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder.png").mkdir()
    monkeypatch.setattr(figure3, "measure", lambda *_: pytest.fail("measures"))
    outcome = run("bench", "figure3", *arguments)
    assert outcome.code == code
    assert message in outcome.error


def test_what_was_measured_is_shown_even_where_the_picture_fails(run, tmp_path, monkeypatch):
    def full(*_):
        raise DataError("the disk is full")

    monkeypatch.setattr("binarynet.files.write_whole", full)
    for more, shown in (((), "product 40 x 40 x 40"), (("--json",), '"product 40 x 40 x 40"')):
        outcome = run("bench", "figure3", "--size", 40, "--seconds", 0, "--out", tmp_path / "x.SVG", *more)
        assert outcome.code == 1
        assert shown in outcome.out
        assert outcome.err == "error: the disk is full\n"
    assert list(tmp_path.glob("*.SVG*")) == []


def bar(kernel, seconds, rows=None, packing=True):
    packed, packing_first = Spread(1234.5, 1000.0, 2000.0), Spread(512.3, 500.0, 600.0)
    time = Spread(seconds, seconds, seconds)
    return figure3.Bar(kernel, "library", time, packed, packing_first if packing else None, rows, 0)


def small_network():
    return figure3.Figure3Network("x", figure3.FloatLayers(random_mlp(9, [], 3)), load("digits").test)


def test_the_picture_says_of_each_panel_what_is_true_of_it():
    product = [bar("baseline", 0.15), bar("blas", 9.51e-3), bar("xnor", 9.51e-5), bar("xnor, packing", 1.2e-4)]
    mlp = [bar("baseline", 2.5, 7, False), bar("blas", 0.5, None, False), bar("xnor", 9.51e-3, None, False)]
    network = small_network()
    figure = figure3_shown.picture(
        figure3.Figure3((figure3.Product(50, tuple(product)),), network, tuple(mlp)), PROCESSOR, 1
    ).figure
    first, second, error = figure.axes
    *labels, note = [text.get_text() for text in first.texts]
    assert labels == ["150 ms\n(512.3x)", "9.51 ms\n(512.3x)", "95.1 us", "120 us"]
    assert note == "in brackets: how much faster XNOR + packing is\npaper, GTX 750, packing included: 23x, 3.4x"
    *labels, note = [text.get_text() for text in second.texts]
    assert labels == ["2.50 s\n(1234.5x)", "500 ms\n(1234.5x)", "9.51 ms"]
    assert "weights packed\npaper, GTX 750, packing included: 7x\nbaseline: 7 of " in note
    assert (first.get_ylabel(), first.patches[0].get_height()) == ("milliseconds", pytest.approx(150))
    assert second.get_ylabel().startswith("seconds for ")
    assert len(error.texts) == 3


def test_labels_of_the_picture_stay_apart():
    kernels = ("baseline", "blas", "xnor", "xnor, packing")
    for seconds in (9.51e-05, 0.0999, 99.9):
        bars = tuple(bar(kernel, seconds, 29) for kernel in kernels)
        found = figure3.Figure3((figure3.Product(8192, bars),), small_network(), bars[:3])
        figure = figure3_shown.picture(
            found, PROCESSOR | {"processor": "a processor with a long name, 64 cores"}, 128
        ).figure
        figure.canvas.draw()
        product = figure.axes[0]
        for row in (product.texts[:4], product.get_xticklabels()):
            boxes = [text.get_window_extent() for text in row]
            assert all(left.x1 + 4 < right.x0 for left, right in itertools.pairwise(boxes))
        whole = figure.bbox
        for text in (*product.texts, *figure.texts):
            box = text.get_window_extent()
            assert box.x0 >= 0
            assert box.x1 <= whole.x1


def test_durations_have_three_digits():
    given = [9.51e-5, 9.999e-4, 1e-3, 0.01524, 0.5, 1.0, 83.25, 1234.0, 2.5e-7]
    assert [figure3_shown.duration(seconds) for seconds in given] == [
        *("95.1 us", "1,000 us", "1.00 ms", "15.2 ms", "500 ms"),
        *("1.00 s", "83.2 s", "1,234 s", "0.250 us"),
    ]
