"""What the commands need to know about a packed network or a run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from binarynet.errors import FileFormatError, UsageError

if TYPE_CHECKING:
    from binarynet.data import ImagePolicy
    from binarynet.fileformat import PackedNetwork


def is_run(path: Path) -> bool:
    """True for a run's folder, False for a file.

    Raises:
        UsageError: there is nothing.
    """
    if not path.exists():
        raise UsageError(f"{path}: no such run folder or .bnn file")
    return path.is_dir()


def policy_of(network: PackedNetwork, path: Path) -> ImagePolicy:
    """How pictures become this network's input; the default policy where the file names none.

    Raises:
        FileFormatError: the file's policy is wrong, or contradicts the input's shape.
    """
    from binarynet.data import ImagePolicy
    from binarynet.errors import DataError

    shape = network.graph.input.shape
    height, width, channels = shape if len(shape) == 3 else (1, 1, *shape)
    if network.image_policy is None:
        return ImagePolicy(height, width, channels)
    try:
        policy = ImagePolicy.from_dict(network.image_policy)
    except DataError as error:
        raise FileFormatError(f"{path}: {error}") from error
    if policy.shape != (height, width, channels):
        raise FileFormatError(
            f"{path}: its image policy gives {list(policy.shape)}, its network takes {[height, width, channels]}"
        )
    return policy


def dataset_name(network: PackedNetwork, path: Path, wanted: str | None) -> str:
    """The data set to use: the one asked for, else the one that the network was trained on.

    Raises:
        UsageError: neither is known.
    """
    name = wanted or network.provenance.get("dataset")
    if not isinstance(name, str) or not name:
        raise UsageError(f"{path}: does not say what it was trained on; name a data set with --dataset")
    return name
