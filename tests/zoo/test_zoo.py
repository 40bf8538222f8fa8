"""The networks that come with the package: file and card agree, and the stated error is what the file gives."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys

import numpy as np
import pytest

import binarynet as bn
from binarynet.analysis import layers
from binarynet.analysis.paper import EXPERIMENTS
from binarynet.cli._packed import load_data, measure
from binarynet.errors import FileFormatError, UsageError
from binarynet.graph import Affine, Convolution, Dense, Flatten, Input, MaxPool, Threshold
from binarynet.zoo import available, card, cards, is_name, path_of, resolve

SEVERAL, FEW = 256, 8
"""Images for the engines, and for the NumPy reference, which is slow where there are convolutions."""


def check_file(name: str) -> None:
    """Card and file agree, and the network is binary throughout."""
    said, content = card(name), path_of(name).read_bytes()
    assert (said.name, said.bytes, said.sha256) == (name, len(content), hashlib.sha256(content).hexdigest())
    network = bn.fileformat.read(f"zoo:{name}")
    provenance = network.provenance
    assert (provenance["dataset"], provenance["seed"]) == (said.data, said.seed)
    assert provenance["recipe"]["model"]["name"] == said.network
    found = layers(network.graph)
    assert said.binary_weights == sum(layer.weights for layer in found)
    assert [layer.arithmetic for layer in found] == ["8-bit"] + ["xnor-popcount"] * (len(found) - 1)
    kinds = (Input, Convolution, Dense, Flatten, MaxPool, Threshold, Affine)
    assert all(isinstance(node, kinds) for node in network.graph)
    thresholds = sum(isinstance(node, Threshold) for node in network.graph)
    assert thresholds == len(found) - 1  # every layer but the last ends in a sign
    assert max(check["images"] for check in said.verification) <= said.test_images
    assert [check["differences"] for check in said.verification] == [0] * len(said.verification)


def check_errors(name: str, folder) -> None:
    """As many wrong answers on the real test images as the card says, and the same from every engine."""
    said, model = card(name), bn.load(f"zoo:{name}")
    dataset = load_data(model, path_of(name), None, folder)
    if dataset.test.sha256() != said.data_sha256["test"]:
        pytest.skip(f"other test images of {said.data} than the card speaks of: {len(dataset.test):,}")
    assert (measure(model, dataset.test).wrong, len(dataset.test)) == (said.test_errors, said.test_images)
    images = dataset.test.images[:SEVERAL].reshape(-1, *model.input_shape)
    bn.verify(model.graph, images[:FEW]).require_exact()
    names = [engine.name for engine in bn.runtime.engines("cpu") if engine.available and engine.name != "reference"]
    scores = [bn.load(f"zoo:{name}", engine=engine).scores(images) for engine in names]
    assert all(np.array_equal(one.view(np.uint32), scores[0].view(np.uint32)) for one in scores)


@pytest.mark.parametrize("name", available())
def test_the_card_is_of_this_file(name):
    """And the network has the shape of one of the paper's, and was verified on the whole test set."""
    check_file(name)
    said = card(name)
    assert said.binary_weights in {cell.weights for cell in EXPERIMENTS if cell.data == said.data}
    assert said.verification[0]["images"] == said.test_images


@pytest.mark.data
@pytest.mark.parametrize("name", available())
def test_the_error_is_the_stated_one(name, real_data, monkeypatch, tmp_path):
    monkeypatch.setenv("BINARYNET_CACHE", str(tmp_path / "cache"))
    check_errors(name, real_data(card(name).data))


def test_cards_are_there_for_all():
    assert [one.name for one in cards()] == list(available())
    assert sum(one.bytes for one in cards()) < 10_000_000


# How it works, with a network made for it


def test_names_stand_for_files(zoo_folder):
    assert available() == ("small",)
    assert path_of("small") == path_of("zoo:small") == resolve("zoo:small") == zoo_folder / "small.bnn"
    assert resolve("a/zoo:small").name == "zoo:small"
    assert is_name("zoo:nothing")
    assert not is_name("small")
    check_file("small")
    check_errors("small", None)
    assert bn.analysis.account("zoo:small").file_bytes == card("small").bytes


def test_unknown_names_are_refused_with_the_nearest(zoo_folder):
    for call in (bn.load, bn.fileformat.read, card, resolve):
        with pytest.raises(
            UsageError, match=r"no network 'smal' \(did you mean 'small'\?\); there are small \(see: bi"
        ):
            call("zoo:smal")
    with pytest.raises(UsageError, match=r"no network '\.\./small' .*; there are small"):
        bn.load("zoo:../small")
    (zoo_folder / "small.bnn").unlink()
    with pytest.raises(UsageError, match="no network 'small'; it is empty in this installation"):
        bn.load("zoo:small")


@pytest.mark.parametrize(
    "change", [{"bytes": 1}, {"sha256": "0"}, {"binary_weights": 5}, {"network": "x"}, {"seed": 6}]
)
def test_a_card_of_another_file_is_noticed(zoo_folder, change):
    file = zoo_folder / "small.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(AssertionError):
        check_file("small")


def test_a_wrong_error_is_noticed(zoo_folder):
    file = zoo_folder / "small.json"
    content = json.loads(file.read_text())
    file.write_text(json.dumps(content | {"test_errors": content["test_errors"] - 1}))
    with pytest.raises(AssertionError):
        check_errors("small", None)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "cannot be read"),
        ("[]", "not a card of version 1"),
        ('{"format": "binarynet-card", "version": 2}', "not a card of version 1"),
        ('{"format": "binarynet-card", "version": 1}', "does not say name, title, "),
    ],
)
def test_damaged_cards_are_refused(zoo_folder, text, message):
    (zoo_folder / "small.json").write_text(text)
    with pytest.raises(FileFormatError, match=rf"small\.json: .*{message}"):
        card("small")
    assert bn.load("zoo:small").classes  # the file is still good


def test_it_needs_no_torch(zoo_folder):
    code = f"""
import sys
from pathlib import Path
sys.modules["torch"] = sys.modules["pydantic"] = None
import binarynet as bn, binarynet.zoo
binarynet.zoo._FOLDER = Path({str(zoo_folder)!r})
print(bn.load("zoo:small").input_shape, binarynet.zoo.card("small").name)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=100, check=False)
    assert (done.returncode, done.stdout) == (0, "(8, 8, 1) small\n"), done.stderr
