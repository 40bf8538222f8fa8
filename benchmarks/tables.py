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
    """Markdown: one table per network and batch size, or per layer or product."""
    if "tasks" in document:
        return _figure3(document)
    return _suite(document) if "tables" in document else _networks(document)


def _figure3(document: dict[str, Any]) -> str:
    lines = [f"### {document['suite']}{_threads(document)}", ""]
    for task in document["tasks"]:
        images = task.get("images")
        peak = any(bar.get("share_of_peak") for bar in task["kernels"])
        lines += [
            f"| {task['name']} | by | s | range | XNOR is faster | range | with packing | rows timed |"
            + (" error |" if images else "")
            + (" of peak |" if peak else ""),
            "|---|---|--:|--:|--:|--:|--:|--:|" + ("--:|" if images else "") + ("--:|" if peak else ""),
        ]
        for bar in task["kernels"]:
            time, faster, packing = bar["seconds"], bar["xnor_is_faster"], bar["xnor_with_packing_is_faster"]
            cells = [
                bar["kernel"],
                bar["library"],
                f"{time['median']:.3g}",
                f"{time['low']:.3g} - {time['high']:.3g}",
                f"{faster['median']:.1f}",
                f"{faster['low']:.1f} - {faster['high']:.1f}",
                f"{packing['median']:.1f}" if packing else "",
                f"{bar['rows_timed']:,}, scaled" if bar["rows_timed"] else "all",
                *([f"{100 * bar['wrong'] / images:.2f} %"] if images else []),
                *([_percent(bar["share_of_peak"])] if peak else []),
            ]
            lines.append(f"| {' | '.join(cells)} |")
        lines.append("")
    return "\n".join(lines)


def _percent(share: dict[str, float] | None) -> str:
    return f"{100 * share['median']:.0f} %" if share else ""


def _suite(document: dict[str, Any]) -> str:
    """Our engines first, over the best of the others; then everybody."""
    found = document["tables"]
    kinds = list(dict.fromkeys(ratio["over"] for table in found for row in _ours(table) for ratio in row["ratios"]))
    limits = _limit_columns([row for table in found for row in table["rows"]])
    columns = [*limits, *kinds]
    lines = [
        f"### {document['suite']}{_threads(document)}",
        "",
        "| times faster than | engine | ms |" + "".join(f" {column} |" for column in columns),
        "|---|---|--:|" + "--:|" * len(columns),
        *(_summary(table, row, limits, kinds) for table in found for row in _ours(table)),
        "",
    ]
    for table in found:
        lines += [*_table(_name(table), table, per_image=False), ""]
    return "\n".join(lines)


def _name(table: dict[str, Any]) -> str:
    return table["name"] + (", cold weights" if table["cold_caches"] else "")


def _ours(table: dict[str, Any]) -> list[dict[str, Any]]:
    return [row for row in table["rows"] if row["arithmetic"] == "packed"]


def _summary(table: dict[str, Any], row: dict[str, Any], limits: list[str], kinds: list[str]) -> str:
    ratios = {
        ratio["over"]: f"{ratio['median']:.1f} ({ratio['low']:.1f} - {ratio['high']:.1f})" for ratio in row["ratios"]
    }
    cells = [
        _name(table),
        row["name"].removeprefix("binarynet "),
        f"{row['ms']['median']:.3g}",
        *_limits(row, limits),
        *(ratios.get(kind, "") for kind in kinds),
    ]
    return f"| {' | '.join(cells)} |"


LIMITS = {
    "MAC/cycle": "macs_per_cycle",
    "of ports": "share_of_ports",
    "of reading": "share_of_reading",
    "of peak": "share_of_peak",
}
"""Columns of what the machine can do at most: on a processor the first three, on a GPU the last one."""


def _limit_columns(rows: list[dict[str, Any]]) -> list[str]:
    *processor, gpu = LIMITS
    return [gpu] if any(row.get(LIMITS[gpu]) for row in rows) else processor


def _limits(row: dict[str, Any], columns: list[str]) -> list[str]:
    """MAC/cycle and the shares of the machine's limits; empty where there is none."""
    cells = []
    for column in columns:
        found = row.get(LIMITS[column])
        cells.append(f"{found['median']:.3g}" if found and column == "MAC/cycle" else _percent(found))
    return cells


def _threads(document: dict[str, Any]) -> str:
    if gpu := document["machine"].get("gpu"):
        return f", {gpu['name']}"
    return "" if document["threads"] == 1 else f", {document['threads']} threads"


def _networks(document: dict[str, Any]) -> str:
    lines = []
    threads = _threads(document)
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
            cold = f", cold {_what_is_cold(batch)}" if batch["cold_caches"] else ""
            lines += [*_table(f"batch {batch['batch']}{cold}", batch), ""]
    return "\n".join(lines)


def _what_is_cold(batch: dict[str, Any]) -> str:
    """Documents without limits are from before the code was kept warm."""
    return "weights" if "limits" in batch else "caches"


def _table(heading: str, table: dict[str, Any], per_image: bool = True) -> list[str]:
    rows = table["rows"]
    if "macs" not in table or not table["macs"]:
        return [
            f"| {heading} | ms | range | images/s | times faster | range |",
            "|---|--:|--:|--:|--:|--:|",
            *(_row(row) for row in rows),
        ]
    sizes = any(row["peak_bytes"] for row in rows)
    limits = _limit_columns(rows)
    columns = [
        *("ms", "range", *(["images/s"] if per_image else []), "GMAC/s", *limits),
        *(*(["file, MB", "peak, MB"] if sizes else []), "times faster", "range"),
    ]
    lines = [f"| {heading} | {' | '.join(columns)} |", "|---|" + "--:|" * len(columns)]
    for row in rows:
        time, speedup = row["ms"], row["speedup"]
        cells = [
            row["name"],
            f"{time['median']:.3g}",
            f"{time['low']:.3g} - {time['high']:.3g}",
            *([f"{row['images_per_second']:,.0f}"] if per_image else []),
            f"{row['gmacs_per_second']:.3g}",
            *_limits(row, limits),
            *([_megabytes(row["file_bytes"]), _megabytes(row["peak_bytes"])] if sizes else []),
            *([f"{speedup['median']:.1f}", f"{speedup['low']:.1f} - {speedup['high']:.1f}"] if speedup else ["", ""]),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    if "limits" in table:
        lines += ["", _limits_line(table["limits"])]
    return lines


def _megabytes(size: int | None) -> str:
    return f"{size / 1e6:.3g}" if size else ""


def _limits_line(limits: dict[str, Any]) -> str:
    ports = "".join(
        f"; {port['engine']} {port['macs_per_cycle']['median']:.0f} MAC/cycle ({port['method']})"
        for port in limits["ports"]
    )
    # Documents from before int32 results had an amount of their own have one only.
    found = limits.get("reading", [{"bytes": limits["read_bytes"], "bytes_per_cycle": limits["read_bytes_per_cycle"]}])
    reading = "; ".join(
        f"{one['bytes'] / 1e6:.3g} MB read at {one['bytes_per_cycle']['median']:.1f} bytes/cycle" for one in found
    )
    return f"Limits: {limits['clock_ghz']['median']:.2f} GHz{ports}; {reading}."


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
