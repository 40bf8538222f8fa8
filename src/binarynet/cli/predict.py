"""`binarynet predict`: pictures in, classes and scores out. Needs no torch."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from binarynet.cli._console import plain_table, print_json, printable, stdout
from binarynet.cli._options import DeviceName, EngineName, Json, Threads

if TYPE_CHECKING:
    from binarynet.data import ImagePolicy
    from binarynet.runtime import Model

BATCH = 256


def predict(
    model: Annotated[Path, typer.Argument(metavar="MODEL.bnn", help="A packed network.", show_default=False)],
    images: Annotated[
        list[Path],
        typer.Argument(metavar="IMAGE", help="PNG, JPEG or .npy files, one image each.", show_default=False),
    ],
    top: Annotated[int, typer.Option(min=1, metavar="K", help="Show the K best classes.")] = 1,
    json: Json = False,
    engine: EngineName = None,
    device: DeviceName = None,
    threads: Threads = None,
) -> None:
    """Classify pictures with a packed network.

    Scores are the outputs of the network's last layer: the higher the better, no probabilities.
    """
    import binarynet
    from binarynet.cli._networks import policy_of, refusals_explained, require_file

    require_file(model)
    network = binarynet.load(model, engine=engine, num_threads=threads, device=device)
    with refusals_explained(network.network, model):
        predictions = collect(network, policy_of(network.network), images, top)
    if json:
        print_json({"model": model, "engine": network.engine, "device": network.device, "predictions": predictions})
        return
    table = plain_table("image", "class", "score", right=["score"])
    for entry in predictions:
        for rank, candidate in enumerate(entry["top"]):
            name = str(entry["image"]) if rank == 0 else ""
            table.add_row(Text(printable(name)), Text(printable(candidate["class"])), f"{candidate['score']:.3f}")
    stdout().print(table)


def collect(model: Model, policy: ImagePolicy, images: list[Path], top: int) -> list[dict[str, Any]]:
    """Per image: its path and the ``top`` best classes with index and score, best first (ties: lower index first).

    Raises:
        DataError: an image cannot be read; nothing is predicted then.
    """
    import numpy as np

    from binarynet.data import read_image

    predictions: list[dict[str, Any]] = []
    for start in range(0, len(images), BATCH):
        paths = images[start : start + BATCH]
        batch = np.stack([read_image(path, policy) for path in paths]).reshape(-1, *model.input_shape)
        result = model.predict(batch)
        for path, scores in zip(paths, result.scores, strict=True):
            best = np.argsort(-scores, kind="stable")[:top]
            predictions.append(
                {
                    "image": str(path),
                    "top": [
                        {
                            "class": model.classes[i] if model.classes else str(i),
                            "index": int(i),
                            "score": float(scores[i]),
                        }
                        for i in best
                    ],
                }
            )
    return predictions
