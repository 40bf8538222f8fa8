"""One cell of the paper's table by one command: train (or go on), pack, verify, evaluate, and record the run.

    python tools/cell.py mnist-theano --data ../shared/data
    python tools/cell.py cifar10-torch7 --seed 2 --set training.epochs=50 --name cifar10-torch7-50-2 --data DIR
    python tools/cell.py --rehearse cifar10-theano --data DIR      tiny sizes: does everything work?
    python tools/cell.py --record runs/a runs/b --data DIR         runs that are there, finished or not

The run is in RUNS/NAME, with checkpoints and ``model.bnn``; one that was stopped goes on, with the same result as if it
had not been. What is kept of it is a small folder, OUT/NAME: recipe, curve, result, and what was verified (``binarynet
reproduce`` reads these, ``make results`` makes README's table of them).
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
REHEARSAL = ROOT / "build" / "rehearsal"
_SMALLEST = 8
"""Fewest units or channels of a rehearsal's layers."""


def main() -> int:
    arguments = parse()
    from binarynet.cli.train import wait_politely
    from binarynet.errors import BinaryNetError

    wait_politely()
    try:
        commits = [full_commit(commit) for commit in arguments.commit]
        runs = [Path(run) for run in arguments.record] or [trained(arguments)]
        for run in runs:
            keep(run, commits, arguments)
    except BinaryNetError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt as interrupt:
        print(f"error: {str(interrupt) or 'interrupted'}", file=sys.stderr)
        return 130
    return 0


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Train a cell of the paper's table, verify it, and record the run.")
    parser.add_argument("recipe", nargs="?", help="a recipe's name, or a .toml file")
    parser.add_argument("--seed", type=int, metavar="N", help="instead of the recipe's")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change the recipe")
    parser.add_argument("--data", type=Path, metavar="DIR", help="where data sets are looked for first")
    parser.add_argument("--runs", type=Path, metavar="DIR", help="where runs are; default: runs")
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="where records go; default: benchmarks/results/DAY_paper, of its start"
    )
    parser.add_argument("--name", help="of run and record; default: the recipe's, with the seed where one is given")
    parser.add_argument("--threads", type=int, metavar="N", help="to train and to verify with")
    parser.add_argument("--verify", type=int, metavar="N", help="the first N test images only; default: all")
    parser.add_argument("--rehearse", action="store_true", help="tiny sizes, in build/rehearsal")
    parser.add_argument("--record", nargs="+", default=[], metavar="RUN", help="record these runs; train nothing")
    parser.add_argument(
        "--commit",
        action="append",
        default=[],
        metavar="HASH",
        help="of the program that trained them, if they lack it",
    )
    arguments = parser.parse_args()
    if bool(arguments.recipe) == bool(arguments.record):
        parser.error("name a recipe to train, or runs with --record")
    if arguments.record and (arguments.seed is not None or arguments.set or arguments.runs or arguments.rehearse):
        parser.error("--record trains nothing: leave out --seed, --set, --runs and --rehearse")
    if arguments.name and len(arguments.record) > 1:
        parser.error("--name is for one run")
    if arguments.commit and not arguments.record:
        parser.error("--commit is for --record; a run that is trained here knows its own")
    return arguments


def trained(arguments: argparse.Namespace) -> Path:
    """Train, or go on; the run's folder."""
    from binarynet.training import recipe as recipes
    from binarynet.training import train
    from binarynet.training.run_directory import RunDirectory

    seed = [] if arguments.seed is None else [f"seed={arguments.seed}"]
    recipe = recipes.load(arguments.recipe, [*arguments.set, *seed])
    if arguments.rehearse:
        recipe = recipes.load(recipe, tiny(recipe))
    name = arguments.name or recipe.name + (f"-seed-{arguments.seed}" if seed else "")
    run = RunDirectory((arguments.runs or (REHEARSAL / "runs" if arguments.rehearse else Path("runs"))) / name)
    if arguments.rehearse:
        shutil.rmtree(run.path, ignore_errors=True)
        shutil.rmtree((arguments.out or REHEARSAL) / name, ignore_errors=True)
    threads = arguments.threads
    if threads is None and run.exists():
        threads = run.read_recipe().training.threads  # that it was begun with
    if threads is not None:
        recipe = recipes.load(recipe, [f"training.threads={threads}"])
    run.path.parent.mkdir(parents=True, exist_ok=True)
    train(recipe, data_dir=arguments.data, out=run.path, resume=run.exists(), show="lines")
    return run.path


def tiny(recipe: object) -> list[str]:
    """Overrides: one epoch, a 32nd of all widths."""
    options = recipe.model.options()  # type: ignore[attr-defined]
    found = ["training.epochs=1"]
    for key in ("hidden", "dense", "blocks"):
        if key in options:
            found.append(f"model.{key}={narrow(options[key])}")
    return found


def narrow(widths: object) -> object:
    """A 32nd of a width, or of each in a list."""
    return [narrow(one) for one in widths] if isinstance(widths, list) else max(_SMALLEST, widths // 32)  # type: ignore[operator]


def keep(run: Path, commits: list[str], arguments: argparse.Namespace) -> None:
    """Record one run, and say what came out."""
    import torch

    from binarynet.cli._recording import record
    from binarynet.cli._runs import provenance_of

    day = provenance_of(run)["started"][:10]
    folder = REHEARSAL if arguments.rehearse else Path("benchmarks") / "results" / f"{day}_paper"
    out = (arguments.out or folder) / (arguments.name or run.resolve().name)
    if arguments.threads is not None:
        torch.set_num_threads(arguments.threads)
    found = record(
        run,
        out,
        arguments.data,
        commits=commits,
        images=arguments.verify,
        threads=arguments.threads,
        progress=lambda text: print(f"{run.name}: {text}", file=sys.stderr, flush=True),
    )
    summary = found.summary
    test = summary["test"]
    so_far = "" if summary["finished"] else " (not finished)"
    print(f"{out}: test error {100 * test['error']:.2f} % ({test['errors']:,} of {test['images']:,} wrong), epoch "
          f"{summary['best_epoch']} of {summary['epochs']}/{summary['planned_epochs']}{so_far}")  # fmt: skip
    for check in summary["verification"]:
        compared = f"{check['differences']} differences in {check['compared']:,} values on {check['images']:,} images"
        print(f"  {compared}: {check['baseline']}, {', '.join(check['engines'])}")
    if summary["packed"] is None:
        print(f"  {summary['left_out']}")
    else:
        print(f"  {run / 'model.bnn'}: {summary['packed']['bytes']:,} bytes")


def full_commit(name: str) -> str:
    """The whole hash of a commit of this checkout."""
    from binarynet.errors import UsageError

    command = ["git", "-C", str(ROOT), "rev-parse", "--verify", "--quiet", f"{name}^{{commit}}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise UsageError(f"--commit {name}: this checkout has no such commit")
    return done.stdout.strip()


if __name__ == "__main__":
    sys.exit(main())
