"""What `binarynet datasets` shows: which data sets are there, where, and whether they are the published ones."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Check = Literal["published", "differs", "unchecked", "damaged", "missing"]


@dataclass(frozen=True)
class FileStatus:
    """One file of a data set.

    Attributes:
        name: as published.
        check: ``published`` (it has the published checksum), ``differs``, ``unchecked`` (none is published for it in
            this form), ``damaged`` or ``missing``.
        path, size_bytes: None if missing.
        md5, sha256: published checksums of the file as downloaded; "" where none is published.
    """

    name: str
    check: Check
    path: Path | None
    size_bytes: int | None
    md5: str
    sha256: str


@dataclass(frozen=True)
class DatasetStatus:
    """One data set, as found on this machine.

    Attributes:
        name, summary: for humans.
        ready: True if ``load`` would find it without a download.
        where: a folder, or what provides it; "" if not there.
        detail: one line: what was checked, or what to do.
        files: its files; empty for a bundled data set.
    """

    name: str
    summary: str
    ready: bool
    where: str
    detail: str
    files: tuple[FileStatus, ...] = ()
