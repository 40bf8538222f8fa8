"""Training: recipes, the loop on Lightning's Trainer, exact resume, runs and their results.

Lightning is imported when ``train`` is first called for, so that recipes can be read without it.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

_NAMES = {
    "Evaluation": "evaluation",
    "LoadedRun": "run_directory",
    "Recipe": "recipe",
    "RunResult": "result",
    "TrainingInterrupted": "run",
    "evaluate": "evaluation",
    "evaluate_run": "run",
    "load_run": "run_directory",
    "squared_hinge": "loss",
    "train": "run",
}

__all__ = [*_NAMES]

if TYPE_CHECKING:
    from binarynet.training.evaluation import Evaluation as Evaluation
    from binarynet.training.evaluation import evaluate as evaluate
    from binarynet.training.loss import squared_hinge as squared_hinge
    from binarynet.training.recipe import Recipe as Recipe
    from binarynet.training.result import RunResult as RunResult
    from binarynet.training.run import TrainingInterrupted as TrainingInterrupted
    from binarynet.training.run import evaluate_run as evaluate_run
    from binarynet.training.run import train as train
    from binarynet.training.run_directory import LoadedRun as LoadedRun
    from binarynet.training.run_directory import load_run as load_run


def __getattr__(name: str) -> Any:
    if name in _NAMES:
        return getattr(importlib.import_module(f"binarynet.training.{_NAMES[name]}"), name)
    raise AttributeError(f"module 'binarynet.training' has no attribute {name!r}")
