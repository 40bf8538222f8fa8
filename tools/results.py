"""README's table of results, and those of the folders of recorded runs, made from the records.

    python tools/results.py            write them (make results)
    python tools/results.py --check    exit code 1 where one is not what the records say

The table in README.md is of the recorded runs in benchmarks/results/*_paper. Every folder of benchmarks/results that
has recorded runs gets its tables in its own README.md. All stand between two marks; what is around them is left alone.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from binarynet.analysis.table import Result, TrainedRun
    from binarynet.cli._records import Record

ROOT = Path(__file__).resolve().parent.parent
BEGIN, END = "<!-- results: made by tools/results.py -->", "<!-- end of results -->"


def main() -> int:
    parser = argparse.ArgumentParser(description="Tables of results, made from recorded runs.")
    parser.add_argument("--check", action="store_true", help="write nothing; exit code 1 where a table is out of date")
    parser.add_argument("--root", type=Path, default=ROOT, help="another checkout than this one")
    arguments = parser.parse_args()
    from binarynet.errors import BinaryNetError

    try:
        wanted = pages(arguments.root)
    except BinaryNetError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    old = [page for page, text in wanted.items() if not page.is_file() or page.read_text(encoding="utf-8") != text]
    for page in old:
        if arguments.check:
            print(f"{page}: not what the recorded runs say; run: make results", file=sys.stderr)
        else:
            page.write_text(wanted[page], encoding="utf-8")
            print(f"written: {page}")
    return int(arguments.check and bool(old))


def pages(root: Path) -> dict[Path, str]:
    """Every page with such tables, and its text with the tables that it should have."""
    from binarynet.cli._records import read_record, records_in
    from binarynet.errors import UsageError

    results = root / "benchmarks" / "results"
    if not results.is_dir():
        raise UsageError(f"{results}: no such folder; recorded runs are in a checkout only")
    folders = sorted(path for path in results.iterdir() if path.is_dir())
    records = {folder: [read_record(path) for path in records_in(folder)] for folder in folders}
    of_the_paper = [record for folder, found in records.items() if folder.name.endswith("_paper") for record in found]
    readme = root / "README.md"
    found = {readme: between_marks(readme, results_table(of_the_paper))}
    for folder, own in records.items():
        if own:
            page = folder / "README.md"
            found[page] = between_marks(page, f"{results_table(own)}\n{runs_table(own)}")
    return found


def between_marks(page: Path, made: str) -> str:
    """The page's text with this between its marks; a page that is not there yet has little else."""
    from binarynet.errors import UsageError

    text = f"# {page.parent.name.replace('_', ': ', 1)}\n\n{BEGIN}\n{END}\n"
    if page.is_file():
        text = page.read_text(encoding="utf-8")
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise UsageError(f"{page}: has no place for its table; it needs the lines {BEGIN} and {END}")
    return f"{before}{BEGIN}\n\n{made}\n{END}{after}"


def results_table(records: Sequence[Record]) -> str:
    """One row per recipe, in the order of the paper's cells, the best first; a mean over several seeds."""
    from binarynet.analysis.paper import EXPERIMENTS
    from binarynet.analysis.table import results

    found, _ = results(record.table_run() for record in records)
    cells = [(experiment.data, experiment.setting) for experiment in EXPERIMENTS]

    def order(result: Result) -> tuple[int, str, float]:
        cell = result.experiment
        return cells.index((cell.data, cell.setting)) if cell else len(cells), result.runs[0].data, result.mean

    lines = [
        "| recipe | data | network | epochs | test error | the paper | not as in the paper | training |",
        "|---|---|---|--:|--:|--:|---|--:|",
    ]
    lines += [row([*_result(result)]) for result in sorted(found, key=order)]
    return "\n".join(lines) + "\n"


def _result(result: Result) -> list[str]:
    from binarynet.analysis.paper import DATA_NAMES, SETTING_NAMES

    run, experiment = result.runs[0], result.experiment
    model = run.recipe["model"]
    error = f"{100 * result.mean:.2f} %"
    if result.deviation is not None:
        error += f" \N{PLUS-MINUS SIGN} {100 * result.deviation:.2f} ({len(result.runs)} seeds)"
    changes = [
        difference.here_in_short
        for difference in result.differences
        if difference.key not in ("training.epochs", "model.hidden", "model.blocks", "model.dense")
    ]
    images = f"{run.test_images:,} test images"
    if experiment is not None and experiment.sizes["test"] != run.test_images:
        images = f"{run.test_images:,} of the {experiment.sizes['test']:,} test images"
    return [
        f"`{result.name}`",
        f"{DATA_NAMES.get(run.data, run.data)}, {images}",
        _network(model),
        _epochs(run),
        error,
        f"{SETTING_NAMES[experiment.setting]} {experiment.test_error:.2f} %" if experiment else "",
        "; ".join(changes),
        _time(run),
    ]


def _network(model: dict) -> str:
    from binarynet.analysis.table import flatten, in_words

    flat = flatten(model)
    if "hidden" in flat:
        return in_words(flat["hidden"])
    return f"ConvNet {', '.join(in_words(flat[key]) for key in ('blocks', 'dense') if key in flat)}"


def _epochs(run: TrainedRun) -> str:
    return (
        f"{run.epochs:,}" if run.finished else f"{run.epochs:,} of {run.recipe['training']['epochs']:,}, not finished"
    )


def _time(run: TrainedRun) -> str:
    """Processor time where a processor trained, else wall time."""
    from binarynet.analysis.units import in_time

    if run.machine is None or run.machine.device == "cpu":
        threads = run.machine.threads if run.machine is not None else 1
        return f"{in_time(run.cpu_seconds)} of {threads} thread{'s' if threads > 1 else ''}"
    return f"{in_time(run.train_seconds)}, {run.machine.device}"


def runs_table(records: Sequence[Record]) -> str:
    """One row per recorded run, with what was verified."""
    from binarynet.analysis.units import in_time

    lines = [
        "| run | recipe | seed | epochs | selected | validation error | wrong test images | 95 % interval "
        "| packed, bytes | engines against torch | commit | wall time | processor time |",
        "|---|---|--:|--:|--:|--:|--:|--:|--:|---|---|--:|--:|",
    ]
    for record in records:
        run, summary = record.table_run(), record.summary
        low, high = run.interval()
        checks = [
            f"{one['differences']} differences in {one['compared']:,} values of {one['images']:,} images"
            + (", reference included" if "reference" in one["engines"] else "")
            for one in summary["verification"]
        ]
        lines.append(
            row(
                [
                    f"[{record.path.name}]({record.path.name}/summary.json)",
                    " ".join([f"`{summary['recipe']}`", *(f"`{change}`" for change in summary["overrides"])]),
                    str(run.seed),
                    _epochs(run),
                    f"{run.best_epoch:,}",
                    f"{100 * run.validation_error:.2f} %",
                    f"{run.test_errors:,} of {run.test_images:,}",
                    f"{100 * low:.2f} to {100 * high:.2f} %",
                    f"{summary['packed']['bytes']:,}" if summary["packed"] else "",
                    "; ".join(checks) or summary["left_out"],
                    ", ".join(commit[:7] for commit in summary["commits"]),
                    in_time(run.train_seconds),
                    in_time(run.cpu_seconds),
                ]
            )
        )
    return "\n".join(lines) + "\n"


def row(cells: Sequence[str]) -> str:
    """A row of a table in Markdown."""
    return f"| {' | '.join(cell.replace('|', ' ') for cell in cells)} |"


if __name__ == "__main__":
    sys.exit(main())
