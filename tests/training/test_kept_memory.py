"""Freed memory that stays with the process, seen by the pages that the system has to provide."""

import platform
import resource

import pytest
import torch

from binarynet.training import memory

PAGES = (48 << 20) // resource.getpagesize()
pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is not glibc")


def pages_of_a_new_tensor():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.empty(48 << 20, dtype=torch.uint8).fill_(1)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


def test_large_tensors_take_no_new_pages_within_the_block():
    with memory.kept():
        within = [pages_of_a_new_tensor() for _ in range(12)]
    assert min(within[6:]) < PAGES / 50


def test_the_allocator_is_as_before_after_the_block_and_after_errors(monkeypatch):
    calls = []
    monkeypatch.setattr(memory, "_set", lambda mallopt, settings: calls.append(settings))
    with pytest.raises(KeyError), memory.kept():
        raise KeyError(*calls)
    assert calls == [memory._KEEP, memory._RETURN]
    assert {number for number, _ in memory._KEEP} <= {number for number, _ in memory._RETURN}


def test_a_refusal_is_told():
    with pytest.raises(RuntimeError, match=r"mallopt\(-4, 0\) was refused"):
        memory._set(lambda number, value: 0, memory._KEEP)
