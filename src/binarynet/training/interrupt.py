"""Ctrl-C while training: the step at hand is finished, then training stops."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any


class Stopped(BaseException):
    """Raised after a Ctrl-C. Lightning would answer a KeyboardInterrupt by leaving Python; this it passes on."""


class Interrupt:
    """Takes the first Ctrl-C as a request, looked at by :meth:`check`; the second one acts at once.

    A context manager; outside the main thread, where Python delivers no signals, it does nothing.

    Attributes:
        requested: whether Ctrl-C was pressed.
    """

    def __init__(self) -> None:
        self.requested = False
        self._previous: Any = None

    def __enter__(self) -> Interrupt:
        if threading.current_thread() is threading.main_thread():
            self._previous = signal.signal(signal.SIGINT, self._request)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._previous is not None:
            signal.signal(signal.SIGINT, self._previous)
            self._previous = None

    def check(self) -> None:
        """Raise :class:`Stopped` if Ctrl-C was pressed."""
        if self.requested:
            raise Stopped

    def _request(self, number: int, frame: FrameType | None) -> None:
        if self.requested:
            raise Stopped
        self.requested = True
