"""Compiled kernels between processes: compiled once, and anew where anything changed or is damaged."""

import os
import shutil

import numpy as np
import pytest
from simulated_gpu import NO_BINARY_FOR_GPU, UNSUPPORTED_PTX_VERSION
from simulated_sessions import simulated_product

from binarynet.cuda import cache, compiler, modules
from binarynet.errors import DeviceError
from binarynet.graph import evaluate
from binarynet.runtime import Session
from random_graphs import image_graph, random_images

pytest.importorskip("cuda.bindings.nvrtc", reason="needs NVRTC: pip install '.[cuda]'")

KERNEL = 'extern "C" __global__ void twice(int* values) { values[threadIdx.x] = FACTOR * values[threadIdx.x]; }\n'
DEFINES = (("FACTOR", 2),)


@pytest.fixture
def sources(monkeypatch, tmp_path):
    """A folder of sources of our own, and an empty cache."""
    folder = tmp_path / "source"
    folder.mkdir()
    (folder / "twice.cu").write_text('#include "more.cuh"\n' + KERNEL)
    (folder / "more.cuh").write_text("// nothing yet\n")
    monkeypatch.setattr(compiler, "SOURCES", folder)
    monkeypatch.setattr(cache, "SOURCES", folder)
    monkeypatch.setenv(cache.CACHE_VARIABLE, str(tmp_path / "kernels"))
    return folder


@pytest.fixture
def compilations(monkeypatch):
    """What was compiled, in order."""
    calls = []
    honest = compiler.compile_source

    def counted(*arguments):
        calls.append(arguments)
        return honest(*arguments)

    monkeypatch.setattr(cache, "compile_source", counted)
    return calls


def entries():
    return sorted(cache.directory().iterdir())


def test_a_source_is_compiled_once(sources, compilations):
    image, kept = cache.compiled("twice.cu", "80", DEFINES)
    assert (kept, image[:4]) == (False, b"\x7fELF")
    assert cache.compiled("twice.cu", "80", DEFINES) == (image, True)
    assert len(compilations) == len(entries()) == 1
    assert cache.compiled("twice.cu", "80", DEFINES, anew=True) == (image, False)
    assert len(compilations) == 2


def test_all_that_matters_makes_another_entry(sources, compilations, monkeypatch):
    def compiled(*arguments):
        before = len(compilations)
        cache.compiled(*arguments)
        assert len(compilations) == before + 1, arguments
        assert cache.compiled(*arguments)[1]

    compiled("twice.cu", "80", DEFINES)
    compiled("twice.cu", "75", DEFINES)
    compiled("twice.cu", "80", (("FACTOR", 3),))
    compiled("twice.cu", "80", DEFINES, "ptx")
    (sources / "more.cuh").write_text("// something else\n")
    compiled("twice.cu", "80", DEFINES)
    (sources / "twice.cu").write_text('#include "more.cuh"\n' + KERNEL.replace("FACTOR *", "FACTOR +"))
    compiled("twice.cu", "80", DEFINES)
    (sources / "another.cuh").write_text("")
    compiled("twice.cu", "80", DEFINES)
    shutil.copy(sources / "twice.cu", sources / "again.cu")
    compiled("again.cu", "80", DEFINES)
    monkeypatch.setattr(cache, "version", lambda: "99.9")
    compiled("again.cu", "80", DEFINES)
    assert len(entries()) == len(compilations) == 9


def test_where_the_sources_lie_does_not_matter(sources, compilations, monkeypatch, tmp_path):
    cache.compiled("twice.cu", "80", DEFINES)
    moved = tmp_path / "moved"
    sources.rename(moved)
    monkeypatch.setattr(compiler, "SOURCES", moved)
    monkeypatch.setattr(cache, "SOURCES", moved)
    assert cache.compiled("twice.cu", "80", DEFINES)[1]
    assert len(compilations) == 1


def cut(content):
    return content[:-7]


def changed(content):
    return content[:100] + bytes([content[100] ^ 1]) + content[101:]


def empty(content):
    return b""


def foreign(content):
    return b"\x7fELF" + content


def header_only(content):
    return content[: len(b"binarynet cuda 1\n") + 32]


