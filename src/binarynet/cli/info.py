"""`binarynet info`: version, engines found and why others were not, libraries, places."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

from rich.text import Text

from binarynet.cli._console import print_facts, print_json, stdout
from binarynet.cli._options import Json
from binarynet.errors import DataError

if TYPE_CHECKING:
    from rich.console import Console

LIBRARIES = (
    "numpy",
    "torch",
    "lightning",
    "scikit-learn",
    "matplotlib",
    "cuda-bindings",
    "nvidia-cuda-nvrtc",
    "onnxruntime",
    "openvino",
)


def info(json: Json = False) -> None:
    """Show the version, the engines of this machine (and why others cannot run here), and the libraries."""
    facts = collect()
    if json:
        print_json(facts)
        return
    console = stdout()
    training = facts["training"]
    print_facts(
        console,
        {
            "binarynet": facts["version"],
            "machine": f"{facts['processor']}, {facts['cores']} cores for this process, {facts['system']}",
            "python": facts["python"],
            **{name: found or "not installed" for name, found in facts["libraries"].items()},
            "training": f"torch's products on the CPU: {training['why_not']}"
            if training["why_not"]
            else f"packed kernels on the CPU, {training['name']}",
            **_gpu_lines(facts),
            "cache": facts["cache"],
            "data": facts["data"] or "BINARYNET_DATA is not set",
        },
    )
    for gpu in facts["gpus"]:
        usable = [engine["name"] for engine in gpu["engines"] if not engine["why_not"]]
        title = f"engines with --device {gpu['device']}, best first"
        _print_engines(console, title, gpu["engines"], usable[0] if usable else None)
    _print_engines(console, "engines, best first", facts["engines"], facts["engine"])
    if facts["forced"]:
        from binarynet.runtime.engines import FORCE_VARIABLE

        console.print(f"{FORCE_VARIABLE}={facts['forced']} decides which one is used", markup=False, soft_wrap=True)


def _gpu_lines(facts: dict[str, Any]) -> dict[str, str]:
    """One line per GPU, or one that says why there is none."""
    if not facts["gpus"]:
        return {"gpu": f"none: {facts['why_no_gpu']}"}
    lines = {
        gpu["device"]: f"{gpu['name']}, compute capability {gpu['capability']}, {gpu['memory_bytes'] / 2**30:,.1f} GiB"
        for gpu in facts["gpus"]
    }
    driver = facts["driver"]
    return {**lines, "driver": f"{driver['release'] or 'NVIDIA'}, CUDA {driver['cuda']}"}


def _print_engines(console: Console, title: str, engines: list[dict[str, str]], used: str | None) -> None:
    console.print(f"\n{title}", style="bold", markup=False)
    width = max(len(engine["name"]) for engine in engines)
    for engine in engines:
        if engine["why_not"]:
            state = Text.assemble(("no   ", "yellow"), engine["why_not"])
        else:
            state = Text.assemble(("yes", "green"), "  used" if engine["name"] == used else "")
        console.print(Text.assemble(f"  {engine['name']:<{width}}  ", state), soft_wrap=True)


def collect() -> dict[str, Any]:
    """The facts, JSON-able. ``engine`` is the one a session would take now, None if there is none.

    Raises:
        UsageError, BackendUnavailableError: BINARYNET_FORCE_ISA names what is unknown or cannot be used here.
    """
    import binarynet
    from binarynet.data._files import DATA_VARIABLE
    from binarynet.files import cache_directory
    from binarynet.runtime import engines
    from binarynet.runtime.engines import forced_instruction_set, training_kernels

    found = engines()
    forced = forced_instruction_set()
    training = training_kernels()
    usable = [engine.name for engine in found if engine.available]
    try:
        cache = str(cache_directory())
    except DataError as error:
        cache = f"none: {error}"
    return {
        "version": binarynet.__version__,
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "system": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "cores": _cores(),
        "libraries": {name: _version(name) for name in LIBRARIES},
        "engines": [{"name": engine.name, "why_not": engine.why_not} for engine in found],
        "engine": forced or usable[0],
        "forced": forced,
        **_gpus(),
        "training": {"name": training.name, "why_not": training.why_not},
        "cache": cache,
        "data": os.environ.get(DATA_VARIABLE),
    }


def _gpus() -> dict[str, Any]:
    """GPUs with their engines, the driver, and why there is none."""
    from binarynet.cuda import driver
    from binarynet.cuda.device import devices
    from binarynet.runtime.engines import engines

    found = devices()
    return {
        "gpus": [
            {
                "device": str(gpu),
                "name": gpu.name,
                "capability": ".".join(map(str, gpu.capability)),
                "multiprocessors": gpu.multiprocessors,
                "memory_bytes": gpu.total_memory,
                "engines": [{"name": engine.name, "why_not": engine.why_not} for engine in engines(str(gpu))],
            }
            for gpu in found
        ],
        "driver": {"release": driver.release(), "cuda": driver.version()} if found else None,
        "why_no_gpu": driver.why_not(),
    }


def _version(name: str) -> str | None:
    """Of an installed distribution, without importing it."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _processor() -> str:
    """The processor's name where the system tells it, else its architecture."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            for line in file:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    except OSError:
        pass  # not Linux: the platform module has what there is
    return platform.processor() or platform.machine()


def _cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
