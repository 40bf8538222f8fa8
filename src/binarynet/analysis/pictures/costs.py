"""What one image costs, packed and in float32: memory, energy, instructions."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from binarynet.analysis.account import Account
from binarynet.analysis.instructions import WORD_CYCLES, WORD_INSTRUCTIONS, Instructions, total
from binarynet.analysis.paper import LANES, MEMORY_RATIO
from binarynet.analysis.pictures._style import OURS, PAPER, new_figure
from binarynet.analysis.units import in_bytes, in_count, in_energy, in_ratio

FLOAT32 = "0.72"
_Bar = tuple[str, float, str, str]
"""Name, length, what stands at its end, colour."""


def draw(found: Account, counts: Sequence[Instructions], label: str) -> Figure:
    """Four panels of bars, each on its own linear scale.

    Args:
        found: account of the packed file.
        counts: its layers that run on bits.
        label: names the network.
    """
    figure = new_figure(12, 6.6, margin=0.15)
    figure.suptitle(f"{label}: one image, packed and in float32", x=0.01, ha="left", fontweight="bold")
    (size, instructions), (arithmetic, memory) = figure.subplots(2, 2)
    packed, float32 = found.energy.packed, found.energy.float32

    _bars(
        size,
        f"Size: {in_ratio(found.float32_bytes, found.file_bytes)} smaller",
        [
            ("float32", found.float32_bytes, in_bytes(found.float32_bytes), FLOAT32),
            ("packed file", found.file_bytes, in_bytes(found.file_bytes), OURS),
        ],
    )
    _reference(size, found.float32_bytes / MEMORY_RATIO, f"paper: {MEMORY_RATIO}x")
    _bars(
        arithmetic,
        f"Energy of arithmetic (estimate): {in_ratio(float32.arithmetic_pj, packed.arithmetic_pj)} less",
        [
            ("float32", float32.arithmetic_pj, _energy(float32.arithmetic_pj, float32.arithmetic_pj), FLOAT32),
            ("packed", packed.arithmetic_pj, _energy(packed.arithmetic_pj, packed.arithmetic_pj), OURS),
        ],
    )
    _bars(
        memory,
        f"Energy of memory (estimate): {in_ratio(float32.memory_pj[0], packed.memory_pj[0])} less",
        [
            ("float32", float32.memory_pj[1], _energy(*float32.memory_pj), FLOAT32),
            ("packed", packed.memory_pj[1], _energy(*packed.memory_pj), OURS),
        ],
    )
    _instructions(instructions, total(tuple(counts)))
    figure.supxlabel(
        "Energy: 45 nm figures of the paper's Tables 2 and 3, estimated from operations and accesses, not measured. "
        f"Cycles: the paper's,\n{WORD_CYCLES} for {LANES} lanes, which run on from tap to tap of a filter; words of 64 "
        "bits and more are the engines' and hold the channels of one tap,\nso few channels take more of them.",
        x=0.01,
        ha="left",
        fontsize=10,
        color="0.4",
    )
    return figure


def _energy(low_pj: float, high_pj: float) -> str:
    return in_energy(low_pj, high_pj).replace("uJ", "\N{MICRO SIGN}J").replace("-", "\N{EN DASH}")


def _instructions(axes: Axes, count: Instructions) -> None:
    if not count.macs:
        axes.set_axis_off()
        axes.set_title("No layer runs on bits alone")
        return
    _bars(
        axes,
        f"Layers on bits: {in_ratio(count.macs, count.cycles)} fewer cycles",
        [
            ("multiply-adds", count.macs, in_count(count.macs), FLOAT32),
            *(
                (name, WORD_INSTRUCTIONS * words, in_count(WORD_INSTRUCTIONS * words), OURS)
                for name, words in (
                    (f"{LANES}-lane words", count.words32),
                    ("64-bit words", count.words64),
                    ("512-bit vectors", count.vectors512),
                )
            ),
        ],
    )
    axes.set_xlabel("operations: XNOR, popcount, add for each word", fontsize=10, color="0.4", loc="left")


def _bars(axes: Axes, title: str, bars: Sequence[_Bar]) -> None:
    names, lengths, texts, colours = zip(*bars, strict=True)
    places = range(len(bars))
    axes.barh(places, lengths, color=colours, height=0.62)
    for place, length, text in zip(places, lengths, texts, strict=True):
        axes.annotate(text, (length, place), xytext=(6, 0), textcoords="offset points", va="center")
    axes.set_yticks(places, names)
    axes.tick_params(axis="y", length=0)
    axes.invert_yaxis()
    axes.set_xlim(0, 1.4 * max(lengths))
    axes.set_xticks([])
    axes.spines["bottom"].set_visible(False)
    axes.set_title(title)


def _reference(axes: Axes, value: float, text: str) -> None:
    axes.axvline(value, color=PAPER, linewidth=0.9, linestyle=(0, (6, 4)), zorder=0)
    axes.annotate(text, (value, 0.5), xytext=(5, 0), textcoords="offset points", color=PAPER, fontsize=10, va="center")
