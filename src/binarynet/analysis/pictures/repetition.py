"""Filter repetition: how many of a convolution's two-dimensional filters are distinct, layer by layer."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import Figure

from binarynet.analysis.paper import UNIQUE_FILTERS
from binarynet.analysis.pictures._style import COLOURS, OTHER, OURS, PAPER, End, label_ends, new_figure
from binarynet.analysis.repetition import FilterRepetition

_ASIDE = 0.1
"""So much beside one another the three markers of a layer stand, which may be equal."""


def draw(found: Sequence[FilterRepetition], label: str) -> Figure:
    """Shares of distinct filters of each layer, what random filters would give, and the paper's figure.

    Args:
        found: one entry per convolution, at least one.
        label: names the network.
    """
    figure = new_figure(10, 5.6)
    axes = figure.subplots()
    places = list(range(len(found)))
    half = 0.28
    for place, item in zip(places, found, strict=True):
        for random in (item.random_per_map, item.random_per_map_negated):
            axes.plot([place - half, place + half], [100 * random] * 2, color=PAPER, linewidth=1.2, zorder=1)
    series = (
        ([item.per_map for item in found], OURS, "o", "per input map"),
        ([item.per_map_negated for item in found], OTHER, "s", "per map, \N{PLUS-MINUS SIGN} as one"),
        ([item.whole for item in found], COLOURS[2], "^", "whole layer"),
    )
    ends = []
    for (shares, colour, marker, name), aside in zip(series, (-_ASIDE, 0.0, _ASIDE), strict=True):
        percent = [100 * share for share in shares]
        beside = [place + aside for place in places]
        axes.plot(beside, percent, color=colour, marker=marker, markersize=7, linewidth=1, linestyle=(0, (1, 2)))
        ends.append(End(places[-1], percent[-1], name, colour))
    axes.axhline(100 * UNIQUE_FILTERS, color=PAPER, linewidth=0.8, linestyle=(0, (6, 4)), zorder=1)
    text = f"paper, CIFAR-10: {100 * UNIQUE_FILTERS:.0f} % (it does not say of what)"
    ends.append(End(places[-1] + 0.5, 100 * UNIQUE_FILTERS, text, PAPER))
    axes.set_xticks(places, [f"{item.layer}\n{item.filters}\non {item.maps}" for item in found])
    axes.set_xlim(-0.5, len(found) - 0.5)
    axes.set_ylim(0, 105)
    axes.set_ylabel("distinct (%)")
    axes.set_title(f"{label}: distinct two-dimensional filters")
    axes.set_xlabel(
        "layer, filters on input maps; grey bars: random filters (lower: \N{PLUS-MINUS SIGN} as one)",
        fontsize=10,
        color="0.4",
    )
    figure.canvas.draw()
    label_ends(figure, axes, ends)
    return figure
