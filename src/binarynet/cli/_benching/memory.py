"""Peak memory of a process that does nothing but load one party's files and run it."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from binarynet.errors import UsageError, VerificationError

if TYPE_CHECKING:
    from types import TracebackType

    from binarynet.fileformat import PackedNetwork

RUNS = 3
_STATUS = Path("/proc/self/status")
_ENGINE, _PEER = "engine", "peer"


def require_support() -> None:
    """UsageError where the system does not tell a process its peak memory."""
    if not _STATUS.exists():
        raise UsageError("--memory reads /proc/self/status, which this system does not have; leave it out")


class Packed:
    """A packed network in a file of its own, with the images, for as long as it is open."""

    def __init__(self, packed: PackedNetwork, images: npt.NDArray[np.uint8]) -> None:
        self.packed, self.images = packed, images

    def __enter__(self) -> Packed:
        from binarynet import fileformat

        self._folder = tempfile.TemporaryDirectory(prefix="binarynet-memory-")
        folder = Path(self._folder.name)
        self._file, self._images = folder / "model.bnn", folder / "images.npy"
        fileformat.write(self._file, self.packed)
        np.save(self._images, self.images)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._folder.cleanup()

    def peak_bytes(self, engine: str, num_threads: int) -> int:
        """Of a process that runs it on one engine."""
        return _in_child(_ENGINE, self._file, self._images, engine, num_threads)


def peak_bytes_of_peer(folder: Path) -> int:
    """Of a process that loads a peer from its folder and runs it."""
    return _in_child(_PEER, folder)


def _in_child(*arguments: Any) -> int:
    done = subprocess.run(
        [sys.executable, "-m", __name__, *map(str, arguments)], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise VerificationError(f"the process that measures memory ended with code {done.returncode}: {last}")
    return int(done.stdout.split()[-1])


def _run_here(arguments: list[str]) -> int:
    """In the child: load, run, and say how much memory that took at most."""
    kind, *rest = arguments
    if kind == _ENGINE:
        from binarynet import fileformat
        from binarynet.runtime import Session

        file, images, engine, num_threads = rest
        session = Session(fileformat.read(Path(file)).graph, engine=engine, num_threads=int(num_threads))
        batch = np.load(images)
        for _ in range(RUNS):
            session.run(batch)
    else:
        from binarynet.cli import _peers

        run = _peers.build(Path(rest[0]))
        for _ in range(RUNS):
            run()
    return _peak_of_this_process()


def _peak_of_this_process() -> int:
    """Bytes; unlike getrusage's, this figure knows nothing of the process that started this one."""
    for line in _STATUS.read_text(encoding="ascii").splitlines():
        if line.startswith("VmHWM:"):
            return 1024 * int(line.split()[1])
    raise OSError(f"{_STATUS} does not say VmHWM")


if __name__ == "__main__":
    print(_run_here(sys.argv[1:]))
    sys.stdout.flush()
    os._exit(0)  # some libraries take seconds to end
