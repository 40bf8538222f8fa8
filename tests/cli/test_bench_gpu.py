"""`binarynet bench --device cuda` on a simulated GPU, where our own engines are all there is, and torch's peers of a
GPU on the processor. What is not tested without a GPU: torch's own kernels there, and any time."""

from __future__ import annotations

import importlib.util
import json
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from bench_output import rows_of
from simulated_sessions import simulated_product

from binarynet.analysis import Party, random_convnet, random_mlp
from binarynet.cli import _peers, _peers_torch_cuda
from binarynet.cli._benching import figure3, figure3_gpu, gpu, measuring
from binarynet.cli._peers_common import OnGpu
from binarynet.cuda import choice
from binarynet.cuda import device as devices
from binarynet.cuda.streams import DEFAULT_STREAM
from binarynet.data import load
from binarynet.errors import VerificationError
from binarynet.fileformat import PackedNetwork, read, write
from binarynet.graph import evaluate
from binarynet.runtime import Session

torch = pytest.importorskip("torch")
COMMANDS = (("model",), ("gemm", "--sizes", 40), ("layers",), ("figure3", "--size", 40))


@pytest.fixture
def simulated():
    with simulated_product(schedule=1) as control:
        yield control


@pytest.fixture
def hopper(simulated):
    found = gpu.Gpu(devices.device(0))
    yield found
    vars(found).pop("clock", None)  # its events, while there is a driver


def tables_of(document):
    """As in benchmarks/results."""
    path = Path(__file__).parents[2] / "benchmarks" / "tables.py"
    specification = importlib.util.spec_from_file_location("benchmark_tables", path)
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module.tables(document)


def engines_of(capability=(9, 0)):
    return [name for name in choice.ENGINES if not choice.why_not(name, capability)]


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[0])
def test_without_a_gpu_there_is_one_error(run, command):
    if devices.devices():
        pytest.skip("there is a GPU")
    outcome = run("bench", *command, "--device", "cuda")
    assert outcome.code == 1
    assert outcome.error.startswith("the device 'cuda' cannot be used here: ")


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[0])
def test_an_engine_of_a_gpu_asks_for_one(run, command):
    if devices.devices():
        pytest.skip("there is a GPU")
    outcome = run("bench", *command, "--engine", "cuda_popcount")
    assert outcome.code == 1
    assert "cannot be used here: " in outcome.error


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["gemm", "--device", "gpu"], "unknown device 'gpu'"),
        (["gemm", "--device", "cuda", "--threads", "2"], "--threads is about the processor"),
        (["model", "--device", "cuda", "--memory"], "--memory is about the processor's memory"),
        (["gemm", "--autotune"], "--autotune is about peers on a GPU; add --device cuda"),
        (["gemm", "--device", "cuda", "--engine", "portable"], "the engine 'portable' runs on the CPU"),
        (["gemm", "--device", "cpu", "--engine", "cuda_popcount"], "the engine 'cuda_popcount' runs on a GPU"),
        (["figure3", "--device", "cuda", "--engine", "cuda_warp"], "'cuda_warp'"),
    ],
)
def test_options_that_do_not_fit(run, simulated, arguments, message):
    outcome = run("bench", *arguments)
    assert outcome.code == 2
    assert message in outcome.error


def test_engines_and_gpus_that_are_not_there(run, simulated, monkeypatch):
    monkeypatch.setattr(choice, "why_not", lambda engine, capability: f"{capability} is too old")
    outcome = run("bench", "gemm", "--device", "cuda:2", "--engine", "cuda_popcount")
    assert outcome.code == 1
    assert "(7, 5) is too old" in outcome.error
    outcome = run("bench", "gemm", "--device", "cuda:3")
    assert outcome.code == 1
    assert "there is no GPU of this number" in outcome.error


def test_gemm(run, simulated):
    outcome = run("bench", "gemm", "--shapes", "20x70x130", "--device", "cuda", "--seconds", 0, "--json")
    assert outcome.code == 0, outcome.err
    document = json.loads(outcome.out)
    assert (document["clock"], document["threads"]) == ("CUDA events", None)
    assert document["machine"]["gpu"]["device"] == "cuda:0"
    assert document["machine"]["gpu"]["clock_ghz"] > 0
    assert [absence["name"] for absence in document["absent"]] == ["torch"]
    (table,) = document["tables"]
    expected = [f"binarynet {engine}, {output} out" for output in ("bits", "int32") for engine in engines_of()]
    assert [row["name"] for row in table["rows"]] == expected
    assert "limits" not in table
    peak = document["machine"]["gpu"]["one_bit_peak_tmacs_per_second"]
    for row in table["rows"]:
        assert row["method"]
        assert row["share_of_peak"]["median"] == pytest.approx(row["gmacs_per_second"] / 1e3 / peak)
        assert row["share_of_ports"] is None
    lines = tables_of(document).splitlines()
    assert lines[0] == f"### gemm, {document['machine']['gpu']['name']}"
    assert lines[2] == "| times faster than | engine | ms | of peak |"
    assert "| 20 x 70 x 130 | ms | range | GMAC/s | of peak | times faster | range |" in lines


