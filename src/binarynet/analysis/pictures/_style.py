"""What all pictures share: colours, sizes, labels that do not overlap, and turning a figure into bytes."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
OURS, OTHER = COLOURS[:2]
PAPER = "0.55"
DOTS_PER_INCH = 160
_EARLY = 0.7
"""Share of the axis: lines that end before it are labelled there, others in the margin."""

_SETTINGS: Any = {
    "font.size": 12,
    "axes.titlesize": 13,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "0.3",
    "xtick.color": "0.3",
    "ytick.color": "0.3",
    "legend.frameon": False,
    "svg.hashsalt": "binarynet",
    "svg.fonttype": "none",
}


@dataclass(frozen=True)
class Picture:
    """A figure and the name of its file, without an ending."""

    name: str
    figure: Figure


@contextmanager
def style() -> Iterator[None]:
    """Matplotlib's settings while pictures are made; as they were afterwards."""
    with matplotlib.rc_context(_SETTINGS):
        yield


def new_figure(width: float, height: float, margin: float = 0.1) -> Figure:
    """An empty figure; all sizes, that of the margin around each of its panels too, in inches."""
    figure = Figure(figsize=(width, height), layout=ConstrainedLayoutEngine(w_pad=margin, h_pad=margin))
    FigureCanvasAgg(figure)
    return figure


def render(figure: Figure, kind: Literal["png", "svg"]) -> bytes:
    """The figure as a file's content; the same figure gives the same bytes."""
    content = io.BytesIO()
    with style():
        figure.savefig(content, format=kind, dpi=DOTS_PER_INCH, metadata={"Date": None} if kind == "svg" else None)
    return content.getvalue()


def spread(positions: Sequence[float], gap: float) -> list[float]:
    """Positions moved as little as needed, in their order, so that neighbours are at least ``gap`` apart."""
    order = sorted(range(len(positions)), key=lambda index: positions[index])
    # Neighbours that collide form a block around their mean; blocks that then collide are joined.
    blocks: list[list[int]] = []
    for index in order:
        blocks.append([index])
        while len(blocks) > 1 and _top(blocks[-2], positions, gap) + gap > _bottom(blocks[-1], positions, gap):
            last = blocks.pop()
            blocks[-1] += last
    moved = [0.0] * len(positions)
    for block in blocks:
        bottom = _bottom(block, positions, gap)
        for place, index in enumerate(block):
            moved[index] = bottom + place * gap
    return moved


def _bottom(block: list[int], positions: Sequence[float], gap: float) -> float:
    return sum(positions[index] for index in block) / len(block) - (len(block) - 1) * gap / 2


def _top(block: list[int], positions: Sequence[float], gap: float) -> float:
    return _bottom(block, positions, gap) + (len(block) - 1) * gap


@dataclass(frozen=True)
class End:
    """Where a line ends, in the units of its axes, and what is written there."""

    x: float
    y: float
    text: str
    colour: str


def label_ends(figure: Figure, axes: Axes, ends: Sequence[End], size: float = 11) -> None:
    """Write beside the end of each line, but not over each other.

    Those that end early are labelled where they do, if the text fits between there and the margin. Limits must be set,
    and the figure drawn once, which settles its layout.
    """
    inches = {end: 0.55 * size / 72 * len(end.text) for end in ends}
    width = figure.get_size_inches()[0] * axes.get_position().width - max(inches.values(), default=0.0)
    gap = 1.3 * size / 72 / (figure.get_size_inches()[1] * axes.get_position().height)
    to_axes = axes.transData + axes.transAxes.inverted()
    columns: dict[float, list[tuple[float, End]]] = {}
    for end in ends:
        x, y = to_axes.transform((end.x, end.y))
        late = x > _EARLY or x + inches[end] / max(width, 0.1) > 1
        columns.setdefault(1.0 if late else round(float(x), 2), []).append((float(y), end))
    for x, column in columns.items():
        heights = spread([y for y, _ in column], gap)
        for height, (_, end) in zip(heights, column, strict=True):
            axes.annotate(
                end.text,
                (x, height),
                xytext=(8, 0),
                xycoords="axes fraction",
                textcoords="offset points",
                color=end.colour,
                fontsize=size,
                va="center",
                annotation_clip=False,
            )


def percent_axis(axes: Axes, values: Sequence[float], label: str) -> None:
    """The vertical axis for percentages: from 0, or logarithmic where they span more than a factor of five."""
    low, high = min(values), max(values)
    if low > 0 and high > 5 * low:
        axes.set_yscale("log")
        axes.set_ylim(low / 1.2, high * 1.2)
        plain_log_ticks(axes.yaxis)
    else:
        axes.set_ylim(0, max(1.08 * high, 1e-6))
    axes.set_ylabel(label)


def plain_log_ticks(axis: matplotlib.axis.Axis) -> None:
    """1, 2, 5, 10, 20, ... (or 1, 10, 100, ... where they are too many) in plain numbers.

    An axis that spans less than a factor of five has a few evenly spaced ones instead.
    """
    low, high = axis.get_view_interval()
    near = high < 5 * low
    axis.set_major_locator(MaxNLocator(4) if near else LogLocator(base=10, subs=(1, 2, 5), numticks=12))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
