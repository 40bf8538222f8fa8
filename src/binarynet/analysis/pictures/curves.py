"""Figure 1: validation error and training cost over epochs."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from binarynet.analysis import paper
from binarynet.analysis.pictures._style import (
    COLOURS,
    PAPER,
    End,
    label_ends,
    new_figure,
    percent_axis,
    plain_log_ticks,
)
from binarynet.analysis.reproduction import Curve

_SHORT = 250
"""Runs on CIFAR-10 shorter than this are drawn over the logarithm of the epoch, beside the paper's 500."""
_READ_OFF_NAMES = {"torch7": "BNN (Torch7)", "theano": "BNN (Theano)", "baseline": "32-bit"}


def draw(curves: Sequence[Curve], data: str) -> Figure:
    """Runs on one data set in one picture; the paper's are thin and grey where it shows or states them.

    Args:
        curves: at least one, each with at least one epoch.
        data: their data set; on CIFAR-10 the points of the paper's own Figure 1 are drawn.
    """
    figure = new_figure(10, 7.5)
    error, cost = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
    figure.suptitle(f"Training on {paper.DATA_NAMES.get(data, data)}", x=0.01, ha="left", fontweight="bold")
    coloured = [(curve, COLOURS[number % len(COLOURS)]) for number, curve in enumerate(curves)]
    for curve, colour in coloured:
        marker = "o" if len(curve.epochs) < 3 else None
        percent = [100 * value for value in curve.validation_error]
        error.plot(curve.epochs, percent, color=colour, marker=marker, linewidth=1.8)
        best = curve.epochs.index(curve.best_epoch)
        error.plot(
            curve.best_epoch, percent[best], "o", color=colour, markersize=7, markeredgecolor="white", clip_on=False
        )
        cost.plot(curve.epochs, curve.training_cost, color=colour, marker=marker, linewidth=1.8)
    references = _read_off_points(error) if data == "cifar10" else []
    _epoch_axis(error, cost, max(curve.epochs[-1] for curve in curves), data == "cifar10")
    values = [100 * value for curve in curves for value in curve.validation_error]
    if data != "cifar10":
        references = _published_errors(error, data)
    percent_axis(error, [*values, *(end.y for end in references)], "validation error (%)")
    cost.set_yscale("log")
    plain_log_ticks(cost.yaxis)
    cost.set_ylabel("training cost\n(mean squared hinge)")
    cost.set_xlabel("epoch")
    cost.grid(axis="y", alpha=0.2)
    error.grid(axis="y", alpha=0.2)
    figure.canvas.draw()  # settles the layout that labels are placed in
    ends = [
        End(
            curve.epochs[-1],
            100 * curve.validation_error[-1],
            f"{curve.label}: test {100 * curve.test_error:.2f} %",
            colour,
        )
        for curve, colour in coloured
    ]
    label_ends(figure, error, [*ends, *references])
    label_ends(
        figure,
        cost,
        [End(curve.epochs[-1], curve.training_cost[-1], curve.label, colour) for curve, colour in coloured],
    )
    note = "dot: selected epoch"
    if data == "cifar10":
        note += f"; grey: read from the paper's Figure 1, within {paper.READ_OFF_ACCURACY} (its cost has no scale)"
    figure.supxlabel(note, x=0.01, ha="left", fontsize=10, color="0.4")
    return figure


def _read_off_points(axes: Axes) -> list[End]:
    """Draw the paper's own points behind; their labels."""
    ends = []
    for name, points in paper.FIGURE_1.items():
        shown = [(point.epoch, point.validation) for point in points if point.validation is not None]
        axes.plot(*zip(*shown, strict=True), ".-", color=PAPER, linewidth=0.8, markersize=4, zorder=1)
        ends.append(End(*shown[-1], f"paper, {_READ_OFF_NAMES[name]}", PAPER))
    return ends


def _published_errors(axes: Axes, data: str) -> list[End]:
    """Draw the paper's test errors as lines; their labels."""
    ends = []
    for experiment in paper.EXPERIMENTS:
        if experiment.data == data:
            axes.axhline(experiment.test_error, color=PAPER, linewidth=0.8, linestyle=(0, (6, 4)), zorder=1)
            name = paper.SETTING_NAMES[experiment.setting]
            text = f"paper, {name}: test {experiment.test_error:.2f} %"
            ends.append(End(axes.get_xlim()[1], experiment.test_error, text, PAPER))
    return ends


def _epoch_axis(error: Axes, cost: Axes, longest: int, with_paper: bool) -> None:
    if with_paper and longest < _SHORT:
        error.set_xscale("log")
        error.set_xlim(0.9, 500)
        plain_log_ticks(cost.xaxis)
    else:
        error.set_xlim(0 if longest > 10 else 0.5, 500 if with_paper else longest + (0.5 if longest <= 10 else 0))
        if longest > 10 or with_paper:
            cost.xaxis.set_major_locator(MaxNLocator(integer=True))
        else:
            cost.set_xticks(range(1, longest + 1))
