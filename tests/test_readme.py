"""The README's code runs as it stands, and its commands exist."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from typer.main import get_command

import binarynet as bn

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def code_blocks() -> list[str]:
    """Indented blocks, outdented."""
    blocks = re.findall(r"(?:^(?: {4}.*|)\n)+", README, flags=re.MULTILINE)
    return [re.sub(r"^ {4}", "", block, flags=re.MULTILINE).strip() + "\n" for block in blocks if block.strip()]


def block_with(text: str) -> str:
    (found,) = [block for block in code_blocks() if text in block]
    return found


def test_own_network_then_prediction(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    exec(block_with("nn.Sequential("), {})
    (tmp_path / "mnist.bnn").rename(tmp_path / "digits.bnn")
    names: dict[str, object] = {"images": np.zeros((3, 28, 28, 1), np.uint8)}
    exec(block_with("result.labels"), names)
    result = names["result"]
    assert isinstance(result, bn.Prediction)
    assert len(result.labels) == 3
    assert set(result.names) <= set("0123456789")


def test_commands_and_options_exist() -> None:
    from binarynet.cli._commands import app
    from binarynet.cli.bench import with_command

    commands = get_command(app).commands  # type: ignore[attr-defined]
    lines = [line for block in code_blocks() for line in block.splitlines() if line.startswith("binarynet ")]
    assert len(lines) >= 7
    for line in lines:
        _, name, *arguments = shlex.split(line, comments=True)
        assert name in commands, line
        command = commands[name]
        if name == "bench":
            subcommand, *arguments = with_command(arguments, [*command.commands])
            command = command.commands[subcommand]
        options = {option for parameter in command.params for option in parameter.opts}
        assert {argument for argument in arguments if argument.startswith("-")} <= options, line


def test_files_that_it_names_exist() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", README) + re.findall(r"examples/\S+\.png", README):
        if not target.startswith("http"):
            assert (ROOT / target).exists(), target
