"""`binarynet pack`: a trained run as a .bnn file, proved equal on the way."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.text import Text

from binarynet.cli._console import plain_table, print_json, stdout
from binarynet.cli._networks import is_run
from binarynet.cli._options import Json
from binarynet.errors import UsageError

FLOAT32_BYTES = 4
_BUNDLED = "digits"
"""The data set that is found without being told where."""


def pack(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run's folder.", show_default=False)],
    out: Annotated[
        Path | None,
        typer.Option("-o", "--out", metavar="FILE.bnn", help="Default: RUN/model.bnn.", show_default=False),
    ] = None,
    json: Json = False,
) -> None:
    """Pack a trained run to bits: lower it to integers, prove it equal to PyTorch on probe images, write the file.

    An existing file is replaced, whole or not at all.
    """
    if not is_run(run):
        raise UsageError(f"{run}: is a file; expected the folder of a trained run")
    from binarynet.cli._runs import packed

    model, loaded = packed(run)
    file = out if out is not None else run / "model.bnn"
    model.save(file)
    facts = _facts(run, file, loaded.provenance.get("test_error"))
    data = loaded.provenance["dataset"]["name"]
    if json:
        print_json(facts)
    else:
        _show(facts, "" if data == _BUNDLED else f" (and --data DIR if {data} lies in a folder of your own)")


def _facts(run: Path, file: Path, test_error: float | None) -> dict[str, Any]:
    """Sizes, by reading back the file that was written."""
    from binarynet import fileformat
    from binarynet.analysis import layers

    network, sections = fileformat.read_with_sections(file)
    found = layers(network.graph)
    weights = sum(layer.weights for layer in found)
    return {
        "run": str(run),
        "file": str(file),
        "weights": weights,
        "float32_weight_bytes": FLOAT32_BYTES * weights,
        "packed_weight_bytes": sum(section.num_bytes for section in sections if section.name.endswith(".weights")),
        "float32_bytes": sum(layer.float32_bytes for layer in found),
        "file_bytes": sum(section.num_bytes for section in sections),
        "test_error": test_error,
    }


def _show(facts: dict[str, Any], about_data: str) -> None:
    console = stdout()
    table = plain_table("", "float32", "packed", "", right=["float32", "packed"])
    for label, before, after in (
        (f"{facts['weights']:,} weights", facts["float32_weight_bytes"], facts["packed_weight_bytes"]),
        ("whole network", facts["float32_bytes"], facts["file_bytes"]),
    ):
        table.add_row(label, _bytes(before), _bytes(after), f"{before / after:.1f} x smaller")
    console.print(table)
    console.print(
        Text.assemble(
            ("\nequal: ", "bold green"), "every layer's bits and the scores, on probe images, PyTorch and every engine"
        ),
        soft_wrap=True,
    )
    console.print(f"written: {facts['file']}", markup=False, soft_wrap=True)
    console.print(f"next: binarynet verify {facts['run']} {facts['file']}{about_data}", markup=False, soft_wrap=True)


def _bytes(number: int) -> str:
    return f"{number:,} bytes"
