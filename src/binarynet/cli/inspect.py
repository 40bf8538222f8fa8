"""`binarynet inspect`: what a .bnn file holds, byte by byte, and what it costs to run. Needs no torch."""

from __future__ import annotations

import json as json_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from binarynet.cli._console import print_facts, print_json, printable, stdout
from binarynet.cli._inspect_plan import inspect_plan
from binarynet.cli._options import DeviceName, EngineName, Json, Threads
from binarynet.cli._tables import heading, number_table, print_repetition, sizes
from binarynet.errors import UsageError

if TYPE_CHECKING:
    from rich.console import Console

    from binarynet.analysis import Account, Layer

MOST_IMAGES = 65536
"""Most images of a plan: they are made of noise where it is timed."""
_MANY_CLASSES = 12
_LONGEST_FACT = 160
"""Longer texts are cut; ``--json`` has them whole."""


def inspect(
    model: Annotated[Path, typer.Argument(metavar="MODEL.bnn", help="A packed network.", show_default=False)],
    json: Json = False,
    plan: Annotated[bool, typer.Option("--plan", help="Show how it runs here instead, step by step.")] = False,
    batch: Annotated[
        int | None,
        typer.Option(
            min=1, max=MOST_IMAGES, metavar="N", help="With --plan: for N images; default: 1.", show_default=False
        ),
    ] = None,
    time: Annotated[bool, typer.Option("--time", help="With --plan: run it, and time every step.")] = False,
    engine: EngineName = None,
    device: DeviceName = None,
    threads: Threads = None,
) -> None:
    """Show what a packed network holds, byte by byte: layers, what is binary and what not, operations, energy.

    With --plan: what runs how on this machine at a batch, and why where there is a choice.
    """
    from binarynet.analysis import account
    from binarynet.cli._networks import require_file

    require_file(model)
    if plan:
        inspect_plan(model, batch=batch or 1, threads=threads, engine=engine, device=device, time=time, json=json)
        return
    given = {"--batch": batch, "--time": time or None, "--engine": engine, "--device": device, "--threads": threads}
    alone = [name for name, value in given.items() if value is not None]
    if alone:
        raise UsageError(f"{', '.join(alone)}: say how a network runs, which is shown with --plan")
    found = account(model)
    if json:
        print_json({"model": str(model), **found.to_dict()})
        return
    console = stdout()
    _print_network(console, model, found)
    _print_layers(console, found)
    _print_bytes(console, found)
    _print_not_binary(console, found)
    _print_costs(console, found)
    _print_repetition(console, found)


def _print_network(console: Console, model: Path, found: Account) -> None:
    network = found.network
    facts: dict[str, str | Text] = {
        "file": f"{model}, {found.file_bytes:,} bytes",
        "input": f"{sizes(network.graph.input.shape)}, 8 bits each",
        "output": _output(found),
    }
    facts["pictures"] = _pictures(found)
    for key, value in network.provenance.items():
        text = _value(value, key)
        if text:
            label = printable(key.replace("_", " "))
            facts[f"provenance {label}" if label in facts else label] = text
    print_facts(console, facts)


def _pictures(found: Account) -> str:
    policy, shape = found.network.image_policy, found.network.graph.input.shape
    if policy is not None:
        return _values(policy)
    if len(shape) == 3 and shape[2] in (1, 3):
        size = f"{shape[0]} x {shape[1]} pixels (height x width)"
        return f"no image policy: pictures must have exactly {size}, none of them transparent"
    return "no image policy: only .npy arrays are taken"


def _output(found: Account) -> str:
    output, classes = found.network.graph.output_type, found.network.classes
    if not classes:
        kind = {"f32": "scores", "i32": "integer sums", "bits": "bits", "u8": "8-bit values"}[output.kind]
        return f"{sizes(output.shape)} {kind}"
    names = ", ".join(printable(name) for name in classes[:_MANY_CLASSES])
    more = f" and {len(classes) - _MANY_CLASSES} more" if len(classes) > _MANY_CLASSES else ""
    return f"scores of {len(classes)} classes: {names}{more}"


def _print_layers(console: Console, found: Account) -> None:
    """One row per layer; operations per image."""
    heading(console, "Layers")
    if not found.layers:
        console.print("none")
        return
    table = number_table("layer", "does", "output", "weights", "operations", "inputs", right=("weights", "operations"))
    for item in found.layers:
        layer = item.layer
        table.add_row(
            Text(layer.name),
            _does(layer),
            sizes(layer.output.shape),
            f"{layer.weights:,}",
            f"{layer.macs:,}",
            Text("8-bit", style="yellow") if layer.arithmetic == "8-bit" else "bits",
        )
    total = sum(item.layer.macs for item in found.layers)
    table.add_row("total", "", "", f"{found.num_weights:,}", f"{total:,}", "", style="bold")
    console.print(table)
    binary = found.macs("xnor-popcount")
    console.print(
        f"operations: multiply-accumulates per image; on bits (XNOR and popcount): {100 * binary / total:.1f} %",
        style="dim",
    )


