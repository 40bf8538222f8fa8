"""Going on with an optimizer out of a checkpoint: all of its state or none, and the recipe's own settings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from binarynet.errors import FileFormatError
from binarynet.optim import ClippedAdam, ShiftAdaMax

_MAY_VARY = frozenset({"lr", "fused", "foreach", "capturable", "differentiable"})
"""Set anew for each batch, or a matter of how and where the same step is computed."""

_MAY_LACK = frozenset({"decoupled_weight_decay", "clip"})
"""Unknown to torch before 2.7 (without weight decay it says nothing), and to ourselves once."""

_NORMS: dict[type[torch.optim.Optimizer], str] = {ClippedAdam: "exp_avg_sq", ShiftAdaMax: "exp_inf"}
"""Beside the momentum ``exp_avg``, what each optimizer divides it by (or by the root of it)."""

_LARGEST_COUNT = 1 << 24  # both count their steps in float32, which stays there


def check(optimizer: torch.optim.Optimizer, state: Any, steps: int, path: Path) -> None:
    """Compare a state with what an optimizer as the recipe builds it would have after so many steps.

    Args:
        optimizer: a new one for the same network.
        state: of a checkpoint; not changed.
        steps: that the run has behind it.
        path: the checkpoint, named by errors.

    Raises:
        FileFormatError: another setting, or a missing, foreign or impossible moment.
    """
    expected = optimizer.state_dict()["param_groups"]
    if not isinstance(state, dict):
        raise FileFormatError(f"{path}: holds no optimizer state")
    groups, moments = state.get("param_groups"), state.get("state")
    if not isinstance(groups, list) or not groups or not isinstance(moments, dict):
        raise FileFormatError(f"{path}: its optimizer state is not usable: expected param_groups and state")
    if len(groups) != len(expected) or not all(isinstance(group, dict) for group in groups):
        raise FileFormatError(
            f"{path}: its optimizer state belongs to another network: {len(groups)} groups of parameters, "
            f"expected {len(expected)}"
        )
    for group, wanted in zip(groups, expected, strict=True):
        _check_group(group, wanted, path)
    norm = _NORMS[type(optimizer)]
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for index, parameter in enumerate(parameters):
        if steps and index not in moments:
            raise FileFormatError(
                f"{path}: its optimizer state lacks the moments of parameter {index}, though {steps} steps were taken"
            )
        if index in moments:
            _check_moments(moments[index], norm, parameter, steps, index, path)
    if unknown := [index for index in moments if type(index) is not int or not 0 <= index < len(parameters)]:
        raise FileFormatError(
            f"{path}: its optimizer state has moments of a parameter {unknown[0]!r} that is not there"
        )


def restore(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Give an optimizer the moments of a state that was checked; its settings stay its own."""
    optimizer.load_state_dict({"state": state["state"], "param_groups": optimizer.state_dict()["param_groups"]})


def _check_group(group: dict[str, Any], wanted: dict[str, Any], path: Path) -> None:
    where = f"{path}: its optimizer group {wanted['name']!r}"
    for key in (*wanted, *group):
        if key not in wanted:
            raise FileFormatError(f"{where} has an unknown {key!r}")
        if key in _MAY_VARY or (key in _MAY_LACK and key not in group):
            continue
        if key not in group:
            raise FileFormatError(f"{where} lacks {key!r}")
        if not _same(group[key], wanted[key]):
            given = " ".join(repr(group[key]).split())[:80]
            raise FileFormatError(f"{where}: {key} is {given}, by the recipe it is {wanted[key]!r}")


def _same(a: Any, b: Any) -> bool:
    """Equality that is never asked of tensors."""
    if type(a) is not type(b):
        return False
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(_same, a, b))
    return bool(a == b)


def _check_moments(moments: Any, norm: str, parameter: Tensor, steps: int, index: int, path: Path) -> None:
    if not isinstance(moments, dict) or moments.keys() != {"step", "exp_avg", norm}:
        raise FileFormatError(
            f"{path}: its optimizer state of parameter {index} is not usable: expected step, exp_avg, {norm}"
        )
    count = moments["step"]
    if not isinstance(count, Tensor) or count.shape != () or float(count) != min(steps, _LARGEST_COUNT):
        given = f"{float(count):g}" if isinstance(count, Tensor) and count.shape == () else "no number of"
        raise FileFormatError(
            f"{path}: its optimizer state of parameter {index} has {given} steps, its record of progress {steps}"
        )
    for name in ("exp_avg", norm):
        moment, where = moments[name], f"{path}: {name} of parameter {index} in its optimizer state"
        if not isinstance(moment, Tensor) or moment.shape != parameter.shape or moment.dtype != parameter.dtype:
            given = f"{moment.dtype} {list(moment.shape)}" if isinstance(moment, Tensor) else type(moment).__name__
            raise FileFormatError(
                f"{where} belongs to another network: it is {given}, expected {parameter.dtype} {list(parameter.shape)}"
            )
        if not moment.is_contiguous():
            raise FileFormatError(f"{where} is not contiguous, which binarynet never writes")
        if not bool(torch.isfinite(moment).all()):
            raise FileFormatError(f"{where} holds NaN or infinity")
    if bool((moments[norm] < 0).any()):
        raise FileFormatError(f"{path}: {norm} of parameter {index} in its optimizer state holds negative values")
    if norm == "exp_inf" and bool((moments[norm] == 0).any()):  # eps was added to every one of them
        raise FileFormatError(f"{path}: {norm} of parameter {index} in its optimizer state holds zeros")
