"""The peers of a benchmark: found, built, checked against one another."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from binarynet.cli import _peers_onnxruntime, _peers_torch
from binarynet.cli._float_network import FloatLayer, Peer, float_input
from binarynet.errors import UsageError, VerificationError

TOLERANCE = 1e-2
"""Largest difference (relative and absolute) between the scores, of order 1, of two float32 peers."""


@dataclass(frozen=True)
class Absence:
    """A peer that cannot be shown, and why."""

    name: str
    why: str


@contextmanager
def peers(
    steps: list[FloatLayer], images: npt.NDArray[np.uint8], num_threads: int
) -> Iterator[tuple[list[Peer], list[Absence]]]:
    """All peers that this machine has, ready to run and checked; those that it has not, with the reason.

    Raises:
        VerificationError: two float32 peers disagree, or a peer's scores are not finite or of the wrong shape.
    """
    inputs = float_input(images)
    found: list[Peer] = []
    absent: list[Absence] = []
    with _peers_torch.threads(num_threads):
        for name, module in (("torch", _peers_torch), ("onnxruntime", _peers_onnxruntime)):
            try:
                found += module.build(steps, inputs, num_threads)
            except ImportError as error:
                absent.append(Absence(name, f"not installed ({error.name or error})"))
            except UsageError as error:
                absent.append(Absence(name, str(error)))
        check(found, len(images))
        yield found, absent


def check(found: list[Peer], batch: int) -> None:
    """VerificationError unless every peer gives finite scores and the float32 ones the same."""
    first: tuple[str, npt.NDArray[Any]] | None = None
    for peer in found:
        scores = peer.run()
        if scores.ndim < 2 or len(scores) != batch or not np.isfinite(scores).all():
            raise VerificationError(
                f"{peer.name}: expected finite scores for {batch} images, got {list(scores.shape)}, "
                f"{np.count_nonzero(~np.isfinite(scores))} of them not finite"
            )
        if first is None:
            first = peer.name, scores
        if scores.shape != first[1].shape or (
            peer.arithmetic == "float32" and not np.allclose(first[1], scores, rtol=TOLERANCE, atol=TOLERANCE)
        ):
            raise VerificationError(f"{peer.name} and {first[0]} do not compute the same network")
