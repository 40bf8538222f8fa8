"""The paper's Figure 3 for one's own processor: three kernels, two tasks, one error."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes

from binarynet.analysis.pictures._style import OTHER, OURS, Picture, new_figure, style

BASELINE = "0.72"
PACKING = "#88B8DA"
COLOURS = {"baseline": BASELINE, "blas": OTHER, "xnor": OURS, "xnor, packing": PACKING}
"""Of each kernel."""
NOTE_POINTS = 9
TITLE_LETTERS, FOOTNOTE_LETTERS = 7.0, 11.5
"""That fit into an inch."""
NAMES = {"baseline": "baseline", "blas": "float\nBLAS", "xnor": "XNOR", "xnor, packing": "XNOR +\npacking"}


@dataclass(frozen=True)
class Column:
    """One bar: the kernel (a key of COLOURS), its height, and what stands above it."""

    kernel: str
    height: float
    text: str


@dataclass(frozen=True)
class Panel:
    """Some columns on one linear scale; ``note``, lines below the title, says what the paper has."""

    title: str
    unit: str
    columns: tuple[Column, ...]
    note: str = ""


def picture(panels: Sequence[Panel], title: str, footnote: str) -> Picture:
    """The panels side by side.

    Args:
        panels: times, and the error.
        title: what was measured where.
        footnote: what the kernels are; broken into lines here, like the title.
    """
    with style():
        width = 4.6 * len(panels) + 0.4
        figure = new_figure(width, 5.6, margin=0.15)
        figure.suptitle(textwrap.fill(title, int(TITLE_LETTERS * width)), x=0.01, ha="left", fontweight="bold")
        lines = max(len(panel.note.splitlines()) for panel in panels)
        for axes, panel in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
            _draw(axes, panel, lines)
        footnote = textwrap.fill(footnote, int(FOOTNOTE_LETTERS * width))
        figure.supxlabel(footnote, x=0.01, ha="left", fontsize=10, color="0.4")
        return Picture("figure3", figure)


def _draw(axes: Axes, panel: Panel, note_lines: int) -> None:
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
    # Below the title, not in the axes, where a label may stand; all titles at the same height.
    axes.set_title(panel.title, pad=8 + 1.3 * NOTE_POINTS * note_lines)
    if panel.note:
        axes.annotate(
            panel.note,
            (0.0, 1.0),
            xytext=(0, 4),
            xycoords="axes fraction",
            textcoords="offset points",
            ha="left",
            va="bottom",
            fontsize=NOTE_POINTS,
            color="0.4",
        )
