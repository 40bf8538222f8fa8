"""Tar archives from strangers: named members are read into memory, nothing is ever written to a path they name."""

from __future__ import annotations

import tarfile
import zlib
from collections.abc import Collection
from io import BufferedIOBase
from pathlib import Path, PurePosixPath
from typing import IO, cast

from binarynet.data._files import open_maybe_gzip
from binarynet.errors import DataError


def read_tar_members(
    file: Path, names: Collection[str], max_member_bytes: int, max_total_bytes: int
) -> dict[str, bytes]:
    """Contents of the regular files of these names, in whichever folder of the archive they are.

    Args:
        file: a tar archive, through gzip or not (its content decides).
        names: file names without folders; those that the archive lacks are not in the result.
        max_member_bytes: largest size of a wanted member.
        max_total_bytes: largest size of the decompressed archive.

    Raises:
        DataError: missing, damaged, truncated, a decompression bomb, a wanted name twice or not as a regular file, or
            any member whose path leads out of the archive.
    """
    found: dict[str, bytes] = {}
    with open_maybe_gzip(file) as stream:
        limited = _Limited(stream, file, max_total_bytes)
        try:
            with tarfile.open(fileobj=cast(IO[bytes], limited), mode="r|") as archive:
                for member in archive:
                    path = PurePosixPath(member.name)
                    if path.is_absolute() or ".." in path.parts or "\\" in member.name:
                        raise DataError(f"{file}: holds the path {member.name[:80]!r}, which leads elsewhere: refused")
                    if path.name not in names:
                        continue
                    if path.name in found:
                        raise DataError(f"{file}: holds {path.name} twice")
                    if not member.isreg() or member.issparse():
                        raise DataError(f"{file}: {path.name} is not a regular file: refused")
                    if member.size > max_member_bytes:
                        raise DataError(
                            f"{file}: {path.name} claims {member.size:,} bytes, expected at most {max_member_bytes:,}"
                        )
                    content = archive.extractfile(member)
                    found[path.name] = content.read() if content is not None else b""
                    if len(found[path.name]) != member.size:
                        raise DataError(f"{file}: truncated in {path.name}; fetch it again")
            while limited.read(1 << 20):  # to the end, where gzip's checksum is compared
                pass
        except EOFError as error:
            raise DataError(f"{file}: truncated (its compressed content ends early); fetch it again") from error
        except (tarfile.TarError, OSError, zlib.error, ValueError, OverflowError) as error:
            reason = " ".join(str(error).split())[:120]
            raise DataError(f"{file}: not a tar archive, or truncated or damaged ({reason}); fetch it again") from error
    return found


class _Limited:
    """A stream that ends in an error where a decompression bomb would go on."""

    def __init__(self, stream: BufferedIOBase, file: Path, limit: int) -> None:
        self._stream, self._file, self._limit, self._total = stream, file, limit, 0

    def read(self, size: int) -> bytes:
        piece = self._stream.read(size)
        self._total += len(piece)
        if self._total > self._limit:
            raise DataError(f"{self._file}: decompresses to more than {self._limit:,} bytes: refused as a bomb")
        return piece
