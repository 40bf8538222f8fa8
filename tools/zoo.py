"""Put a recorded run's network into the package's zoo, with a card made of the record.

    python tools/zoo.py NAME RECORD MODEL.bnn        e.g. mnist-mlp benchmarks/results/DAY_paper/RUN runs/RUN/model.bnn
    python tools/zoo.py --remove NAME

An older network of that name is replaced. The file must be the one that the record speaks of.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "src" / "binarynet" / "zoo"


def main() -> int:
    parser = argparse.ArgumentParser(description="Put a recorded run's network into the zoo.")
    parser.add_argument("name", help="without zoo:")
    parser.add_argument("record", type=Path, nargs="?", help="folder of the recorded run")
    parser.add_argument("file", type=Path, nargs="?", help="its packed network")
    parser.add_argument("--remove", action="store_true", help="take the network of this name out")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="another zoo than the package's")
    arguments = parser.parse_args()
    if arguments.remove == (arguments.file is not None):
        parser.error("expected NAME RECORD MODEL.bnn, or --remove NAME")
    from binarynet.errors import BinaryNetError

    try:
        if arguments.remove:
            for file in files(arguments.name, arguments.folder):
                file.unlink(missing_ok=True)
        else:
            add(arguments.name, arguments.record, arguments.file, arguments.folder)
    except BinaryNetError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def files(name: str, folder: Path) -> tuple[Path, Path]:
    """A network and its card."""
    from binarynet.errors import UsageError

    if not name or not name.replace("-", "").replace(".", "").isalnum() or not name.isascii():
        raise UsageError(f"{name!r}: expected a name of letters, digits, - and .")
    return folder / f"{name}.bnn", folder / f"{name}.json"


def add(name: str, record: Path, file: Path, folder: Path) -> None:
    """Copy the file, and write its card.

    Raises:
        UsageError: the file is not the record's, or was compared with torch on a part of the test set only.
    """
    from binarynet.cli._records import read_record
    from binarynet.errors import UsageError
    from binarynet.files import write_whole

    found = read_record(record)
    content = file.read_bytes()
    packed, test = found.summary["packed"], found.summary["test"]
    if packed is None or packed["sha256"] != hashlib.sha256(content).hexdigest():
        raise UsageError(f"{file}: is not the network that {record} speaks of; record the run again, and take its file")
    if max(check["images"] for check in found.summary["verification"]) != test["images"]:
        raise UsageError(f"{record}: not all test images were verified; record the run again, without --verify")
    network, card = files(name, folder)
    text = json.dumps(card_of(name, found, record).to_dict(), indent=2, ensure_ascii=False, allow_nan=False)
    write_whole(network, content)
    write_whole(card, text + "\n")
    print(
        f"{network}: {len(content):,} bytes, {100 * test['error']:.2f} % ({test['errors']} of {test['images']:,} wrong)"
    )


def card_of(name: str, found: Any, record: Path) -> Any:
    """What the record says, as a card."""
    from binarynet.analysis.paper import DATA_NAMES
    from binarynet.analysis.table import flatten, in_words
    from binarynet.zoo import Card

    summary, data = found.summary, found.run["dataset"]
    model = flatten(found.recipe.model.model_dump(mode="json"))
    shape = ", ".join(in_words(model[key]) for key in ("hidden", "blocks", "dense") if key in model)
    machine = summary["machine"]
    where = record.resolve()
    return Card(
        name=name,
        title=f"{DATA_NAMES.get(data['name'], data['name'])}, {'MLP' if 'hidden' in model else 'ConvNet'} {shape}",
        bytes=summary["packed"]["bytes"],
        sha256=summary["packed"]["sha256"],
        network=summary["network"]["name"],
        binary_weights=summary["network"]["binary_weights"],
        data=data["name"],
        data_sha256=summary["data"]["sha256"],
        data_notes=summary["data"]["notes"],
        test_errors=summary["test"]["errors"],
        test_images=summary["test"]["images"],
        setting=summary["paper"]["setting"],
        paper_error_percent=summary["paper"]["test_error_percent"],
        differences=summary["paper"]["differences"],
        recipe=summary["recipe"],
        overrides=summary["overrides"],
        seed=summary["seed"],
        commits=summary["commits"],
        epochs=summary["epochs"],
        planned_epochs=summary["planned_epochs"],
        best_epoch=summary["best_epoch"],
        validation_error=summary["validation_error"],
        train_seconds=summary["train_seconds"],
        cpu_seconds=summary["cpu_seconds"],
        machine=f"{machine['processor']}, {machine['threads']} thread{'s' if machine['threads'] > 1 else ''}",
        started=summary["started"],
        verification=summary["verification"],
        record=str(where.relative_to(ROOT)) if where.is_relative_to(ROOT) else str(record),
        make_again=summary["make_again"],
    )


if __name__ == "__main__":
    sys.exit(main())
