"""Pictures are drawn from what there is; labels keep their distance."""

from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from binarynet import fileformat
from binarynet.analysis import account, random_convnet, random_mlp
from binarynet.analysis.filters import first_layer
from binarynet.analysis.paper import EXPERIMENTS
from binarynet.analysis.pictures import pictures, render
from binarynet.analysis.pictures._style import spread, style
from binarynet.analysis.pictures.costs import draw as draw_costs
from binarynet.analysis.pictures.curves import draw as draw_curves
from binarynet.analysis.pictures.figure3 import Column, Panel
from binarynet.analysis.pictures.figure3 import picture as figure3_picture
from binarynet.analysis.pictures.filters import draw_distinct, draw_sample
from binarynet.analysis.pictures.repetition import draw as draw_repetition
from binarynet.analysis.pictures.table import draw as draw_table
from binarynet.analysis.reproduction import Curve, Reproduction, Subject
from binarynet.fileformat import PackedNetwork


def subject(folder, graph, label):
    path = folder / f"{label}.bnn"
    fileformat.write(path, PackedNetwork(graph))
    return Subject(label, str(path), account(path))


def curve(label="run", data="cifar10", epochs=3, start=0.5):
    numbers = tuple(range(1, epochs + 1))
    errors = tuple(start / number for number in numbers)
    return Curve(label, data, numbers, errors, errors, epochs, errors[-1])


def texts(figure):
    return [text.get_text() for axes in figure.axes for text in axes.texts]


@pytest.mark.parametrize(
    ("positions", "gap", "expected"),
    [
        ([], 1, []),
        ([5], 1, [5]),
        ([1, 4, 2.5], 1, [1, 4, 2.5]),
        ([2, 2], 1, [1.5, 2.5]),
        ([3, 2], 2, [3.5, 1.5]),
        ([0, 0.5, 1.2], 1, [-13 / 30, 17 / 30, 47 / 30]),
    ],
)
def test_spread_by_hand(positions, gap, expected):
    assert spread(positions, gap) == pytest.approx(expected)


def test_spread_keeps_order_distance_and_what_is_free():
    rng = np.random.default_rng(0)
    for _ in range(50):
        positions = list(rng.random(rng.integers(1, 12)))
        moved = spread(positions, 0.08)
        order = np.argsort(positions, kind="stable")
        assert (np.diff(np.array(moved)[order]) >= 0.08 - 1e-9).all()
        assert np.mean(moved) == pytest.approx(np.mean(positions))


def test_what_is_drawn(tmp_path):
    convnet = subject(tmp_path, random_convnet((8, 8, 3), [[40, 20]], [30]), "a net")
    mlp = subject(tmp_path, random_mlp(20, [9], 3), "mlp")
    absent = Subject("gone", "runs/gone", None, "it cannot be packed")
    found = Reproduction((), (curve(), curve("other", "my data")), (convnet, mlp, absent))
    drawn = {picture.name: picture.figure for picture in pictures(found, all_filters=True)}
    assert list(drawn) == [
        "table1",
        "figure1-cifar10",
        "figure1-my_data",
        "figure2-a_net",
        "figure2-all-a_net",
        "costs-a_net",
        "repetition-a_net",
        "costs-mlp",
    ]
    assert "figure2-all-a_net" not in [picture.name for picture in pictures(found)]
    path = tmp_path / "table.png"
    path.write_bytes(render(drawn["table1"], "png"))
    with Image.open(path) as image:
        assert image.width == 13 * 160


@pytest.mark.parametrize("kind", ["png", "svg"])
def test_drawing_twice_gives_the_same_bytes(tmp_path, kind):
    net = subject(tmp_path, random_mlp(20, [9, 8], 3), "mlp")
    with style():
        first, again = (render(draw_costs(net.account, net.instructions, "mlp"), kind) for _ in range(2))
    assert first == again


