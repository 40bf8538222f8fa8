"""Checkpoints: written whole or not at all, read without running anything that is in them.

A checkpoint is what ``torch.save`` writes. Before torch reads one, the archive and its pickle are looked through:
members stored as they are (nothing to inflate), checksums right, and no name called for but the few that tensors
need. Then ``torch.load(weights_only=True)`` has its say as well.
"""

from __future__ import annotations

import io
import pickletools
import zipfile
import zlib
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import IO, Any, cast

import torch
from torch import Tensor, nn

from binarynet.errors import FileFormatError
from binarynet.files import whole_file

VERSION = 1

_MAX_PICKLE_BYTES = 1 << 24
_FOLDER_BIT = 0x10  # of a ZIP member's external attributes
_ALLOWED_GLOBALS = frozenset(
    {"collections OrderedDict", "torch._utils _rebuild_tensor_v2"}
    | {f"torch {kind}Storage" for kind in ("Float", "Double", "Half", "BFloat16", "Long", "Int", "Byte", "Bool")}
)


def save(path: str | PathLike[str], kind: str, content: Mapping[str, Any]) -> None:
    """Write a checkpoint under a temporary name in the target's directory, then rename it.

    Args:
        path: the file; an older one stays as it is until the new one is complete on the disk.
        kind: what it is, checked by :func:`load`.
        content: tensors, numbers, strings, and lists and dicts of them.

    Raises:
        DataError: the disk is full, or the directory cannot be written to.
    """
    with whole_file(path) as temporary, open(temporary, "wb") as file:
        watched = _Watched(file)
        try:
            torch.save({"format": "binarynet", "version": VERSION, "kind": kind, **content}, cast(IO[bytes], watched))
        except RuntimeError:
            # torch's writer reports a failed write in words of its own; the cause is what a user can act on.
            if watched.failure is not None:
                raise watched.failure from None
            raise


def load(path: str | PathLike[str], kind: str) -> dict[str, Any]:
    """Read a checkpoint; tensors come to the CPU.

    Raises:
        FileFormatError: missing, truncated, damaged, of another kind or version, or wants to call something.
    """
    path = Path(path)
    if not path.is_file():
        raise FileFormatError(f"{path}: no such checkpoint")
    _look_through(path)
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a file from a stranger can fail in any way
        raise FileFormatError(f"{path}: not a usable checkpoint: {_first_line(error)}") from None
    if not isinstance(content, dict) or content.get("format") != "binarynet":
        raise FileFormatError(f"{path}: a torch file, but not a checkpoint of binarynet")
    if content.get("version") != VERSION:
        raise FileFormatError(
            f"{path}: checkpoint version {content.get('version')!r}, this binarynet reads version {VERSION}"
        )
    if content.get("kind") != kind:
        raise FileFormatError(f"{path}: expected a checkpoint of kind {kind!r}, got {content.get('kind')!r}")
    return content


def load_network(model: nn.Module, state: Any, path: str | PathLike[str]) -> None:
    """Give a network the parameters and statistics of a checkpoint, which may be built on the meta device.

    The memory that this takes is bounded by the file's size.

    Raises:
        FileFormatError: names, shapes or dtypes differ from the network's.
    """
    expected = model.state_dict()
    if not isinstance(state, dict):
        raise FileFormatError(f"{path}: holds no network")
    for name in (*expected, *state):
        if name not in state or name not in expected:
            what = "lacks" if name not in state else "has an unknown"
            raise FileFormatError(f"{path}: {what} {name!r}; does it belong to another recipe?")
        tensor, wanted = state[name], expected[name]
        if not isinstance(tensor, Tensor) or tensor.shape != wanted.shape or tensor.dtype != wanted.dtype:
            got = f"{tensor.dtype} {list(tensor.shape)}" if isinstance(tensor, Tensor) else type(tensor).__name__
            raise FileFormatError(f"{path}: {name} is {got}, expected {wanted.dtype} {list(wanted.shape)}")
        if not tensor.is_contiguous():
            raise FileFormatError(f"{path}: {name} is not contiguous, which binarynet never writes")
    model.load_state_dict(state, assign=True)


class _Watched(io.RawIOBase):
    """A file that remembers the error of a failed write."""

    def __init__(self, file: IO[bytes]) -> None:
        super().__init__()
        self._file = file
        self.failure: OSError | None = None

    def writable(self) -> bool:
        return True

    def write(self, content: Any) -> int:
        try:
            return self._put(content)
        except OSError as error:
            self.failure = error
            raise

    def _put(self, content: Any) -> int:
        return self._file.write(content)

    def flush(self) -> None:
        self._file.flush()


def _look_through(path: Path) -> None:
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            for member in members:
                if member.compress_type != zipfile.ZIP_STORED or member.flag_bits & 1:
                    raise FileFormatError(f"{path}: {member.filename!r} is compressed, which torch never writes")
                if member.external_attr & _FOLDER_BIT or member.is_dir():
                    # torch's own reader takes such a member for a folder and leaves the tensor's memory as it was
                    raise FileFormatError(f"{path}: {member.filename!r} is marked as a folder")
            if sum(member.file_size for member in members) > path.stat().st_size:
                raise FileFormatError(f"{path}: its parts claim to be larger than the file")
            if len({member.filename for member in members}) != len(members):
                raise FileFormatError(f"{path}: two of its parts have the same name")
            damaged = archive.testzip()
            if damaged is not None:
                raise FileFormatError(f"{path}: damaged: the checksum of {damaged!r} is wrong")
            pickles = [member for member in members if member.filename.endswith("data.pkl")]
            if len(pickles) != 1 or pickles[0].file_size > _MAX_PICKLE_BYTES:
                raise FileFormatError(f"{path}: not a torch file")
            _check_globals(path, archive.read(pickles[0]))
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, ValueError, OverflowError) as error:
        raise FileFormatError(f"{path}: not a checkpoint, or truncated: {_first_line(error)}") from None
    except OSError as error:
        raise FileFormatError(f"{path}: cannot be read: {error.strerror or error}") from None


def _check_globals(path: Path, pickled: bytes) -> None:
    for opcode, argument, _ in pickletools.genops(pickled):
        if opcode.name == "GLOBAL" and argument not in _ALLOWED_GLOBALS:
            called = str(argument).replace(" ", ".")
            raise FileFormatError(f"{path}: wants to use {called}, which no checkpoint needs; refused, nothing was run")
        if opcode.name in ("STACK_GLOBAL", "INST", "OBJ", "EXT1", "EXT2", "EXT4"):
            raise FileFormatError(f"{path}: uses the pickle instruction {opcode.name}; refused, nothing was run")


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]
