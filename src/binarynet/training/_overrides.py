"""Overrides: texts ``key=value`` applied to a recipe's nested dicts before it is checked."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from binarynet import models
from binarynet.errors import RecipeError
from binarynet.training._recipe_text import parse_value

UNSET = "none"
"""As a value it leaves the key out; quoted (``"none"``) it is the text."""

SCHEDULE_KEYS = {
    "exponential": "final_learning_rate",
    "halving": "halve_every",
    "cosine": "final_learning_rate",
}
"""The key of the optimizer's section that each schedule needs; it takes none of the others'."""


def apply(raw: dict[str, Any], overrides: Iterable[str]) -> None:
    """Change ``raw`` in place.

    Keys that belonged to what an override replaced (the other schedule's key, options that the new architecture does
    not have) go with it, unless they are overridden themselves.

    Raises:
        RecipeError: not of the form ``key=value``, a key inside of a plain value, or nothing there to leave out.
    """
    architecture = _value(raw, "model", "name")
    given = []
    for override in overrides:
        key, equals, text = override.partition("=")
        path = key.strip().split(".")
        if not equals or not all(path):
            raise RecipeError(f"override {override!r}: expected key=value with a dotted key, e.g. training.epochs=5")
        _set(raw, override, path, text.strip())
        given.append(tuple(path))
    if ("optimizer", "schedule") in given:
        chosen = _value(raw, "optimizer", "schedule") or "exponential"
        _leave_out(raw, "optimizer", set(SCHEDULE_KEYS.values()) - {SCHEDULE_KEYS.get(chosen)}, given)
    if ("model", "name") in given:
        now = _value(raw, "model", "name")
        known = models.available()
        if architecture in known and now in known:
            foreign = models.options(architecture).keys() - models.options(now).keys()
            _leave_out(raw, "model", foreign, given)


def _set(raw: dict[str, Any], override: str, path: list[str], text: str) -> None:
    table = raw
    for part in path[:-1]:
        table = table.setdefault(part, {})
        if not isinstance(table, dict):
            raise RecipeError(f"override {override!r}: {part} is a value, not a table")
    if text != UNSET:
        table[path[-1]] = parse_value(text)
    elif table.pop(path[-1], None) is None:
        where = f"[{'.'.join(path[:-1])}]" if path[:-1] else "the top level"
        raise RecipeError(
            f"override {override!r}: the recipe does not set {'.'.join(path)}, there is nothing to leave out; {where} "
            f"sets {', '.join(key for key, value in table.items() if value is not None) or 'nothing'}"
        )


def _value(raw: dict[str, Any], section: str, key: str) -> Any:
    table = raw.get(section)
    return table.get(key) if isinstance(table, dict) else None


def _leave_out(raw: dict[str, Any], section: str, keys: Iterable[str], given: list[tuple[str, ...]]) -> None:
    table = raw[section]
    for key in keys:
        if (section, key) not in given and isinstance(table, dict):  # what is no table is refused later on
            table.pop(key, None)
