"""tools/gpu.py: everything that needs a GPU in one call. Here without one: what it does with its steps."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest

from binarynet.cli.app import main

ROOT = Path(__file__).parent.parent
specification = importlib.util.spec_from_file_location("gpu_script", ROOT / "tools" / "gpu.py")
script = importlib.util.module_from_spec(specification)
sys.modules["gpu_script"] = script
specification.loader.exec_module(script)


@pytest.fixture
def called(monkeypatch, tmp_path):
    """main() with these arguments, a GPU being there or not; its exit code and the outcomes by name."""

    def call(*arguments, gpus=1):
        monkeypatch.setattr(script, "number_of_gpus", lambda: gpus)
        monkeypatch.setattr(sys, "argv", ["gpu.py", "--out", str(tmp_path / "report"), *arguments])
        code = script.main()
        summary = tmp_path / "report" / "summary.json"
        outcomes = json.loads(summary.read_text()) if summary.exists() else []
        return code, {outcome["name"]: outcome for outcome in outcomes}

    return call


def python(name, code, limit=60, **options):
    return script.Step(name, (sys.executable, "-c", code), limit, **options)


def test_without_a_gpu_nothing_is_run(called, capsys):
    assert called(gpus=0) == (2, {})
    assert "no NVIDIA GPU" in capsys.readouterr().err


def test_steps_name_files_and_commands_that_exist(called, capsys):
    assert called("--list", "--model", "m.bnn", "--data", "data") == (0, {})
    listed = capsys.readouterr().out
    assert {"memcheck", "racecheck", "initcheck", "synccheck"} <= set(listed.split())
    paths = [word for word in listed.split() if word.startswith("tests/")]
    assert len(paths) > 5
    assert all((ROOT / path).exists() for path in paths)


def test_the_commands_of_bench_take_their_options():
    found = [*script.steps(None, None), *script.steps(Path("m.bnn"), Path("data"))]
    commands = {step.command[3:] for step in found if "bench" in step.command}
    assert len(commands) == 4  # Figure 3's with a trained network and without
    for command in commands:
        with pytest.raises(SystemExit) as end:
            main([*command, "--help"])  # an option that does not exist ends with 2, before any help
        assert end.value.code == 0


def test_every_step_ends_somehow_and_the_report_says_how(called, monkeypatch, tmp_path):
    steps = [
        python("good", "print('{}')", json="good.json"),
        python("bad", "import sys; print('why'); sys.exit(3)"),
        python("slow", "import time; time.sleep(60)", limit=1),
        script.Step("absent", ("no-such-program",), 5),
    ]
    monkeypatch.setattr(script, "steps", lambda model, data: steps)
    code, outcomes = called()
    assert code == 1
    results = {name: outcome["result"] for name, outcome in outcomes.items()}
    assert results == {"good": "passed", "bad": "failed", "slow": "out of time", "absent": "left out"}
    assert outcomes["bad"]["note"] == "exit code 3"
    assert (tmp_path / "report" / "good.json").read_text() == "{}\n"
    assert "why" in (tmp_path / "report" / "log.txt").read_text()
    assert called("--only", "good")[0] == 0
    assert called("--only", "good", "--budget", "1")[1]["good"]["note"] == "no time left"
