"""The simulated GPU and the known numbers notice every kernel that is broken on purpose."""

from __future__ import annotations

import re

import pytest
from machine import SimulationError
from mutations import ALL
from wgmma_mutations import WGMMA

from binarynet.cuda import compiler

pytest.importorskip("cuda.bindings.nvrtc", reason="kernels are compiled with NVRTC (extra cuda)")


MUTATIONS = (*ALL, *WGMMA)


def name(mutation):
    return f"{mutation.source}-{re.sub(r'[^A-Za-z0-9]+', '_', mutation.before)[:40].strip('_')}"


@pytest.mark.parametrize("job", [pytest.param(m.job, id=name(m)) for m in {id(m.job): m for m in MUTATIONS}.values()])
def test_jobs_go_through_on_the_sources_as_they_are(job):
    assert job()


@pytest.mark.parametrize("mutation", MUTATIONS, ids=name)
def test_broken_kernels_are_noticed(mutation, tmp_path, monkeypatch):
    monkeypatch.setattr(compiler, "SOURCES", mutation.sources(tmp_path / "source"))
    try:
        right = mutation.job()
    except SimulationError as error:
        print(error)
        return
    assert not right, f"{mutation.source} with {mutation.after!r} for {mutation.before!r} goes unnoticed"