@pytest.mark.parametrize("epochs", [1, 3, 400])
def test_the_papers_curves_stand_behind_those_of_cifar10_only(epochs):
    with style():
        on_cifar = draw_curves([curve(epochs=epochs), curve("second", start=0.4, epochs=epochs)], "cifar10")
        elsewhere = draw_curves([curve(data="digits", epochs=epochs)], "digits")
        on_mnist = draw_curves([curve(data="mnist", epochs=epochs)], "mnist")
    assert {"paper, 32-bit", "paper, BNN (Theano)", "paper, BNN (Torch7)"} <= set(texts(on_cifar))
    assert f"run: test {50 / epochs:.2f} %" in texts(on_cifar)
    assert not any("paper" in text for text in texts(elsewhere))
    assert "paper, BNN (Theano): test 0.96 %" in texts(on_mnist)
    assert on_cifar.axes[0].get_xscale() == ("log" if epochs < 250 else "linear")


def test_scales_end_where_there_is_something(tmp_path):
    cell = next(experiment for experiment in EXPERIMENTS if experiment.data == "cifar10")
    own = SimpleNamespace(name="own", experiment=cell, mean=0.7, deviation=None, by_the_paper=False)
    with style():
        _, cost = draw_curves([Curve("one", "digits", (1,), (0.6,), (0.35,), 1, 0.6)], "digits").axes
        repetition = draw_repetition(
            subject(tmp_path, random_convnet((8, 8, 3), [[8]], [9]), "n").account.repetition, "n"
        )
        table = draw_table([own])
    assert list(cost.get_xticks()) == [1]
    assert len([tick for tick in cost.get_yticks() if cost.get_ylim()[0] <= tick <= cost.get_ylim()[1]]) <= 5
    markers = [line for line in repetition.axes[0].lines if line.get_marker() in ("o", "s", "^")]
    assert len({line.get_xdata()[0] for line in markers}) == 3
    of_cifar = table.axes[-1]
    assert list(of_cifar.get_xticks()) == [10, 20, 50]
    assert of_cifar.spines["bottom"].get_bounds()[1] == 87.5


def test_a_curve_without_errors_is_drawn():
    perfect = Curve("perfect", "digits", (1, 2), (0.0, 0.0), (0.1, 0.05), 2, 0.0)
    with style():
        assert render(draw_curves([perfect], "digits"), "png")


def test_a_label_that_does_not_fit_beside_its_line_goes_to_the_margin():
    """Two lines end at 60 % of the axis: there is room for a short name, not for a long one."""
    long = "a name that is much too long to be written here"
    with style():
        figure = draw_curves([curve("x", "mnist", 30), curve(long, "mnist", 30), curve("y", "mnist", 50)], "mnist")
    places = {text.get_text(): text.xy[0] for text in figure.axes[1].texts}
    assert places == {"x": 0.6, long: 1.0, "y": 1.0}


def test_filters_are_black_and_white_tiles():
    layer = first_layer(random_convnet((8, 8, 3), [[20]], [10]))
    with style():
        figure = draw_sample(layer, "net")
        everything = draw_distinct(layer, "net")
    (axes,) = figure.axes
    sheet = axes.images[0].get_array()
    assert set(np.unique(sheet)) == {0.0, 0.82, 1.0}
    # 90 pixels per 3 x 3 tile, 26 around a filter, 8 between its channels: the middle of tap (1, 2) of each channel.
    for channel in range(3):
        left = 26 + channel * (90 + 8)
        assert sheet[26 + 45, left + 75] == layer.bits[0, channel, 1, 2]
    assert axes.get_title(loc="left") == "net: 16 of the 20 filters (3 x 3) of conv1"
    counts = [int(text) for text in texts(everything)]
    assert sum(counts) == 60


def test_analysis_alone_needs_no_matplotlib():
    code = "import sys; sys.modules['matplotlib'] = None; import binarynet.analysis.reproduction, binarynet.analysis"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_figure3_shows_every_kernel_on_its_scale():
    panels = [
        Panel("Product", "seconds", (Column("baseline", 8.0, "8 s (4x)"), Column("xnor", 2.0, "2 s")), "paper: 23x"),
        Panel("Error", "%", (Column("baseline", 0.0, "0 %"), Column("xnor", 0.0, "0 %"))),
    ]
    figure = figure3_picture(panels, "title", "note").figure
    product, error = figure.axes
    assert [bar.get_height() for bar in product.patches] == [8.0, 2.0]
    assert texts(figure) == ["8 s (4x)", "2 s", "paper: 23x", "0 %", "0 %"]
    assert [label.get_text() for label in error.get_xticklabels()] == ["baseline", "XNOR"]
    assert product.get_ylim()[1] > 8
    assert len(render(figure, "png")) > 1000
