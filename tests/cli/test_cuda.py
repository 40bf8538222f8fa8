"""The command line with a GPU and without one: what is computed, shown and refused."""

from __future__ import annotations

import json

import numpy as np
import pytest
from simulated_sessions import simulated_product

DEVICES = ["cuda", "cuda:1", "cuda:2"]


@pytest.fixture(scope="module")
def gpus():
    with simulated_product(schedule="late") as control:
        yield control


@pytest.fixture
def picture(tmp_path):
    path = tmp_path / "digit.npy"
    np.save(path, np.random.default_rng(3).integers(0, 256, (8, 8, 1), dtype=np.uint8))
    return path


@pytest.mark.parametrize("device", DEVICES)
def test_predict_is_that_of_the_cpu(gpus, run, file, picture, device):
    on_cpu = json.loads(run("predict", file, picture, "--top", "10", "--json").out)
    on_gpu = json.loads(run("predict", file, picture, "--top", "10", "--json", "--device", device).out)
    assert on_gpu["predictions"] == on_cpu["predictions"]
    assert (on_cpu["device"], on_gpu["device"]) == ("cpu", "cuda:0" if device == "cuda" else device)
    assert on_gpu["engine"].startswith("cuda_")
    assert run("predict", file, picture, "--device", device).out == run("predict", file, picture).out


def test_evaluate_is_that_of_the_cpu(gpus, run, file):
    on_cpu = json.loads(run("evaluate", file, "--json").out)
    on_gpu = json.loads(run("evaluate", file, "--json", "--device", "cuda").out)
    assert (on_gpu["wrong"], on_gpu["images"]) == (on_cpu["wrong"], on_cpu["images"])
    assert (on_cpu["device"], on_gpu["device"]) == ("cpu", "cuda:0")
    shown = run("evaluate", file, "--engine", "cuda_popcount").out
    assert "engine      cuda_popcount, cuda:0\n" in shown


def test_verify_has_a_column_for_each_engine(gpus, run, file):
    names = {engine["name"] for gpu in json.loads(run("info", "--json").out)["gpus"] for engine in gpu["engines"]}
    found = json.loads(run("verify", file, "--random", "20", "--sums", "--json").out)
    assert found["exact"]
    assert names < set(found["engines"])
    assert set(json.loads(run("verify", file, "--random", "2", "--json", "--device", "cuda").out)["engines"]) == names
    cpu = json.loads(run("verify", file, "--random", "2", "--json", "--device", "cpu").out)["engines"]
    assert set(cpu) == set(found["engines"]) - names


def test_the_plan_of_a_gpu(gpus, run, file):
    shown = run("inspect", "--plan", "--device", "cuda:1", "--batch", "20", file).out
    assert "device   cuda:1\n" in shown
    assert "the best of cuda:1 (" in shown
    assert "dense2, scores  " in shown
    assert "20 images, computed in one chunk" in shown
    assert "threads of a block" not in shown
    found = json.loads(run("inspect", "--plan", "--time", "--json", "--device", "cuda:1", "--batch", "20", file).out)
    assert found["plan"]["device"] == "cuda:1"
    assert [step["values"] for step in found["plan"]["steps"]] == [["dense1", "sign1"], ["dense2", "scores"]]
    assert all(step["grid"].count(" x ") == 2 for step in found["plan"]["steps"])
    assert [time["step"] for time in found["times"]] == ["dense1", "dense2"]
    assert " us  " in run("inspect", "--plan", "--time", "--device", "cuda:1", file).out


def test_info_shows_gpus_their_engines_and_the_driver(gpus, run):
    facts = json.loads(run("info", "--json").out)
    assert [(gpu["device"], gpu["capability"]) for gpu in facts["gpus"]] == [
        ("cuda:0", "9.0"),
        ("cuda:1", "8.0"),
        ("cuda:2", "7.5"),
    ]
    assert facts["driver"]["cuda"] == "13.5"
    assert facts["why_no_gpu"] == ""
    lines = run("info").out.splitlines()
    assert any(line.startswith("cuda:2 ") and "compute capability 7.5, 1.0 GiB" in line for line in lines)
    assert any(line.startswith("driver ") and "CUDA 13.5" in line for line in lines)
    after = lines[lines.index("engines with --device cuda:2, best first") + 1 :]
    assert after[0].split() == ["cuda_wgmma", "no", "compute", "capability", "7.5;", "needed", "is", "9.0"]
    assert after[2].split() == ["cuda_popcount", "yes", "used"]


REFUSED = [
    (
        ("predict", "{file}", "x.npy", "--device", "gpu"),
        2,
        'unknown device \'gpu\'; expected "cpu", "cuda" or "cuda:N"',
    ),
    (
        ("predict", "{file}", "x.npy", "--device", "cuda:7"),
        1,
        "the device 'cuda:7' cannot be used here: there is no GPU",
    ),
    (("evaluate", "{file}", "--device", "cuda", "--threads", "2"), 2, "a number of threads is for the CPU"),
    (("evaluate", "{file}", "--device", "cuda", "--engine", "portable"), 2, "the engine 'portable' runs on the CPU"),
    (
        ("verify", "{file}", "--random", "1", "--device", "cuda:7"),
        1,
        "the device 'cuda:7' cannot be used here: there is no",
    ),
    (("inspect", "{file}", "--device", "cuda"), 2, "--device: say how a network runs, which is shown with --plan"),
]


@pytest.mark.parametrize(("arguments", "code", "text"), REFUSED)
def test_what_is_refused(gpus, run, file, arguments, code, text):
    outcome = run(*(file if each == "{file}" else each for each in arguments))
    assert outcome.code == code
    assert outcome.error.startswith(text)
