"""Every byte of a file is accounted for."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from binarynet import fileformat
from binarynet.analysis import account, random_convnet, random_mlp
from binarynet.errors import FileFormatError
from binarynet.fileformat import PackedNetwork


@pytest.fixture
def convnet_file(tmp_path):
    path = tmp_path / "convnet.bnn"
    graph = random_convnet((9, 10, 3), [[33], [20, 65]], [17], classes=3)
    fileformat.write(path, PackedNetwork(graph, ("a", "b", "c"), None, {"recipe": {"name": "r"}, "test_error": 0.25}))
    return path


def test_sections_cover_the_file_without_gaps(convnet_file):
    found = account(convnet_file)
    position = 0
    for section in found.sections:
        assert section.offset == position
        position += section.num_bytes
    assert position == found.file_bytes == os.path.getsize(convnet_file)


def test_layers_and_header_add_up_to_the_file(convnet_file):
    found = account(convnet_file)
    assert found.header_bytes + sum(item.total_bytes for item in found.layers) == found.file_bytes
    assert found.header_bytes == 8 + int.from_bytes(convnet_file.read_bytes()[:8], "little")


def test_bytes_of_each_layer(convnet_file):
    conv1, _, conv3, dense4, dense5 = account(convnet_file).layers
    assert conv1.stored_bytes == {"weights": -(-33 * 27 // 8), "thresholds": 4 * 33, "falling": 5}
    assert conv3.stored_bytes == {"weights": 65 * 9 * 20 // 8 + 1, "thresholds": 260, "falling": 9}
    assert dense4.layer.input.shape == (2 * 2 * 65,)
    assert dense5.stored_bytes == {"weights": -(-3 * 17 // 8), "scale": 12, "shift": 12}


def test_three_times_1024_is_as_small_as_its_bits(tmp_path):
    path = tmp_path / "mlp.bnn"
    fileformat.write(path, PackedNetwork(random_mlp(784, [1024] * 3)))
    found = account(path)
    thresholds = 3 * 1024
    assert found.file_bytes <= 1.03 * (found.num_weights / 8 + 4 * thresholds) + 8192
    assert found.num_weights == 784 * 1024 + 2 * 1024 * 1024 + 10240
    assert found.float32_bytes == 4 * (found.num_weights + thresholds + 10)


def test_json_has_everything(convnet_file):
    found = account(convnet_file)
    document = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert sum(section["num_bytes"] for section in document["sections"]) == document["file_bytes"]
    assert document["macs"]["8-bit"] == 9 * 10 * 33 * 27
    assert document["macs"]["8-bit"] + document["macs"]["xnor-popcount"] == sum(
        layer["macs"] for layer in document["layers"]
    )
    assert [item["layer"] for item in document["filter_repetition"]] == ["conv1", "conv2", "conv3"]
    assert document["classes"] == ["a", "b", "c"]
    assert document["provenance"]["test_error"] == 0.25
    assert document["energy"]["packed"]["total_pj"][0] > document["energy"]["packed"]["arithmetic_pj"]


def test_truncated_file_is_refused(convnet_file):
    convnet_file.write_bytes(convnet_file.read_bytes()[:-1])
    with pytest.raises(FileFormatError, match="truncated"):
        account(convnet_file)


def test_parts_that_do_not_add_up_are_refused(convnet_file, monkeypatch):
    network, sections = fileformat.read_with_sections(convnet_file)
    monkeypatch.setattr(fileformat, "read_with_sections", lambda path: (network, sections[:-1]))
    with pytest.raises(FileFormatError, match="add up to"):
        account(convnet_file)


def test_works_without_torch():
    program = "import sys, binarynet.analysis; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
