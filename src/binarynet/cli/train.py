"""`binarynet train`: from a recipe to a run's folder."""

from __future__ import annotations

import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from binarynet.cli._console import percent, print_facts, print_json, stdout
from binarynet.cli._options import DataDir, Json
from binarynet.errors import UsageError

if TYPE_CHECKING:
    from binarynet.training import RunResult


def train(
    recipe: Annotated[
        str | None,
        typer.Argument(metavar="RECIPE", help="A recipe's name, or a .toml file.", show_default=False),
    ] = None,
    data: DataDir = None,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="The run's folder; default: runs/RECIPE.", show_default=False)
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Change the recipe, e.g. training.epochs=5; KEY=none leaves a key out; as often as you like.",
            show_default=False,
        ),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a run that was stopped.")] = False,
    threads: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="Threads to use; default: the recipe's, else one per core.",
            show_default=False,
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Train a network by a recipe: progress, curves, checkpoints, and the weights of the best epoch.

    Without RECIPE the recipes are listed (or, with --resume --out, that run goes on by its own recipe).
    """
    wait_politely()
    from binarynet.training import recipe as recipes

    if recipe is None and not (resume and out is not None):
        if any((data, out, overrides, resume, threads, json)):
            raise UsageError(f"name a recipe: {', '.join(recipes.available())}, or a .toml file")
        _list_recipes()
        return
    changes = [*(overrides or ()), *([f"training.threads={threads}"] if threads is not None else ())]

    from binarynet.training import train as train_run

    result = train_run(
        recipe,
        overrides=changes,
        data_dir=data,
        out=out,
        resume=resume,
        show="bar" if sys.stderr.isatty() else "lines",
    )
    if result.process:
        return  # the first of several processes tells
    if json:
        print_json(asdict(result))
    else:
        _show(result)


def wait_politely() -> None:
    """Keep torch's threads from spinning for long while they wait for each other; must come before torch is loaded.

    GNU OpenMP spins for milliseconds by default. With another program on a core that stops the whole step: on two
    cores with one other busy process an epoch of `mnist-theano-quick` took over 140 s, with this limit 10 s, and
    undisturbed epochs took 9 to 10 s either way.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "20000")


def _list_recipes() -> None:
    from binarynet.training import recipe as recipes

    print_facts(stdout(), {name: recipes.load(name).description for name in recipes.available()})


def _show(result: RunResult) -> None:
    epochs = f"{len(result.history)} epoch{'' if len(result.history) == 1 else 's'}"
    validation = f"{percent(result.validation_error)}, the lowest of {epochs}, reached in epoch {result.best_epoch}"
    print_facts(
        stdout(),
        {
            "test error": f"{percent(result.test_error)}  ({result.test_errors:,} of {result.test_images:,} wrong)",
            "validation": validation,
            "time": f"{result.train_seconds:.1f} s",
            "run": f"{result.directory}  (curves.png, metrics.csv, checkpoints)",
            "next": f"binarynet pack {result.directory} -o model.bnn",
        },
    )
