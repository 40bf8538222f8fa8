"""`binarynet inspect --plan`: every value in one step, what decided, and times where they are asked for."""

from __future__ import annotations

import json

import pytest

from binarynet.analysis import random_convnet
from binarynet.fileformat import PackedNetwork, write
from binarynet.runtime import Session, engines

NATIVE = [engine.name for engine in engines() if engine.available and engine.name != "reference"]


@pytest.fixture
def graph():
    return random_convnet((8, 8, 3), [[40, 40], [20]], [30])


@pytest.fixture
def convnet_file(tmp_path, graph):
    path = tmp_path / "convnet.bnn"
    write(path, PackedNetwork(graph))
    return path


@pytest.mark.parametrize("engine", NATIVE)
def test_json_is_the_plan_of_a_session(run, convnet_file, graph, engine):
    outcome = run("inspect", "--plan", "--json", "--batch", "7", "--threads", "2", "--engine", engine, convnet_file)
    found = json.loads(outcome.out)
    plan = Session(graph, engine=engine, num_threads=2).plan(7)
    assert found["plan"] == json.loads(json.dumps(plan.to_dict()))
    assert found["model"] == str(convnet_file)
    assert found["times"] is None
    assert {item["step"] for item in found["methods"]} == {step.name for step in plan.steps}


def test_text_shows_every_step(run, convnet_file, graph):
    outcome = run("inspect", "--plan", "--threads", "1", convnet_file)
    assert outcome.code == 0
    plan = Session(graph, num_threads=1).plan(1)
    for step in plan.steps:
        (row,) = (line for line in outcome.out.splitlines() if line.startswith(", ".join(step.values) + " "))
        assert step.method in row
        assert f"{step.weight_bytes:,}" in row
    assert f"engine   {plan.engine}: the best that can be used here" in outcome.out
    assert "1 image, computed in one chunk" in outcome.out
    assert "1 thread: the session has one thread" in outcome.out
    assert " share" not in outcome.out


def test_chunks_are_named(run, convnet_file):
    assert (
        "5,000 images, computed in 5 chunks of at most 1000"
        in run("inspect", "--plan", "--batch", "5000", convnet_file).out
    )


def test_times_of_every_step(run, convnet_file, monkeypatch):
    monkeypatch.setattr("binarynet.cli._inspect_plan._SECONDS", 0.001)
    text = run("inspect", "--plan", "--time", "--batch", "2", convnet_file).out
    assert " us  " in text
    assert "runs over 2 images of noise" in text
    assert "sum " in text
    found = json.loads(run("inspect", "--plan", "--time", "--json", convnet_file).out)
    assert [time["step"] for time in found["times"]] == [step["values"][0] for step in found["plan"]["steps"]]
    for time in found["times"]:
        assert 0 < time["least_nanoseconds"] <= time["median_nanoseconds"]
        assert time["runs"] >= 5


@pytest.mark.parametrize(("most", "runs"), [(1e-9, 1), (1e9, 5)])
def test_long_runs_are_few(run, convnet_file, monkeypatch, most, runs):
    monkeypatch.setattr("binarynet.cli._inspect_plan._SECONDS", 0.0)
    monkeypatch.setattr("binarynet.cli._inspect_plan._MOST_SECONDS", most)
    found = json.loads(run("inspect", "--plan", "--time", "--json", convnet_file).out)
    assert {time["runs"] for time in found["times"]} == {runs}
    words = f"median of {runs} run{'s' if runs > 1 else ''} over 1 image of noise"
    assert words in run("inspect", "--plan", "--time", convnet_file).out


def test_methods_that_depend_on_the_batch(run, convnet_file, monkeypatch):
    plan = Session.plan

    def changing(session, batch=1):
        made = plan(session, batch)
        words = "many at a time" if batch >= 3 else "few"
        object.__setattr__(made.steps[0], "method", words)
        return made

    assert (
        "no step's method depends on the number of images"
        in run("inspect", "--plan", "--engine", "portable", convnet_file).out
    )
    monkeypatch.setattr(Session, "plan", changing)
    text = run("inspect", "--plan", "--engine", "portable", convnet_file).out
    assert "from 1 image on: few; from 3 images on: many at a time" in text
    assert "no step's method" not in text


@pytest.mark.parametrize("option", [("--batch", "3"), ("--time",), ("--threads", "1"), ("--engine", "portable")])
def test_options_of_a_plan_need_one(run, convnet_file, option):
    outcome = run("inspect", *option, convnet_file)
    assert outcome.code == 2
    assert f"{option[0]}: say how a network runs, which is shown with --plan" in outcome.err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--engine", "reference"), "the engine 'reference' has no plan"),
        (("--engine", "mmx"), "unknown engine 'mmx'"),
        (("--batch", "0"), "'--batch': Input should be greater than or equal to 1"),
    ],
)
def test_plans_that_cannot_be(run, convnet_file, options, message):
    outcome = run("inspect", "--plan", *options, convnet_file)
    assert outcome.code == 2
    assert message in outcome.err
