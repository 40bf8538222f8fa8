"""Tables that several commands print."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from rich.text import Text

from binarynet.cli._console import plain_table

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from binarynet.analysis import FilterRepetition


def number_table(*columns: str, right: Sequence[str] = (), header: bool = True, padding: int = 2) -> Table:
    """A plain table whose numbers (columns named in ``right``) are never folded."""
    table = plain_table(*columns, right=right)
    table.show_header = header
    table.padding = (0, padding, 0, 0)
    for column in table.columns:
        column.no_wrap = column.justify == "right"
    return table


def heading(console: Console, text: str) -> None:
    """A line in bold, with an empty one before it. The text is plain, whatever brackets it holds."""
    console.print()
    console.print(Text(text, style="bold"))


def sizes(shape: Sequence[int]) -> str:
    """(3, 4) as "3x4"."""
    return "x".join(map(str, shape))


def print_repetition(console: Console, found: Sequence[FilterRepetition]) -> None:
    """Shares of distinct filters, one row per convolution (at least one), and their means."""
    from binarynet.analysis.paper import UNIQUE_FILTERS

    shares: tuple[Callable[[FilterRepetition], float], ...] = (
        lambda item: item.per_map,
        lambda item: item.per_map_negated,
        lambda item: item.random_per_map,
        lambda item: item.random_per_map_negated,
        lambda item: item.whole,
        lambda item: item.whole_negated,
    )
    columns = ("per map", "+-", "random", "+-", "layer", "+-")
    table = number_table("", "filters", *columns, right=columns)
    for item in found:
        filters = f"{item.filters} on {item.maps} maps, {sizes(item.kernel)}"
        table.add_row(Text(item.layer), filters, *(_percent(share(item)) for share in shares))
    means = (_percent(statistics.fmean(share(item) for item in found)) for share in shares)
    table.add_row("mean", "", *means, style="bold")
    console.print(table)
    console.print(
        "distinct 2D filters, of those on one input map (random: what random filters would give) and of those in the "
        f"layer; +-: a filter and its negation count once. The paper has {100 * UNIQUE_FILTERS:.0f}% for its CIFAR-10 "
        "network, the measure not being defined.",
        style="dim",
    )


def _percent(share: float) -> str:
    return f"{100 * share:.1f}%"