def test_layers_and_networks_as_text(run, simulated, tmp_path):
    path = tmp_path / "model.bnn"
    write(path, PackedNetwork(random_convnet((4, 4, 3), [[8]], [20], classes=4)))
    outcome = run("bench", path, "--device", "cuda:1", "--batch", "1,5", "--seconds", 0)
    assert outcome.code == 0, outcome.err
    own = [f"binarynet {engine}" for engine in engines_of((8, 0))]
    assert rows_of(outcome.out) == {"batch 1": own, "batch 5": own}  # no cold ones
    assert "(cuda:1), " in outcome.out
    assert "absent: torch, " in outcome.out
    assert "checked: " in outcome.out
    assert "clock x one-bit multiply" in " ".join(outcome.out.split())
    outcome = run("bench", "layers", path, "--only", "20 -> 4", "--device", "cuda:2", "--seconds", 0)
    assert outcome.code == 0, outcome.err
    own = [f"binarynet {engine}" for engine in engines_of((7, 5))]
    assert rows_of(outcome.out) == {"dense3: 20 -> 4": own}
    assert "of peak" not in outcome.out  # that of 7.5 is not known


def test_a_wrong_engine_is_not_timed(run, simulated, monkeypatch):
    correct = Session.run

    def wrong(self, images, out=None):
        result = correct(self, images, out)
        if self.engine != "cuda_popcount":
            return result
        changed = np.array(result)
        changed.flat[-1] ^= 2
        return changed

    monkeypatch.setattr(Session, "run", wrong)
    outcome = run("bench", "gemm", "--sizes", 16, "--device", "cuda", "--seconds", 0)
    assert outcome.code == 1
    assert "binarynet cuda_popcount, bits out differs from the NumPy reference" in outcome.error


def test_one_engine_alone(run, simulated):
    outcome = run("bench", "gemm", "--sizes", 16, "--engine", "cuda_baseline", "--seconds", 0)
    assert outcome.code == 0, outcome.err
    assert list(rows_of(outcome.out).values()) == [[f"binarynet cuda_baseline, {out} out" for out in ("bits", "int32")]]


# ---- the clock


def test_the_clock_counts_what_the_gpu_does(hopper):
    clock = hopper.clock
    first = clock()
    work = figure3_gpu.OurProducts(hopper, engines_of()[-1], signs(64, 200), signs(60, 200))
    before = clock()
    for _ in range(5):
        work.baseline()
    behind = clock()
    assert first < before < behind


