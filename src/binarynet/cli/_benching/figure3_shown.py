"""The paper's Figure 3 for this processor as text, JSON and picture."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rich.text import Text

from binarynet.analysis.paper import MLP_SPEEDUP, PRODUCT_SIZE, PRODUCT_SPEEDUP
from binarynet.cli._benching.figure3 import Bar, Figure3, Figure3Network
from binarynet.cli._benching.text import figure, peak_note, print_absences, share, times
from binarynet.cli._console import percent, plain_table

if TYPE_CHECKING:
    from rich.console import Console

    from binarynet.analysis.pictures._style import Picture

KERNELS = {
    "baseline": "baseline kernel: plain float32, one dot product after the other",
    "blas": "float32 BLAS",
    "blas, TF32": "float32 BLAS, operands rounded to TF32",
    "bf16": "bfloat16 BLAS",
    "int8": "int8 BLAS",
    "xnor": "XNOR kernel, operands packed",
    "xnor, packing": "XNOR kernel, both operands packed first",
}
NOTES = (
    "time: {clock} for the whole task, median over the rounds; XNOR is faster: median of the ratios within each round; "
    "with packing: the same where XNOR packs both operands first. "
    "Where not all rows were timed, the time is scaled to all of them. The product's operands are +1 and -1, its sums "
    "come out as int32; everybody's results were compared and are equal. The paper's times include packing both "
    "operands, weights too, at every call. The network goes from 8-bit images to scores; its first layer is 8-bit for "
    "everybody (the paper computes it by its baseline kernel)."
)
NOTES_OF_GPU = (
    "On the GPU, operands, images, results and scores lie in its memory. bfloat16 products store their sums in eight "
    "bits, which was allowed for; in the network they are stored as float32."
)


def to_dict(start: dict[str, Any], found: Figure3) -> dict[str, Any]:
    """Plain JSON values; times in seconds."""
    tasks: list[dict[str, Any]] = [
        {"name": product.name, "kernels": _kernels(product.bars)} for product in found.products
    ]
    if found.network is not None:
        network = found.network
        images = len(network.split)
        name = f"network {_widths(network)}, {images:,} images"
        tasks.append({"name": name, "file": network.name, "images": images, "kernels": _kernels(found.mlp)})
    return {**start, "absent": [asdict(absence) for absence in found.absent], "tasks": tasks}


def _widths(network: Figure3Network) -> str:
    return "-".join(map(str, network.layers.widths))


def _kernels(bars: tuple[Bar, ...]) -> list[dict[str, Any]]:
    return [
        {
            "kernel": bar.kernel,
            "library": bar.library,
            "seconds": asdict(bar.seconds),
            "xnor_is_faster": asdict(bar.speedup),
            "xnor_with_packing_is_faster": asdict(bar.speedup_packing) if bar.speedup_packing is not None else None,
            "rows_timed": bar.rows,
            "share_of_peak": asdict(bar.peak_share) if bar.peak_share is not None else None,
            "wrong": bar.wrong,
        }
        for bar in bars
    ]


def print_figure(console: Console, found: Figure3, machine: dict[str, Any]) -> None:
    """One table for each product, one for the network."""
    print_absences(console, found.absent)
    for product in found.products:
        _print(console, product.name, product.bars, 0)
    if found.network is not None:
        images = len(found.network.split)
        _print(console, f"network {_widths(found.network)}, {images:,} images", found.mlp, images)
    console.print()
    notes = NOTES.format(clock=machine["clock"]) + (f" {NOTES_OF_GPU} {peak_note(machine)}" if machine["gpu"] else "")
    console.print(Text(notes, style="dim"), width=min(console.width, 100))


def _print(console: Console, title: str, bars: tuple[Bar, ...], images: int) -> None:
    columns = ["time, s", "range", "XNOR is faster", "error" if images else "with packing", "rows timed"]
    peak = any(bar.peak_share is not None for bar in bars)
    columns += ["of peak"] if peak else []
    table = plain_table(title, "by", *columns, right=columns)
    for bar in bars:
        cells = [
            f"{bar.seconds.median:.3g}",
            f"{bar.seconds.low:.3g} - {bar.seconds.high:.3g}",
            "1" if bar.kernel == "xnor" else times(bar.speedup.median),
            percent(bar.wrong / images) if bar.wrong is not None else _with_packing(bar),
            "all" if bar.rows is None else f"{bar.rows:,}, scaled",
            *([share(bar.peak_share)] if peak else []),
        ]
        table.add_row(Text(KERNELS[bar.kernel], style="bold" if bar.kernel == "xnor" else ""), bar.library, *cells)
    console.print()
    console.print(table)


def _with_packing(bar: Bar) -> str:
    if bar.speedup_packing is None:
        return ""
    return "1" if bar.kernel == "xnor, packing" else times(bar.speedup_packing.median)


def picture(found: Figure3, machine: dict[str, Any], threads: int) -> Picture:
    """Times of both tasks and the error, as far as they were measured; of several products, the paper's or the last."""
    from binarynet.analysis.pictures.figure3 import Panel
    from binarynet.analysis.pictures.figure3 import picture as draw

    product = next((each for each in found.products if each.size == PRODUCT_SIZE), found.products[-1])
    size, bars = product.size, _drawn(product.bars)
    paper = PRODUCT_SPEEDUP
    columns, unit = _columns(bars)
    notes = [
        "in brackets: how much faster XNOR + packing is",
        f"paper, GTX 750, packing included: {paper['baseline']:.0f}x, {paper['blas']:g}x",
        *_scaled(bars, size),
    ]
    panels = [Panel(f"Product {size} x {size} x {size}", unit, columns, "\n".join(notes))]
    if found.network is not None:
        images = len(found.network.split)
        count = f"{images:,} images"
        mlp = _drawn(found.mlp)
        columns, unit = _columns(mlp)
        notes = [
            "in brackets: how much faster XNOR is, weights packed",
            f"paper, GTX 750, packing included: {MLP_SPEEDUP['baseline']:.0f}x",
            *_scaled(mlp, images),
        ]
        panels.append(Panel(f"Network {_widths(found.network)}", f"{unit} for {count}", columns, "\n".join(notes)))
        panels.append(Panel("Test error", f"% of {count}", tuple(_errors(mlp, images))))
    plural = "" if threads == 1 else "s"
    place = machine["gpu"]["name"] if machine["gpu"] else f"{machine['processor']}, {threads} thread{plural}"
    footnote = (
        "baseline: plain float32, one dot product after the other, without BLAS. float BLAS: "
        f"{_library(bars, 'blas')}. XNOR: {_library(bars, 'xnor')}; packing: of both operands, at every call. All "
        "give the same integers and scores."
    )
    return draw(panels, f"The paper's Figure 3 on {place}", footnote)


