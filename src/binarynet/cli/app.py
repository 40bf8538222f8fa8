"""`binarynet`: registers the commands and turns what goes wrong into one line and an exit code.

Exit codes: 0 done, 1 failure, 2 wrong usage, 130 interrupted. BINARYNET_TRACEBACK=1 shows where an error arose.
"""

from __future__ import annotations

import functools
import logging
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import typer
import typer.main

import binarynet
from binarynet.cli import _console
from binarynet.cli.bench import bench
from binarynet.cli.datasets import datasets
from binarynet.cli.evaluate import evaluate
from binarynet.cli.info import info
from binarynet.cli.inspect import inspect
from binarynet.cli.pack import pack
from binarynet.cli.predict import predict
from binarynet.cli.train import train
from binarynet.cli.verify import verify
from binarynet.errors import BinaryNetError, UsageError

TRACEBACK_VARIABLE = "BINARYNET_TRACEBACK"

FAILURE, USAGE, INTERRUPTED = 1, 2, 130

TRAIN_EXTRA = frozenset(
    {"lightning", "matplotlib", "pooch", "pydantic", "scipy", "sklearn", "tensorboard", "torch", "torchmetrics"}
)
"""Packages of the extra ``train``: their absence is told as a matter of installation."""


class _Interrupted(Exception):
    """Ctrl-C, carried past typer, which would handle it in its own way."""


def _carry_interrupt(command: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(command)
    def carried(*args: Any, **kwargs: Any) -> Any:
        try:
            return command(*args, **kwargs)
        except KeyboardInterrupt as interrupt:
            raise _Interrupted(str(interrupt) or "interrupted") from interrupt

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
app.command()(_carry_interrupt(bench))
app.command()(_carry_interrupt(datasets))
app.command()(_carry_interrupt(info))


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point; always ends in SystemExit."""
    _show_notes()
    try:
        code = _run(list(sys.argv[1:] if arguments is None else arguments))
        sys.stdout.flush()
    except BrokenPipeError:
        # whoever read our output has enough (`| head`): end quietly, and keep Python from flushing once more
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = FAILURE
    sys.exit(code)


def _run(arguments: list[str]) -> int:
    try:
        result = typer.main.get_command(app).main(arguments, prog_name="binarynet", standalone_mode=False)
    except BrokenPipeError:
        raise
    except _Interrupted as interrupt:
        return _report(interrupt, str(interrupt), INTERRUPTED)
    except UsageError as error:
        return _report(error, str(error), USAGE)
    except BinaryNetError as error:
        return _report(error, str(error), FAILURE)
    except ImportError as error:
        package = (error.name or "").partition(".")[0]
        if package not in TRAIN_EXTRA:
            raise
        return _report(error, f'this needs {package}, which is not installed; pip install "binarynet[train]"', FAILURE)
    except MemoryError as error:
        return _report(error, "out of memory", FAILURE)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        return _report(error, f"{where}{error.strerror or error}", FAILURE)
    except Exception as error:
        # typer's own errors; it has brought several versions of click, so they are known by what they can do
        if not (hasattr(error, "format_message") and hasattr(error, "exit_code")):
            raise
        context = getattr(error, "ctx", None)
        hint = f" (see: {context.command_path} --help)" if context is not None else ""
        return _report(error, f"{error.format_message().rstrip('.')}{hint}", int(error.exit_code))
    return result if isinstance(result, int) else 0


def _report(error: Exception, message: str, code: int) -> int:
    if os.environ.get(TRACEBACK_VARIABLE) == "1":
        traceback.print_exception(error)
    _console.say(_console.stderr(), "error", "bold red", message)
    return code


def _show_notes() -> None:
    logger = logging.getLogger("binarynet")
    if not any(isinstance(handler, _console.NoteHandler) for handler in logger.handlers):
        logger.addHandler(_console.NoteHandler())
    logger.setLevel(logging.INFO)


if __name__ == "__main__":
    main()