def test_calls_are_timed_several_at_once_on_a_gpu(hopper, monkeypatch):
    """Parties only start their work: costs, turns and samples are all by the GPU's clock."""
    ticks = [0]

    class Clock:
        def __call__(self):
            return ticks[0]

    def run():
        ticks[0] += 100_000

    monkeypatch.setattr(gpu.Gpu, "clock", Clock())
    (timing,) = measuring.timed([Party("a", run)], 1, 0.1, lambda _: None, hopper)
    assert set(timing.rounds_ns) == {100_000}
    assert timing.num_calls % (gpu.SAMPLE_NS // 100_000) == 0


def test_the_peak_is_computed(hopper):
    device = hopper.device
    assert hopper.peak_macs_per_ns == pytest.approx(32768 * device.multiprocessors * device.clock_ghz)
    assert gpu.Gpu(devices.device(2)).peak_macs_per_ns is None


def test_arrays_on_the_gpu(hopper):
    values = np.arange(12, dtype=np.uint8).reshape(3, 4)
    found = hopper.array(values[:, ::2], "values")
    assert found.shape == (3, 2)
    assert np.array_equal(found, values[:, ::2])
    assert found.__cuda_array_interface__["stream"] == DEFAULT_STREAM


# ---- Figure 3


def signs(*shape, seed=0):
    return np.random.default_rng(seed).choice([-1.0, 1.0], shape).astype(np.float32)


def test_figure3(run, simulated, file, tmp_path):
    out = tmp_path / "figure.svg"
    arguments = ("--model", file, "--size", 70, "--device", "cuda", "--seconds", 0, "--out", out)
    outcome = run("bench", "figure3", *arguments, "--json")
    assert outcome.code == 0, outcome.err
    document = json.loads(outcome.out)
    assert [absence["name"] for absence in document["absent"]] == ["torch"]
    product, network = document["tasks"]
    assert product["name"] == "product 70 x 70 x 70"
    bars = {bar["kernel"]: bar for bar in product["kernels"]}
    assert list(bars) == ["baseline", "xnor", "xnor, packing"]
    assert bars["xnor"]["library"].startswith(f"binarynet {engines_of()[0]}: ")
    assert bars["baseline"]["share_of_peak"] is None
    assert bars["xnor"]["share_of_peak"]["median"] > 0
    test = load("digits").test
    scores = evaluate(read(file).graph, test.images)["scores"]
    (bar,) = network["kernels"]
    assert (bar["kernel"], bar["wrong"]) == ("xnor", np.count_nonzero(scores.argmax(axis=1) != test.labels))
    assert out.exists()
    tables = tables_of(document).splitlines()
    assert tables[2].endswith("| rows timed | of peak |")
    assert any(line.endswith("| rows timed | error |") for line in tables)
    widths = {line.count("|") for line in tables[2:7]}
    assert len(widths) == 1


def test_all_sizes_are_measured_by_default(run, simulated, monkeypatch):
    monkeypatch.setattr(figure3_gpu, "SIZES", (16, 33))
    outcome = run("bench", "figure3", "--device", "cuda:1", "--seconds", 0)
    assert outcome.code == 0, outcome.err
    assert "product 16 x 16 x 16" in outcome.out
    assert "product 33 x 33 x 33" in outcome.out
    assert "absent: torch, " in outcome.out


def test_the_plain_kernel_may_take_part_of_the_rows(hopper, monkeypatch):
    monkeypatch.setattr(figure3_gpu, "SLICE_MACS", 10 * 40**2)
    found = figure3_gpu.measure(hopper, [40], None, engines_of()[0], 0.0)
    assert [bar.rows for bar in found.products[0].bars] == [10, None, None]


@pytest.mark.parametrize("engine", engines_of())
def test_our_products(hopper, engine):
    x, weights = signs(19, 300), signs(10, 300, seed=1)
    ours = figure3_gpu.OurProducts(hopper, engine, x, weights)
    runs = {"baseline": ours.baseline, "xnor": ours.xnor, "xnor, packing": ours.xnor_packing}
    for kernel, start in runs.items():
        assert np.array_equal(ours.result(kernel, start()), x @ weights.T), kernel
        hopper.device.copy_to_device(ours._sums.address, np.zeros((19, 10), np.int32), "zeros")


@pytest.mark.parametrize("kernel", ["baseline", "xnor", "xnor, packing"])
def test_a_wrong_product_is_refused(hopper, monkeypatch, kernel):
    correct = figure3_gpu.OurProducts.result

    def wrong(self, which, returned):
        found = np.array(correct(self, which, returned))
        found[-1, 0] += 2 * (which == kernel)
        return found

    monkeypatch.setattr(figure3_gpu.OurProducts, "result", wrong)
    with pytest.raises(VerificationError, match=f"{kernel} does not compute the same integers"):
        figure3_gpu.measure(hopper, [30], None, engines_of()[0], 0.0)


def test_rounded_sums_are_allowed_to_bfloat16_alone():
    exact = np.array([[1028.0, -3.0]], np.float32)
    rounded = np.array([[1024.0, -3.0]], np.float32)
    figure3_gpu._check_product("bf16", rounded, exact)
    with pytest.raises(VerificationError, match="blas, TF32 does not compute"):
        figure3_gpu._check_product("blas, TF32", rounded, exact)
    with pytest.raises(VerificationError, match="bf16 does not compute"):
        figure3_gpu._check_product("bf16", rounded - 16, exact)


def test_networks_by_torch_give_the_scores_of_the_reference():
    graph = random_mlp(20, [70, 33], 4)
    images = np.random.default_rng(1).integers(0, 256, (7, *graph.input.shape), dtype=np.uint8)
    expected = evaluate(graph, images)[graph.output]
    layers = figure3.FloatLayers(graph)

    def wide(x, columns):
        return x.to(torch.bfloat16).float() @ columns.float()

    given = torch.from_numpy(images)
    for multiply, dtype, options in (
        (torch.mm, torch.float32, {}),
        (torch.mm, torch.float32, {"by_column": True}),
        (wide, torch.bfloat16, {"tf32": True}),
    ):
        run = figure3_gpu.torchs_network(layers, given, multiply, dtype, **options)
        assert figure3.same_bits(run().numpy(), expected)


# ---- torch's peers of a GPU, on the processor


@pytest.fixture
def on_processor(monkeypatch):
    """The same modules and settings; nothing is a GPU's but the names."""

    @contextmanager
    def here(ordinal):
        before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
        yield
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before

    monkeypatch.setattr(_peers_torch_cuda, "DEVICE", "cpu")
    monkeypatch.setattr(_peers_torch_cuda, "on_device", here)


@pytest.fixture
def uncompiled(monkeypatch):
    modes = []
    monkeypatch.setattr(torch, "compile", lambda module, **options: modes.append(options["mode"]) or module)
    return modes


NETWORKS = {
    "convnet": random_convnet((12, 10, 3), [[24, 16], [32]], [40, 48], classes=5),
    "mlp": random_mlp(33, [56, 24], 7),
}


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("autotune", [False, True])
def test_peers_of_networks(on_processor, uncompiled, name, autotune):
    graph = NETWORKS[name]
    images = np.random.default_rng(7).integers(0, 256, (6, *graph.input.shape), dtype=np.uint8)
    with _peers.network_peers(graph, images, 1, OnGpu(0, autotune)) as (found, absent):
        assert absent == []
        kinds = {peer.name: peer.kind for peer in found}
        for peer in found:
            peer.run()
    expected = {"torch float32": "float32", "torch float32, TF32": "tf32", "torch bf16": "bf16"}
    expected |= {"torch bf16, channels last": "bf16"} if name == "convnet" else {}
    expected |= {"torch bf16 compiled, CUDA graphs": "bf16"}
    expected |= {"torch bf16 compiled, max-autotune": "bf16"} if autotune else {}
    assert kinds == expected
    assert uncompiled == ["reduce-overhead", "max-autotune"][: 1 + autotune]


@pytest.mark.parametrize("shape", [(20, 70, 128), (20, 70, 130)])
def test_peers_of_products_are_exact(on_processor, uncompiled, shape):
    from binarynet.cli._benching.suites import gemm_layers

    (layer,) = gemm_layers([shape])
    with _peers.layer_peers(layer.shape, layer.batch, 1, OnGpu(0)) as (found, absent):
        assert absent == []
        results = {peer.name: peer.run() for peer in found}
    exact = torch.from_numpy(layer._exact_sums())
    assert len(results) == 5
    for name, result in results.items():
        if name == "torch int8, int32 sums":
            assert result.dtype == torch.int32
            assert torch.equal(result, exact)
        else:
            assert torch.equal(result, exact.to(result.dtype)), name


@pytest.mark.slow
def test_a_compiled_peer(on_processor):
    graph = random_mlp(8, [], 3)
    images = np.random.default_rng(7).integers(0, 256, (3, *graph.input.shape), dtype=np.uint8)
    with _peers.network_peers(graph, images, 1, OnGpu(0)) as (found, absent):
        assert absent == []
        assert "torch bf16 compiled, CUDA graphs" in {peer.name for peer in found}


@pytest.mark.parametrize(("kind", "wrong"), [("tf32", 3.0), ("bf16", 17.0), ("float32", 1.0)])
def test_rounding_is_limited(on_processor, kind, wrong):
    """Sums of +-1 must be exact in float32 and TF32, and within a step of bfloat16."""
    from binarynet.cli._benching.suites import gemm_layers
    from binarynet.cli._float_network import float_layer

    (layer,) = gemm_layers([(3, 4, 1024)])
    network = float_layer(layer.shape, layer.inputs)
    expected = _peers._Expected(network)
    exact = _peers.evaluate(network.steps, network.inputs)
    expected("peer", kind, exact)
    shifted = exact.copy()
    shifted[0, 0] += wrong
    with pytest.raises(VerificationError, match="differs from the same network"):
        expected("peer", kind, shifted)


def test_precision_is_that_of_the_peer():
    """And that torch's compiler may ask for it, by the old settings and by the new ones."""
    backends = torch.backends
    before = backends.cuda.matmul.allow_tf32, backends.cudnn.allow_tf32
    try:
        for allowed in (True, False, True):
            _peers_torch_cuda.allow_tf32(allowed)
            assert (backends.cuda.matmul.allow_tf32, backends.cudnn.allow_tf32) == (allowed, allowed)
            if hasattr(backends.cudnn, "conv"):
                assert (backends.cuda.matmul.fp32_precision == "tf32") == allowed
                assert (backends.cudnn.conv.fp32_precision == "tf32") == allowed
    finally:
        backends.cuda.matmul.allow_tf32, backends.cudnn.allow_tf32 = before
