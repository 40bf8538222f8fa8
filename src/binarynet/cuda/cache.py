"""Compiled kernels, kept between processes: each is compiled once per machine.

A folder of files, one per compiled source, named by the hash of everything that went in. A file that is damaged, or
that holds something else, is compiled anew and replaced; a folder that cannot be written to costs time, never a result.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from binarynet.cuda.compiler import SOURCES, Code, Defines, compile_source, options, version
from binarynet.errors import DataError
from binarynet.files import cache_directory, write_whole

CACHE_VARIABLE = "BINARYNET_CUDA_CACHE"
_MAGIC = b"binarynet cuda 1\n"
_HASH_BYTES = 32
_MOST_BYTES = 1 << 26


def directory() -> Path:
    """``BINARYNET_CUDA_CACHE``, else ``cuda`` in binarynet's cache directory.

    Raises:
        RuntimeError, DataError: it would be in a home directory, and there is none.
    """
    if named := os.environ.get(CACHE_VARIABLE):
        return Path(named).expanduser()
    return cache_directory() / "cuda"


def compiled(
    source: str, architecture: str, defines: Defines = (), code: Code = "cubin", *, anew: bool = False
) -> tuple[bytes, bool]:
    """What :func:`compile_source` makes, and whether it was in the cache.

    Args:
        source, architecture, defines, code: as there.
        anew: take nothing from the cache, and replace what it has.

    Raises:
        BackendUnavailableError: as there.
    """
    try:
        folder = directory()
    except (RuntimeError, DataError):  # a user without a home, as in containers
        return compile_source(source, architecture, defines, code), False
    path = folder / f"{_key(source, architecture, defines, code)}.{code}"
    if not anew and (image := _read(path)) is not None:
        return image, True
    image = compile_source(source, architecture, defines, code)
    _write(path, image)
    return image, False


def _key(source: str, architecture: str, defines: Defines, code: Code) -> str:
    """Hash of all that decides what comes out: source, every header, options, compiler."""
    parts = [version(), *options(architecture, defines, code), source]
    digest = hashlib.sha256(_MAGIC + "\0".join(parts).encode())
    for file in (SOURCES / source, *sorted(SOURCES.glob("*.cuh"))):
        content = file.read_bytes()
        digest.update(f"\0{file.name}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()


def _read(path: Path) -> bytes | None:
    """The image in a file of the cache; None where there is none, or where the file is not what it should be."""
    try:
        with open(path, "rb") as file:
            content = file.read(_MOST_BYTES)
    except OSError:
        return None
    start = len(_MAGIC) + _HASH_BYTES
    image = content[start:]
    whole = image and content[:start] == _MAGIC + hashlib.sha256(image).digest()
    return image if whole else None


def _write(path: Path, image: bytes) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, _MAGIC + hashlib.sha256(image).digest() + image)
    except (OSError, DataError):
        pass  # no cache: it is compiled again by the next process
