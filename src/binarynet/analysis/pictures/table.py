"""Table 1 as a picture: the paper's test errors in grey, one's own in colour."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from binarynet.analysis import paper
from binarynet.analysis.pictures._style import OURS, PAPER, new_figure, plain_log_ticks
from binarynet.analysis.table import Result

_LOGARITHMIC = 4
"""Errors that span more than such a factor are shown on a logarithmic axis."""


@dataclass(frozen=True)
class _Row:
    name: str
    errors: dict[str, tuple[float, float | None]]
    """Data set to (percent, spread)."""
    ours: bool
    filled: bool


def draw(results: Sequence[Result]) -> Figure:
    """One panel per data set, one row per method; own results follow the row that they belong to."""
    rows = _rows(results)
    figure = new_figure(13, 1.6 + 0.36 * len(rows), margin=0.12)
    title = "Test error (%): the paper's Table 1" + (" and own runs" if any(row.ours for row in rows) else "")
    figure.suptitle(title, x=0.01, ha="left", fontweight="bold")
    panels = figure.subplots(1, len(paper.DATA_NAMES), sharey=True)
    for axes, (data, name) in zip(panels, paper.DATA_NAMES.items(), strict=True):
        _panel(axes, rows, data)
        axes.set_title(name)
    panels[0].set_yticks(range(len(rows)), [row.name for row in rows])
    for text, row in zip(panels[0].get_yticklabels(), rows, strict=True):
        text.set_color(OURS if row.ours else "0.3")
        text.set_fontweight("bold" if row.ours else "normal")
    panels[0].invert_yaxis()
    if any(row.ours for row in rows):
        note = "filled: by the paper's recipe; open: shorter, narrower or altered, not the paper's cell"
        figure.supxlabel(note, x=0.01, ha="left", fontsize=10, color="0.4")
    return figure


def _rows(results: Sequence[Result]) -> list[_Row]:
    rows = []
    for published in paper.TABLE_1:
        rows.append(_Row(published.method, dict(published.errors), ours=False, filled=True))
        for number, result in enumerate(results, start=1):
            if result.experiment is not None and result.experiment.setting == published.setting:
                spread = None if result.deviation is None else 100 * result.deviation
                errors = {result.experiment.data: (100 * result.mean, spread)}
                rows.append(_Row(f"own [{number}] {result.name}", errors, ours=True, filled=result.by_the_paper))
    return rows


def _panel(axes: Axes, rows: Sequence[_Row], data: str) -> None:
    shown = [(place, row, *row.errors[data]) for place, row in enumerate(rows) if data in row.errors]
    for place, row, percent, spread in shown:
        colour = OURS if row.ours else PAPER
        axes.errorbar(
            percent,
            place,
            xerr=spread or None,
            fmt="o",
            color=colour,
            markerfacecolor=colour if row.filled else "white",
            markeredgewidth=1.6,
            markersize=8 if row.ours else 6,
            elinewidth=1,
        )
        text = f"{percent:.2f}" if spread is None else f"{percent:.2f} \N{PLUS-MINUS SIGN} {spread:.2f}"
        axes.annotate(
            text,
            (percent + (spread or 0), place),
            xytext=(9, 0),
            textcoords="offset points",
            va="center",
            color=colour,
            fontsize=11,
        )
    values = [percent for _, _, percent, _ in shown]
    low, high = min(values), max(values)
    if high > _LOGARITHMIC * low:
        axes.set_xscale("log")
        left, last = low / 1.15, min(100, 1.25 * high)
        axes.set_xlim(left, high * (high / low) ** 0.5 * 1.25)  # beyond the scale's end is room for the numbers
        plain_log_ticks(axes.xaxis)
        axes.set_xticks([tick for tick in axes.get_xticks() if left <= tick <= last])
        axes.spines["bottom"].set_bounds(left, last)
    else:
        axes.set_xlim(low - 0.1 * (high - low), high + 0.55 * (high - low))
    axes.set_ylim(-0.6, len(rows) - 0.4)
    axes.grid(axis="y", alpha=0.15)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
