"""The paper's Figure 3 for this processor as text, JSON and picture."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rich.text import Text

from binarynet.analysis.paper import MLP_SPEEDUP, PRODUCT_SPEEDUP
from binarynet.cli._benching.figure3 import Bar, Figure3, Figure3Network
from binarynet.cli._benching.text import times
from binarynet.cli._console import percent, plain_table

if TYPE_CHECKING:
    from rich.console import Console

    from binarynet.analysis import Spread
    from binarynet.analysis.pictures._style import Picture

KERNELS = {
    "baseline": "baseline kernel: plain float32, one dot product after the other",
    "blas": "float32 BLAS",
    "xnor": "XNOR kernel, operands packed",
    "xnor, packing": "XNOR kernel, both operands packed first",
}
NOTES = (
    "time: {clock} for the whole task, median over the rounds; XNOR is faster: median of the ratios within each round. "
    "Where not all rows were timed, the time is scaled to all of them. The product's operands are +1 and -1, its sums "
    "come out as int32; everybody's results were compared and are equal. The paper's times include packing both "
    "operands, weights too, at every call. The network goes from 8-bit images to scores; its first layer is 8-bit for "
    "everybody (the paper computes it by its baseline kernel)."
)


def to_dict(start: dict[str, Any], found: Figure3) -> dict[str, Any]:
    """Plain JSON values; times in seconds."""
    tasks: list[dict[str, Any]] = [
        {"name": f"product {found.size} x {found.size} x {found.size}", "kernels": _kernels(found.product)}
    ]
    if found.network is not None:
        network = found.network
        images = len(network.split)
        name = f"network {_widths(network)}, {images:,} images"
        tasks.append({"name": name, "file": network.name, "images": images, "kernels": _kernels(found.mlp)})
    return {**start, "tasks": tasks}


def _widths(network: Figure3Network) -> str:
    return "-".join(map(str, network.layers.widths))


def _kernels(bars: tuple[Bar, ...]) -> list[dict[str, Any]]:
    return [
        {
            "kernel": bar.kernel,
            "library": bar.library,
            "seconds": asdict(bar.seconds),
            "xnor_is_faster": asdict(bar.speedup),
            "rows_timed": bar.rows,
            "wrong": bar.wrong,
        }
        for bar in bars
    ]


def print_figure(console: Console, found: Figure3, clock: str) -> None:
    """One table for the product, one for the network."""
    _print(console, f"product {found.size} x {found.size} x {found.size}", found.product, 0)
    if found.network is not None:
        images = len(found.network.split)
        _print(console, f"network {_widths(found.network)}, {images:,} images", found.mlp, images)
    console.print()
    console.print(Text(NOTES.format(clock=clock), style="dim"), width=min(console.width, 100))


def _print(console: Console, title: str, bars: tuple[Bar, ...], images: int) -> None:
    columns = ("time, s", "range", "XNOR is faster", "rows timed", *(("error",) if images else ()))
    table = plain_table(title, "by", *columns, right=columns)
    for bar in bars:
        cells = [
            f"{bar.seconds.median:.3g}",
            f"{bar.seconds.low:.3g} - {bar.seconds.high:.3g}",
            "1" if bar.kernel == "xnor" else times(bar.speedup.median),
            "all" if bar.rows is None else f"{bar.rows:,}, scaled",
        ]
        if bar.wrong is not None:
            cells.append(percent(bar.wrong / images))
        table.add_row(Text(KERNELS[bar.kernel], style="bold" if bar.kernel == "xnor" else ""), bar.library, *cells)
    console.print()
    console.print(table)


def picture(found: Figure3, processor: str, threads: int) -> Picture:
    """Times of both tasks and the error, as far as they were measured."""
    from binarynet.analysis.pictures.figure3 import Panel
    from binarynet.analysis.pictures.figure3 import picture as draw

    size = found.size
    paper = PRODUCT_SPEEDUP
    panels = [
        Panel(
            f"Product {size} x {size} x {size}",
            "seconds",
            _columns(found.product),
            f"paper, GTX 750: {paper['baseline']:.0f}x, {paper['blas']:g}x",
        )
    ]
    if found.network is not None:
        images = len(found.network.split)
        count = f"{images:,} images"
        panels.append(
            Panel(
                f"Network {_widths(found.network)}",
                f"seconds for {count}",
                _columns(found.mlp),
                f"paper, GTX 750: {MLP_SPEEDUP['baseline']:.0f}x",
            )
        )
        panels.append(Panel("Test error", f"% of {count}", tuple(_errors(found.mlp, images))))
    plural = "" if threads == 1 else "s"
    scaled = " (part of the rows timed, scaled)" if any(bar.rows for bar in (*found.product, *found.mlp)) else ""
    footnote = (
        f"baseline: plain float32, one dot product after the other, without BLAS{scaled}. float BLAS: "
        f"{found.product[1].library}.\nXNOR: {found.product[2].library}, operands packed. In brackets: how many times "
        "faster XNOR is. All give the same integers and scores."
    )
    return draw(panels, f"The paper's Figure 3 on {processor}, {threads} thread{plural}", footnote)


def _columns(bars: tuple[Bar, ...]) -> tuple[Any, ...]:
    from binarynet.analysis.pictures.figure3 import Column

    return tuple(Column(bar.kernel, bar.seconds.median, _above(bar.kernel, bar.seconds, bar.speedup)) for bar in bars)


def _above(kernel: str, seconds: Spread, speedup: Spread) -> str:
    ratio = "" if kernel.startswith("xnor") else f"\n({times(speedup.median)}x)"
    return f"{seconds.median:.3g} s{ratio}"


def _errors(bars: tuple[Bar, ...], images: int) -> Iterator[Any]:
    from binarynet.analysis.pictures.figure3 import Column

    for bar in bars:
        if bar.wrong is not None:
            share = 100 * bar.wrong / images
            yield Column(bar.kernel, share, f"{share:.2f} %")
