from __future__ import annotations

import gzip
import json
import sys

import numpy as np
import pytest

from binarynet.cli import info
from binarynet.runtime import Engine, check_engine, engines


def test_datasets(run):
    result = run("datasets")
    assert result.code == 0
    assert result.err == ""
    lines = result.out.splitlines()
    assert lines[0].startswith("digits         ready  scikit-learn ")
    assert "mnist          not here" in result.out
    assert "downloaded on first use" in result.out
    assert max(map(len, lines)) <= 100


def test_datasets_fits_into_a_terminal(run, monkeypatch, tmp_path):
    monkeypatch.setenv("COLUMNS", "80")
    (tmp_path / "t10k-labels-idx1-ubyte").write_bytes(bytes((0, 0, 8, 1, 0, 0, 0, 2, 1, 2)))
    for arguments in ([], ["--data", tmp_path]):
        lines = run("datasets", *arguments).out.splitlines()
        assert max(len(line) for line in lines if str(tmp_path) not in line) <= 80
        assert [line for line in lines if line != line.rstrip()] == []
        assert " ".join(lines[-3:]) == (
            "Your own data are taken wherever a data set is named: a folder with one folder of PNG or JPEG pictures "
            "per class, or an .npz file with x (uint8) and y (class indices)."
        )


def test_datasets_json(run):
    digits, mnist, *others = json.loads(run("datasets", "--json").out)
    assert digits["ready"]
    assert not mnist["ready"]
    assert [entry["name"] for entry in others] == ["fashion-mnist", "cifar10", "svhn"]
    assert not any(entry["ready"] for entry in others)
    assert [file["check"] for file in mnist["files"]] == ["missing"] * 4
    assert mnist["files"][0]["md5"] == "f68b3c2dcbeaaa9fbdd348bbdeb94873"


def test_datasets_shows_files_and_what_differs(run, tmp_path):
    labels = np.zeros(20, np.uint8)
    (tmp_path / "t10k-labels-idx1-ubyte").write_bytes(bytes((0, 0, 8, 1, 0, 0, 0, 20)) + labels.tobytes())
    (tmp_path / "train-labels-idx1-ubyte.gz").write_bytes(gzip.compress(b"x")[:9])
    result = run("datasets", "--data", tmp_path)
    assert result.code == 0
    lines = [line.split() for line in result.out.splitlines() if "ubyte" in line]
    assert ["t10k-labels-idx1-ubyte", "28", "differs", "from", "md5", "ec29112d"] in lines
    assert result.out.count("numbers of images are those of the published files") == 1
    assert ["train-images-idx3-ubyte.gz", "missing", "(md5", "f68b3c2d)"] in lines
    assert any(line[0] == "train-labels-idx1-ubyte.gz" and line[-1] == "damaged" for line in lines)


def test_datasets_in_a_folder_that_does_not_exist(run, tmp_path):
    result = run("datasets", "--data", tmp_path / "no")
    assert result.code == 1
    assert result.error == f"{tmp_path / 'no'}: no such folder (given by --data)"


def test_info(run):
    result = run("info")
    assert result.code == 0
    for engine in engines():
        line = next(line for line in result.out.splitlines() if line.strip().startswith(engine.name))
        assert ("yes" in line) == engine.available
        assert engine.why_not in line
    gpus = info.collect()["gpus"]
    assert result.out.count("used") == 1 + sum(any(not e["why_not"] for e in gpu["engines"]) for gpu in gpus)
    assert "BINARYNET_DATA is not set" in result.out


def test_info_json(run):
    facts = json.loads(run("info", "--json").out)
    assert [engine["name"] for engine in facts["engines"]] == [engine.name for engine in engines()]
    assert facts["libraries"]["numpy"] == np.__version__
    assert {"torch", "onnxruntime", "openvino"} <= set(facts["libraries"])  # peers of bench, installed or not
    assert facts["engine"] == next(engine.name for engine in engines() if engine.available)
    assert facts["cores"] >= 1


def test_info_says_why_an_engine_is_missing(run, monkeypatch):
    monkeypatch.setattr(
        "binarynet.runtime.engines", lambda: (Engine("sun", "it is night"), Engine("moon", ""), Engine("star", ""))
    )
    lines = run("info").out.splitlines()
    assert lines[-3:] == ["  sun   no   it is night", "  moon  yes  used", "  star  yes"]


def test_info_says_who_computes_in_training(run, monkeypatch):
    monkeypatch.setenv("BINARYNET_FORCE_ISA", "portable")
    assert "torch's products on the CPU: no instruction set with fast" in run("info").out
    fast = "avx512_vpopcntdq"
    for chosen in (fast, "avx512_vbmi"):  # the second takes the training kernels of the first
        if not any(engine["name"] == chosen and not engine["why_not"] for engine in info.collect()["engines"]):
            continue
        monkeypatch.setenv("BINARYNET_FORCE_ISA", chosen)
        assert f"packed kernels on the CPU, {fast}" in run("info").out
        assert json.loads(run("info", "--json").out)["training"] == {"name": fast, "why_not": ""}


def test_info_without_a_library(run, monkeypatch):
    monkeypatch.setattr(info, "LIBRARIES", ("numpy", "no-such-distribution"))
    assert "no-such-distribution  not installed" in run("info").out


def test_info_follows_the_forced_engine(run, monkeypatch):
    monkeypatch.setenv("BINARYNET_FORCE_ISA", "portable")
    assert json.loads(run("info", "--json").out)["engine"] == "portable"
    assert "BINARYNET_FORCE_ISA=portable decides" in run("info").out


@pytest.mark.parametrize("name", ["avx9000", "Portable", "reference"])
@pytest.mark.parametrize(
    "arguments",
    [
        ("info",),
        ("evaluate", "{file}"),
        ("evaluate", "{file}", "--engine", "reference"),
        ("verify", "{file}", "--random", "2"),
        ("predict", "{file}", "x.png"),
        ("bench", "{file}"),
    ],
)
def test_an_unknown_forced_engine_is_the_same_error_everywhere(run, file, monkeypatch, name, arguments):
    monkeypatch.setenv("BINARYNET_FORCE_ISA", name)
    result = run(*[argument.format(file=file) for argument in arguments])
    assert result.code == 2
    assert result.error.startswith(f"BINARYNET_FORCE_ISA: unknown instruction set '{name}'; this build has: ")


def test_a_forced_engine_that_cannot_run_is_a_failure(run, file, monkeypatch):
    rows = (Engine("sve9", "no SVE9"), Engine("portable", ""), Engine("reference", ""))
    monkeypatch.setattr(sys.modules[check_engine.__module__], "engines", lambda: rows)
    monkeypatch.setenv("BINARYNET_FORCE_ISA", "sve9")
    for arguments in (["info"], ["evaluate", file, "--engine", "portable"]):
        result = run(*arguments)
        assert result.code == 1
        assert result.error == "BINARYNET_FORCE_ISA: the instruction set 'sve9' cannot be used here: no SVE9"
