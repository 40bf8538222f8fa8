"""`binarynet bench`: speed on this machine, side by side with what else is installed."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from typer.core import TyperGroup

from binarynet.cli._console import print_json, say, stderr, stdout
from binarynet.cli._ending import cleaned_up
from binarynet.cli._options import DataDir, DatasetName, DeviceName, Json
from binarynet.errors import BackendUnavailableError, UsageError
from binarynet.zoo import is_name

if TYPE_CHECKING:
    from binarynet.cli._benching.figure3 import Figure3Network
    from binarynet.cli._benching.gpu import Gpu
    from binarynet.cli._benching.measuring import Comparison
    from binarynet.cli._benching.single import SingleLayer
    from binarynet.cli._benching.suites import SuiteResult

MAX_BATCH = 65536
MAX_PRODUCT = 32768
DEFAULT = "model"
"""What `bench` does when it is not told."""


def _finite(seconds: float) -> float:
    if not math.isfinite(seconds):
        raise UsageError(f"--seconds must be a finite number of seconds, as in 3; got {seconds}")
    return seconds


Threads = Annotated[int, typer.Option(min=1, metavar="N", help="Threads that every party may use.")]
Autotune = Annotated[
    bool,
    typer.Option(
        "--autotune",
        help="With --device cuda: torch.compile with its mode max-autotune, too (compiling takes minutes).",
    ),
]
Seconds = Annotated[
    float,
    typer.Option(
        min=0.0,
        metavar="S",
        callback=_finite,
        help="About how long to measure for each table; longer where three rounds of every party take longer.",
    ),
]
Engine = Annotated[
    str | None,
    typer.Option(
        "--engine",
        metavar="NAME",
        help="Only this engine of ours; default: the one that BINARYNET_FORCE_ISA names, else all that can run here.",
    ),
]


class BenchGroup(TyperGroup):
    """`bench [MODEL.bnn]` is `bench model [MODEL.bnn]`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        return super().parse_args(ctx, with_command(args, tuple(self.commands)))

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        return ["[COMMAND | MODEL.bnn] [OPTIONS]"]


def with_command(arguments: Sequence[str], commands: Sequence[str]) -> list[str]:
    """What was typed after `bench`, its command named.

    Raises:
        UsageError: the first word is neither a command nor a file.
    """
    rest = list(arguments)
    if "--training" in rest and not set(rest) & set(commands):
        rest.remove("--training")
        return ["training", *rest]
    first = rest[0] if rest else ""
    if first in ("-h", "--help") or first in commands:
        return rest
    file = is_name(first) or Path(first).suffix or Path(first).exists()
    if first and not first.startswith("-") and not file:
        raise UsageError(f"bench {first}: neither a file nor one of {', '.join(commands)}")
    return [DEFAULT, *rest]


def model(
    model: Annotated[
        Path | None,
        typer.Argument(metavar="MODEL.bnn", help="A packed network; default: the paper's, with random weights."),
    ] = None,
    threads: Threads = 1,
    engine: Engine = None,
    device: DeviceName = None,
    batch: Annotated[
        str | None,
        typer.Option(metavar="N,...", help="Images per call; default: 1,256, with convolutions 1,64."),
    ] = None,
    seconds: Seconds = 3.0,
    memory: Annotated[
        bool,
        typer.Option("--memory", help="Peak memory of a process for each party as well (a second or two for each)."),
    ] = False,
    autotune: Autotune = False,
    json: Json = False,
) -> None:
    """Whole networks, from 8-bit images to scores (this is what `bench` and `bench MODEL.bnn` do)."""
    batches = parse_batches(batch) if batch is not None else None
    if model is not None:
        from binarynet.cli._networks import require_file

        require_file(model)
    from binarynet.cli._benching import document, networks, text
    from binarynet.cli._benching import memory as memory_of
    from binarynet.cli._benching.measuring import shown

    gpu = _gpu(device, engine, threads, autotune)
    if memory:
        if gpu is not None:
            raise UsageError("--memory is about the processor's memory; leave it out with --device cuda")
        memory_of.require_support()
    engine_names = _timed_engines(engine, gpu)
    machine = conditions(threads, gpu)
    found = networks.paper_networks() if model is None else [networks.network_of_file(model)]
    results = []
    console, notes = stdout(), stderr()
    for position, network in enumerate(found):
        with shown(notes, notes.is_terminal) as progress:
            result = networks.measure(
                network, batches or network.batches, engine_names, threads, seconds, memory, progress, gpu
            )
        results.append(result)
        if not json:
            if position == 0:
                text.print_parties(console, machine, result, threads)
            else:
                told = [absence for earlier in results[:-1] for absence in earlier.absent]
                text.print_absences(console, [absence for absence in result.absent if absence not in told])
            text.print_network(console, result)
    if json:
        print_json(document.of_networks(document.conditions("model", machine, threads, seconds), results))
    else:
        text.print_notes(console, "model", machine)


