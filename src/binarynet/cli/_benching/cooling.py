"""Calls whose weights are in no cache."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

COLD_BYTES = 128 << 20
"""Memory that is written through to empty the caches."""


class Cooling:
    """What comes before a call whose weights are to be cold: the caches are emptied, then a twin of the call is run.

    The twin has its own weights and operands, so it brings back nothing but what is no matter of weights: the code of
    library, interpreter and system. Without it, a small layer's time would be little else.
    """

    def __init__(self, clock: Callable[[], int]) -> None:
        self._memory = np.zeros(COLD_BYTES, dtype=np.uint8)
        self._clock = clock

    def before(self, twin: Callable[[], Any]) -> Callable[[], None]:
        """To be called before every call."""

        def cool() -> None:
            self._memory += 1
            twin()
            self._clock()

        return cool
