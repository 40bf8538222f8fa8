"""`binarynet`: runs a command and turns what goes wrong into one line and an exit code.

Exit codes: 0 done, 1 failure, 2 wrong usage, 130 interrupted. BINARYNET_TRACEBACK=1 shows where an error arose.

This page imports next to nothing, so that Ctrl-C is handled from the start: the imports of the commands take
longer than many of them run.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

TRACEBACK_VARIABLE = "BINARYNET_TRACEBACK"

FAILURE, USAGE, INTERRUPTED = 1, 2, 130

TRAIN_EXTRA = frozenset(
    {"lightning", "matplotlib", "pooch", "pydantic", "scipy", "sklearn", "tensorboard", "torch", "torchmetrics"}
)
"""Packages of the extra ``train``: their absence is told as a matter of installation."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point; always ends in SystemExit."""
    try:
        _open_closed_streams()
        code = _run(list(sys.argv[1:] if arguments is None else arguments))
    except BrokenPipeError:
        # whoever read our output has enough (`| head`): end quietly
        _drop_output()
        code = FAILURE
    except KeyboardInterrupt:
        # while importing or ending; a command's own is told in _run
        sys.stderr.write("error: interrupted\n")
        code = INTERRUPTED
    sys.exit(code)


def _open_closed_streams() -> None:
    """Whoever closes an output (`>&-`) wants none of it; files that are opened later must not take its place."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115 - lives as long as the process


def _drop_output() -> None:
    """What is still unwritten goes nowhere: Python would try once more at its end, and complain."""
    try:
        output = sys.stdout.fileno()
    except (OSError, ValueError):
        return  # not a file (a test's), so nothing is tried again
    os.dup2(os.open(os.devnull, os.O_WRONLY), output)


def _run(arguments: list[str]) -> int:
    from binarynet.errors import INSTALL_TRAIN, BinaryNetError, PeerError, UsageError

    try:
        import typer.main

        from binarynet.cli._commands import Interrupted, app

        _show_notes()
        result = typer.main.get_command(app).main(arguments, prog_name="binarynet", standalone_mode=False)
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except PeerError:
        # The first process tells it and has the exit code; Lightning's would be killed in the middle of that if another
        # one, which it started, ended with a code of its own.
        return 0
    except UsageError as error:
        return _report(error, str(error), USAGE)
    except BinaryNetError as error:
        return _report(error, str(error), FAILURE)
    except ImportError as error:
        package = (error.name or "").partition(".")[0]
        if package not in TRAIN_EXTRA:
            raise
        return _report(error, f"this needs {package}, which is not installed; {INSTALL_TRAIN}", FAILURE)
    except MemoryError as error:
        return _report(error, "out of memory", FAILURE)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        code = _report(error, f"{where}{error.strerror or error}", FAILURE)
        if not error.filename:
            _drop_output()  # perhaps the output itself (a full disk)
        return code
    except Exception as error:
        if isinstance(error, Interrupted):
            return _report(error, str(error), INTERRUPTED)
        # Ctrl-C outside of a command: some versions of typer raise their Abort, others give 130 back
        if isinstance(error.__cause__ or error.__context__, KeyboardInterrupt):
            return _report(error, "interrupted", INTERRUPTED)
        # typer's own errors; it has brought several versions of click, so they are known by what they can do
        if not (hasattr(error, "format_message") and hasattr(error, "exit_code")):
            raise
        context = getattr(error, "ctx", None)
        hint = f" (see: {context.command_path} --help)" if context is not None else ""
        return _report(error, f"{error.format_message().rstrip('.')}{hint}", int(error.exit_code))
    if result == INTERRUPTED:
        return _report(None, "interrupted", INTERRUPTED)
    return result if isinstance(result, int) else 0


def _report(error: Exception | None, message: str, code: int) -> int:
    from binarynet.cli import _console

    if error is not None and os.environ.get(TRACEBACK_VARIABLE) == "1":
        import traceback

        traceback.print_exception(error)
    _console.say(_console.stderr(), "error", "bold red", message)
    return code


def _show_notes() -> None:
    import logging

    from binarynet.cli import _console

    logger = logging.getLogger("binarynet")
    if not any(isinstance(handler, _console.NoteHandler) for handler in logger.handlers):
        logger.addHandler(_console.NoteHandler())
    logger.setLevel(logging.INFO)


if __name__ == "__main__":
    main()