def gemm(
    sizes: Annotated[
        str | None,
        typer.Option(metavar="N,...", help="Square products, N x N x N; default: 512,1024,4096 (none with --shapes)."),
    ] = None,
    shapes: Annotated[
        str | None,
        typer.Option(metavar="MxNxK,...", help="Other products: M rows, N columns, dot products of length K."),
    ] = None,
    threads: Threads = 1,
    engine: Engine = None,
    device: DeviceName = None,
    seconds: Seconds = 3.0,
    autotune: Autotune = False,
    json: Json = False,
) -> None:
    """Products of +1 / -1 matrices, bits in, bits or int32 out."""
    from binarynet.cli._benching import suites

    wanted = suites.parse_shapes(shapes) if shapes is not None else []
    if sizes is not None:
        wanted = suites.parse_sizes(sizes) + wanted
    elif not wanted:
        wanted = [(size, size, size) for size in suites.GEMM_SIZES]
    gpu = _gpu(device, engine, threads, autotune)
    _run_suite("gemm", list(suites.gemm_layers(wanted)), suites.measure_gemm, engine, threads, gpu, seconds, json)


def layers(
    model: Annotated[
        Path | None,
        typer.Argument(metavar="MODEL.bnn", help="A packed network; default: the paper's, with random weights."),
    ] = None,
    only: Annotated[
        str | None,
        typer.Option(metavar="WORD,...", help="Only layers whose name or shape has one of these words in it."),
    ] = None,
    threads: Threads = 1,
    engine: Engine = None,
    device: DeviceName = None,
    batch: Annotated[int, typer.Option(min=1, max=MAX_BATCH, metavar="N", help="Images per call.")] = 1,
    seconds: Seconds = 3.0,
    autotune: Autotune = False,
    json: Json = False,
) -> None:
    """Every layer of a network alone, with warm weights, and on the processor with cold ones, too."""
    if model is not None:
        from binarynet.cli._networks import require_file

        require_file(model)
    from binarynet.cli._benching import suites

    if model is None:
        found = list(suites.paper_layers(batch))
    else:
        from binarynet import fileformat

        found = list(suites.network_layers(fileformat.read(model).graph, batch))
    chosen = suites.selected(found, only)
    gpu = _gpu(device, engine, threads, autotune)
    _run_suite("layers", chosen, suites.measure_layers, engine, threads, gpu, seconds, json)


def training(
    threads: Threads = 1,
    batch: Annotated[
        str | None, typer.Option(metavar="N,...", help="Images per step; default: 100, the ConvNet 50.")
    ] = None,
    seconds: Seconds = 3.0,
    compiled: Annotated[
        bool, typer.Option("--compiled", help="torch.compile as well (compiling takes minutes).")
    ] = False,
    json: Json = False,
) -> None:
    """The training step of the paper's networks, beside the same step in plain torch."""
    batches = parse_batches(batch) if batch is not None else None
    from binarynet.cli.train import wait_politely

    wait_politely()
    _say_forced()
    from binarynet.cli._benching import document, text
    from binarynet.cli._benching import training as training_step
    from binarynet.cli._benching.measuring import shown

    machine = conditions(threads)
    console, notes = stdout(), stderr()
    results = []
    if not json:
        text.print_processor(console, machine, threads)
        console.print(f"binarynet {machine['version']}, torch {machine['libraries']['torch']}", soft_wrap=True)
    for network in training_step.paper_networks():
        with shown(notes, notes.is_terminal) as progress:
            result = training_step.measure(network, batches or network.batches, threads, seconds, compiled, progress)
        results.append(result)
        if not json:
            text.print_training(console, result)
    if json:
        print_json(document.of_training(document.conditions("training", machine, threads, seconds), results))
    else:
        text.print_notes(console, "training", machine)