def _drawn(bars: tuple[Bar, ...]) -> tuple[Bar, ...]:
    """The kernels that the paper's figure has."""
    from binarynet.analysis.pictures.figure3 import COLOURS

    return tuple(bar for bar in bars if bar.kernel in COLOURS)


def _library(bars: tuple[Bar, ...], kernel: str) -> str:
    return next((bar.library for bar in bars if bar.kernel == kernel), "absent")


def _scaled(bars: tuple[Bar, ...], rows: int) -> list[str]:
    """What is to be said of bars that were timed in part."""
    return [f"{bar.kernel}: {bar.rows:,} of {rows:,} rows timed, scaled" for bar in bars if bar.rows is not None]


def _columns(bars: tuple[Bar, ...]) -> tuple[tuple[Any, ...], str]:
    """Their heights in one unit, which is named."""
    from binarynet.analysis.pictures.figure3 import Column

    _, unit, in_seconds = _unit(max(bar.seconds.median for bar in bars))
    return tuple(Column(bar.kernel, bar.seconds.median / in_seconds, _above(bar)) for bar in bars), unit


def _above(bar: Bar) -> str:
    """Its time; beside floats, how many times faster XNOR is, which packs first wherever that was measured."""
    time = duration(bar.seconds.median)
    if bar.kernel.startswith("xnor"):
        return time
    speedup = bar.speedup if bar.speedup_packing is None else bar.speedup_packing
    return f"{time}\n({times(speedup.median)}x)"


def duration(seconds: float) -> str:
    """Three significant digits: 95.1 us, 1.52 ms, 3.06 s."""
    short, _, in_seconds = _unit(seconds)
    return f"{figure(seconds / in_seconds)} {short}"


def _unit(seconds: float) -> tuple[str, str, float]:
    """The unit for a time: short, in full, in seconds."""
    if seconds >= 1:
        return "s", "seconds", 1.0
    return ("ms", "milliseconds", 1e-3) if seconds >= 1e-3 else ("us", "microseconds", 1e-6)


def _errors(bars: tuple[Bar, ...], images: int) -> Iterator[Any]:
    from binarynet.analysis.pictures.figure3 import Column

    for bar in bars:
        if bar.wrong is not None:
            share = 100 * bar.wrong / images
            yield Column(bar.kernel, share, f"{share:.2f} %")
