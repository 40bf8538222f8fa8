"""Files from strangers: where they are looked for, bounded reading, checksums, downloads."""

from __future__ import annotations

import gzip
import hashlib
import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from io import BufferedIOBase
from pathlib import Path
from typing import Literal

from binarynet.errors import INSTALL_TRAIN, DataError
from binarynet.files import cache_directory

log = logging.getLogger("binarynet.data")

MAX_EXPANSION = 256
FREE_EXPANSION_BYTES = 64 << 20
"""Compressed data may grow to 64 MiB, or to 256 times its size if that is more; beyond is a decompression bomb."""

DATA_VARIABLE = "BINARYNET_DATA"

Origin = Literal["--data", "BINARYNET_DATA", "cache"]


@dataclass(frozen=True)
class Place:
    """A directory where data may be, and who named it."""

    directory: Path
    origin: Origin


@dataclass(frozen=True)
class PublishedFile:
    """A file as its publisher made it.

    Attributes:
        name: file name, as downloaded.
        size_bytes: of the file as downloaded.
        md5, sha256: of the file as downloaded.
        content_sha256: of the decompressed content; equal to ``sha256`` for a file that is not compressed; "" where
            only the compressed file's checksums are published.
    """

    name: str
    size_bytes: int
    md5: str
    sha256: str
    content_sha256: str = ""


def expansion_limit(compressed_bytes: int) -> int:
    """Most bytes that this many compressed bytes may honestly grow to."""
    return max(FREE_EXPANSION_BYTES, MAX_EXPANSION * compressed_bytes)


def check_is_file(file: Path) -> None:
    """Raise DataError unless ``file`` is an existing regular file."""
    if not file.exists():
        raise DataError(f"{file}: no such file")
    if not file.is_file():
        raise DataError(f"{file}: is not a file" + (" but a folder" if file.is_dir() else ""))


def is_gzip(file: Path) -> bool:
    """Whether the content (not the name) says gzip. Raises DataError."""
    check_is_file(file)
    try:
        with file.open("rb") as stream:
            return stream.read(2) == b"\x1f\x8b"
    except OSError as error:
        raise DataError(f"{file}: cannot be read ({error.strerror or error})") from error


def open_maybe_gzip(file: Path) -> BufferedIOBase:
    """Open for reading, through gzip if the content (not the name) says so. Raises DataError."""
    return gzip.open(file, "rb") if is_gzip(file) else file.open("rb")


def content_sha256(file: Path) -> str:
    """Hash of the decompressed content, read in pieces up to the expansion limit. Raises DataError."""
    limit = expansion_limit(file.stat().st_size) if file.is_file() else 0
    digest, total = hashlib.sha256(), 0
    with open_maybe_gzip(file) as stream:
        try:
            while piece := stream.read(1 << 20):
                total += len(piece)
                if total > limit:
                    raise DataError(f"{file}: decompresses to more than {limit:,} bytes: refused as a bomb")
                digest.update(piece)
        except (OSError, EOFError, ValueError) as error:
            raise DataError(f"{file}: truncated or damaged ({error})") from error
    return digest.hexdigest()


def file_sha256(file: Path) -> str:
    """Hash of a file as it lies there. Raises DataError."""
    check_is_file(file)
    try:
        with file.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise DataError(f"{file}: cannot be read ({error.strerror or error})") from error


def read_whole(file: Path, max_bytes: int) -> bytes:
    """A file's content, if it is at most ``max_bytes`` long. Raises DataError."""
    check_is_file(file)
    try:
        with file.open("rb") as stream:
            content = stream.read(max_bytes + 1)
    except OSError as error:
        raise DataError(f"{file}: cannot be read ({error.strerror or error})") from error
    if len(content) > max_bytes:
        raise DataError(f"{file}: is longer than {max_bytes:,} bytes, which none of the published files comes near")
    return content


def places(dataset: str, data_dir: str | os.PathLike[str] | None) -> list[Place]:
    """Directories to look in, in order: ``data_dir`` and ``data_dir/<dataset>``, the same for ``BINARYNET_DATA``,
    then the cache. Raises DataError if a directory that the user named does not exist."""
    found: list[Place] = []
    named: list[tuple[Origin, str | os.PathLike[str] | None]] = [
        ("--data", data_dir),
        ("BINARYNET_DATA", os.environ.get(DATA_VARIABLE)),
    ]
    for origin, value in named:
        if not value:
            continue
        directory = Path(value).expanduser()
        if not directory.is_dir():
            raise DataError(f"{directory}: no such folder (given by {origin})")
        found += [Place(directory, origin), Place(directory / dataset, origin)]
    found.append(Place(cache_directory() / dataset, "cache"))
    return found


def download(file: PublishedFile, mirrors: Sequence[str], directory: Path) -> Path:
    """Fetch one published file into ``directory`` (whole and with the right checksum, or not at all).

    Raises:
        DataError: pooch is not installed, no mirror could be reached, or none had the published content.
    """
    try:
        import pooch
    except ImportError as error:
        raise DataError(
            f"{file.name}: downloading needs pooch, which is not installed; "
            f"{INSTALL_TRAIN}, or fetch the file yourself and name its folder with --data"
        ) from error
    pooch.get_logger().setLevel(logging.WARNING)
    failures = []
    for mirror in mirrors:
        log.info("downloading %s%s (%.1f MB)", mirror, file.name, file.size_bytes / 1e6)
        try:
            return Path(
                pooch.retrieve(
                    mirror + file.name,
                    known_hash=f"sha256:{file.sha256}",
                    fname=file.name,
                    path=directory,
                    downloader=pooch.HTTPDownloader(timeout=30),
                )
            )
        except (OSError, ValueError) as error:
            failures.append(f"{mirror}: {_download_failure(error)}")
    raise DataError(f"{file.name}: download failed ({'; '.join(failures)})")


def _download_failure(error: Exception) -> str:
    text = " ".join(str(error).split())
    if "hash" in text.lower():
        return "its content differs from the published checksum"
    response = getattr(error, "response", None)
    if response is not None:
        return f"HTTP status {response.status_code}"
    return "no connection" if "Connection" in type(error).__name__ else f"{type(error).__name__}: {text[:80]}"
