"""Exit codes, one line per error, start-up, pipes, Ctrl-C."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

import binarynet
from binarynet.cli import app, info
from binarynet.errors import INSTALL_TRAIN, DataError, UsageError

COMMANDS = ["train", "evaluate", "pack", "verify", "predict", "inspect", "bench", "datasets", "info"]


def shell(*arguments: object, **options: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "binarynet.cli.app", *map(str, arguments)], capture_output=True, text=True, **options
    )


def test_help_lists_every_command(run):
    result = run("--help")
    assert result.code == 0
    for command in COMMANDS:
        assert f" {command} " in result.out
    assert run().out == result.out


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("option", ["-h", "--help"])
def test_help_of_every_command(run, command, option):
    result = run(command, option)
    assert result.code == 0
    assert f"binarynet {command}" in result.out
    assert result.err == ""


def test_version(run):
    assert run("--version").out == f"binarynet {binarynet.__version__}\n"


def test_start_imports_nothing_heavy():
    code = (
        "import sys\n"
        "from binarynet.cli import app\n"
        "try: app.main(['--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'numpy', 'lightning', 'pydantic', 'PIL', 'sklearn', 'matplotlib', 'scipy', 'safetensors'}\n"
        "print('heavy:', sorted(heavy & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.endswith("heavy: []\n")


def test_help_is_fast():
    started = time.perf_counter()
    assert shell("--help").returncode == 0
    assert time.perf_counter() - started < 5  # 0.15 s on an idle core


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nope"], "No such command 'nope'.* (see: binarynet --help)"),
        (["datasets", "--nope"], "No such option: --nope (see: binarynet datasets --help)"),
        (["predict"], "Missing argument 'MODEL.bnn' (see: binarynet predict --help)"),
        (["predict", "x.bnn", "x.png", "--top", "0"], "Invalid value for '--top': .* (see: binarynet predict --help)"),
        (
            ["predict", "x.bnn", "x.png", "--top", "two"],
            "Invalid value for '--top': .* (see: binarynet predict --help)",
        ),
    ],
)
def test_wrong_usage(run, arguments, message):
    result = run(*arguments)
    assert result.code == 2
    first, _, last = message.partition(".*")
    assert result.error.startswith(first)
    assert last in result.error


def raising(monkeypatch, error: BaseException) -> None:
    def fail() -> None:
        raise error

    monkeypatch.setattr(info, "collect", fail)


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (UsageError("wrong [bold]use[/]\nof it"), 2, "wrong [bold]use[/] of it"),
        (DataError("x" * 300), 1, "x" * 300),
        (DataError("a\x1b[31mb\x07"), 1, "a?[31mb?"),
        (PermissionError(13, "Permission denied", "/x/y"), 1, "/x/y: Permission denied"),
        (OSError(28, "No space left on device"), 1, "No space left on device"),
        (MemoryError(), 1, "out of memory"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (
            ModuleNotFoundError("No module named 'torch'", name="torch"),
            1,
            f"this needs torch, which is not installed; {INSTALL_TRAIN}",
        ),
        (
            ModuleNotFoundError("No module named 'sklearn.x'", name="sklearn.x"),
            1,
            f"this needs sklearn, which is not installed; {INSTALL_TRAIN}",
        ),
    ],
)
def test_errors_are_one_line(run, monkeypatch, error, code, message):
    raising(monkeypatch, error)
    result = run("info")
    assert (result.code, result.error) == (code, message)


@pytest.mark.parametrize("error", [RuntimeError("a defect"), ModuleNotFoundError("No module named 'x'", name="x")])
def test_defects_are_not_hidden(monkeypatch, error):
    raising(monkeypatch, error)
    with pytest.raises(type(error)):
        app.main(["info"])


def test_info_without_a_home(run, monkeypatch):
    monkeypatch.setenv("BINARYNET_CACHE", "~nobody-is-called-so/cache")
    result = run("info")
    assert result.code == 0
    assert "none: no cache directory: there is no home directory" in result.out
    assert "engines, best first" in result.out


def test_traceback_on_demand(run, monkeypatch):
    raising(monkeypatch, DataError("bad data"))
    monkeypatch.setenv("BINARYNET_TRACEBACK", "1")
    result = run("info")
    assert result.code == 1
    assert "Traceback (most recent call last)" in result.err
    assert result.err.endswith("error: bad data\n")


@pytest.mark.skipif(os.name == "nt", reason="no /bin/sh")
def test_broken_pipe_is_quiet():
    command = f"{sys.executable} -m binarynet.cli.app datasets --json | true"
    result = subprocess.run(["/bin/sh", "-c", command], capture_output=True, text=True, check=True)
    assert result.stderr == ""


@pytest.mark.skipif(os.name == "nt", reason="no /bin/sh")
@pytest.mark.parametrize(
    ("command", "code", "said"),
    [
        ("info >&-", 0, ""),
        ("--help >&-", 0, ""),
        ("nope >&-", 2, "error: No such command 'nope' (see: binarynet --help)\n"),
        ("nope 2>&-", 2, ""),
        ("info --json >&- 2>&- <&-", 0, ""),
    ],
)
def test_closed_outputs(command, code, said):
    command = f"{sys.executable} -m binarynet.cli.app {command}"
    result = subprocess.run(["/bin/sh", "-c", command], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout, result.stderr) == (code, "", said)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full")
@pytest.mark.parametrize("command", ["info", "info --json", "--version", "datasets"])
def test_a_full_disk_is_one_line(command):
    command = f"{sys.executable} -m binarynet.cli.app {command} >/dev/full"
    result = subprocess.run(["/bin/sh", "-c", command], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr) == (1, "error: No space left on device\n")


@pytest.mark.parametrize(
    "module", ["typer", "typer.main", "rich", "rich.text", "binarynet.errors", "binarynet.cli.train"]
)
def test_ctrl_c_while_importing(module):
    code = (
        "import sys\n"
        "class Finder:\n"
        "    def find_spec(self, name, *rest):\n"
        f"        if name == {module!r}:\n"
        "            sys.meta_path.remove(self)\n"
        "            raise KeyboardInterrupt\n"
        "sys.meta_path.insert(0, Finder())\n"
        "from binarynet.cli.app import main\n"
        "main(['info'])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout, result.stderr) == (130, "", "error: interrupted\n")


def test_ctrl_c_outside_of_a_command(run, monkeypatch):
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("builtins.print", interrupted)
    result = run("--version")
    assert result.code == 130
    assert result.err.endswith("error: interrupted\n")


@pytest.mark.skipif(not hasattr(os, "killpg"), reason="needs POSIX signals")
def test_ctrl_c(tmp_path):
    import signal

    code = (
        "import signal, time\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # where tests run in the background it is ignored
        "from binarynet.cli import app, info\n"
        "def wait():\n"
        "    print('waiting', flush=True)\n"
        "    time.sleep(60)\n"
        "info.collect = wait\n"
        "app.main(['info'])"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "waiting\n"
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=20)
    assert process.returncode == 130
    assert err == "error: interrupted\n"


def test_every_package_of_the_extra_is_known():
    import re
    import tomllib
    from pathlib import Path

    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    names = {re.split(r"[><=\[]", need)[0] for need in project["optional-dependencies"]["train"]}
    assert {name.replace("scikit-learn", "sklearn") for name in names} == app.TRAIN_EXTRA
