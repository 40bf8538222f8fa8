"""MATLAB 5 files: numeric arrays by name, strictly and in bounded memory, without SciPy.

(SciPy's reader ends the whole process on some damaged files, so files from strangers are not given to it.)

A file is a header of 128 bytes, then elements: a tag (type and number of bytes, 32 bits each, little-endian) and data.
An array is an element of four parts: flags, extents, name, values. A compressed element is a zlib stream of one array.
Up to four bytes of data lie in the tag itself; else data are padded to a multiple of eight bytes.
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Collection, Iterator
from io import BufferedIOBase
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from binarynet.data._files import check_is_file, expansion_limit
from binarynet.errors import DataError

_HEADER = b"MATLAB 5.0 MAT-file"
_HEADER_BYTES = 128
_MATRIX, _COMPRESSED = 14, 15
_INT8, _INT32, _UINT32 = 1, 5, 6
_STORED = {1: "<i1", 2: "<u1", 3: "<i2", 4: "<u2", 5: "<i4", 6: "<u4", 7: "<f4", 9: "<f8", 12: "<i8", 13: "<u8"}
_NUMERIC_CLASSES = range(6, 16)
_COMPLEX = 0x0800
_MAX_AXES, _MAX_NAME_BYTES = 8, 64
_PIECE_BYTES = 1 << 20


class _Damaged(Exception):
    """Why a file is not taken; becomes a DataError with the file's name."""


def read_mat(file: Path, names: Collection[str]) -> dict[str, npt.NDArray[Any]]:
    """Read the named numeric arrays of a MATLAB 5 file; what else it holds is passed over.

    Returns:
        The arrays with their axes **in reverse**, C-contiguous: MATLAB's ``[32, 32, 3, n]`` is ``[n, 3, 32, 32]``.
        Their type is the one they are stored in, which may be narrower than the one they have in MATLAB.

    Raises:
        DataError: missing, damaged, truncated, of another version, lacking a name, or an array that is not numeric or
            claims more than a file of its size can honestly hold.
    """
    check_is_file(file)
    limit = expansion_limit(file.stat().st_size)
    found: dict[str, npt.NDArray[Any]] = {}
    try:
        with file.open("rb") as stream:
            for source in _elements(stream, file.stat().st_size, limit):
                name, shape, numeric = _array_header(source)
                if name not in names:
                    continue
                if name in found:
                    raise _Damaged(f"holds '{name}' twice")
                if not numeric:
                    raise _Damaged(f"'{name}' is not an array of real numbers")
                found[name] = _values(source, name, shape, limit)
    except (_Damaged, zlib.error) as error:
        raise DataError(f"{file}: {error}; fetch it again") from error
    except MemoryError as error:
        raise DataError(f"{file}: claims more than fits into memory") from error
    except OSError as error:
        raise DataError(f"{file}: cannot be read ({error.strerror or error})") from error
    missing = [name for name in names if name not in found]
    if missing:
        raise DataError(f"{file}: lacks the array{'s' if len(missing) > 1 else ''} {', '.join(missing)}")
    return found


class _Source(Protocol):
    """Bytes of one array element."""

    def take(self, count: int) -> bytes:
        """Exactly so many bytes."""
        ...

    def fill(self, view: memoryview) -> None:
        """As many bytes as the view has."""
        ...

    def finish(self) -> None:
        """Complain unless at the end."""
        ...


class _Plain:
    """An element as it lies in the file."""

    def __init__(self, stream: BufferedIOBase, num_bytes: int) -> None:
        self.stream, self.left = stream, num_bytes

    def take(self, count: int) -> bytes:
        piece = self.stream.read(min(count, self.left))
        self.left -= len(piece)
        if len(piece) != count:
            raise _Damaged("truncated or damaged: an element ends early")
        return piece

    def fill(self, view: memoryview) -> None:
        for start in range(0, len(view), _PIECE_BYTES):
            piece = view[start : start + _PIECE_BYTES]
            piece[:] = self.take(len(piece))

    def finish(self) -> None:
        if self.left:
            raise _Damaged(f"damaged: {self.left:,} trailing bytes in an element")


class _Inflated:
    """A compressed element; never more than is asked for is decompressed."""

    def __init__(self, stream: BufferedIOBase, num_bytes: int) -> None:
        self.source, self.inflater = _Plain(stream, num_bytes), zlib.decompressobj()

    def _some(self, count: int) -> bytes:
        while not self.inflater.eof:
            packed = self.inflater.unconsumed_tail
            if not packed and self.source.left:
                packed = self.source.take(min(self.source.left, _PIECE_BYTES))
            piece = self.inflater.decompress(packed, count)
            if piece or not (packed or self.source.left):
                return piece
        return b""

    def take(self, count: int) -> bytes:
        pieces, left = [], count
        while left:
            piece = self._some(left)
            if not piece:
                raise _Damaged("truncated or damaged: a compressed element ends early")
            pieces.append(piece)
            left -= len(piece)
        return b"".join(pieces)

    def fill(self, view: memoryview) -> None:
        start = 0
        while start < len(view):
            piece = self.take(min(_PIECE_BYTES, len(view) - start))
            view[start : start + len(piece)] = piece
            start += len(piece)

    def finish(self) -> None:
        if self._some(1) or not self.inflater.eof or self.inflater.unused_data or self.source.left:
            raise _Damaged("damaged: a compressed element does not end where it should")


