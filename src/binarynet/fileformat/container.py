"""The container of a .bnn file: safetensors, read by our own strict reader.

8 bytes   n, length of the header (little-endian)
n bytes   header: JSON object; "__metadata__" has one key, "binarynet", whose value is JSON text (schema.py)
the rest  tensor data, contiguous, in the order of the offsets
"""

from __future__ import annotations

import hashlib
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from binarynet.errors import FileFormatError
from binarynet.fileformat.schema import Tensors, parse_json

MAX_HEADER_BYTES = 4 << 20
MAX_DATA_BYTES = 1 << 30
"""Largest amount of tensor data (2^33 weights): bounds what a sparse file may make us allocate."""
METADATA_KEY = "binarynet"
_LENGTH_BYTES = 8
_DTYPES: dict[str, np.dtype[Any]] = {"U8": np.dtype("u1"), "I32": np.dtype("<i4"), "F32": np.dtype("<f4")}


@dataclass(frozen=True)
class Section:
    """A run of bytes of a file: the header's length, the header, or one tensor."""

    name: str
    offset: int
    num_bytes: int


@dataclass(frozen=True)
class Container:
    """The parts of a file, checked for form but not for meaning."""

    metadata: dict[str, Any]
    tensors: Tensors
    sections: tuple[Section, ...]
    num_bytes: int
    data_sha256: str


def read_container(path: Path) -> Container:
    """Read and check a container; FileFormatError says what is wrong. Allocates no more than the file's size."""
    try:
        possible = b"\0" not in os.fsencode(path)
    except UnicodeEncodeError:
        possible = False
    if not possible:
        raise FileFormatError(f"{str(path)!r}: no file can have this name")
    try:
        with open(path, "rb", opener=_open_without_waiting) as file:
            return _read(file)
    except FileNotFoundError:
        raise FileFormatError(f"{path}: there is no such file") from None
    except OSError as error:
        raise FileFormatError(f"{path}: cannot be read: {error.strerror}") from None
    except FileFormatError as error:
        raise FileFormatError(f"{path}: {error}") from None


def _open_without_waiting(path: str, flags: int) -> int:
    """Opening a FIFO would wait for a writer, forever."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def _read(file: BinaryIO) -> Container:
    status = os.fstat(file.fileno())
    if not stat.S_ISREG(status.st_mode):
        raise FileFormatError("not a regular file")
    size = status.st_size
    if size < _LENGTH_BYTES:
        raise FileFormatError(f"not a .bnn file: {size} bytes are too few")
    header_bytes = int.from_bytes(file.read(_LENGTH_BYTES), "little")
    if header_bytes > MAX_HEADER_BYTES:
        raise FileFormatError(f"not a .bnn file: a header of {header_bytes} bytes (at most {MAX_HEADER_BYTES})")
    data_start = _LENGTH_BYTES + header_bytes
    if data_start > size:
        raise FileFormatError(f"truncated: a header of {header_bytes} bytes in a file of {size}")
    if size - data_start > MAX_DATA_BYTES:
        raise FileFormatError(f"{size - data_start} bytes of data; at most {MAX_DATA_BYTES} are allowed")
    try:
        text = file.read(header_bytes).decode("utf-8")
    except UnicodeDecodeError:
        raise FileFormatError("not a .bnn file: the header is not text") from None
    if not text.startswith("{"):
        raise FileFormatError("not a .bnn file: the header does not begin with '{'")
    header = parse_json(text)
    metadata = _metadata(header.pop("__metadata__", None))
    layout = _layout(header, size - data_start)
    data = file.read(size - data_start)
    if len(data) != size - data_start:
        raise FileFormatError("the file became shorter while it was read")
    tensors: Tensors = {}
    sections = [Section("length of the header", 0, _LENGTH_BYTES), Section("header", _LENGTH_BYTES, header_bytes)]
    for name, (dtype, shape, begin, end) in layout.items():
        tensors[name] = np.frombuffer(data[begin:end], dtype=dtype).reshape(shape)
        sections.append(Section(name, data_start + begin, end - begin))
    return Container(metadata, tensors, tuple(sections), size, hashlib.sha256(data).hexdigest())


def _metadata(entry: Any) -> dict[str, Any]:
    if not isinstance(entry, dict) or METADATA_KEY not in entry:
        raise FileFormatError("not a .bnn file: a safetensors header without binarynet's metadata")
    if set(entry) != {METADATA_KEY} or not isinstance(entry[METADATA_KEY], str):
        raise FileFormatError(f"the metadata must be text under the one key {METADATA_KEY!r}")
    return parse_json(entry[METADATA_KEY])


def _layout(header: dict[str, Any], data_bytes: int) -> dict[str, tuple[np.dtype[Any], tuple[int, ...], int, int]]:
    """Tensor name to dtype, shape, begin and end, by rising offset; together they cover the data exactly once."""
    layout: dict[str, tuple[np.dtype[Any], tuple[int, ...], int, int]] = {}
    for name, entry in header.items():
        where = f"tensor {name[:80]!r}"
        if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
            raise FileFormatError(f"{where}: must have exactly 'dtype', 'shape' and 'data_offsets'")
        dtype = _DTYPES.get(entry["dtype"]) if isinstance(entry["dtype"], str) else None
        if dtype is None:
            raise FileFormatError(f"{where}: dtype {str(entry['dtype'])[:40]!r} is not one of {', '.join(_DTYPES)}")
        shape, offsets = _naturals(entry["shape"], where), _naturals(entry["data_offsets"], where)
        if len(shape) != 1 or len(offsets) != 2:
            raise FileFormatError(f"{where}: must have one dimension and two offsets")
        begin, end = offsets
        if not begin <= end <= data_bytes:
            raise FileFormatError(f"{where}: bytes {begin} to {end} of {data_bytes}: truncated or wrong")
        if end - begin != shape[0] * dtype.itemsize:
            raise FileFormatError(f"{where}: shape {list(shape)} does not fit {end - begin} bytes")
        layout[name] = (dtype, shape, begin, end)
    layout = dict(sorted(layout.items(), key=lambda item: item[1][2:]))
    covered = 0
    for name, (_, _, begin, end) in layout.items():
        if begin != covered:
            problem = "overlaps another" if begin < covered else "leaves a gap before it"
            raise FileFormatError(f"tensor {name[:80]!r} {problem} (begins at {begin}, expected {covered})")
        covered = end
    if covered != data_bytes:
        raise FileFormatError(f"{data_bytes - covered} bytes at the end belong to no tensor")
    return layout


def _naturals(values: Any, where: str) -> tuple[int, ...]:
    if not isinstance(values, list) or any(type(v) is not int or not 0 <= v < 1 << 48 for v in values):
        raise FileFormatError(f"{where}: shape and offsets must be lists of non-negative integers")
    return tuple(values)


def tensor_data(content: bytes) -> bytes:
    """The part of a whole safetensors file that follows the header."""
    return content[_LENGTH_BYTES + int.from_bytes(content[:_LENGTH_BYTES], "little") :]
