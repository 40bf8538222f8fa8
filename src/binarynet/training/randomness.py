"""All randomness of training derives from (seed, what for, epoch, step, rank) alone.

So a resumed run repeats an uninterrupted one without any generator's state in the checkpoint.
"""

from __future__ import annotations

import enum

import numpy as np
import numpy.typing as npt
import torch


class Purpose(enum.IntEnum):
    """What random numbers are for; each purpose has its own streams. Values never change: they name the streams."""

    INITIAL_WEIGHTS = 1
    SHUFFLE = 2
    STEP = 3
    AUGMENTATION = 4


def derive(seed: int, purpose: Purpose, *place: int) -> int:
    """A 64-bit seed for torch from the recipe's seed, a purpose and a place such as (epoch, step, rank)."""
    return int(np.random.SeedSequence([seed, purpose, *place]).generate_state(1, np.uint64)[0])


def permutation(seed: int, epoch: int, count: int) -> npt.NDArray[np.int64]:
    """The order in which an epoch visits ``count`` samples: int64 ``[count]``, the same on every rank."""
    sequence = np.random.SeedSequence([seed, Purpose.SHUFFLE, epoch])
    return np.random.Generator(np.random.PCG64(sequence)).permutation(count)


def seed_torch(seed: int, device: torch.device) -> None:
    """Seed torch's global generators of the CPU and of ``device``.

    ``torch.manual_seed`` would do, but formats a stack trace per absent kind of device: 1.5 ms in every step.
    """
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.manual_seed(seed)
    elif device.type == "mps":
        torch.mps.manual_seed(seed)
