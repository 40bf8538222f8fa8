"""Engines: their names, and that the one asked for is the one that runs."""

import os
import subprocess
import sys

import numpy as np
import pytest

from binarynet.errors import BackendUnavailableError, UsageError
from binarynet.graph import evaluate
from binarynet.runtime import REFERENCE, Engine, Session, check_engine, engines, verify
from random_graphs import image_graph, random_images

ENGINES = [engine.name for engine in engines() if engine.available]
FORCED = """
from binarynet.runtime import Session
from random_graphs import image_graph
print(Session(image_graph()).engine)
"""


def run_with(code, **environment):
    """Python code in a process of its own."""
    path = os.path.dirname(os.path.dirname(__file__))
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": path + os.pathsep + os.environ.get("PYTHONPATH", ""), **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_the_native_core_is_built():
    """Without it, the whole suite would compare the reference with itself."""
    names = [engine.name for engine in engines()]
    assert names[-1] == REFERENCE
    assert "portable" in names
    assert len(names) == len(set(names))
    assert {REFERENCE, "portable"} <= set(ENGINES)


@pytest.mark.parametrize("name", ENGINES)
def test_the_engine_asked_for_is_the_one_that_runs(name):
    graph = image_graph()
    session = Session(graph, engine=name)
    assert session.engine == name
    images = random_images(np.random.default_rng(0), 3, graph.input.shape)
    assert session.run(images).tobytes() == evaluate(graph, images)["scores"].tobytes()


def test_the_best_engine_is_the_default(monkeypatch):
    monkeypatch.delenv("BINARYNET_FORCE_ISA", raising=False)
    assert Session(image_graph()).engine == ENGINES[0]


@pytest.mark.parametrize("name", [name for name in ENGINES if name != REFERENCE])
def test_the_environment_forces_an_instruction_set(name):
    done = run_with(FORCED, BINARYNET_FORCE_ISA=name)
    assert (done.returncode, done.stdout.strip()) == (0, name), done.stderr


@pytest.mark.parametrize("name", ["nonsense", "AVX2", "reference", "native", " portable"])
@pytest.mark.parametrize("engine", [None, "portable", REFERENCE])
def test_an_unknown_name_in_the_environment_is_an_error_whatever_is_asked_for(monkeypatch, name, engine):
    monkeypatch.setenv("BINARYNET_FORCE_ISA", name)
    with pytest.raises(
        UsageError, match=rf"BINARYNET_FORCE_ISA: unknown instruction set '{name}'; .*portable"
    ) as error:
        Session(image_graph(), engine=engine)
    assert ("is asked for with --engine" in str(error.value)) == (name == REFERENCE)
    images = np.zeros((1, 6, 5, 3), np.uint8)
    with pytest.raises(UsageError, match="BINARYNET_FORCE_ISA: unknown instruction set"):
        verify(image_graph(), images, engine_names=[], extra={"same": lambda chunk, _: evaluate(image_graph(), chunk)})


def test_a_known_name_in_the_environment_that_cannot_run_is_an_error(monkeypatch):
    rows = (Engine("sve9", "this processor lacks SVE9"), Engine("portable", ""), Engine(REFERENCE, ""))
    monkeypatch.setattr(sys.modules[check_engine.__module__], "engines", lambda: rows)
    monkeypatch.setenv("BINARYNET_FORCE_ISA", "sve9")
    for engine in (None, "portable", REFERENCE):
        with pytest.raises(
            BackendUnavailableError,
            match="BINARYNET_FORCE_ISA: the instruction set 'sve9' cannot be used here: this processor lacks SVE9",
        ):
            Session(image_graph(), engine=engine)


def test_an_argument_beats_the_environment(monkeypatch):
    monkeypatch.setenv("BINARYNET_FORCE_ISA", "portable")
    for name in ENGINES:
        assert Session(image_graph(), engine=name).engine == name


def test_an_empty_name_in_the_environment_is_none(monkeypatch):
    monkeypatch.setenv("BINARYNET_FORCE_ISA", "")
    assert Session(image_graph()).engine == ENGINES[0]


@pytest.mark.parametrize("name", ["nonsense", "", "AVX2", "native"])
def test_unknown_names(name):
    with pytest.raises(UsageError, match=rf"unknown engine '{name}'; this build has: .*portable, reference"):
        Session(image_graph(), engine=name)


def test_an_engine_that_cannot_run_says_why(monkeypatch):
    rows = (Engine("sve9", "this processor lacks SVE9"), Engine(REFERENCE, ""))
    monkeypatch.setattr(sys.modules[check_engine.__module__], "engines", lambda: rows)
    check_engine(REFERENCE)
    with pytest.raises(
        BackendUnavailableError, match="the engine 'sve9' cannot be used here: this processor lacks SVE9"
    ):
        check_engine("sve9")


MISSING = """
import sys
sys.modules["binarynet._native"] = None
from binarynet.errors import BackendUnavailableError
from binarynet.runtime import Session, engines
from random_graphs import image_graph
print([(e.name, e.available) for e in engines()], engines()[0].why_not)
print(Session(image_graph(), engine="reference").engine)
try:
    Session(image_graph())
except BackendUnavailableError as error:
    print(error)
"""


def test_without_the_native_extension_the_reference_still_runs():
    done = run_with(MISSING)
    assert done.returncode == 0, done.stderr
    engine_list, reference, refusal = done.stdout.splitlines()
    assert engine_list.startswith("[('native', False), ('reference', True)] the native extension cannot be loaded:")
    assert reference == REFERENCE
    assert "reinstall binarynet, or use engine='reference'" in refusal


def test_without_the_native_extension_no_instruction_set_can_be_forced():
    done = run_with(MISSING, BINARYNET_FORCE_ISA="portable")
    assert done.returncode != 0
    assert "BackendUnavailableError: BINARYNET_FORCE_ISA: the instruction set 'portable' cannot be used" in done.stderr
    assert "the native extension cannot be loaded" in done.stderr
