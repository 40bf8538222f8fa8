"""`binarynet inspect`: bytes add up, what is not binary is named, nothing of a file reaches the screen raw."""

from __future__ import annotations

import json
import os
import re

import pytest

from binarynet.analysis import random_convnet, random_mlp
from binarynet.fileformat import PackedNetwork, write


@pytest.fixture
def convnet_file(tmp_path):
    path = tmp_path / "convnet.bnn"
    write(path, PackedNetwork(random_convnet((8, 8, 3), [[40, 40], [20]], [30])))
    return path


def number(text: str) -> int:
    return int(text.replace(",", ""))


def test_the_bytes_add_up_to_the_file(run, file):
    outcome = run("inspect", file)
    assert outcome.code == 0
    (line,) = re.findall(r"^.* = [\d,]+ bytes, the size of the file$", outcome.out, flags=re.MULTILINE)
    parts, total = line.removesuffix(" bytes, the size of the file").split(" = ")
    assert sum(map(number, parts.split(" + "))) == number(total) == os.path.getsize(file)


def test_rows_of_the_bytes_table_add_up_too(run, convnet_file):
    out = run("inspect", convnet_file).out
    table = out[out.index("Bytes in the file") :].split("\n\n")[0].splitlines()[2:]
    sizes = {}
    for row in table:
        cells = row.split()
        if cells[0] == "header":
            sizes["header"] = number(cells[1])
        elif re.fullmatch(r"(conv|dense)\d|sum", cells[0]):
            sizes[cells[0]] = number(cells[-3])
    assert set(sizes) == {"header", "conv1", "conv2", "conv3", "dense4", "dense5", "sum"}
    assert sum(sizes.values()) - sizes["sum"] == sizes["sum"] == os.path.getsize(convnet_file)


def test_it_says_what_is_not_binary_and_why(run, file):
    out = run("inspect", file).out
    section = out[out.index("Not binary") :].split("\n\n")[0]
    assert re.search(r"dense1 +its input is 8-bit", section)
    assert re.search(r"dense2 +its scores are real numbers", section)


def test_input_classes_and_provenance(run, make_file):
    provenance = {"dataset": "digits", "recipe": {"name": "digits-mlp", "seed": 7}, "test_error": 0.0278, "notes": []}
    out = run("inspect", make_file(provenance=provenance)).out
    assert re.search(r"^input +8x8x1, 8 bits each$", out, flags=re.MULTILINE)
    assert re.search(r"^output +scores of 10 classes: 0, 1, 2, 3, 4, 5, 6, 7, 8, 9$", out, flags=re.MULTILINE)
    assert re.search(r"^recipe +digits-mlp$", out, flags=re.MULTILINE)
    assert re.search(r"^test error +2.78 %$", out, flags=re.MULTILINE)
    assert not re.search(r"^notes", out, flags=re.MULTILINE)


def test_it_says_which_pictures_are_taken(run, make_file, convnet_file, tmp_path):
    out = run("inspect", make_file()).out
    assert re.search(r"^pictures +background 0, channels 1, height 8, resize pad, width 8$", out, flags=re.MULTILINE)
    none = (
        r"^pictures +no image policy: pictures must have exactly 8 x 8 pixels \(height x width\), none of them transp"
    )
    assert re.search(none, run("inspect", make_file(image_policy=None)).out, flags=re.MULTILINE)
    assert re.search(none, run("inspect", convnet_file).out, flags=re.MULTILINE)
    path = tmp_path / "features.bnn"
    write(path, PackedNetwork(random_mlp(20, [9], 3)))
    out = run("inspect", path).out
    assert re.search(r"^pictures +no image policy: only \.npy arrays are taken$", out, flags=re.MULTILINE)


def test_provenance_does_not_hide_a_fact(run, make_file):
    out = run("inspect", make_file(provenance={"input": "other"})).out
    assert re.search(r"^input +8x8x1, 8 bits each$", out, flags=re.MULTILINE)
    assert re.search(r"^provenance input +other$", out, flags=re.MULTILINE)


def test_nothing_of_the_file_controls_the_terminal(run, make_file):
    classes = ("a\u202eb", "[bold]b[/bold]", *"cdefghij")
    outcome = run(
        "inspect", make_file(classes=classes, provenance={"\x1b[31mkey": "a\nb\x07", "[red]": "[link=x]y[/]"})
    )
    assert outcome.code == 0
    assert "\x1b" not in outcome.out
    assert "\x07" not in outcome.out
    assert "a?b, [bold]b[/bold], c" in outcome.out
    assert "?[31mkey" in outcome.out
    assert re.search(r"^\[red\] +\[link=x\]y\[/\]$", outcome.out, flags=re.MULTILINE)


def test_filter_repetition(run, file, convnet_file):
    assert "no convolutions" in run("inspect", file).out
    out = run("inspect", convnet_file).out
    assert re.search(r"^conv2 +40 on 40 maps, 3x3 +9[56]\.\d% +9[23]\.\d%", out, flags=re.MULTILINE)


@pytest.mark.parametrize("columns", [80, 120])
def test_lines_fit_into_the_terminal(run, convnet_file, monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", str(columns))
    out = run("inspect", convnet_file).out
    section = out[out.index("Layers") :]
    assert max(map(len, section.splitlines())) <= columns


def test_json(run, file):
    outcome = run("inspect", file, "--json")
    document = json.loads(outcome.out)
    assert document["model"] == str(file)
    assert sum(section["num_bytes"] for section in document["sections"]) == os.path.getsize(file)
    assert [layer["arithmetic"] for layer in document["layers"]] == ["8-bit", "xnor-popcount"]
    assert document["provenance"] == {"dataset": "digits"}


@pytest.mark.parametrize("arguments", [(), ("--json",)])
def test_a_damaged_file_is_one_line(run, file, arguments):
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    outcome = run("inspect", file, *arguments)
    assert outcome.code == 1
    assert "damaged" in outcome.error


def test_a_missing_file_is_one_line(run, tmp_path):
    outcome = run("inspect", tmp_path / "none.bnn")
    assert outcome.code == 1
    assert "there is no such file" in outcome.error
