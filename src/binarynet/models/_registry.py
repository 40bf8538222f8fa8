"""The registry of architectures and of networks by name.

An architecture is a builder function, whose keyword arguments are its options. A network by name is an architecture
with other defaults: every option of it can still be chosen.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from torch import nn

from binarynet.errors import UsageError, nearest

Builder = TypeVar("Builder", bound=Callable[..., nn.Module])

_builders: dict[str, Callable[..., nn.Module]] = {}
_defaults: dict[str, dict[str, Any]] = {}
"""Of networks by name: what differs from the architecture's own defaults."""


def register(builder: Builder) -> Builder:
    """Register a function under its own name; a decorator.

    The function takes ``input_shape`` (height, width, channels) and ``classes`` (their number) first, then the
    architecture's options.
    """
    _add(builder.__name__, builder)
    return builder


def register_network(name: str, architecture: str, **defaults: Any) -> None:
    """Give an architecture with these defaults a name of its own.

    Raises:
        UsageError: the name is taken, or the architecture or one of its options is unknown.
    """
    _check_options(architecture, defaults)
    _add(name, _builder(architecture))
    _defaults[name] = {**_defaults.get(architecture, {}), **defaults}


def _add(name: str, builder: Callable[..., nn.Module]) -> None:
    if name in _builders:
        raise UsageError(f"there is already an architecture named {name!r}")
    _builders[name] = builder


def available() -> tuple[str, ...]:
    """Names that :func:`build` knows, sorted."""
    return tuple(sorted(_builders))


def options(name: str) -> dict[str, inspect.Parameter]:
    """The options of an architecture (annotations as objects), without ``input_shape`` and ``classes``.

    Raises:
        UsageError: unknown name.
    """
    parameters = inspect.signature(_builder(name), eval_str=True).parameters
    defaults = _defaults.get(name, {})
    return {
        key: parameter.replace(default=defaults.get(key, parameter.default))
        for key, parameter in parameters.items()
        if key not in ("input_shape", "classes")
    }


def build(name: str, *, input_shape: tuple[int, int, int], classes: int, **chosen: Any) -> nn.Module:
    """Build a network with fresh weights, drawn from torch's global generator.

    Args:
        name: one of :func:`available`.
        input_shape: (height, width, channels) of an image; features are (1, 1, features).
        classes: number of classes.
        **chosen: the architecture's options, see :func:`options`.

    Raises:
        UsageError: unknown name or option.
    """
    _check_options(name, chosen)
    return _builder(name)(input_shape=input_shape, classes=classes, **{**_defaults.get(name, {}), **chosen})


def _check_options(name: str, chosen: Iterable[str]) -> None:
    known = options(name)
    for key in chosen:
        if key not in known:
            raise UsageError(f"{name} has no option {key!r}{nearest(key, known)}; it has {', '.join(known)}")


def _builder(name: str) -> Callable[..., nn.Module]:
    if name not in _builders:
        known = available()
        raise UsageError(f"unknown architecture {name!r}{nearest(name, known)}; there are {', '.join(known)}")
    return _builders[name]
