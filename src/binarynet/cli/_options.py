"""Options that several commands share, so that they are named and explained alike."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

DataDir = Annotated[
    Path | None,
    typer.Option("--data", metavar="DIR", help="Where data sets are looked for first.", show_default=False),
]
DatasetName = Annotated[
    str | None,
    typer.Option(
        "--dataset",
        metavar="NAME_OR_PATH",
        help="Another data set than the one that the network was trained on.",
        show_default=False,
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
Threads = Annotated[
    int | None,
    typer.Option(min=1, metavar="N", help="Threads to use; default: one per core.", show_default=False),
]
DeviceName = Annotated[
    str | None,
    typer.Option(
        "--device", metavar="NAME", help="cpu, cuda (the first GPU) or cuda:N; default: cpu.", show_default=False
    ),
]
EngineName = Annotated[
    str | None,
    typer.Option("--engine", metavar="NAME", help="Engine to use, see binarynet info.", show_default=False),
]
