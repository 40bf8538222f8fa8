"""The command line where there is no GPU, or one that fails."""

from __future__ import annotations

import json

import pytest
from simulated_sessions import simulated_product

COMMANDS = [
    ("predict", "{file}", "x.npy"),
    ("evaluate", "{file}"),
    ("verify", "{file}"),
    ("inspect", "--plan", "{file}"),
]


@pytest.mark.parametrize("arguments", COMMANDS)
def test_without_a_gpu(run, file, arguments):
    with simulated_product(devices=0):
        outcome = run(*(file if each == "{file}" else each for each in arguments), "--device", "cuda")
        assert outcome.code == 1
        assert outcome.error.startswith("the device 'cuda")
        assert "cannot be used here: the driver finds no GPU; nvidia-smi says which ones there are" in outcome.error
        assert "gpu                none: the driver finds no GPU" in run("info").out
        assert json.loads(run("info", "--json").out)["driver"] is None


def test_a_failure_on_the_gpu_is_one_line(run, file):
    from simulated_gpu import ILLEGAL_ADDRESS

    with simulated_product() as control:
        control.fault("execution", ILLEGAL_ADDRESS)
        outcome = run("evaluate", file, "--device", "cuda")
    assert outcome.code == 1
    assert "CUDA_ERROR_ILLEGAL_ADDRESS" in outcome.error
    assert "this process cannot use the GPU any more: start it again" in outcome.error