def _does(layer: Layer) -> str:
    """Operations in brief: the kind of layer stands in its name or its window."""
    return ", ".join(
        operation.removeprefix("convolution ").replace("max pool", "pool") for operation in layer.operations
    )


def _print_bytes(console: Console, found: Account) -> None:
    """One row per layer, one column per role of a tensor; the lower right corner is the size of the file."""
    from binarynet.analysis.units import in_ratio

    heading(console, "Bytes in the file")
    columns = ("weights", "thresholds", "other", "bytes", "float32", "ratio")
    table = number_table("part", *columns, right=columns)
    table.add_row("header", "", "", "", f"{found.header_bytes:,}", "", "")
    sums = [0, 0, 0]
    for item in found.layers:
        weights, thresholds = (item.stored_bytes.get(role, 0) for role in ("weights", "thresholds"))
        parts = [weights, thresholds, item.total_bytes - weights - thresholds]
        sums = [total + part for total, part in zip(sums, parts, strict=True)]
        table.add_row(
            Text(item.layer.name),
            *(f"{part:,}" if part else "" for part in parts),
            f"{item.total_bytes:,}",
            f"{item.layer.float32_bytes:,}",
            in_ratio(item.layer.float32_bytes, item.total_bytes),
        )
    table.add_row(
        "sum",
        *(f"{value:,}" for value in sums),
        f"{found.file_bytes:,}",
        f"{found.float32_bytes:,}",
        in_ratio(found.float32_bytes, found.file_bytes),
        style="bold",
    )
    console.print(table)
    console.print(
        f"{' + '.join(f'{value:,}' for value in (found.header_bytes, *sums))} = {found.file_bytes:,} bytes, "
        "the size of the file",
        soft_wrap=True,
    )
    console.print(
        "other: a direction bit per threshold, scale and shift per score; float32: 4 bytes per weight and bias",
        style="dim",
    )


def _print_not_binary(console: Console, found: Account) -> None:
    heading(console, "Not binary")
    reasons = [(item.layer.name, reason) for item in found.layers for reason in item.layer.not_binary]
    if not reasons:
        console.print("nothing")
        return
    table = number_table("", "", header=False)
    for name, reason in reasons:
        table.add_row(Text(name), reason)
    console.print(table)


def _print_costs(console: Console, found: Account) -> None:
    from binarynet.analysis import ASSUMPTIONS
    from binarynet.analysis.units import in_energy, in_ratio

    heading(console, "One image, estimated")
    table = number_table("", "packed", "float32", "ratio", right=("packed", "float32", "ratio"))
    memory, packed, float32 = found.memory, found.energy.packed, found.energy.float32
    table.add_row(
        "activations at a time, bytes",
        f"{memory.packed_bytes:,}",
        f"{memory.float32_bytes:,}",
        in_ratio(memory.float32_bytes, memory.packed_bytes),
    )
    table.add_row(
        "energy, arithmetic",
        in_energy(packed.arithmetic_pj, packed.arithmetic_pj),
        in_energy(float32.arithmetic_pj, float32.arithmetic_pj),
        in_ratio(float32.arithmetic_pj, packed.arithmetic_pj),
    )
    table.add_row(
        "energy, memory",
        in_energy(*packed.memory_pj),
        in_energy(*float32.memory_pj),
        in_ratio(float32.memory_pj[0], packed.memory_pj[0]),
    )
    console.print(table)
    console.print("energy: Horowitz's table for 45 nm, as in the paper. Assumed:", style="dim")
    assumptions = number_table("", "", header=False, padding=1)
    for assumption in ASSUMPTIONS:
        assumptions.add_row("-", assumption, style="dim")
    console.print(assumptions)


def _print_repetition(console: Console, found: Account) -> None:
    heading(console, "Filter repetition")
    if not found.repetition:
        console.print("none to count: this network has no convolutions, and dense layers have no 2D filters")
        return
    print_repetition(console, found.repetition)


def _values(mapping: dict[str, Any]) -> str:
    return ", ".join(f"{printable(key)} {_value(value, key)}" for key, value in mapping.items())


def _value(value: Any, key: str = "") -> str:
    """A JSON value in one line: of an object with a name the name, an error as a percentage; "" where it is empty."""
    if isinstance(value, dict):
        return _value(value["name"]) if isinstance(value.get("name"), str) else _shortened(_values(value))
    if isinstance(value, list):
        return _shortened(", ".join(_value(item) for item in value))
    if isinstance(value, float) and key.endswith("_error") and 0 <= value <= 1:
        return f"{100 * value:.2f} %"
    return _shortened(printable(value if isinstance(value, str) else json_module.dumps(value)))


def _shortened(text: str) -> str:
    return text if len(text) <= _LONGEST_FACT else text[: _LONGEST_FACT - 3] + "..."
