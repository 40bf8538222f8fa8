"""The commands, registered under their names."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Annotated, Any

import typer

import binarynet
from binarynet.cli import bench
from binarynet.cli.datasets import datasets
from binarynet.cli.evaluate import evaluate
from binarynet.cli.info import info
from binarynet.cli.inspect import inspect
from binarynet.cli.pack import pack
from binarynet.cli.predict import predict
from binarynet.cli.reproduce import reproduce
from binarynet.cli.train import train
from binarynet.cli.verify import verify
from binarynet.cli.zoo import zoo


class Interrupted(Exception):
    """Ctrl-C, carried past typer, which would handle it in its own way."""


def _carry_interrupt(command: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(command)
    def carried(*args: Any, **kwargs: Any) -> Any:
        try:
            return command(*args, **kwargs)
        except KeyboardInterrupt as interrupt:
            raise Interrupted(str(interrupt) or "interrupted") from interrupt

    return carried


app = typer.Typer(
    name="binarynet",
    help="Train Binarized Neural Networks, pack them to bits, and run them exactly.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback(invoke_without_command=True)
def binarynet_command(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    if version:
        print(f"binarynet {binarynet.__version__}")
    elif context.invoked_subcommand is None:
        print(context.get_help())


app.command()(_carry_interrupt(train))
app.command()(_carry_interrupt(evaluate))
app.command()(_carry_interrupt(pack))
app.command(options_metavar="[OPTIONS] [RUN]")(_carry_interrupt(verify))
app.command()(_carry_interrupt(predict))
app.command()(_carry_interrupt(inspect))
app.command()(_carry_interrupt(reproduce))
app.add_typer(bench.group(_carry_interrupt), name="bench")
app.command()(_carry_interrupt(zoo))
app.command()(_carry_interrupt(datasets))
app.command()(_carry_interrupt(info))