@pytest.mark.parametrize("damage", [cut, changed, empty, foreign, header_only])
def test_a_damaged_entry_is_replaced(sources, compilations, damage):
    image, _ = cache.compiled("twice.cu", "80", DEFINES)
    (entry,) = entries()
    whole = entry.read_bytes()
    entry.write_bytes(damage(whole))
    assert cache.compiled("twice.cu", "80", DEFINES) == (image, False)
    assert entry.read_bytes() == whole
    assert cache.compiled("twice.cu", "80", DEFINES) == (image, True)
    assert len(compilations) == 2


def test_a_folder_that_cannot_be_written_costs_time_only(sources, compilations, monkeypatch, tmp_path):
    file = tmp_path / "file"
    file.write_text("in the way")
    for place in (file, file / "kernels", "/proc/kernels"):
        monkeypatch.setenv(cache.CACHE_VARIABLE, str(place))
        images = [cache.compiled("twice.cu", "80", DEFINES) for _ in range(2)]
        assert [kept for _, kept in images] == [False, False]
    assert len(compilations) == 6
    assert file.read_text() == "in the way"


def test_an_entry_that_cannot_be_read_is_compiled(sources, compilations, monkeypatch):
    image, _ = cache.compiled("twice.cu", "80", DEFINES)
    (entry,) = entries()
    entry.unlink()
    entry.mkdir()
    assert cache.compiled("twice.cu", "80", DEFINES) == (image, False)


def test_the_folder_follows_the_environment(monkeypatch, tmp_path):
    monkeypatch.delenv(cache.CACHE_VARIABLE, raising=False)
    monkeypatch.setenv("BINARYNET_CACHE", str(tmp_path / "all"))
    assert cache.directory() == tmp_path / "all" / "cuda"
    monkeypatch.setenv(cache.CACHE_VARIABLE, str(tmp_path / "kernels"))
    assert cache.directory() == tmp_path / "kernels"
    monkeypatch.setenv(cache.CACHE_VARIABLE, "~/kernels")
    assert cache.directory().is_absolute()
    assert os.fspath(cache.directory()).endswith("/kernels")


@pytest.mark.parametrize("status", [NO_BINARY_FOR_GPU, UNSUPPORTED_PTX_VERSION])
def test_an_image_of_the_cache_that_the_driver_refuses_is_compiled_once_more(monkeypatch, tmp_path, status):
    graph = image_graph()
    images = random_images(np.random.default_rng(0), 2, graph.input.shape)
    with simulated_product() as control:
        monkeypatch.setenv(cache.CACHE_VARIABLE, str(tmp_path))
        Session(graph, engine="cuda_baseline").run(images)
    calls = []
    honest = cache.compiled

    def watched(*arguments, anew=False):
        calls.append(anew)
        return honest(*arguments, anew=anew)

    monkeypatch.setattr(modules.cache, "compiled", watched)
    with simulated_product() as control:
        monkeypatch.setenv(cache.CACHE_VARIABLE, str(tmp_path))
        control.fault("cuModuleLoadData", status)
        scores = Session(graph, engine="cuda_baseline").run(images)
        assert scores.tobytes() == evaluate(graph, images)["scores"].tobytes()
        assert calls[:2] == [False, True]
    with simulated_product() as control:
        monkeypatch.setenv(cache.CACHE_VARIABLE, str(tmp_path))
        for _ in range(2):
            control.fault("cuModuleLoadData", status)
        with pytest.raises(
            DeviceError, match=r"load the kernels of baseline.cu, compiled for sm_90a, on cuda:0: CUDA_ERR"
        ):
            Session(graph, engine="cuda_baseline").run(images)


@pytest.mark.parametrize("variable", [cache.CACHE_VARIABLE, "BINARYNET_CACHE"])
def test_no_home_costs_time_only(sources, compilations, monkeypatch, variable):
    monkeypatch.delenv(cache.CACHE_VARIABLE)
    monkeypatch.setenv(variable, "~nobody-is-called-so/kernels")
    for count in (1, 2):
        image, kept = cache.compiled("twice.cu", "80", DEFINES)
        assert (image[:4], kept, len(compilations)) == (b"\x7fELF", False, count)
