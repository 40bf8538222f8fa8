"""What a command leaves behind when it is told to end: nothing, as with Ctrl-C."""

from __future__ import annotations

import functools
import signal
import threading
from collections.abc import Callable
from typing import Any

SIGNALS = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name))
"""Those that end a process at once by default, temporary files and all."""


class _Ended(BaseException):
    """A signal, on its way through whatever has to be cleaned up."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def cleaned_up(command: Callable[..., Any]) -> Callable[..., Any]:
    """``command``, whose context managers close on SIGTERM and SIGHUP, too; only then the signal does what it did.

    A signal that is ignored (``nohup``) stays so. Outside the main thread, where Python delivers no signals, nothing
    changes.
    """

    @functools.wraps(command)
    def carried(*args: Any, **kwargs: Any) -> Any:
        if threading.current_thread() is not threading.main_thread():
            return command(*args, **kwargs)
        before = {number: signal.getsignal(number) for number in SIGNALS}
        taken = {number: was for number, was in before.items() if was is not None and was is not signal.SIG_IGN}

        def end(number: int, frame: object) -> None:
            for other in taken:
                signal.signal(other, signal.SIG_IGN)  # a second one would stop the cleaning
            raise _Ended(number)

        ended: int | None = None
        try:
            try:
                for number in taken:
                    signal.signal(number, end)
                return command(*args, **kwargs)
            finally:
                for number, was in taken.items():
                    signal.signal(number, was)
        except _Ended as signalled:
            ended = signalled.number
        signal.raise_signal(ended)
        raise SystemExit(128 + ended)  # a handler of the caller's took it, and came back

    return carried
