"""Where and with what a run was made."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from torch import nn

from binarynet.data import Dataset
from binarynet.layers import BinaryLayer
from binarynet.training.recipe import TrainingSection


def now() -> str:
    """The time, as ISO 8601 in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that have a say in the numbers."""
    from binarynet import __version__

    names = ("torch", "lightning", "numpy")
    return {
        "binarynet": __version__,
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in names},
    }


def commit() -> str | None:
    """Commit of the checkout that this package runs from, with "-dirty" where files differ; None outside of one."""
    root = Path(__file__).resolve().parents[3]
    if not (root / ".git").exists():
        return None
    surroundings = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, env=surroundings, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return None  # no git, or a checkout that it does not trust
    return done.stdout.strip() or None


def machine(device: str, training: TrainingSection) -> dict[str, Any]:
    """Processor, its cores, operating system; threads of torch per process, device that trained, and processes."""
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "system": platform.platform(terse=True),
        "device": device,
        "processes": training.devices * training.nodes,
        "nodes": training.nodes,
        "strategy": "ddp" if training.devices * training.nodes > 1 else "auto",
    }


def describe_dataset(dataset: Dataset) -> dict[str, Any]:
    """Name, sizes, classes, image policy and notes of a data set."""
    return {
        "name": dataset.name,
        "sizes": {part: len(split) for part, split in dataset.splits().items()},
        "classes": list(dataset.classes),
        "policy": dataset.policy.to_dict(),
        "notes": list(dataset.notes),
    }


def describe_network(model: nn.Module) -> dict[str, int]:
    """Numbers of binary weights and of all parameters."""
    return {
        "binary_weights": sum(m.weight.numel() for m in model.modules() if isinstance(m, BinaryLayer)),
        "parameters": sum(p.numel() for p in model.parameters()),
    }


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            for line in file:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    except OSError:
        pass  # not Linux
    return platform.processor() or platform.machine()
