"""Everything that needs an NVIDIA GPU, in one call: tests, compute-sanitizer, benchmarks, one report.

    make gpu                                   with the project's own environment
    python tools/gpu.py --install --out DIR    with this Python's packages, where nothing can be downloaded

Steps run one after another, each under a limit of time; one that fails does not stop the others. DIR gets ``log.txt``
(all output), ``summary.json`` and the benchmarks' JSON files. The exit code is 1 if a step failed, 2 where no GPU is.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SANITIZED = "tests/cuda/test_methods.py"
"""What runs under compute-sanitizer: every kernel on every kind of layer."""


@dataclass(frozen=True)
class Step:
    """One command, with its limit in seconds. ``json`` names the file that its standard output goes to."""

    name: str
    command: tuple[str, ...]
    limit: int
    json: str = ""


@dataclass(frozen=True)
class Outcome:
    """How a step ended: "passed", "failed", "out of time", or "left out" with the reason."""

    name: str
    result: str
    seconds: float
    note: str = ""


def steps(model: Path | None, data: Path | None) -> list[Step]:
    """All steps, the most telling ones first."""
    binarynet = (sys.executable, "-m", "binarynet")
    pytest = (sys.executable, "-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider")
    cores = str(min(4, os.cpu_count() or 1))
    trained = ("--model", str(model), "--data", str(data)) if model and data else ()
    found = [
        Step("info", (*binarynet, "info"), 60),
        Step("tests of kernels and runtime", (*pytest, "-n", cores, "tests/cuda", "tests/runtime", "tests/ops"), 420),
        Step("conformance", (*pytest, "-n", cores, "tests/conformance"), 420),
        Step("figure 3", (*binarynet, "bench", "figure3", "--device", "cuda", *trained, "--json"), 300, "figure3.json"),
        Step("bench gemm", (*binarynet, "bench", "gemm", "--device", "cuda", "--json"), 300, "gemm.json"),
        Step(
            "bench model",
            (*binarynet, "bench", "model", "--device", "cuda", "--batch", "1,64,4096", "--json"),
            420,
            "model.json",
        ),
        Step("tests of training", (*pytest, "-n", cores, "tests/training"), 300),
    ]
    if model and data:
        for device in ("cpu", "cuda"):
            command = (*binarynet, "evaluate", str(model), "--data", str(data), "--device", device, "--json")
            found.append(Step(f"errors on {device}", command, 120, f"errors-{device}.json"))
    sanitizer = shutil.which("compute-sanitizer") or "compute-sanitizer"
    for tool in ("memcheck", "racecheck", "initcheck", "synccheck"):
        command = (sanitizer, "--tool", tool, "--error-exitcode", "9", *pytest, "-x", SANITIZED)
        found.append(Step(f"compute-sanitizer {tool}", command, 420))
    return found


def number_of_gpus() -> int:
    """GPUs that the driver shows; 0 without a driver."""
    try:
        driver, count = ctypes.CDLL("libcuda.so.1"), ctypes.c_int()
    except OSError:
        return 0
    return count.value if driver.cuInit(0) == 0 and driver.cuDeviceGetCount(ctypes.byref(count)) == 0 else 0


def run(step: Step, out: Path, limit: float) -> Outcome:
    """Run one step, its output appended to ``log.txt``; the whole family of processes ends with its time."""
    if shutil.which(step.command[0]) is None:
        return Outcome(step.name, "left out", 0.0, f"{step.command[0]} is not installed")
    start = time.monotonic()
    with (out / "log.txt").open("ab") as log:
        log.write(f"\n===== {step.name}: {' '.join(step.command)}\n".encode())
        log.flush()
        with (out / step.json).open("wb") if step.json else log as stdout:
            process = subprocess.Popen(
                step.command, cwd=ROOT, stdout=stdout, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True
            )
            try:
                code = process.wait(timeout=limit)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                return Outcome(step.name, "out of time", time.monotonic() - start, f"limit {limit:.0f} s")
    return Outcome(step.name, "passed" if code == 0 else "failed", time.monotonic() - start, f"exit code {code}")


def main() -> int:
    parser = argparse.ArgumentParser(description="Everything that needs an NVIDIA GPU, in one call.")
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "gpu", help="folder for the report")
    parser.add_argument("--budget", type=float, default=3600.0, metavar="S", help="seconds for all steps")
    parser.add_argument("--model", type=Path, help="a packed network whose errors on CPU and GPU are compared")
    parser.add_argument("--data", type=Path, help="folder of its data set")
    parser.add_argument("--only", nargs="+", metavar="WORD", help="only steps whose name contains one of these words")
    parser.add_argument("--install", action="store_true", help="build binarynet into this Python, without downloads")
    parser.add_argument("--list", action="store_true", help="print the steps and stop")
    arguments = parser.parse_args()
    chosen = [s for s in steps(arguments.model, arguments.data)
              if not arguments.only or any(word in s.name for word in arguments.only)]  # fmt: skip
    if arguments.list:
        print("\n".join(f"{step.name}: {' '.join(step.command)}" for step in chosen))
        return 0
    if not number_of_gpus():
        print("no NVIDIA GPU here, or no driver: nothing was run", file=sys.stderr)
        return 2
    end = time.monotonic() + arguments.budget
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "log.txt").write_bytes(b"")
    if arguments.install:
        command = (sys.executable, "-m", "pip", "install", "--no-index", "--no-build-isolation", "--no-deps", "-e", ".")
        chosen.insert(0, Step("install", command, 300))
    outcomes = []
    for step in chosen:
        left = end - time.monotonic()
        outcome = run(step, arguments.out, min(step.limit, left)) if left > 5 else Outcome(step.name, "left out", 0.0,
                                                                                          "no time left")  # fmt: skip
        outcomes.append(outcome)
        print(f"{outcome.result:12} {outcome.seconds:6.1f} s  {outcome.name}  {outcome.note}", flush=True)
        (arguments.out / "summary.json").write_text(json.dumps([asdict(o) for o in outcomes], indent=1) + "\n")
    print(f"report: {arguments.out}")
    return int(any(outcome.result != "passed" for outcome in outcomes))


if __name__ == "__main__":
    sys.exit(main())
