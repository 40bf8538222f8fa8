"""`binarynet evaluate`: the error of a trained run, or of a packed network (then torch is not needed)."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from binarynet.cli._console import percent, print_facts, print_json, printable, stdout
from binarynet.cli._networks import is_run
from binarynet.cli._options import DataDir, DatasetName, DeviceName, EngineName, Json, Threads
from binarynet.errors import UsageError


class Part(StrEnum):
    """Parts of a data set."""

    test = "test"
    validation = "validation"
    train = "train"


def evaluate(
    network: Annotated[
        Path, typer.Argument(metavar="RUN_OR_FILE", help="A run's folder, or a .bnn file.", show_default=False)
    ],
    data: DataDir = None,
    dataset: DatasetName = None,
    split: Annotated[Part, typer.Option(help="Part of the data set.")] = Part.test,
    json: Json = False,
    engine: EngineName = None,
    device: DeviceName = None,
    threads: Threads = None,
) -> None:
    """Measure the error of a trained run or of a packed network."""
    if is_run(network):
        if engine is not None:
            raise UsageError("--engine is for .bnn files; a run is evaluated by torch")
        if device is not None:
            raise UsageError("--device is for .bnn files; a run is evaluated by torch, on a GPU where it finds one")
        from binarynet.cli._runs import evaluation_facts

        facts = evaluation_facts(network, data, dataset, split.value, threads)
    else:
        import binarynet
        from binarynet.cli._packed import facts as packed_facts
        from binarynet.cli._packed import load_data

        model = binarynet.load(network, engine=engine, num_threads=threads, device=device)
        facts = packed_facts(model, network, load_data(model, network, dataset, data), split.value)
    if json:
        print_json(facts)
    else:
        _show(facts)


def _show(facts: dict[str, Any]) -> None:
    speed = f", {facts['images_per_second']:,.0f} images/s" if "images_per_second" in facts else ""
    print_facts(
        stdout(),
        {
            f"{facts['split']} error": f"{percent(facts['error'])}  ({facts['wrong']:,} of {facts['images']:,} wrong)",
            "data": printable(facts["dataset"]),
            "engine": f"{facts['engine']}, {_where(facts)}",
            "time": f"{facts['seconds']:.3g} s{speed}",
        },
    )


def _where(facts: dict[str, Any]) -> str:
    if facts.get("device", "cpu") != "cpu":
        return str(facts["device"])
    threads = facts["threads"]
    return f"{threads} thread{'' if threads == 1 else 's'}"