def _elements(stream: BufferedIOBase, file_bytes: int, limit: int) -> Iterator[_Source]:
    """The array elements of a file, each at the first of its parts."""
    header = stream.read(_HEADER_BYTES)
    if not header.startswith(_HEADER) or len(header) < _HEADER_BYTES:
        raise _Damaged(f"not a MATLAB 5.0 file, which begins with '{_HEADER.decode()}'")
    if header[124:] != b"\x00\x01IM":
        raise _Damaged("not a little-endian MATLAB file of version 1.0")
    position = _HEADER_BYTES
    while position < file_bytes:
        stream.seek(position)
        tag = stream.read(8)
        kind, num_bytes = struct.unpack("<II", tag) if len(tag) == 8 else (0, 0)
        if kind not in (_MATRIX, _COMPRESSED):
            raise _Damaged(f"truncated or damaged: no array at byte {position:,}")
        position += 8 + num_bytes
        if position > file_bytes:
            raise _Damaged(f"truncated: {file_bytes:,} bytes, an element needs {position:,}")
        if kind == _MATRIX:
            yield _Plain(stream, num_bytes)
            continue
        source = _Inflated(stream, num_bytes)
        kind, num_bytes = struct.unpack("<II", source.take(8))
        if kind != _MATRIX or num_bytes > limit:
            raise _Damaged(f"damaged, or a decompression bomb: an element of type {kind} with {num_bytes:,} bytes")
        yield source


def _part(source: _Source, kind: int, max_bytes: int) -> bytes:
    """A short part of an array element, which must be of this type."""
    found, num_bytes, inline = _tag(source)
    if found != kind or num_bytes > max_bytes:
        raise _Damaged(f"damaged: a part of type {found} with {num_bytes:,} bytes where type {kind} is expected")
    if inline is not None:
        return inline
    return source.take(num_bytes + -num_bytes % 8)[:num_bytes]


def _tag(source: _Source) -> tuple[int, int, bytes | None]:
    """Type, number of bytes, and the data where they lie in the tag itself."""
    tag = source.take(8)
    kind, num_bytes = struct.unpack("<II", tag)
    if not kind >> 16:
        return kind, num_bytes, None
    kind, num_bytes = kind & 0xFFFF, kind >> 16
    if num_bytes > 4:
        raise _Damaged(f"damaged: {num_bytes} bytes in a tag, which has room for 4")
    return kind, num_bytes, tag[4 : 4 + num_bytes]


def _array_header(source: _Source) -> tuple[str, tuple[int, ...], bool]:
    """Name, extents in MATLAB's order, and whether the values are real numbers."""
    flags = _part(source, _UINT32, 8)
    extents = _part(source, _INT32, 4 * _MAX_AXES)
    name = _part(source, _INT8, _MAX_NAME_BYTES)
    if len(flags) != 8 or len(extents) % 4 or len(extents) < 8:
        raise _Damaged("damaged: an array without flags or extents")
    shape = struct.unpack(f"<{len(extents) // 4}i", extents)
    if min(shape) < 0:
        raise _Damaged(f"damaged: an array of shape {list(shape)}")
    word = int.from_bytes(flags[:4], "little")
    return name.decode("latin-1"), shape, word & 0xFF in _NUMERIC_CLASSES and not word & _COMPLEX


def _values(source: _Source, name: str, shape: tuple[int, ...], limit: int) -> npt.NDArray[Any]:
    kind, num_bytes, inline = _tag(source)
    if kind not in _STORED:
        raise _Damaged(f"damaged: '{name}' is stored as type {kind}, which is none of numbers")
    dtype = np.dtype(_STORED[kind])
    if math.prod(shape) * dtype.itemsize != num_bytes:
        raise _Damaged(f"damaged: '{name}' has shape {list(shape)} of {dtype}, but {num_bytes:,} bytes of values")
    if num_bytes > limit:
        raise _Damaged(f"'{name}' claims {num_bytes:,} bytes: damaged, or a decompression bomb")
    content = np.empty(num_bytes, dtype=np.uint8)
    if inline is not None:
        content[:] = np.frombuffer(inline, dtype=np.uint8)
    else:
        source.fill(content.data)
        source.take(-num_bytes % 8)
    source.finish()
    return content.view(dtype).reshape(shape[::-1])
