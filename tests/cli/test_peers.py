"""The peers of a benchmark compute what they should, are refused where they do not, and are named where absent."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from binarynet.analysis import random_convnet, random_mlp
from binarynet.cli import _float_network, _openvino_graph, _peers
from binarynet.cli._peers_common import LayerShape
from binarynet.encoding import pack_bits
from binarynet.errors import VerificationError
from binarynet.graph import (
    Affine,
    Convolution,
    Dense,
    Flatten,
    Graph,
    GraphBuilder,
    Input,
    MaxPool,
    Threshold,
    Window,
)
from binarynet.graph.reference import evaluate

needs_torch = pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="needs torch")
needs_all = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("torch", "onnx", "onnxruntime", "openvino")),
    reason="needs torch, onnx, onnxruntime and openvino",
)


def small_convnet() -> Graph:
    return random_convnet((12, 10, 3), [[24, 16], [32]], [40, 48], classes=5)


def images_for(graph: Graph, count: int) -> np.ndarray:
    return np.random.default_rng(7).integers(0, 256, (count, *graph.input.shape), dtype=np.uint8)


def layer(size: int, in_c: int, out_c: int, *, kernel: int = 3, stride: int = 1, first: bool = False) -> LayerShape:
    rng = np.random.default_rng(3)
    return LayerShape(
        size,
        size,
        in_c,
        (kernel, kernel),
        (stride, stride),
        (kernel // 2, kernel // 2),
        first,
        2 * rng.integers(0, 2, (out_c, kernel, kernel, in_c), dtype=np.int8) - 1,
        rng.integers(-9, 10, out_c, dtype=np.int32),
        rng.random(out_c) < 0.3,
    )


BINARY_LAYER = ["openvino binary"]
BINARY = ["openvino binary, float32 first layer", "openvino binary, int8 first layer"]
NETWORKS = {"convnet": small_convnet, "mlp": lambda: random_mlp(33, [56, 24], 7)}


@needs_all
@pytest.mark.parametrize("name", NETWORKS)
def test_all_peers_run_a_network_and_give_its_scores(name):
    graph = NETWORKS[name]()
    images = images_for(graph, 6)
    network = _float_network.float_network(graph, images)
    expected = float_reference(network.steps, network.inputs)
    with _peers.network_peers(graph, images, 1) as (found, absent):
        assert absent == []
        names = [peer.name for peer in found]
        assert set(names) >= {"torch float32", "torch int8", "onnxruntime int8", "openvino float32", "openvino int8"}
        assert ("torch float32, channels last" in names) == (name == "convnet")
        exact = evaluate(graph, images)[graph.output]
        for peer in found:
            assert peer.file_bytes > 0
            scores = np.asarray(peer.run())
            if peer.kind == "float32":
                np.testing.assert_allclose(scores, expected, rtol=1e-3, atol=1e-4)
            elif peer.kind == "int8":
                assert np.corrcoef(scores.reshape(-1), expected.reshape(-1))[0, 1] > 0.99
            else:
                assert "BinaryConvolution jit" in peer.details
                np.testing.assert_allclose(scores, exact, rtol=1e-5, atol=1e-5)
        assert [peer.name for peer in found if peer.kind == "binary"] == BINARY


def float_reference(steps, x: np.ndarray) -> np.ndarray:
    """Written another way than the evaluator that peers are checked against; ``[n, c, h, w]``."""
    for step in steps:
        if step.kind == "relu":
            x = np.maximum(x, 0)
        elif step.kind == "flatten":
            x = x.reshape(len(x), -1)
        elif step.kind == "dense":
            x = x @ step.weights.T + step.bias
        else:
            (kh, kw), (sh, sw), (ph, pw) = step.window.kernel, step.window.stride, step.window.padding
            fill = 0 if step.kind == "convolution" else -np.inf
            padded = np.pad(x, ((0, 0), (0, 0), (ph, ph), (pw, pw)), constant_values=fill)
            windows = np.lib.stride_tricks.sliding_window_view(padded, (kh, kw), axis=(2, 3))[:, :, ::sh, ::sw]
            if step.kind == "convolution":
                x = np.einsum("nchwij,ocij->nohw", windows, step.weights) + step.bias[:, None, None]
            else:
                x = windows.max(axis=(4, 5))
    return x


@pytest.mark.parametrize("make", NETWORKS.values(), ids=NETWORKS)
def test_the_evaluator_is_the_network(make):
    graph = make()
    network = _float_network.float_network(graph, images_for(graph, 2))
    expected = float_reference(network.steps, network.inputs.astype(np.float64))
    np.testing.assert_allclose(_float_network.evaluate(network.steps, network.inputs), expected, rtol=1e-9)


LAYERS = {
    "convolution": layer(9, 16, 24),
    "stride": layer(9, 8, 16, stride=2),
    "first convolution": layer(8, 3, 24, first=True),
    "dense": layer(1, 72, 24, kernel=1),
    "scores": layer(1, 72, 10, kernel=1),
    "first scores": layer(1, 30, 10, kernel=1, first=True),
    "first dense": layer(1, 70, 24, kernel=1, first=True),
}


@needs_all
@pytest.mark.parametrize("shape", LAYERS.values(), ids=LAYERS)
def test_all_peers_run_a_layer(shape):
    with _peers.layer_peers(shape, 5, 1) as (found, absent):
        assert absent == []
        names = {peer.name for peer in found}
        assert names >= {"torch float32", "torch int8", "onnxruntime float32", "onnxruntime int8", "openvino int8"}
        assert [peer.name for peer in found if peer.kind == "binary"] == (BINARY if shape.first else BINARY_LAYER)
        assert ("numpy float32" in names) == ("onnxruntime int8, int32 sums" in names) == shape.is_dense
        for peer in found:
            if peer.library.startswith("openvino"):
                assert "Convolution " in peer.details or "FullyConnected " in peer.details


@needs_torch
def test_other_weights_are_noticed(monkeypatch):
    """Every kind of peer, a network and a layer: one weight in thirty has the wrong sign."""
    from binarynet.cli import _peers_torch

    right = _peers_torch.save

    def wrong(name, network, folder):
        if name != broken:
            return right(name, network, folder)
        steps = []
        for step in network.steps:
            if step.weights is not None:
                weights = step.weights.copy()
                weights.reshape(-1)[::30] *= -1
                step = replace(step, weights=weights)
            steps.append(step)
        return right(name, replace(network, steps=tuple(steps)), folder)

    monkeypatch.setattr(_peers_torch, "save", wrong)
    graph = random_mlp(33, [50, 20], 7)
    for broken in ("torch float32", "torch int8"):
        with _peers.network_peers(graph, images_for(graph, 6), 1) as (found, absent):
            assert_refused(broken, found, absent)
    for broken in ("torch float32", "torch int8", "torch int8, int32 sums"):
        with _peers.layer_peers(LAYERS["dense"], 5, 1) as (found, absent):
            assert_refused(broken, found, absent)


def assert_refused(name, found, absent):
    """That one is absent, and why; the others of its library are there."""
    (why,) = [absence.why for absence in absent if absence.name == name]
    how = "wrong" if "float32" in name else "too inexact"
    assert why.startswith(f"{how} here: differs from the same network in float64 by")
    names = [peer.name for peer in found]
    assert name not in names
    assert any(other.startswith("torch ") for other in names)


@needs_torch
@pytest.mark.parametrize("when", ["load", "run"])
def test_a_peer_that_fails_is_absent(monkeypatch, when):
    from binarynet.cli import _peers_torch

    right = _peers_torch.load

    def fail():
        raise RuntimeError("cannot do this\nat all")

    def failing(name, folder, inputs, num_threads):
        if name != "torch int8":
            return right(name, folder, inputs, num_threads)
        return fail() if when == "load" else replace(right(name, folder, inputs, num_threads), run=fail)

    monkeypatch.setattr(_peers_torch, "load", failing)
    graph = random_mlp(33, [50, 20], 7)
    with _peers.network_peers(graph, images_for(graph, 2), 1) as (found, absent):
        assert "torch float32" in [peer.name for peer in found]
        assert ("torch int8", "fails here: RuntimeError: cannot do this") in [(one.name, one.why) for one in absent]
        assert len({peer.folder for peer in found}) == len(found)


@needs_torch
def test_a_failure_of_ours_is_not_a_peers(monkeypatch):
    def broken(*_):
        raise VerificationError("of the reference")

    monkeypatch.setattr(_peers, "evaluate", broken)
    graph = random_mlp(8, [16], 3)
    with (
        pytest.raises(VerificationError, match="of the reference"),
        _peers.network_peers(graph, images_for(graph, 2), 1),
    ):
        pass


@needs_torch
def test_results_that_are_not_numbers_are_noticed(monkeypatch):
    from binarynet.cli import _peers_torch

    right = _peers_torch.load

    def wrong(name, folder, inputs, num_threads):
        return replace(right(name, folder, inputs, num_threads), values=lambda scores: scores.numpy() * np.nan)

    monkeypatch.setattr(_peers_torch, "load", wrong)
    graph = random_mlp(8, [16], 3)
    with _peers.network_peers(graph, images_for(graph, 2), 1) as (found, absent):
        assert not any(peer.name.startswith("torch") for peer in found)
        (why,) = {absence.why for absence in absent if absence.name == "torch float32"}
        assert why.startswith("wrong here: ")
        assert "6 of them not finite" in why


def test_absent_libraries_are_named_with_the_remedy(monkeypatch):
    for name in ("torch", "onnx", "openvino"):
        monkeypatch.setitem(sys.modules, name, None)
    graph = random_mlp(8, [16], 3)
    with _peers.network_peers(graph, images_for(graph, 1), 1) as (found, absent):
        assert found == []
    assert [absence.name for absence in absent] == ["torch", "onnxruntime", "openvino", "openvino binary"]
    assert all("not installed" in absence.why and "binarynet[bench]" in absence.why for absence in absent)


@needs_all
def test_another_process_loads_a_peer_alone():
    with _peers.layer_peers(LAYERS["dense"], 5, 1) as (found, _):
        for peer in found:
            if peer.name not in ("numpy float32", "onnxruntime int8", "openvino binary"):
                continue
            program = (
                "import sys; from pathlib import Path; from binarynet.cli import _peers\n"
                "_peers.build(Path(sys.argv[1]))(); assert 'torch' not in sys.modules"
            )
            subprocess.run([sys.executable, "-c", program, str(peer.folder)], check=True, timeout=60)


@needs_torch
def test_threads_of_torch_are_restored():
    import torch

    graph = random_mlp(8, [16], 3)
    before = torch.get_num_threads()
    with _peers.network_peers(graph, images_for(graph, 1), before + 1):
        assert torch.get_num_threads() == before + 1
    assert torch.get_num_threads() == before


needs_openvino = pytest.mark.skipif(importlib.util.find_spec("openvino") is None, reason="needs openvino")


class _Built:
    """A graph by hand: each method adds a node behind the last one."""

    def __init__(self, *shape: int) -> None:
        self.rng = np.random.default_rng(5)
        self.builder = GraphBuilder()
        self.last = self.builder.add(Input("input", shape))

    def add(self, node) -> _Built:
        self.last = self.builder.add(node)
        return self

    @property
    def channels(self) -> int:
        return self.builder.types[self.last].channels

    def weights(self, *shape: int) -> np.ndarray:
        return pack_bits(self.rng.integers(0, 2, (*shape, self.channels)).astype(bool))

    def convolution(self, out: int) -> _Built:
        name = f"conv{len(self.builder.nodes)}"
        return self.add(Convolution(name, self.last, Window((3, 3), (1, 1), (1, 1)), self.weights(out, 3, 3)))

    def dense(self, out: int) -> _Built:
        return self.add(Dense(f"dense{len(self.builder.nodes)}", self.last, self.weights(out)))

    def flatten(self) -> _Built:
        return self.add(Flatten("flat", self.last))

    def pool(self) -> _Built:
        return self.add(MaxPool("pool", self.last, Window((2, 2), (2, 2))))

    def threshold(self) -> _Built:
        thresholds = self.rng.integers(-5, 6, self.channels).astype(np.int32)
        falling = self.rng.random(self.channels) < 0.5
        return self.add(Threshold(f"bits{len(self.builder.nodes)}", self.last, thresholds, falling))

    def affine(self) -> _Built:
        scale, shift = self.rng.normal(size=(2, self.channels)).astype(np.float32)
        return self.add(Affine("scores", self.last, scale, shift))

    def finish(self) -> Graph:
        return self.builder.finish(self.last)


@needs_openvino
def test_openvino_computes_flattened_images_and_parts_of_a_batch_on_two_threads(monkeypatch):
    """Twelve images are two parts of six, each on a thread of its own; an image flattened first is a vector."""
    without_others(monkeypatch)
    for built in (
        _Built(6, 4, 3).convolution(16).threshold().flatten().dense(8).threshold().dense(5).affine(),
        _Built(4, 4, 1).flatten().dense(8).threshold().dense(5).affine(),
    ):
        graph = built.finish()
        images = images_for(graph, 12)
        with _peers.network_peers(graph, images, 2) as (found, _):
            assert [peer.name for peer in found] == BINARY
            for peer in found:
                np.testing.assert_allclose(peer.run(), evaluate(graph, images)["scores"], rtol=1e-5, atol=1e-4)


def without_others(monkeypatch) -> None:
    monkeypatch.setattr(_peers, "ORDINARY", {})


@needs_openvino
@pytest.mark.parametrize(
    ("built", "why"),
    [
        (_Built(12).dense(20).threshold().dense(5).affine(), "20 channels of bits"),
        (_Built(20_000).dense(8).threshold().dense(5).affine(), "sums reach 5,100,000"),
        (_Built(6, 6, 3).convolution(8).threshold().pool().flatten().dense(5).affine(), "pools bits"),
        (_Built(12).dense(8).threshold().dense(5), "ends in sums or bits"),
        (_Built(12).dense(5).affine(), "no layer of it takes bits"),
    ],
)
def test_what_openvino_cannot_compute_exactly_is_refused(monkeypatch, built, why):
    without_others(monkeypatch)
    graph = built.finish()
    with _peers.network_peers(graph, images_for(graph, 2), 1) as (found, absent):
        assert found == []
        assert [absence.name for absence in absent] == BINARY
        assert all(why in absence.why for absence in absent)


def _one_weight(bits, weights, window):
    weights = weights.copy()
    weights.reshape(-1)[0] *= -1
    return RIGHT(bits, weights, window)


def _padded_with_ones(bits, weights, window):
    from openvino import opset1

    right = opset1.binary_convolution
    try:
        opset1.binary_convolution = lambda *arguments: right(*arguments[:-1], 1.0)
        return RIGHT(bits, weights, window)
    finally:
        opset1.binary_convolution = right


RIGHT = _openvino_graph.binary_convolution


@needs_openvino
@pytest.mark.parametrize("wrong", [_one_weight, _padded_with_ones])
def test_a_binary_network_that_is_not_ours_is_noticed(monkeypatch, wrong):
    without_others(monkeypatch)
    monkeypatch.setattr(_openvino_graph, "binary_convolution", wrong)
    shape = LAYERS["convolution"]
    with _peers.layer_peers(shape, 5, 1) as (found, absent):
        assert "openvino binary" not in [peer.name for peer in found]
        (why,) = [absence.why for absence in absent if absence.name == "openvino binary"]
        assert re.match(r"wrong here: .*differs", why)
    graph = _Built(6, 4, 3).convolution(16).threshold().convolution(8).threshold().flatten().dense(5).affine().finish()
    with _peers.network_peers(graph, images_for(graph, 6), 1) as (found, absent):
        assert not any(peer.kind == "binary" for peer in found)
        reasons = [absence.why for absence in absent if absence.name.startswith("openvino binary")]
        assert len(reasons) == 2
        assert all(re.match(r"wrong here: .*the reference has", why) for why in reasons)


@needs_openvino
def test_openvino_keeps_its_input(monkeypatch):
    """The library does not; arrays that Python had freed would change the result."""
    without_others(monkeypatch)
    graph = small_convnet()
    with _peers.network_peers(graph, images_for(graph, 8), 1) as (found, _):
        before = [np.array(peer.run()) for peer in found]
        rubbish = [np.full((8, 3, 12, 10), value, np.float32) for value in range(50)]
        for peer, scores in zip(found, before, strict=True):
            np.testing.assert_array_equal(peer.run(), scores)
        assert len(rubbish) == 50
