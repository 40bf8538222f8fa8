"""Building the native tests. Test processes (pytest-xdist) share a build: whoever comes first makes it."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]


def tool(name: str) -> str:
    """Path of a build tool: next to this Python (where the package's extras put it) or on PATH."""
    beside = Path(sys.executable).parent / name
    found = str(beside) if beside.exists() else shutil.which(name)
    if found is None:
        pytest.skip(f"native tests need {name}, which is not installed")
    return found


def compiler() -> str:
    """The C++ compiler that CMake would take."""
    for name in (os.environ.get("CXX"), "c++", "g++", "clang++"):
        if name and shutil.which(name.split()[0]):
            return name
    pytest.skip("native tests need a C++ compiler; none was found (CXX, c++, g++, clang++)")


def run(command: list[str | Path], timeout: float = 280, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run to the end, output captured."""
    return subprocess.run(
        [str(part) for part in command],
        capture_output=True,
        text=True,
        timeout=timeout,
        env={**os.environ, **environment},
        check=False,
    )


@contextmanager
def locked(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def build(directory: Path, *options: str) -> Path:
    """Configure and build the native tests there once; returns the directory.

    Raises:
        AssertionError: the build failed; the text is the compiler's.
    """
    compiler()
    directory.parent.mkdir(parents=True, exist_ok=True)
    with locked(directory.with_suffix(".lock")):
        if (directory / "built").exists():
            return directory
        ninja = tool("ninja")
        configured = run(
            [
                tool("cmake"),
                *("-S", REPOSITORY, "-B", directory, "-G", "Ninja", f"-DCMAKE_MAKE_PROGRAM={ninja}"),
                *("-DBINARYNET_TESTS=ON", "-DCMAKE_EXPORT_COMPILE_COMMANDS=ON"),
                *options,
            ]
        )
        assert configured.returncode == 0, configured.stdout + configured.stderr
        built = run([ninja, "-C", directory, "-j", "2"])
        assert built.returncode == 0, built.stdout + built.stderr
        (directory / "built").touch()
    return directory
