"""The paper's Figure 3 for one's own processor: three kernels, two tasks, one error."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes

from binarynet.analysis.pictures._style import OTHER, OURS, Picture, new_figure, style

BASELINE = "0.72"
PACKING = "#88B8DA"
COLOURS = {"baseline": BASELINE, "blas": OTHER, "xnor": OURS, "xnor, packing": PACKING}
"""Of each kernel."""
NAMES = {"baseline": "baseline", "blas": "float BLAS", "xnor": "XNOR", "xnor, packing": "XNOR +\npacking"}


@dataclass(frozen=True)
class Column:
    """One bar: the kernel (a key of COLOURS), its height, and what stands above it."""

    kernel: str
    height: float
    text: str


@dataclass(frozen=True)
class Panel:
    """Some columns on one linear scale; ``note`` says what the paper has."""

    title: str
    unit: str
    columns: tuple[Column, ...]
    note: str = ""


def picture(panels: Sequence[Panel], title: str, footnote: str) -> Picture:
    """The panels side by side.

    Args:
        panels: times, and the error.
        title: what was measured where.
        footnote: what the kernels are.
    """
    with style():
        figure = new_figure(4.6 * len(panels) + 0.4, 5.2, margin=0.15)
        figure.suptitle(title, x=0.01, ha="left", fontweight="bold")
        for axes, panel in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
            _draw(axes, panel)
        figure.supxlabel(footnote, x=0.01, ha="left", fontsize=10, color="0.4")
        return Picture("figure3", figure)


def _draw(axes: Axes, panel: Panel) -> None:
    places = range(len(panel.columns))
    heights = [column.height for column in panel.columns]
    axes.bar(places, heights, color=[COLOURS[column.kernel] for column in panel.columns], width=0.62)
    for place, column in zip(places, panel.columns, strict=True):
        axes.annotate(
            column.text, (place, column.height), xytext=(0, 4), textcoords="offset points", ha="center", va="bottom"
        )
    axes.set_xticks(places, [NAMES[column.kernel] for column in panel.columns])
    axes.tick_params(axis="x", length=0)
    axes.set_ylim(0, 1.22 * max(heights) if max(heights) > 0 else 1)
    axes.set_ylabel(panel.unit)
    axes.set_title(panel.title)
    if panel.note:
        axes.annotate(panel.note, (1.0, 1.0), xycoords="axes fraction", ha="right", va="top", fontsize=10, color="0.4")