def figure3(
    model: Annotated[
        Path | None,
        typer.Option(
            "--model", metavar="MODEL.bnn", help="A trained network of dense layers; default: the product only."
        ),
    ] = None,
    data: DataDir = None,
    dataset: DatasetName = None,
    out: Annotated[Path | None, typer.Option("--out", metavar="FILE", help="Draw it, too: a .png or .svg.")] = None,
    size: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=MAX_PRODUCT,
            metavar="N",
            help="The product is N x N x N; default: 8192, on a GPU 1024, 4096, 8192 and 16384.",
        ),
    ] = None,
    threads: Threads = 1,
    engine: Engine = None,
    device: DeviceName = None,
    seconds: Seconds = 3.0,
    json: Json = False,
) -> None:
    """The paper's Figure 3 for this machine: baseline kernel, float BLAS and XNOR kernel, times and error."""
    picture_kind = _picture_kind(out)
    if model is None and (data is not None or dataset is not None):
        raise UsageError("--data and --dataset are about the network's images; name one with --model")
    from binarynet.analysis.paper import PRODUCT_SIZE
    from binarynet.cli._benching import document, figure3_shown, text
    from binarynet.cli._benching import figure3 as measuring
    from binarynet.cli._benching.measuring import shown

    if out is not None:  # before minutes of measuring: neither may work
        from binarynet.analysis.pictures import render
        from binarynet.files import require_writable, write_whole

        require_writable(out)
    gpu = _gpu(device, engine, threads)
    engine_name = _timed_engines(engine, gpu)[0]
    network = _network_with_images(model, data, dataset) if model is not None else None
    machine = conditions(threads, gpu)
    console, notes = stdout(), stderr()
    with shown(notes, notes.is_terminal) as progress:
        if gpu is None:
            found = measuring.measure((size or PRODUCT_SIZE,), network, engine_name, threads, seconds, progress)
        else:
            from binarynet.cli._benching import figure3_gpu

            sizes = (size,) if size is not None else figure3_gpu.SIZES
            found = figure3_gpu.measure(gpu, sizes, network, engine_name, seconds, progress)
    if json:
        print_json(figure3_shown.to_dict(document.conditions("figure3", machine, threads, seconds), found))
    else:
        text.print_processor(console, machine, threads)
        figure3_shown.print_figure(console, found, machine)
    if out is not None and picture_kind is not None:
        figure = figure3_shown.picture(found, machine, threads).figure
        write_whole(out, render(figure, picture_kind))
        if not json:
            console.print(f"\ndrawn: {out}", markup=False, soft_wrap=True)


def _picture_kind(out: Path | None) -> Literal["png", "svg"] | None:
    suffixes: dict[str, Literal["png", "svg"]] = {".png": "png", ".svg": "svg"}
    if out is None:
        return None
    if out.suffix.lower() not in suffixes:
        raise UsageError(f"--out {out}: expected a name that ends in .png or .svg")
    return suffixes[out.suffix.lower()]


def _network_with_images(path: Path, data: Path | None, dataset: str | None) -> Figure3Network:
    import binarynet
    from binarynet.cli._benching.figure3 import Figure3Network, FloatLayers
    from binarynet.cli._networks import require_file
    from binarynet.cli._packed import load_data

    require_file(path)
    model = binarynet.load(path)
    layers = FloatLayers(model.network.graph)  # refuses other networks before their images are fetched
    return Figure3Network(str(path), layers, load_data(model, path, dataset, data).test)


