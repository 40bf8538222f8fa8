"""Products with signs: packed kernels against float64 and against torch, and who computes what."""

import pytest
import torch
import torch.nn.functional as F
from torch import fx
from torch.library import opcheck

from binarynet import _native
from binarynet.errors import BackendUnavailableError, NonFiniteError, ShapeError, UsageError
from binarynet.ops import binarize_weight, products

ISAS = [name for name, why_not in _native.instruction_sets() if not why_not]
SIZES = [(1, 1, 1), (3, 5, 7), (4, 16, 31), (5, 33, 64), (31, 17, 65), (32, 64, 127), (33, 65, 129), (100, 130, 515)]


def random(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def operands(batch, fan_out, fan_in, seed=0, requires_grad=True):
    """x +-1 whose first rows agree with the weights but for one flip (sums near fan_in), and latent weights."""
    weight = random(fan_out, fan_in, seed=seed)
    weight.view(-1)[:2] = torch.tensor([0.0, -0.0])[: weight.numel()]
    x = torch.where(random(batch, fan_in, seed=seed + 1) >= 0, 1.0, -1.0)
    same = min(batch, fan_out) // 2 + 1
    x[:same] = torch.where(weight[:same] >= 0, 1.0, -1.0)[: len(x[:same])]
    x[:, -1] *= -1
    return x.requires_grad_(requires_grad), weight.requires_grad_(requires_grad)


def signs(weight):
    return torch.where(weight.detach() >= 0, 1.0, -1.0).double()


def run(mode, x, weight, upstream):
    with products.use(mode):
        y = products.linear(x, weight)
        return y.detach(), *torch.autograd.grad(y, (x, weight), upstream)


def bound(magnitudes, terms):
    """Largest rounding error of a sum of n terms whose magnitudes sum up to this: a term goes through at most so many
    additions, and each rounds by half of a float32 step."""
    return (min(terms, 128) + terms / 128 + 1) * 2.0**-24 * magnitudes + 1e-38


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize(("batch", "fan_out", "fan_in"), SIZES)
def test_packed_sums_are_exact_and_gradients_rounded_only(monkeypatch, isa, batch, fan_out, fan_in):
    monkeypatch.setenv("BINARYNET_FORCE_ISA", isa)
    x, weight = operands(batch, fan_out, fan_in, seed=fan_in)
    g = random(batch, fan_out, seed=3)
    y, gx, gw = run("packed", x, weight, g)
    expected = x.detach().double() @ signs(weight).T
    assert expected.abs().max() >= fan_in - 2
    assert torch.equal(y.double(), expected)
    error = (gx.double() - g.double() @ signs(weight)).abs()
    assert (error <= bound(g.double().abs().sum(1, keepdim=True), fan_out)).all()
    error = (gw.double() - g.double().T @ x.detach().double()).abs()
    assert (error <= bound(g.double().abs().sum(0)[:, None], batch)).all()


def pixels(batch, fan_in, seed=0):
    u = torch.randint(0, 256, (batch, fan_in), generator=torch.Generator().manual_seed(seed))
    u[0] = 255
    return u.float() * 2 - 255


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("kind", ["masked signs", "pixels", "masked pixels"])
@pytest.mark.parametrize("shape", [(1, 1, 1), (5, 33, 64), (33, 65, 129), (130, 10, 784)])
def test_other_packed_operands(monkeypatch, isa, kind, shape):
    monkeypatch.setenv("BINARYNET_FORCE_ISA", isa)
    batch, fan_out, fan_in = shape
    x, weight = operands(*shape, requires_grad=False)
    if "pixels" in kind:
        x = pixels(batch, fan_in)
        weight[0] = 1  # its sum with the first row is the largest
    if "masked" in kind:
        x = x * (random(*x.shape, seed=5) > -0.5)
    x, weight = x.requires_grad_(), weight.requires_grad_()
    g = random(batch, fan_out, seed=3)
    y, gx, gw = run("packed", x, weight, g)
    values = x.detach().double()
    assert torch.equal(y.double(), values @ signs(weight).T)
    error = (gx.double() - g.double() @ signs(weight)).abs()
    assert (error <= bound(g.double().abs().sum(1, keepdim=True), fan_out)).all()
    error = (gw.double() - g.double().T @ values).abs()
    assert (error <= bound(g.double().T.abs() @ values.abs(), batch)).all()


def test_sums_that_float32_cannot_hold_are_torchs():
    x = torch.full((1, 65_794), 255.0)
    with products.use("packed"), pytest.raises(UsageError, match=r"too large a fan-in \(65794\)"):
        products.linear(x, torch.ones(1, 65_794))
    assert products.linear(x, torch.ones(1, 65_794)).item() == pytest.approx(255 * 65_794)


@pytest.mark.skipif("avx512_vpopcntdq" not in ISAS, reason="one instruction set with training kernels only")
def test_all_kernels_round_alike(monkeypatch):
    """The order of the sums is part of the contract: no instruction set, no number of threads changes a bit."""
    x, weight = operands(70, 600, 333)
    g = random(70, 600, seed=3)
    shown = pixels(70, 333).requires_grad_()
    results = []
    for isa, threads in (("portable", 1), ("avx512_vpopcntdq", 1), ("avx512_vpopcntdq", 2), ("portable", 2)):
        monkeypatch.setenv("BINARYNET_FORCE_ISA", isa)
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        try:
            results.append([*run("packed", x, weight, g), *run("packed", shown, weight, g)])
        finally:
            torch.set_num_threads(before)
    for result in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], result, strict=True))


