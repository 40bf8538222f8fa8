"""`binarynet zoo`: the trained networks that come with the package. Needs no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from binarynet.cli._console import percent, plain_table, print_facts, print_json, stdout
from binarynet.cli._options import Json

if TYPE_CHECKING:
    from binarynet.zoo import Card


def zoo(
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="Show this network's whole card.", show_default=False)
    ] = None,
    json: Json = False,
) -> None:
    """List the trained networks that come with the package. zoo:NAME stands for their files in all commands."""
    from binarynet.zoo import card, cards

    if name is not None:
        found = card(name)
        if json:
            print_json(found.to_dict())
        else:
            _show(found)
        return
    everything = cards()
    if json:
        print_json([found.to_dict() for found in everything])
        return
    columns = ("test error", "test images", "bytes")
    table = plain_table("network", *columns, "", right=columns)
    for found in everything:
        table.add_row(
            Text(f"zoo:{found.name}"),
            percent(found.test_error),
            f"{found.test_images:,}",
            f"{found.bytes:,}",
            Text(found.title),
        )
    stdout().print(table)


def _show(card: Card) -> None:
    """Everything that the card says."""
    from binarynet.analysis.units import in_time

    facts: dict[str, str | Text] = {
        "network": f"zoo:{card.name}, {card.title}",
        "test error": f"{percent(card.test_error)}  ({card.test_errors:,} of {card.test_images:,} wrong)",
        "file": f"{card.bytes:,} bytes, {card.binary_weights:,} binary weights, sha256 {card.sha256}",
        "recipe": " ".join([card.recipe, *card.overrides]),
        "seed": str(card.seed),
        "epochs": f"{card.epochs:,} of {card.planned_epochs:,}, selected {card.best_epoch:,} "
        f"(validation error {percent(card.validation_error)})",
        "trained": f"{card.started}, {in_time(card.train_seconds)}, {card.machine}",
        "commit": ", ".join(card.commits) or "not known",
        "data": f"{card.data}, sha256 of its test images {card.data_sha256['test']}",
        "record": card.record,
    }
    for note in card.data_notes:
        facts["data"] = f"{facts['data']}; {note}"
    if card.paper_error_percent is not None:
        facts["the paper"] = f"{card.paper_error_percent:.2f} %; " + (
            f"not its recipe: {'; '.join(card.differences)}" if card.differences else "by its recipe"
        )
    for number, check in enumerate(card.verification, start=1):
        facts["verified" if number == 1 else f"verified {number}"] = (
            f"{check['differences']:,} differences in {check['compared']:,} values on {check['images']:,} test images: "
            f"{check['baseline']}, {', '.join(check['engines'])}"
        )
    facts["make again"] = "; ".join(card.make_again)
    print_facts(stdout(), facts)
