"""Files that appear whole or not at all, and where files are kept that can be made again."""

from __future__ import annotations

import errno
import os
import secrets
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from binarynet.errors import DataError

CACHE_VARIABLE = "BINARYNET_CACHE"


def cache_directory() -> Path:
    """For what can be made or downloaded again: ``BINARYNET_CACHE``, else in the platform's cache directory.

    Raises:
        DataError: it would be in a home directory, and there is none.
    """
    try:
        return _cache_directory()
    except RuntimeError:
        raise DataError(
            "no cache directory: there is no home directory to keep it in (as for users without an account in a "
            f"container); set {CACHE_VARIABLE} to a folder"
        ) from None


def _cache_directory() -> Path:
    if named := os.environ.get(CACHE_VARIABLE):
        return Path(named).expanduser()
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "binarynet"


@contextmanager
def whole_file(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Write a file under a temporary name beside ``path`` and rename it when the block ends without an error.

    Yields:
        The temporary path to write to. It is flushed to the disk before it takes the place of ``path``, and
        removed where the block fails, so that a reader sees the old file or the new one, never a part.

    Raises:
        DataError: the directory is missing, not writable or full, or ``path`` is a directory or device.
    """
    target = Path(path)
    temporary = _empty_beside(target)
    try:
        yield temporary
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except OSError as error:
        raise DataError(f"{target}: cannot be written: {_reason(error)}") from None
    finally:
        temporary.unlink(missing_ok=True)


def require_writable(path: str | os.PathLike[str]) -> None:
    """For work that takes long before its result is written: what can be known beforehand. Leaves nothing behind.

    Raises:
        DataError: the directory is missing or not writable, or ``path`` is a directory or device.
    """
    _empty_beside(Path(path)).unlink(missing_ok=True)


def write_whole(path: str | os.PathLike[str], content: bytes | str) -> None:
    """Write bytes (or text, as UTF-8) to ``path``, whole or not at all; DataError where that fails."""
    with whole_file(path) as temporary:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)


def _empty_beside(target: Path) -> Path:
    """A new file under a temporary name in the directory of ``target``; DataError where there can be none."""
    try:
        if target.exists() and not target.is_file():  # as root, a rename would take the place of /dev/null
            raise DataError(f"{target}: cannot be written: it is not a regular file")
        temporary = target.with_name(f".{target.name[:32]}.{secrets.token_hex(6)}.tmp")
        temporary.touch(exist_ok=False)
    except OSError as error:
        raise DataError(f"{target}: cannot be written: {_reason(error)}") from None
    except ValueError as error:  # a name with a null byte
        raise DataError(f"{str(target)!r}: cannot be written: {error}") from None
    return temporary


def _reason(error: OSError) -> str:
    full = {errno.ENOSPC: "the disk is full", errno.EDQUOT: "the disk quota is used up"}
    if error.errno in full:
        return f"{full[error.errno]}; free some space and try again"
    return error.strerror or str(error)