def group(wrapped: Callable[[Callable[..., Any]], Callable[..., Any]]) -> typer.Typer:
    """The commands below `bench`, each ``wrapped``."""
    app = typer.Typer(
        cls=BenchGroup,
        help="Measure the speed on this machine, side by side with what is installed (torch, onnxruntime, "
        "openvino).\n\n`bench` alone measures the paper's networks, `bench MODEL.bnn` a packed one: see "
        "`bench model --help`.",
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    for command in (model, layers, gemm, training, figure3):
        app.command()(wrapped(cleaned_up(command)))
    return app


def _run_suite(
    suite: str,
    found: list[SingleLayer],
    measure: Callable[..., SuiteResult],
    engine: str | None,
    threads: int,
    gpu: Gpu | None,
    seconds: float,
    json: bool,
) -> None:
    """Tables appear as they are done; the summary, and who took part, at the end."""
    from binarynet.cli._benching import document, text
    from binarynet.cli._benching.measuring import shown

    engine_names = _timed_engines(engine, gpu)
    machine = conditions(threads, gpu)
    console, notes = stdout(), stderr()

    def show(comparison: Comparison) -> None:
        if not json:
            text.print_comparison(console, comparison)
            console.print()

    with shown(notes, notes.is_terminal) as progress:
        result = measure(found, engine_names, threads, seconds, progress, show, gpu)
    if json:
        print_json(document.of_suite(document.conditions(suite, machine, threads, seconds), result))
        return
    text.print_parties(console, machine, result, threads)
    text.print_summary(console, result.tables)
    text.print_notes(console, suite, machine)


def _gpu(device: str | None, engine: str | None, threads: int, autotune: bool = False) -> Gpu | None:
    """The GPU that is asked for; None for the processor.

    Raises:
        UsageError: no device is called so, or an option is about the other kind.
        BackendUnavailableError: there is no such GPU, or it cannot be used; says why.
    """
    from binarynet.runtime.engines import CPU, resolve_device

    name = resolve_device(device, engine)
    if name == CPU:
        if autotune:
            raise UsageError("--autotune is about peers on a GPU; add --device cuda")
        return None
    if threads != 1:
        raise UsageError("--threads is about the processor; leave it out with --device cuda")
    from binarynet.cli._benching.gpu import Gpu
    from binarynet.cuda.device import find

    found, reason = find(name)
    if found is None:
        raise BackendUnavailableError(f"the device {device or name!r} cannot be used here: {reason}")
    return Gpu(found, autotune)


def _timed_engines(wanted: str | None, gpu: Gpu | None = None) -> tuple[str, ...]:
    from binarynet.cli._benching.parties import timed_engines

    if gpu is not None:
        return timed_engines(wanted, gpu)
    return timed_engines(wanted if wanted is not None else _say_forced())


def _say_forced() -> str | None:
    """The engine that BINARYNET_FORCE_ISA names, which people are told; None where it is not set."""
    from binarynet.runtime.engines import FORCE_VARIABLE, forced_instruction_set

    forced = forced_instruction_set()
    if forced is not None:
        say(stderr(), "note", "yellow", f"{FORCE_VARIABLE}={forced}: no other engine of ours takes part")
    return forced


def parse_batches(text: str) -> tuple[int, ...]:
    """``"1,256"`` to (1, 256).

    Raises:
        UsageError: something else than numbers from 1 to MAX_BATCH, or none.
    """
    try:
        batches = tuple(int(part) for part in text.split(","))
    except ValueError:
        batches = ()
    if not batches or any(not 1 <= batch <= MAX_BATCH for batch in batches):
        raise UsageError(
            f"--batch must be numbers from 1 to {MAX_BATCH} with commas between, as in 1,256; got {text!r}"
        )
    return tuple(dict.fromkeys(batches))


def conditions(threads: int, gpu: Gpu | None = None) -> dict[str, Any]:
    """The machine, what calls are timed by, and how busy it is; warns where that spoils what is measured."""
    from binarynet.analysis import fair_clock
    from binarynet.cli.info import collect

    machine = collect() | {"load": load()}
    if gpu is not None:
        from binarynet.cli._benching.gpu import CLOCK_NAME

        own = next(each for each in machine["gpus"] if each["device"] == str(gpu.device))
        return machine | {"clock": CLOCK_NAME, "gpu": own | gpu.facts()}
    warn_if_busy(machine, threads)
    return machine | {"clock": fair_clock(threads)[1], "gpu": None}


def load() -> float | None:
    """Programs that wanted a processor during the last minute, on average; None where the system does not tell."""
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None


def warn_if_busy(machine: dict[str, Any], threads: int) -> None:
    """Threads that wait for one another lose out of all proportion where other programs take the processors."""
    busy, cores = machine["load"], machine["cores"]
    if threads > cores:
        say(
            stderr(),
            "note",
            "yellow",
            f"there are more threads ({threads}) than cores ({cores}): neither times nor ratios can be trusted; use "
            f"--threads {cores} or fewer",
        )
    elif threads > 1 and busy is not None and busy + threads > cores + 0.5:
        say(
            stderr(),
            "note",
            "yellow",
            f"this machine is busy (load {busy} on {cores} cores): with {threads} threads neither times nor "
            "ratios can be trusted; wait until it is idle, or use --threads 1, which is timed by the processor",
        )
