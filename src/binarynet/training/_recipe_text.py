"""Recipes as text: TOML out, single values in, and errors that name what is allowed."""

from __future__ import annotations

import difflib
import json
import tomllib
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from binarynet.errors import RecipeError, nearest

_EXPECTED = {  # instead of pydantic's words for what TOML calls otherwise
    "int_type": "an integer",
    "is_instance_of": "a list",
    "list_type": "a list",
    "sequence_str": "a list",
    "dict_type": "a table",
    "model_type": "a table",
}


def parse_value(text: str) -> Any:
    """A TOML value; what is not one is a plain string."""
    try:
        parsed = tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError:
        return text
    return parsed["value"] if parsed.keys() == {"value"} else text


def to_toml(table: Mapping[str, Any], prefix: str = "") -> str:
    """Nested tables of strings, numbers, booleans and lists as TOML, in their order, plain values first."""
    plain = {key: value for key, value in table.items() if not isinstance(value, Mapping)}
    tables = {key: value for key, value in table.items() if isinstance(value, Mapping)}
    parts = ["".join(f"{_key(key)} = {format_value(value)}\n" for key, value in plain.items())]
    for key, value in tables.items():
        name = prefix + _key(key)
        inner = to_toml(value, name + ".")
        parts.append(f"[{name}]\n{inner}" if inner else "")
    return "\n".join(part for part in parts if part)


def _key(key: str) -> str:
    bare = key.isascii() and key.replace("_", "").replace("-", "").isalnum()
    return key if bare else format_value(key)


def format_value(value: Any) -> str:
    """A plain value as TOML; inverse of :func:`parse_value`."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(format_value, value)) + "]"
    raise RecipeError(f"a recipe cannot hold a {type(value).__name__}: {value!r}")


def describe(problem: Mapping[str, Any], schema: type[BaseModel]) -> str:
    """One pydantic error as one clause: which key, what was given, what is allowed."""
    path = [str(part) for part in problem["loc"]]
    where = ".".join(path)
    if problem["type"] == "extra_forbidden":
        allowed = list(_fields(schema, path[:-1]))
        hint = nearest(path[-1], allowed) or _elsewhere(path[-1], schema)
        table = f"[{'.'.join(path[:-1])}]" if path[:-1] else "the top level"
        return f"unknown key {where!r}{hint}; {table} takes {', '.join(allowed)}"
    if problem["type"] == "missing":
        return f"the key {where!r} is missing"
    if problem["type"] == "value_error":
        return str(problem["ctx"]["error"])
    expected = _EXPECTED.get(problem["type"]) or problem["msg"].removeprefix("Input should be ").replace(
        "a valid ", "a "
    )
    hint = ""
    if problem["type"] == "literal_error" and isinstance(problem["input"], str):
        hint = nearest(problem["input"], problem["ctx"]["expected"].replace(" or ", ", ").replace("'", "").split(", "))
    return f"{where}: expected {expected}, got {problem['input']!r}{hint}"


def _fields(schema: type[BaseModel], path: list[str]) -> dict[str, Any]:
    fields: dict[str, Any] = dict(schema.model_fields)
    for part in path:
        fields = dict(fields[part].annotation.model_fields)
    return fields


def _elsewhere(key: str, schema: type[BaseModel]) -> str:
    """The dotted key of another table that was probably meant."""
    dotted = {
        inner: f"{table}.{inner}"
        for table, field in schema.model_fields.items()
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)
        for inner in field.annotation.model_fields
    }
    close = difflib.get_close_matches(key, list(dotted), n=1)
    return f" (did you mean {dotted[close[0]]!r}?)" if close else ""
