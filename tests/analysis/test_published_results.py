"""The figures in benchmarks/results are those of the raw data beside them."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
RESULTS = sorted(path for path in (BENCHMARKS / "results").iterdir() if path.is_dir())
FOLDERS = [path for path in RESULTS if any(path.glob("bench*.json"))]
"""The others are about errors: recorded runs (test_cell_script.py), or runs in short."""


@pytest.fixture(scope="module")
def made():
    specification = importlib.util.spec_from_file_location("benchmark_tables", BENCHMARKS / "tables.py")
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def test_there_are_results():
    assert FOLDERS
    assert [path.name for path in RESULTS if not (path / "README.md").is_file()] == []


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_tables_are_made_from_the_raw_data(made, folder):
    text = (folder / "README.md").read_text(encoding="utf-8")
    assert made.BEGIN in text
    assert made.END in text
    assert made.documents(folder)
    assert made.with_tables(text, *made.documents(folder)) == text


def test_a_changed_figure_is_noticed(made):
    first_road = BENCHMARKS / "results" / "2026-11-23_first-road"
    document = json.loads((first_road / "bench.json").read_text(encoding="utf-8"))
    text = made.with_tables(f"{made.BEGIN}{made.END}", document)
    document["networks"][0]["batches"][0]["rows"][0]["ms"]["median"] *= 2
    assert made.with_tables(text, document) != text
