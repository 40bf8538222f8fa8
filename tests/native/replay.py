"""Conformance cases as a file for ``native/tests/replay.cc`` (the format stands there), which needs no Python."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from conformance_cases import Case
from conformance_oracle import evaluate_slowly

from binarynet.encoding import pack_bits
from binarynet.graph import Graph
from binarynet.runtime.session import _add

OPERATIONS = ("input", "bits_input", "convolution", "max_pool", "threshold", "affine", "flatten")


def _number(value: int) -> bytes:
    return int(value).to_bytes(8, "little", signed=True)


def _array(data: bytes) -> bytes:
    return _number(len(data)) + data


class _Recorder:
    """Takes the place of ``_native.Graph`` and keeps what it is told."""

    def __init__(self) -> None:
        self.parts: list[bytes] = []

    def __getattr__(self, name: str) -> Any:
        operation = OPERATIONS.index(name.removeprefix("add_"))

        def add(*arguments: Any) -> int:
            self.parts.append(_number(operation) + b"".join(map(_argument, arguments)))
            return len(self.parts) - 1

        return add


def _argument(argument: Any) -> bytes:
    if isinstance(argument, np.ndarray):
        return _array(np.ascontiguousarray(argument).tobytes())
    numbers = argument if isinstance(argument, tuple) else (argument,)
    return b"".join(map(_number, numbers))


def _expected(graph: Graph, name: str, value: np.ndarray) -> bytes:
    """A value of the oracle in the layout of ``binarynet.h``."""
    kind = graph.types[name].kind
    if kind == "bits":
        return pack_bits(value > 0).tobytes()
    return value.astype({"u8": np.uint8, "i32": np.int32, "f32": np.float32}[kind]).tobytes()


def _case(case: Case) -> bytes:
    graph, images = case.graph, case.inputs()
    recorder, index = _Recorder(), {}
    for node in graph:
        index[node.name] = _add(recorder, node, index)
    values = evaluate_slowly(graph, images)
    parts = [_array(case.name.encode()), _number(len(recorder.parts)), *recorder.parts]
    parts += [_number(index[graph.output]), _number(len(images)), _array(np.ascontiguousarray(images).tobytes())]
    parts += [_array(_expected(graph, name, values[name])) for name in sorted(index, key=index.__getitem__)]
    return b"".join(parts)


def write_cases(cases: Iterable[Case], path: Path) -> None:
    """Each case with all its values, computed by the conformance suite's oracle."""
    written = [_case(case) for case in cases]
    path.write_bytes(_number(len(written)) + b"".join(written))
