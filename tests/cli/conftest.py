"""A small packed network, made without torch, and the command line called as a function."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from binarynet.cli import app
from binarynet.data import load
from binarynet.encoding import pack_bits
from binarynet.fileformat import PackedNetwork, write
from binarynet.graph import Affine, Dense, Flatten, Graph, Input, Threshold


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


def make_network(**changes: object) -> PackedNetwork:
    """An 8 x 8 grey network with ten classes and random weights, "trained" on digits."""
    rng = np.random.default_rng(0)
    graph = Graph(
        (
            Input("image", (8, 8, 1)),
            Flatten("pixels", "image"),
            Dense("dense1", "pixels", pack_bits(rng.random((70, 64)) < 0.5)),
            Threshold("sign1", "dense1", rng.integers(-900, 900, 70, dtype=np.int32), rng.random(70) < 0.5),
            Dense("dense2", "sign1", pack_bits(rng.random((10, 70)) < 0.5)),
            Affine("scores", "dense2", rng.random(10, dtype=np.float32), rng.random(10, dtype=np.float32)),
        ),
        "scores",
    )
    fields = {
        "classes": tuple("0123456789"),
        "image_policy": load("digits").policy.to_dict(),
        "provenance": {"dataset": "digits"},
    }
    return PackedNetwork(**({"graph": graph} | fields | changes))


@pytest.fixture
def make_file(tmp_path):
    """``make_file(classes=...)`` writes the network with other contents and gives its path."""

    def make(**changes: object) -> Path:
        path = tmp_path / "model.bnn"
        write(path, make_network(**changes))
        return path

    return make


@pytest.fixture
def file(make_file) -> Path:
    """The network as a file."""
    return make_file()
