"""`zoo:NAME` in the place of a packed network on the command line, and `binarynet zoo`."""

from __future__ import annotations

import json

import pytest
from PIL import Image

from binarynet.cli import app
from binarynet.zoo import card


@pytest.fixture
def run(capsys, monkeypatch, tmp_path):
    """``run("zoo")`` gives exit code, standard output and standard error."""
    monkeypatch.setenv("BINARYNET_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("BINARYNET_DATA", raising=False)

    def call(*arguments):
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            app.main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return end.value.code, captured.out, captured.err

    return call


@pytest.fixture
def picture(tmp_path):
    path = tmp_path / "picture.png"
    Image.new("L", (8, 8), 40).save(path)
    return path


def test_the_list(run, zoo_folder):
    said = card("small")
    code, out, _ = run("zoo")
    assert code == 0
    assert out.splitlines()[1].split()[:3] == ["zoo:small", f"{100 * said.test_error:.2f}", "%"]
    assert "digits, MLP 70" in out
    code, out, _ = run("zoo", "--json")
    assert json.loads(out) == [said.to_dict()]


def test_one_card(run, zoo_folder):
    said = card("small")
    for name in ("small", "zoo:small"):
        code, out, _ = run("zoo", name)
        assert code == 0
        for told in (said.sha256, said.record, said.data_sha256["test"], "1234567890", "1 of 2, selected 1", "a note",
                     "0 differences in 700 values on 9 test images: torch, avx2"):  # fmt: skip
            assert told in out
    assert json.loads(run("zoo", "small", "--json")[1])["test_errors"] == said.test_errors
    code, out, error = run("zoo", "smaller")
    assert (code, out) == (2, "")
    assert "did you mean 'small'?" in error


def test_every_command_takes_the_name(run, zoo_folder, picture, tmp_path):
    code, out, _ = run("predict", "zoo:small", picture, "--json")
    assert (code, json.loads(out)["model"]) == (0, "zoo:small")
    code, out, _ = run("evaluate", "zoo:small", "--json")
    assert (code, json.loads(out)["wrong"]) == (0, card("small").test_errors)
    code, out, _ = run("verify", "zoo:small", "--random", "5")
    assert code == 0
    assert "0 differences" in out
    code, out, _ = run("inspect", "zoo:small")
    assert (code, f"zoo:small, {card('small').bytes:,} bytes" in out) == (0, True)
    assert run("inspect", "--plan", "zoo:small")[0] == 0
    code, out, _ = run("bench", "zoo:small", "--batch", "1", "--seconds", "0.01", "--json")
    assert (code, json.loads(out)["networks"][0]["name"]) == (0, "zoo:small")
    assert run("bench", "layers", "zoo:small", "--batch", "1", "--seconds", "0.01")[0] == 0
    code, out, _ = run("reproduce", "zoo:small", "--no-pictures", "--out", tmp_path / "out")
    assert (code, "Network zoo:small" in out) == (0, True)


@pytest.mark.parametrize(
    "command",
    [
        *("predict", "evaluate", "verify", "inspect", "bench", "reproduce"),
        *(("bench", "layers"), ("bench", "figure3", "--model"), ("inspect", "--plan")),
    ],
    ids=str,
)
def test_every_command_refuses_an_unknown_name(run, zoo_folder, picture, tmp_path, monkeypatch, command):
    monkeypatch.chdir(tmp_path)
    words = command if isinstance(command, tuple) else (command,)
    more = (picture,) if command == "predict" else ()
    code, out, error = run(*words, "zoo:smll", *more)
    assert (code, out, error.count("\n")) == (2, "", 1)
    assert "the zoo has no network 'smll' (did you mean 'small'?)" in error
