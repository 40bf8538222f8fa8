"""Data sets by name or path: the one place where the list of them is written down."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

from binarynet.data import cifar10, digits, fashion_mnist, folder, mnist, npz, svhn
from binarynet.data._files import log
from binarynet.data.dataset import Dataset
from binarynet.data.images import ImagePolicy
from binarynet.data.status import DatasetStatus
from binarynet.errors import DataError, UsageError


@dataclass(frozen=True)
class _Source:
    load: Callable[..., Dataset]
    status: Callable[..., DatasetStatus]


_SOURCES = {
    "digits": _Source(digits.load, digits.status),
    "mnist": _Source(mnist.load, mnist.status),
    "fashion-mnist": _Source(fashion_mnist.load, fashion_mnist.status),
    "cifar10": _Source(cifar10.load, cifar10.status),
    "svhn": _Source(svhn.load, svhn.status),
}


def available() -> tuple[str, ...]:
    """Names that :func:`load` knows, besides paths of the user's own data."""
    return tuple(_SOURCES)


def status(data_dir: str | PathLike[str] | None = None) -> tuple[DatasetStatus, ...]:
    """What is there, where, and whether its checksums hold; one entry per name, nothing is downloaded.

    Raises:
        DataError: ``data_dir`` or ``BINARYNET_DATA`` names no folder.
    """
    return tuple(source.status(data_dir) for source in _SOURCES.values())


def load(name_or_path: str | PathLike[str], data_dir: str | PathLike[str] | None = None, **options: Any) -> Dataset:
    """Load a data set.

    Args:
        name_or_path: a name of :func:`available`; else the path of a folder of class folders or of an ``.npz`` file,
            relative to the working directory or to ``data_dir``. (A folder called like a data set: ``./mnist``.)
        data_dir: where to look first (``--data``).
        options: what the data set's loader takes, e.g. ``image_size=32, colour="grey"`` for a folder.

    Raises:
        UsageError: an unknown name, or an option that this data set does not take.
        DataError: missing or damaged data.

    The data set's notes are logged as warnings of the logger ``binarynet.data``.
    """
    dataset = _load(str(name_or_path), data_dir, options)
    for note in dataset.notes:
        log.warning("%s", note)
    return dataset


def is_there(name_or_path: str | PathLike[str], data_dir: str | PathLike[str] | None = None) -> bool:
    """True for a name that :func:`load` knows, and for a path where there is something."""
    name = str(name_or_path)
    return name in _SOURCES or any(candidate.exists() for candidate in _candidates(name, data_dir))


def load_like(
    name_or_path: str | PathLike[str],
    policy: ImagePolicy,
    data_dir: str | PathLike[str] | None = None,
    options: Mapping[str, Any] | None = None,
) -> Dataset:
    """:func:`load`, for a network that exists: pictures of the user's own are brought to its size and colours.

    Args:
        name_or_path, data_dir: see :func:`load`.
        policy: how pictures become the network's input.
        options: of a data set with a name, as the network was trained on it; of a folder, the policy says them.

    Raises:
        DataError: as :func:`load`, or the data set's images do not have the policy's shape.
    """
    name = str(name_or_path)
    chosen = dict(options or {}) if name in _SOURCES else {}
    if name not in _SOURCES and _find_path(name, data_dir).is_dir():
        if policy.channels not in (1, 3):
            raise DataError(f"{name}: holds pictures, but the network takes {policy.channels} channels")
        chosen = {
            "image_size": (policy.height, policy.width),
            "colour": "grey" if policy.channels == 1 else "rgb",
            "resize": policy.resize,
            "background": policy.background,
        }
    dataset = load(name, data_dir, **chosen)
    if dataset.policy.shape != policy.shape:
        raise DataError(
            f"{name}: its images are {list(dataset.policy.shape)}, the network takes {list(policy.shape)} "
            f"(height, width, channels)"
        )
    return dataset


def _load(name: str, data_dir: str | PathLike[str] | None, options: dict[str, Any]) -> Dataset:
    if name in _SOURCES:
        loader = _SOURCES[name].load
        _check_options(loader, options, name)
        return loader(data_dir, **options)
    path = _find_path(name, data_dir)
    if path.is_dir():
        _check_options(folder.load, options, name)
        return folder.load(path, **options)
    if path.suffix.lower() != ".npz":
        raise DataError(f"{path}: expected a folder of class folders or an .npz file")
    _check_options(npz.load, options, name)
    return npz.load(path, **options)


def _find_path(name: str, data_dir: str | PathLike[str] | None) -> Path:
    candidates = _candidates(name, data_dir)
    for candidate in candidates:
        if candidate.exists():
            return candidate
    if Path(name).name == name and not Path(name).suffix:
        raise UsageError(
            f"unknown data set '{name}': known are {', '.join(available())}, "
            f"or give a folder of class folders, or an .npz file"
        )
    raise DataError(f"{' or '.join(map(str, candidates))}: no such file or folder")


def _candidates(name: str, data_dir: str | PathLike[str] | None) -> list[Path]:
    candidates = [Path(name).expanduser()]
    if data_dir is not None:
        candidates.append(Path(data_dir).expanduser() / name)
    return candidates


def _check_options(loader: Callable[..., Dataset], options: dict[str, Any], name: str) -> None:
    allowed = [
        parameter.name
        for parameter in inspect.signature(loader).parameters.values()
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY
    ]
    for option in options:
        if option not in allowed:
            choices = f"it takes {', '.join(allowed)}" if allowed else "it takes none"
            raise UsageError(f"data set '{name}' has no option '{option}'; {choices}")
