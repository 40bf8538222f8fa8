"""The tables that `binarynet bench` prints, taken apart; and what its tests need to be there."""

from __future__ import annotations

import importlib.util
import re

import pytest

from binarynet.runtime import REFERENCE, engines

NATIVE = [engine.name for engine in engines() if engine.available and engine.name != REFERENCE]
OURS = NATIVE or [REFERENCE]

needs_peers = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("torch", "onnx", "onnxruntime", "openvino")),
    reason="needs torch, onnx, onnxruntime and openvino",
)
needs_native = pytest.mark.skipif(not NATIVE, reason="needs a native engine")


def rows_of(out: str) -> dict[str, list[str]]:
    """Heading of each table of times to the names of its rows."""
    tables: dict[str, list[str]] = {}
    rows: list[str] | None = None
    for line in out.splitlines():
        cells = re.split(r"  +", line)
        if len(cells) < 3:
            rows = None
        elif cells[1] == "time, ms":
            rows = tables.setdefault(cells[0], [])
        elif rows is not None:
            rows.append(cells[0])
    return tables
