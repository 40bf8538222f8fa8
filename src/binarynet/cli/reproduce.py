"""`binarynet reproduce`: the paper's tables and figures with one's own results beside them."""

from __future__ import annotations

import json as json_module
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from binarynet.cli._console import print_json, say, stderr, stdout
from binarynet.cli._options import DataDir, Json
from binarynet.cli.train import wait_politely
from binarynet.errors import DataError, UsageError
from binarynet.files import write_whole

if TYPE_CHECKING:
    from binarynet.analysis.reproduction import Reproduction

RUNS = Path("runs")
RECORDS = "benchmarks/results/*_paper"
"""Where a checkout has its recorded runs of the paper's cells."""


def reproduce(
    what: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="RUN_OR_RECIPE",
            help="Folders of runs or recorded runs (or of several), recipes (by name or .toml), .bnn files; default: "
            "every finished run in RUNS, and in a checkout the recorded ones in benchmarks/results.",
            show_default=False,
        ),
    ] = None,
    data: DataDir = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="For report and pictures; default: RUNS/reproduction.", show_default=False),
    ] = None,
    runs: Annotated[
        Path | None,
        typer.Option(
            metavar="RUNS",
            help=f"Where recipes have their runs, in folders of their names; default: {RUNS}.",
            show_default=False,
        ),
    ] = None,
    seeds: Annotated[
        list[int] | None,
        typer.Option(
            "--seed",
            min=0,
            metavar="N",
            help="Train recipes with this seed, in RUNS/NAME-seed-N; as often as you like.",
            show_default=False,
        ),
    ] = None,
    threads: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="Threads to train with; default: the recipe's, else one per core. A run that was begun keeps its own.",
            show_default=False,
        ),
    ] = None,
    pictures: Annotated[bool, typer.Option("--pictures/--no-pictures", help="Draw the figures (matplotlib).")] = True,
    svg: Annotated[bool, typer.Option("--svg", help="Pictures as SVG too.")] = False,
    all_filters: Annotated[
        bool, typer.Option("--all-filters", help="Draw every distinct first-layer filter, too.")
    ] = False,
    json: Json = False,
) -> None:
    """Hold results against the paper's: Table 1, training curves, filters, energy, memory, operations.

    A recipe is trained if there is no run of it yet, gone on with if it was stopped, and only read if it is finished.
    Runs and files are read. Report (text and JSON) and pictures are written to --out.
    """
    from binarynet.cli._reproducing import carry_out, understand

    wait_politely()
    if pictures:
        import matplotlib  # noqa: F401 - where it is missing, that is told before hours of training
    elif svg or all_filters:
        raise UsageError("--svg and --all-filters are about pictures; leave out --no-pictures")
    where = runs if runs is not None else RUNS
    folder = out if out is not None else where / "reproduction"
    records = sorted(Path().glob(RECORDS)) if runs is None else []
    given = understand(what or (), where, seeds or (), threads, records)
    if runs is not None and not what and not given:
        raise UsageError(
            f"no finished runs in {runs}; name runs, recipes or .bnn files, or leave out --runs for the paper's table"
        )
    _make_folder(folder)
    found = carry_out(given, data, "bar" if sys.stderr.isatty() else "lines")
    names = list(_draw(found, folder, svg, all_filters)) if pictures else []
    document = found.to_dict(names)
    write_whole(folder / "report.json", json_module.dumps(document, indent=2, ensure_ascii=False) + "\n")
    _write_text(found, folder, names)
    if json:
        print_json(document)
    else:
        _show(found, folder, names)


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"{folder}: cannot be made: {error.strerror or error}") from None


def _draw(found: Reproduction, folder: Path, svg: bool, all_filters: bool) -> Iterator[str]:
    """Write every picture; their names."""
    from binarynet.analysis.pictures import pictures, render

    for picture in pictures(found, all_filters=all_filters):
        write_whole(folder / f"{picture.name}.png", render(picture.figure, "png"))
        yield f"{picture.name}.png"
        if svg:
            write_whole(folder / f"{picture.name}.svg", render(picture.figure, "svg"))
            yield f"{picture.name}.svg"


def _write_text(found: Reproduction, folder: Path, names: list[str]) -> None:
    from binarynet.cli._reproduction_text import as_text

    pictures = f"\nPictures: {', '.join(names)}\n" if names else ""
    write_whole(folder / "report.txt", as_text(found) + pictures)


def _show(found: Reproduction, folder: Path, names: list[str]) -> None:
    from binarynet.cli._reproduction_text import COLUMNS, print_report

    console = stdout()
    console.width = min(console.width, COLUMNS)
    print_report(console, found)
    pictures = f" and {len(names)} pictures" if names else ""
    say(stderr(), "written", "green", f"{folder}: report.txt, report.json{pictures}")
