"""Building the native tests. Test processes (pytest-xdist) share a build: whoever comes first makes it."""

from __future__ import annotations

import fcntl
import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from native_mutations import Mutation

REPOSITORY = Path(__file__).resolve().parents[2]
SOURCES = REPOSITORY / "native" / "src"


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


def assert_no_inline_code(build: Path, patterns: dict[str, str], nm: str) -> None:
    """Weak symbols of a kernel file could displace the same functions compiled for every processor.

    ``patterns``: the object files to look at, by room of ``native/src``.
    """
    sources = build / "native/CMakeFiles/binarynet_core.dir/src"
    found = {room: sorted((sources / room).glob(pattern)) for room, pattern in patterns.items()}
    assert all(found.values()), found
    objects = [file for files in found.values() for file in files]
    for file in objects:
        symbols = run([tool(nm), "--demangle", file]).stdout.splitlines()
        kinds = {line[19:]: line[17] for line in symbols if len(line) > 19}
        assert "T" in kinds.values() or "R" in kinds.values() or "D" in kinds.values(), f"{file.name}: no symbols"
        weak = [name for name, kind in kinds.items() if kind in "WwVvu"]
        assert not weak, f"{file.name}: {weak}"


def compile_again(build: Path, source: Path, changed: Path, to: Path, *options: str) -> Path:
    """The object of a changed copy of a source file, with the flags of the original; returns ``to``."""
    commands = json.loads((build / "compile_commands.json").read_text())
    command = next(entry["command"] for entry in commands if Path(entry["file"]) == source)
    arguments = shlex.split(command.replace("-O3", "-O1"))
    arguments[arguments.index("-o") + 1] = str(to)
    arguments[arguments.index("-c") + 1] = str(changed)
    compiled = run([*arguments, "-w", *options])
    assert compiled.returncode == 0, compiled.stderr
    return to


def link_tests(build: Path, objects: list[Path], program: Path, linker: list[str]) -> Path:
    """The native tests; objects go before the library, which then need not give their symbols; returns ``program``."""
    tests = sorted((build / "native/tests/CMakeFiles/binarynet_tests.dir").glob("*.o"))
    linked = run([*linker, *tests, *objects, build / "native/libbinarynet.a", "-pthread", "-o", program])
    assert linked.returncode == 0, linked.stderr
    return program


def compile_mutant(build: Path, mutation: Mutation, directory: Path, linker: list[str], *options: str) -> Path:
    """The native tests with one broken source file; ``linker``: the compiler that links them, and its options."""
    original = SOURCES / mutation.file
    text = original.read_text()
    assert text.count(mutation.old) == 1, f"{mutation.file} has changed: adapt the mutation {mutation.name!r}"
    copies = directory / original.parent.name
    shutil.copytree(original.parent, copies)
    (copies / original.name).write_text(text.replace(mutation.old, mutation.new))
    source = SOURCES / (mutation.compiled or mutation.file)
    broken = compile_again(build, source, copies / source.name, directory / "broken.o", *options)
    return link_tests(build, [broken], directory / "broken", linker)
