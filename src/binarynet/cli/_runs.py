"""A trained run: its error, and its network as the truth for packing and verification. Needs torch."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from binarynet.errors import VerificationError

if TYPE_CHECKING:
    from binarynet.graph import Graph
    from binarynet.runtime import Model, Source
    from binarynet.training import LoadedRun

MAX_NAMED = 5


def evaluation_facts(
    folder: Path,
    data_dir: Path | None,
    dataset: str | None,
    split: Literal["train", "validation", "test"],
    threads: int | None,
) -> dict[str, Any]:
    """JSON-able result of evaluating a run with torch."""
    import torch

    from binarynet.training import evaluate_run

    before = torch.get_num_threads()
    used = threads if threads is not None else before
    torch.set_num_threads(used)
    try:
        start = time.perf_counter()
        result = evaluate_run(folder, data_dir=data_dir, dataset_path=dataset, split=split)
        seconds = time.perf_counter() - start
    finally:
        torch.set_num_threads(before)
    return {
        "run": str(folder),
        "dataset": provenance_of(folder)["dataset"]["name"],
        "split": split,
        "error": result.error,
        "wrong": result.num_errors,
        "images": result.num_images,
        "cost": result.cost,
        "engine": "torch",
        "threads": used,
        "seconds": seconds,
    }


def provenance_of(folder: Path) -> dict[str, Any]:
    """The content of run.json."""
    from binarynet.training.run_directory import RunDirectory

    return RunDirectory(folder).read_provenance()


def file_provenance(run: LoadedRun) -> dict[str, Any]:
    """What a packed file says about where it comes from; no times, so that packing twice gives identical bytes."""
    record = run.provenance
    kept = ("seed", "epochs", "best_epoch", "validation_error", "test_error", "test_errors", "test_images", "versions")
    return {
        "dataset": record["dataset"]["name"],
        "dataset_notes": without_folders(record["dataset"].get("notes", [])),
        "recipe": run.recipe.model_dump(mode="json"),
        **{key: record[key] for key in kept if key in record},
    }


def without_folders(notes: Sequence[str]) -> list[str]:
    """What a data set says about its files (``path: text``), without the folders of the machine that they lay on."""
    parts = (note.partition(": ") for note in notes)
    return [(Path(path).name if Path(path).is_absolute() else path) + colon + text for path, colon, text in parts]


class PackedRun(NamedTuple):
    """A run as a packed model, and what it was packed from."""

    model: Model
    run: LoadedRun


def packed(folder: Path) -> PackedRun:
    """Pack a run's selected weights, proved equal to PyTorch on probe images.

    Raises:
        UnsupportedLayerError: it has no exact packed form.
        UsageError, RecipeError, FileFormatError: it is no run, or a damaged one.
    """
    from binarynet.lowering import pack
    from binarynet.training import load_run

    run = load_run(folder)
    record = run.provenance["dataset"]
    model = pack(
        run.model,
        input_shape(run),
        record["classes"],
        image_policy=record["policy"],
        provenance=file_provenance(run),
    )
    return PackedRun(model, run)


def input_shape(run: LoadedRun) -> tuple[int, int, int]:
    """(rows, columns, channels) of the run's images."""
    policy = run.provenance["dataset"]["policy"]
    return policy["height"], policy["width"], policy["channels"]


def torch_baseline(folder: Path, graph: Graph, file: Path) -> Source:
    """The run's torch network as the truth that a packed file must equal.

    Raises:
        VerificationError: the file was packed from a network of another structure.
    """
    from binarynet.lowering import lower_checked, torch_source
    from binarynet.training import load_run

    run = load_run(folder)
    lowered = lower_checked(run.model, input_shape(run))
    if lowered.graph.types != graph.types:
        differing = [
            f"{name} ({lowered.graph.types.get(name, 'nothing')} in the run, {graph.types.get(name, 'nothing')} in it)"
            for name in dict.fromkeys([*lowered.graph.types, *graph.types])
            if lowered.graph.types.get(name) != graph.types.get(name)
        ]
        more = f" and {len(differing) - MAX_NAMED} more" if len(differing) > MAX_NAMED else ""
        raise VerificationError(
            f"{file} was not packed from {folder}, its layers differ: {', '.join(differing[:MAX_NAMED])}{more}"
        )
    return torch_source(lowered)
