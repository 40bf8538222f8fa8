"""Splits that depend on nothing but the samples' keys: no random generator, no library version."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from binarynet.errors import DataError

Indices = npt.NDArray[np.int64]

TEST_PERCENT = 20
VALIDATION_PERCENT = 10


def ranked(indices: Indices, keys: Sequence[str], salt: str) -> Indices:
    """The indices in the order of sha256(salt/key): as good as shuffled, the same everywhere and for ever."""
    digests = {int(i): hashlib.sha256(f"{salt}/{keys[i]}".encode()).digest() for i in indices}
    return np.array(sorted(digests, key=lambda i: digests[i]), dtype=np.int64)


def split_exactly(labels: npt.NDArray[np.int64], keys: Sequence[str], salt: str, sizes: Sequence[int]) -> list[Indices]:
    """Stratified parts of given sizes, which must add up to the number of samples; each part ascending.

    Every class contributes to a part in proportion to its size (largest remainders, lower class first on ties).
    """
    if sum(sizes) != len(labels):
        raise ValueError(f"sizes {list(sizes)} do not add up to {len(labels)} samples")
    remaining = [ranked(np.flatnonzero(labels == c), keys, salt) for c in range(int(labels.max()) + 1)]
    parts: list[Indices] = []
    for size in sizes:
        counts = [len(members) for members in remaining]
        total = sum(counts)
        quotas = [size * count // total if total else 0 for count in counts]
        by_remainder = sorted(range(len(counts)), key=lambda c: (-(size * counts[c] % max(total, 1)), c))
        for c in by_remainder[: size - sum(quotas)]:
            quotas[c] += 1
        parts.append(np.sort(np.concatenate([m[:q] for m, q in zip(remaining, quotas, strict=True)])))
        remaining = [m[q:] for m, q in zip(remaining, quotas, strict=True)]
    return parts


def split_by_percent(
    labels: npt.NDArray[np.int64], keys: Sequence[str], classes: Sequence[str], percents: Sequence[int], what: str
) -> list[Indices]:
    """Stratified parts of the given percentages (at least one sample of every class in each), then the rest.

    Returns:
        One ascending index array per percentage, and the rest as the last.

    Raises:
        DataError: a class has too few samples.
    """
    parts: list[list[Indices]] = [[] for _ in range(len(percents) + 1)]
    for c, name in enumerate(classes):
        members = ranked(np.flatnonzero(labels == c), keys, "split")
        if len(members) <= len(percents):
            raise DataError(
                f"{what}: class '{name}' has {len(members)} sample{'' if len(members) == 1 else 's'}, "
                f"at least {len(percents) + 1} are needed to split it; add samples, or give the splits yourself"
            )
        start = 0
        for part, percent in zip(parts, percents, strict=False):
            count = max(1, (len(members) * percent + 50) // 100)
            part.append(members[start : start + count])
            start += count
        parts[-1].append(members[start:])
    return [np.sort(np.concatenate(part)) for part in parts]
