"""Files of a small network, and the command line called as a function."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from binarynet.cli import app
from binarynet.fileformat import write
from digits_network import digits_network


@dataclass(frozen=True)
class Outcome:
    """What a command did; ``code`` is its exit code."""

    code: int
    out: str
    err: str

    @property
    def error(self) -> str:
        """The one line of a failed command, without its prefix."""
        assert self.out == ""
        assert self.err.startswith("error: ")
        assert self.err.endswith("\n")
        assert self.err.count("\n") == 1, self.err
        return self.err[len("error: ") : -1]


@pytest.fixture
def run(capsys, monkeypatch, tmp_path):
    """``run("predict", path)`` gives an :class:`Outcome`. No data but the test's own are found."""
    monkeypatch.delenv("BINARYNET_DATA", raising=False)
    monkeypatch.delenv("BINARYNET_FORCE_ISA", raising=False)
    monkeypatch.delenv("BINARYNET_TRACEBACK", raising=False)
    monkeypatch.delenv("COLUMNS", raising=False)
    monkeypatch.setenv("BINARYNET_CACHE", str(tmp_path / "cache"))

    def call(*arguments: object) -> Outcome:
        capsys.readouterr()
        with pytest.raises(SystemExit) as exit_:
            app.main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return Outcome(exit_.value.code, captured.out, captured.err)

    return call


@pytest.fixture
def make_file(tmp_path):
    """``make_file(classes=...)`` writes the network with other contents and gives its path."""

    def make(**changes: object) -> Path:
        path = tmp_path / "model.bnn"
        write(path, digits_network(**changes))
        return path

    return make


@pytest.fixture
def file(make_file) -> Path:
    """The network as a file."""
    return make_file()
