"""Strict reading of .npy and .npz: no pickles, no claim believed before the bytes are there to back it."""

from __future__ import annotations

import math
import struct
import zipfile
import zlib
from collections.abc import Collection
from io import BufferedIOBase
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from binarynet.data._files import check_is_file, expansion_limit
from binarynet.errors import DataError

_READ_PIECE_BYTES = 1 << 24


def read_npy_file(file: Path) -> npt.NDArray[Any]:
    """Read one ``.npy`` file that must be used up to its last byte. Raises DataError."""
    check_is_file(file)
    try:
        with file.open("rb") as stream:
            return _read_npy(stream, file.stat().st_size, str(file))
    except OSError as error:
        raise DataError(f"{file}: cannot be read ({error.strerror or error})") from error


def read_npz_file(file: Path, required: Collection[str], optional: Collection[str]) -> dict[str, npt.NDArray[Any]]:
    """Read the named arrays of an ``.npz`` file.

    Raises:
        DataError: missing, not a zip archive, truncated or damaged, a decompression bomb, arrays missing or unknown,
            or an array that needs pickle.
    """
    check_is_file(file)
    try:
        with zipfile.ZipFile(file) as archive:
            members = _members(archive, file, required, optional)
            limit = expansion_limit(file.stat().st_size)
            if sum(info.file_size for info in members.values()) > limit:
                raise DataError(
                    f"{file}: claims to decompress to more than {limit:,} bytes: refused as a decompression bomb"
                )
            arrays = {}
            for name, info in members.items():
                with archive.open(info) as stream:
                    arrays[name] = _read_npy(cast(BufferedIOBase, stream), info.file_size, f"{file}: array '{name}'")
            return arrays
    except zipfile.BadZipFile as error:
        raise DataError(f"{file}: not an .npz file, or truncated or damaged ({error})") from error
    except (OSError, EOFError, zlib.error, struct.error, NotImplementedError, RuntimeError, ValueError) as error:
        raise DataError(f"{file}: cannot be read ({error})") from error


def _members(
    archive: zipfile.ZipFile, file: Path, required: Collection[str], optional: Collection[str]
) -> dict[str, zipfile.ZipInfo]:
    members: dict[str, zipfile.ZipInfo] = {}
    for info in archive.infolist():
        name = info.filename.removesuffix(".npy")
        if name in members:
            raise DataError(f"{file}: holds '{name}' twice")
        members[name] = info
    known = [*required, *optional]
    for problem, names in (
        ("lacks", [name for name in required if name not in members]),
        ("holds the unknown", [name for name in members if name not in known]),
    ):
        if names:
            plural = "s" if len(names) > 1 else ""
            raise DataError(
                f"{file}: {problem} array{plural} {', '.join(map(repr, names))}; expected {', '.join(required)} "
                f"and, if wanted, {', '.join(optional)}"
            )
    return members


def _read_npy(stream: BufferedIOBase, available_bytes: int, what: str) -> npt.NDArray[Any]:
    """Read one array; ``available_bytes`` bounds header and content, and must be met exactly."""
    shape, fortran_order, dtype = _read_header(stream, what)
    if dtype.hasobject:
        raise DataError(
            f"{what}: holds Python objects, which only pickle can read and which could run code: refused; "
            f"save plain uint8 or integer arrays"
        )
    if dtype.names is not None or dtype.itemsize == 0:
        raise DataError(f"{what}: dtype {dtype} is not a plain one")
    if any(extent < 0 for extent in shape):
        raise DataError(f"{what}: negative shape {list(shape)}")
    num_bytes = math.prod(shape) * dtype.itemsize
    present_bytes = available_bytes - stream.tell()
    if num_bytes > present_bytes:
        raise DataError(
            f"{what}: truncated: shape {list(shape)} of {dtype} needs {num_bytes:,} bytes, {present_bytes:,} are there"
        )
    if num_bytes < present_bytes:
        raise DataError(f"{what}: {present_bytes - num_bytes:,} trailing bytes after the array")
    content = np.empty(num_bytes, dtype=np.uint8)
    view, filled = content.data, 0
    while filled < num_bytes:
        count = stream.readinto(view[filled : filled + _READ_PIECE_BYTES])
        if not count:
            raise DataError(f"{what}: truncated after {filled:,} of {num_bytes:,} bytes")
        filled += count
    stream.read(1)  # at the end of a zip member: this is where its CRC is checked
    flat = content.view(dtype)
    return flat.reshape(shape[::-1]).T if fortran_order else flat.reshape(shape)


def _read_header(stream: BufferedIOBase, what: str) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    try:
        version = np.lib.format.read_magic(stream)
        if version == (1, 0):
            return np.lib.format.read_array_header_1_0(stream)
        if version == (2, 0):
            return np.lib.format.read_array_header_2_0(stream)
    except Exception as error:  # NumPy evaluates and tokenizes the header: nearly anything can come out of it
        reason = " ".join(str(error).split())[:120]
        raise DataError(f"{what}: not an .npy array, or a damaged one ({reason})") from error
    raise DataError(f"{what}: .npy format version {version[0]}.{version[1]} is unknown, expected 1.0 or 2.0")
