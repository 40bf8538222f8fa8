"""What one network of `binarynet reproduce` holds and costs, beside the paper's figures, as text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.text import Text

from binarynet.cli._console import printable
from binarynet.cli._tables import heading, number_table, print_repetition, sizes

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from rich.console import Console

    from binarynet.analysis import Account, Layer
    from binarynet.analysis.energy import Energy
    from binarynet.analysis.filters import FirstLayer
    from binarynet.analysis.reproduction import Subject

_SHOWN_PATTERNS = 10
_WIDEST_PATTERN = 5


def print_networks(console: Console, subjects: Sequence[Subject]) -> None:
    """Memory, energy, operations and filters of each; what is the same for all networks of one shape only once."""
    shown: dict[tuple[Layer, ...], str] = {}
    for subject in subjects:
        heading(console, f"Network {printable(subject.label)} ({printable(subject.source)})")
        if subject.account is None:
            console.print(Text(f"no memory, energy, operations and filters: {printable(subject.left_out)}"))
            continue
        layers = tuple(item.layer for item in subject.account.layers)
        if layers in shown:
            console.print(Text(f"memory, energy and operations: as of {printable(shown[layers])}, the same layers"))
        else:
            shown[layers] = subject.label
            _print_memory(console, subject.account)
            _print_energy(console, subject.account)
            _print_instructions(console, subject)
        _print_filters(console, subject.first_layer)
        if subject.account.repetition:
            console.print()
            print_repetition(console, subject.account.repetition)
            _print_reduction(console, subject.account)
    if shown:
        _print_assumptions(console)


def _print_assumptions(console: Console) -> None:
    from binarynet.analysis import ASSUMPTIONS
    from binarynet.analysis.instructions import VECTOR_WORDS, WORD_CYCLES, WORD_INSTRUCTIONS
    from binarynet.analysis.paper import LANES
    from binarynet.encoding import WORD_BITS

    heading(console, "How energy and operations are counted")
    console.print(
        "energy: with the 45 nm figures of the paper's Tables 2 and 3 (Horowitz 2014); nothing was measured, neither "
        "there nor here. Assumed:",
        style="dim",
    )
    table = number_table("", "", header=False, padding=1)
    for assumption in ASSUMPTIONS:
        table.add_row("-", assumption, style="dim")
    console.print(table)
    console.print(
        f"XNOR-popcount: words of so many bits per image. The paper's processors take {WORD_CYCLES} cycles for the "
        f"{WORD_INSTRUCTIONS} instructions on {LANES} bits, {LANES / WORD_CYCLES:.1f}x fewer than one per MAC. This "
        f"package's engines take words of {WORD_BITS} or {VECTOR_WORDS * WORD_BITS} bits, {WORD_INSTRUCTIONS} "
        f"operations each. The words of {LANES} bits run on from tap to tap of a filter, those of the engines hold the "
        "channels of one tap: where channels are few, an engine can need more words than the paper.",
        style="dim",
    )


def _print_memory(console: Console, found: Account) -> None:
    from binarynet.analysis.paper import MEMORY_RATIO
    from binarynet.analysis.units import in_ratio

    stored = sum(item.stored_bytes.get("weights", 0) for item in found.layers)
    columns = ("float32", "packed", "ratio")
    table = number_table("memory (bytes)", *columns, right=columns)
    for name, before, after in (
        (f"{found.num_weights:,} weights", 4 * found.num_weights, stored),
        ("whole network, as a file", found.float32_bytes, found.file_bytes),
    ):
        table.add_row(name, f"{before:,}", f"{after:,}", in_ratio(before, after))
    accesses = [sum(item.count for item in energy.memory) for energy in (found.energy.float32, found.energy.packed)]
    table.add_row("64-bit accesses per image", *(f"{number:,}" for number in accesses), in_ratio(*accesses))
    table.add_row("the paper, size and accesses", "", "", f"{MEMORY_RATIO}x")
    console.print(table)


def _print_energy(console: Console, found: Account) -> None:
    from binarynet.analysis.units import in_ratio

    console.print()
    columns = ("number", "pJ each", "energy")
    table = number_table("energy per image, estimated", *columns, right=columns)
    packed, float32 = found.energy.packed, found.energy.float32
    _add_energy(table, "float32", float32)
    _add_energy(table, "packed", packed)
    table.add_row(
        "ratio",
        f"arithmetic {in_ratio(float32.arithmetic_pj, packed.arithmetic_pj)}",
        f"memory {in_ratio(float32.memory_pj[0], packed.memory_pj[0])}",
        f"all {in_ratio(float32.total_pj[0], packed.total_pj[0])}",
        style="bold",
    )
    console.print(table)


def _add_energy(table: object, name: str, energy: Energy) -> None:
    from rich.table import Table

    from binarynet.analysis.units import in_energy

    assert isinstance(table, Table)
    table.add_row(name, "", "", in_energy(*energy.total_pj), style="bold")
    for item in (*energy.arithmetic, *energy.memory):
        low, high = item.each_pj
        each = f"{low:g}" if low == high else f"{low:g}-{high:g}"
        what = item.name if item in energy.arithmetic else f"64 bits of {item.name}"
        table.add_row(f"  {what}", f"{item.count:,}", each, in_energy(*item.total_pj))


def _print_instructions(console: Console, subject: Subject) -> None:
    from binarynet.analysis.instructions import total

    assert subject.account is not None
    console.print()
    if not subject.instructions:
        console.print("XNOR-popcount: none, no layer has bits as its input")
        return
    columns = ("MACs", "32-bit", "cycles", "fewer", "64-bit", "512-bit")
    table = number_table("XNOR-popcount", *columns, right=columns)
    everything = total(subject.instructions)
    for count in (*subject.instructions, everything):
        table.add_row(
            Text(count.layer),
            *(f"{value:,}" for value in (count.macs, count.words32, count.cycles)),
            f"{count.speedup:.1f}x",
            *(f"{value:,}" for value in (count.words64, count.vectors512)),
            style="bold" if count is everything else "",
        )
    console.print(table)
    if first := subject.account.macs("8-bit"):
        console.print(f"and {first:,} MACs of the first layer, which add 8-bit inputs instead", style="dim")


def _print_filters(console: Console, layer: FirstLayer | None) -> None:
    from binarynet.analysis.filters import distinct

    if layer is None or layer.kind != "convolution" or layer.bits.shape[3] > _WIDEST_PATTERN:
        return
    patterns, counts = distinct(layer.bits)
    total = int(counts.sum())
    console.print()
    console.print(
        f"Figure 2: first-layer filters {sizes(layer.bits.shape[2:])}, {len(patterns)} distinct of {total:,}; the "
        f"{min(_SHOWN_PATTERNS, len(patterns))} most frequent with the number of their copies (# is +1):"
    )
    table = number_table(*(f"{count}" for count in counts[:_SHOWN_PATTERNS]))
    table.add_row(*(Text(_drawn(pattern)) for pattern in patterns[:_SHOWN_PATTERNS]))
    console.print(table)


def _drawn(pattern: npt.NDArray[np.bool_]) -> str:
    return "\n".join("".join("##" if bit else ".." for bit in row) for row in pattern)


def _print_reduction(console: Console, found: Account) -> None:
    from binarynet.analysis.paper import XNOR_REDUCTION

    def times(shares: list[float]) -> str:
        return f"{len(shares) / sum(shares):.1f}"

    plain = times([item.per_map for item in found.repetition])
    negated = times([item.per_map_negated for item in found.repetition])
    console.print(
        f"XNOR-popcounts if each distinct filter ran once per map: {plain} times fewer, {negated} with negation; the "
        f"paper: {XNOR_REDUCTION} times. No engine here makes use of it.",
        style="dim",
    )
