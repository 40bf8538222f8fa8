"""What the commands need to know about a packed network or a run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from binarynet.errors import DataError, UsageError
from binarynet.zoo import resolve

if TYPE_CHECKING:
    from binarynet.data import ImagePolicy
    from binarynet.fileformat import PackedNetwork


def is_run(path: Path) -> bool:
    """True for a run's folder, False for a file (``zoo:NAME`` is one).

    Raises:
        DataError: there is nothing.
        UsageError: the zoo has no such network.
    """
    if not resolve(path).exists():
        raise DataError(f"{path}: no such run folder or .bnn file")
    return path.is_dir()


def require_file(path: Path) -> None:
    """For commands that take a packed network only.

    Raises:
        UsageError: a folder (a run's folder is said to be one), or a name that the zoo does not have.
    """
    if not resolve(path).is_dir():
        return
    packed = path / "model.bnn"
    if not (path / "run.json").exists():
        raise UsageError(f"{path}: is a folder; expected a .bnn file")
    remedy = f"its packed network is {packed}" if packed.exists() else f"pack it first: binarynet pack {path}"
    raise UsageError(f"{path}: is the folder of a run, not a packed network; {remedy}")


def policy_of(network: PackedNetwork) -> ImagePolicy:
    """How pictures become this network's input; where the file does not say, only those that fit as they are do."""
    from binarynet.data import ImagePolicy

    shape = network.graph.input.shape
    height, width, channels = shape if len(shape) == 3 else (1, 1, *shape)
    if network.image_policy is None:
        return ImagePolicy(height, width, channels, resize="refuse", background=None)
    return ImagePolicy.from_dict(network.image_policy)


@contextmanager
def refusals_explained(network: PackedNetwork, path: Path) -> Iterator[None]:
    """Where pictures are refused because the file has no policy, the error says so."""
    from binarynet.data.images import PictureSizeError, TransparentPictureError

    try:
        yield
    except (PictureSizeError, TransparentPictureError) as error:
        if network.image_policy is not None:
            raise
        raise DataError(
            f"{error} ({path} was packed without image_policy, so it does not say how such a picture becomes an input)"
        ) from error


def dataset_name(network: PackedNetwork, path: Path, wanted: str | None) -> str:
    """The data set to use: the one asked for, else the one that the network was trained on.

    Raises:
        UsageError: neither is known.
    """
    name = wanted or network.provenance.get("dataset")
    if not isinstance(name, str) or not name:
        raise UsageError(f"{path}: does not say what it was trained on; name a data set with --dataset")
    return name