def test_any_strides_and_leading_dimensions():
    x, weight = operands(12, 40, 66, requires_grad=False)
    strided = x.T.contiguous().T.view(3, 4, 66).requires_grad_()
    latent = weight.T.contiguous().T.requires_grad_()
    g = random(40, 3, 4).permute(1, 2, 0)
    assert not any(tensor.is_contiguous() for tensor in (strided, latent, g))
    y, gx, gw = run("packed", strided, latent, g)
    assert (y.shape, gx.shape, gw.shape) == ((3, 4, 40), strided.shape, latent.shape)
    flat = run("packed", x.requires_grad_(), weight.requires_grad_(), g.reshape(12, 40))
    assert torch.equal(y.reshape(12, 40), flat[0])
    assert torch.equal(gx.reshape(12, 66), flat[1])
    assert torch.equal(gw, flat[2])
    with products.use("packed"):
        assert torch.equal(products.linear(x[0].detach(), weight), flat[0][0])


def test_an_empty_batch():
    _, weight = operands(1, 40, 66)
    y, gx, gw = run("packed", torch.ones(0, 66, requires_grad=True), weight, torch.ones(0, 40))
    assert (y.shape, gx.shape) == ((0, 40), (0, 66))
    assert torch.equal(gw, torch.zeros(40, 66))


@pytest.mark.parametrize("value", [0.5, 2.0, float("inf"), float("nan")])
def test_other_operands_are_multiplied_by_torch(value):
    x, weight = operands(20, 200, 100)
    x.data[3, 5] = value
    g = random(20, 200)
    for ours, torchs in zip(run("auto", x, weight, g), run("torch", x, weight, g), strict=True):
        torch.testing.assert_close(ours, torchs, rtol=1e-5, atol=1e-4, equal_nan=True)
    with products.use("packed"), pytest.raises(UsageError, match=r"take .1, -1 and 0, or 2u - 255 and 0"):
        products.linear(x, weight)


@pytest.mark.filterwarnings("ignore:Anomaly Detection has been enabled")
def test_nan_weights_are_what_they_are_for_torch():
    x, weight = operands(20, 200, 100)
    weight.data[7, 1] = float("nan")
    g = random(20, 200)
    for ours, torchs in zip(run("auto", x, weight, g), run("torch", x, weight, g), strict=True):
        torch.testing.assert_close(ours, torchs, rtol=1e-5, atol=1e-4, equal_nan=True)
    with torch.autograd.set_detect_anomaly(True), pytest.raises(NonFiniteError, match=r"products.linear: .* holds NaN"):
        products.linear(x, weight)


def test_infinite_weights_have_a_sign():
    x, weight = operands(2, 200, 100)
    weight.data[0, :2] = torch.tensor([float("inf"), -float("inf")])
    with products.use("packed"):
        assert torch.equal(products.linear(x, weight).double(), x.double() @ signs(weight).T)


def test_gradients_of_gradients():
    x, weight = operands(6, 20, 30)
    results = []
    for mode in ("torch", "packed"):
        with products.use(mode):
            y = products.linear(x, weight)
            gx, gw = torch.autograd.grad(y.square().sum(), (x, weight), create_graph=True)
            results.append(torch.autograd.grad(gx.pow(3).sum() + gw.pow(3).sum(), (x, weight)))
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize(("x_wants", "weight_wants"), [(True, False), (False, True), (False, False)])
def test_only_the_gradients_that_are_wanted(x_wants, weight_wants):
    x, weight = operands(6, 200, 100, requires_grad=False)
    with products.use("packed"):
        y = products.linear(x.requires_grad_(x_wants), weight.requires_grad_(weight_wants))
    assert y.requires_grad == (x_wants or weight_wants)
    if y.requires_grad:
        y.sum().backward()
    assert (x.grad is not None, weight.grad is not None) == (x_wants, weight_wants)


