"""`binarynet verify`: proof that a packed network computes the same integers, layer by layer, on every engine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from binarynet.cli._console import plain_table, print_json, printable, progress_bar, stdout
from binarynet.cli._networks import is_run
from binarynet.cli._options import DataDir, DatasetName, Json, Threads
from binarynet.errors import DataError, UsageError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from binarynet.runtime import Model, Verification

RANDOM_SEED = 0
KINDS = {"bits": "bits", "i32": "sums", "f32": "scores"}


def verify(
    paths: Annotated[
        list[Path],
        typer.Argument(
            metavar="MODEL.bnn",
            help="The packed network, and before it the run that it was packed from.",
            show_default=False,
        ),
    ],
    data: DataDir = None,
    dataset: DatasetName = None,
    images: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Only the first N test images.", show_default=False),
    ] = None,
    random: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="N random images instead of a data set.", show_default=False),
    ] = None,
    sums: Annotated[bool, typer.Option("--sums", help="Compare the integer sums before every sign, too.")] = False,
    json: Json = False,
    threads: Threads = None,
    device: Annotated[
        str | None,
        typer.Option(
            "--device",
            metavar="NAME",
            help="Engines of cpu, cuda (the first GPU) or cuda:N only; default: of the CPU and the first GPU.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Prove that a packed network is exact: every layer's bits and the scores, on every engine of this machine.

    With RUN all are compared with the trained PyTorch network; without it, with the NumPy reference.
    """
    import binarynet

    run_folder, file = _run_and_file(paths)
    model = binarynet.load(file)
    inputs, what = _images(model, file, data, dataset, images, random)
    extra = {}
    if run_folder is not None:
        from binarynet.cli._runs import torch_baseline

        extra["torch"] = torch_baseline(run_folder, model.graph, file)
    with progress_bar("verifying", len(inputs)) as advance:
        result = binarynet.verify(
            model.graph, inputs, extra=extra, num_threads=threads, device=device, sums=sums, progress=advance
        )
    if json:
        print_json(_as_json(result, file, run_folder, what))
    else:
        _show(result, file, what)
    result.require_exact()


def _run_and_file(paths: list[Path]) -> tuple[Path | None, Path]:
    if len(paths) > 2:
        raise UsageError(f"expected [RUN] MODEL.bnn, got {len(paths)} paths")
    *runs, file = paths
    if is_run(file):
        raise UsageError(f"{file}: is a folder; the packed network comes last: binarynet verify [RUN] MODEL.bnn")
    if runs and not is_run(runs[0]):
        raise UsageError(f"{runs[0]}: is not a run's folder; expected [RUN] MODEL.bnn")
    return (runs[0] if runs else None), file


def _images(
    model: Model, file: Path, data: Path | None, dataset: str | None, first: int | None, random: int | None
) -> tuple[npt.NDArray[np.uint8], str]:
    """Images as the network takes them, and what they are, in words."""
    import numpy as np

    from binarynet.cli._packed import inputs, load_data

    if random is not None:
        if first is not None or dataset is not None or data is not None:
            raise UsageError("--random takes no data set: leave --images, --dataset and --data out")
        generator = np.random.default_rng(RANDOM_SEED)
        return generator.integers(0, 256, (random, *model.input_shape), dtype=np.uint8), f"{random:,} random images"
    try:
        loaded = load_data(model, file, dataset, data)
    except DataError as error:
        raise DataError(f"{error} (or verify on random images: --random 1000)") from error
    images = inputs(loaded.test, model)[:first]
    share = "all" if len(images) == len(loaded.test) else f"{len(images):,} of"
    return images, f"{share} {len(loaded.test):,} test images of {loaded.name}"


def _as_json(result: Verification, file: Path, run_folder: Path | None, what: str) -> dict[str, Any]:
    return {
        "file": file,
        "run": run_folder,
        "images": result.num_images,
        "data": what,
        "baseline": result.baseline,
        "engines": list(result.engines),
        "exact": result.exact,
        "layers": [
            {"name": check.name, "kind": check.kind, "compared": check.compared, "differences": check.differences}
            for check in result.checks
        ],
    }


def _show(result: Verification, file: Path, what: str) -> None:
    console = stdout()
    console.print(f"{file}: {printable(what)}, compared with {result.baseline}\n", markup=False, soft_wrap=True)
    numbers = ["values", *result.engines]
    table = plain_table("layer", "kind", *numbers, right=numbers)
    for check in result.checks:
        cells = [
            Text(f"{check.differences[engine]:,}", style="red" if check.differences[engine] else "green")
            for engine in result.engines
        ]
        table.add_row(Text(check.name), KINDS[check.kind], f"{check.compared:,}", *cells)
    console.print(table)
    if result.exact:
        compared = sum(check.compared for check in result.checks)
        console.print(
            Text.assemble(("\nexact: ", "bold green"), f"0 differences in {compared:,} values on every engine"),
            soft_wrap=True,
        )
