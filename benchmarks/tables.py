"""Tables of a result folder, made from its bench*.json and kept between two marks in its README.md.

python benchmarks/tables.py benchmarks/results/2026-11-23_first-road
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

BEGIN, END = "<!-- tables: made by benchmarks/tables.py -->", "<!-- end of tables -->"


def tables(document: dict[str, Any]) -> str:
    """Markdown: one table per network and batch size."""
    lines = []
    threads = "" if document["threads"] == 1 else f", {document['threads']} threads"
    for network in document["networks"]:
        lines += [f"### {network['name']}{threads}", ""]
        if "packed_bytes" in network:  # not of training steps
            smaller = network["float32_bytes"] / network["packed_bytes"]
            lines += [
                f"{network['packed_bytes']:,} bytes packed, {network['float32_bytes']:,} bytes in float32: "
                f"{smaller:.1f}x smaller. Equal to the NumPy reference: {', '.join(network['equal_to_reference'])}.",
                "",
            ]
        for batch in network["batches"]:
            cold = ", cold caches" if batch["cold_caches"] else ""
            lines += [
                f"| batch {batch['batch']}{cold} | ms | range | images/s | times faster | range |",
                "|---|--:|--:|--:|--:|--:|",
                *(_row(row) for row in batch["rows"]),
                "",
            ]
    return "\n".join(lines)


def _row(row: dict[str, Any]) -> str:
    time, speedup = row["ms"], row["speedup"]
    faster = f"{speedup['median']:.1f} | {speedup['low']:.1f} - {speedup['high']:.1f}" if speedup else "|"
    return (
        f"| {row['name']} | {time['median']:.3g} | {time['low']:.3g} - {time['high']:.3g} "
        f"| {row['images_per_second']:,.0f} | {faster} |"
    )


def documents(folder: Path) -> list[dict[str, Any]]:
    """The raw data of a result folder."""
    return [json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("bench*.json"), reverse=True)]


def with_tables(text: str, *documents: dict[str, Any]) -> str:
    """A README's text with its tables renewed."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    made = "\n".join(map(tables, documents))
    return f"{before}{BEGIN}\n\n{made}{END}{after}"


def main() -> None:
    folder = Path(sys.argv[1])
    readme = folder / "README.md"
    readme.write_text(with_tables(readme.read_text(encoding="utf-8"), *documents(folder)), encoding="utf-8")


if __name__ == "__main__":
    main()
