"""Real data for the networks of the zoo, and a zoo of its own for tests."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from binarynet.data import load, status
from binarynet.fileformat import write
from binarynet.zoo import Card
from digits_network import digits_network

ROOT = Path(__file__).resolve().parents[2]
DATA = Path(os.environ.get("BINARYNET_DATA") or ROOT.parent / "shared" / "data")


@pytest.fixture(scope="session")
def real_data(tmp_path_factory):
    """``real_data("mnist")`` is the folder with this data set; skips the test where there is none."""
    found: dict[str, Path] = {}

    def ready(name: str, folder: Path) -> bool:
        """In the folder itself; what a cache has may be anything."""
        (entry,) = [entry for entry in status(folder) if entry.name == name]
        return entry.ready and Path(entry.where).is_relative_to(folder)

    def folder_of(name: str) -> Path:
        if not DATA.is_dir():
            pytest.skip(f"no real data: {DATA} does not exist (set BINARYNET_DATA)")
        if name not in found:
            found[name] = DATA
            script = DATA / name / "make_batches.py"
            if not ready(name, DATA) and script.is_file():
                found[name] = tmp_path_factory.mktemp(name)
                subprocess.run(
                    [sys.executable, script, found[name]], check=True, stdout=subprocess.DEVNULL, timeout=200
                )
        if not ready(name, found[name]):
            pytest.skip(f"no {name} in {DATA}")
        return found[name]

    return folder_of


@pytest.fixture
def zoo_folder(tmp_path, monkeypatch) -> Path:
    """A zoo with one network, ``small``, and its card."""
    folder = tmp_path / "zoo"
    folder.mkdir()
    provenance = {"dataset": "digits", "seed": 5, "recipe": {"model": {"name": "mlp"}}}
    write(folder / "small.bnn", digits_network(provenance=provenance))
    content = (folder / "small.bnn").read_bytes()
    digits = load("digits")
    import binarynet

    labels = binarynet.load(folder / "small.bnn").predict(digits.test.images).labels
    card = Card(
        name="small",
        title="digits, MLP 70",
        bytes=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
        network="mlp",
        binary_weights=64 * 70 + 70 * 10,
        data="digits",
        data_sha256={part: split.sha256() for part, split in digits.splits().items()},
        data_notes=["a note"],
        test_errors=int((labels != digits.test.labels).sum()),
        test_images=len(digits.test),
        setting=None,
        paper_error_percent=None,
        differences=[],
        recipe="digits-mlp",
        overrides=["training.epochs=1"],
        seed=5,
        commits=["1234567890"],
        epochs=1,
        planned_epochs=2,
        best_epoch=1,
        validation_error=0.5,
        train_seconds=61.0,
        cpu_seconds=60.0,
        machine="a processor, 1 thread",
        started="2026-01-02T03:04:05+00:00",
        verification=[{"images": 9, "baseline": "torch", "engines": ["avx2"], "compared": 700, "differences": 0}],
        record="benchmarks/results/x_paper/small",
        make_again=["binarynet train digits-mlp", "binarynet pack run"],
    )
    (folder / "small.json").write_text(json.dumps(card.to_dict()))
    monkeypatch.setattr(binarynet.zoo, "_FOLDER", folder)
    return folder
