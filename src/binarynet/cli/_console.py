"""Output: results on stdout, everything else (errors, notes, progress) on stderr."""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

PIPED_COLUMNS = 200
"""Width of tables that do not go to a terminal: nothing is cut off for want of a screen."""


def stdout() -> Console:
    """Console for results."""
    return Console(highlight=False, width=_width(sys.stdout.isatty()))


def stderr() -> Console:
    """Console for errors, notes and progress."""
    return Console(stderr=True, highlight=False, width=_width(sys.stderr.isatty()))


def _width(terminal: bool) -> int | None:
    return None if terminal or "COLUMNS" in os.environ else PIPED_COLUMNS


def printable(text: str) -> str:
    """Text of a stranger's file, fit for a terminal: control characters become question marks."""
    return "".join(character if character.isprintable() else "?" for character in text)


def say(console: Console, prefix: str, style: str, message: str) -> None:
    """One line, however long: ``prefix: message``. The message is plain text, whatever brackets it holds."""
    console.print(Text.assemble((f"{prefix}: ", style), printable(" ".join(message.split()))), soft_wrap=True)


def print_json(value: Any) -> None:
    """One JSON document on stdout; paths become text."""
    sys.stdout.write(json.dumps(value, indent=2, default=str, ensure_ascii=False, allow_nan=False) + "\n")


def plain_table(*columns: str, right: Sequence[str] = ()) -> Table:
    """A table without boxes; columns named in ``right`` are numbers. Long cells wrap, none is cut."""
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for column in columns:
        table.add_column(column, justify="right" if column in right else "left", overflow="fold")
    return table


def percent(share: float) -> str:
    """0.0147 as "1.47 %"."""
    return f"{100 * share:.2f} %"


def print_facts(console: Console, facts: Mapping[str, str | Text]) -> None:
    """Aligned ``name  value`` lines."""
    width = max(map(len, facts))
    for name, value in facts.items():
        console.print(Text.assemble((f"{name:<{width}}  ", "bold"), value), soft_wrap=True)


@contextmanager
def progress_bar(label: str, total: int) -> Iterator[Callable[[int], None]]:
    """A bar on stderr (only where that is a terminal) that is gone at the end.

    Yields:
        what to call with the number of steps done so far.
    """
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:,} of {task.total:,}"),
        TimeRemainingColumn(),
        console=stderr(),
        transient=True,
        disable=not sys.stderr.isatty(),
    ) as progress:
        task = progress.add_task(label, total=total)
        yield lambda done: progress.update(task, completed=done)


class NoteHandler(logging.Handler):
    """Log records of binarynet as ``note:`` lines on stderr."""

    def emit(self, record: logging.LogRecord) -> None:
        prefix, style = ("note", "yellow") if record.levelno >= logging.WARNING else ("info", "dim")
        try:
            say(stderr(), prefix, style, record.getMessage())
        except Exception:
            self.handleError(record)