@pytest.mark.parametrize("mode", ["auto", "packed", "torch"])
def test_one_graph_under_compile(mode):
    compiled = torch.compile(
        lambda x, weight: products.linear(x, weight).square().sum(), fullgraph=True, dynamic=True, backend="aot_eager"
    )
    for batch in (4, 6):
        x, weight = operands(batch, 200, 100)
        with products.use(mode):
            ours = torch.autograd.grad(compiled(x, weight), (x, weight))
            eager = torch.autograd.grad(products.linear(x, weight).square().sum(), (x, weight))
        for a, b in zip(ours, eager, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-2)


class Dense(torch.nn.Module):
    def __init__(self, weight):
        super().__init__()
        self.weight = torch.nn.Parameter(weight)

    def forward(self, x):
        return products.linear(x, self.weight)


def test_export_with_a_batch_of_any_size():
    x, weight = operands(4, 20, 33, requires_grad=False)
    batch = torch.export.Dim("batch")
    with products.use("packed"):
        exported = torch.export.export(Dense(weight), (x,), dynamic_shapes=({0: batch},))
        targets = [str(node.target) for node in exported.graph.nodes]
        assert "binarynet.linear.default" in targets
        for size in (4, 200):
            x, _ = operands(size, 20, 33, seed=size, requires_grad=False)
            assert torch.equal(exported.module()(x), products.linear(x, weight))


@pytest.mark.filterwarnings("ignore::UserWarning:torch")
def test_the_operations_keep_torchs_rules():
    x, weight = operands(5, 20, 33)
    with products.use("packed"):
        _, x_columns, weight_columns, how = products._linear(x, weight, True, True)
        g = random(5, 20).requires_grad_()
        opcheck(products._linear, (x, weight, True, True))
        opcheck(products._input_gradient, (g, weight, weight_columns, how))
        opcheck(products._weight_gradient, (g, x, x_columns, how))


class Packed(Exception):
    """Raised in place of the packed operation."""


@pytest.fixture
def packed_calls(monkeypatch):
    def refuse(*arguments):
        raise Packed

    monkeypatch.setattr(_native.training, "multiply_bits", refuse)
    monkeypatch.delenv("BINARYNET_FORCE_ISA", raising=False)


@pytest.mark.skipif(_native.training.instruction_set() == "portable", reason="no fast training kernels here")
def test_auto_takes_the_kernels_where_that_pays(packed_calls, monkeypatch):
    x, weight = operands(2, 128, 128)
    with pytest.raises(Packed):
        products.linear(x, weight)
    products.linear(*operands(2, 127, 128))  # small
    products.linear(x.double(), weight.double())
    with products.use("torch"):
        products.linear(x, weight)
    monkeypatch.setenv("BINARYNET_FORCE_ISA", "portable")  # slow
    products.linear(x, weight)
    with products.use("packed"), pytest.raises(Packed):
        products.linear(x, weight)


def test_modes():
    x, weight = operands(2, 3, 4)
    with pytest.raises(UsageError, match="no mode 'fast'; there are auto, torch, packed"), products.use("fast"):
        pass
    with products.use("packed"):
        with products.use("torch"):
            assert products.current_mode() == "torch"
        assert products.current_mode() == "packed"
        with pytest.raises(UsageError, match=r"take float32 on the CPU, got operands torch.float64 on cpu"):
            products.linear(x.double(), weight.double())
    assert products.current_mode() == "auto"


def test_an_unknown_instruction_set_is_refused(monkeypatch):
    monkeypatch.setenv("BINARYNET_FORCE_ISA", "mmx")
    with products.use("packed"), pytest.raises(BackendUnavailableError, match="'mmx' is unknown to this build"):
        products.linear(*operands(2, 3, 4))


def test_float64_is_torchs():
    x, weight = operands(6, 200, 100)
    y = products.linear(x.double(), weight.double())
    assert y.dtype == torch.float64
    assert torch.equal(y, F.linear(x.double(), binarize_weight(weight.double())))


@pytest.mark.parametrize(
    ("x", "weight"),
    [(torch.ones(2, 3), torch.ones(2, 4)), (torch.ones(2, 4).half(), torch.ones(2, 4)), (torch.ones(4), torch.ones(4))],
)
def test_what_does_not_fit_is_refused(x, weight):
    with pytest.raises(ShapeError, match=r"products.linear: expected float32 or float64 \[..., in_features\]"):
        products.linear(x, weight)


def test_one_node_in_a_trace():
    nodes = fx.symbolic_trace(Dense(random(3, 4))).graph.nodes
    assert [node.target for node in nodes if node.op == "call_function"] == [products.linear]


def test_blocks_of_several_threads_may_close_in_any_order():
    first, second = products.use("torch"), products.use("packed")
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert products.current_mode() == "packed"
    second.__exit__(None, None, None)
    assert products.current_mode() == "auto"
