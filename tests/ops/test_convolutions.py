"""Convolutions with signs: packed kernels against float64 and against torch, and who computes what."""

import pytest
import torch
import torch.nn.functional as F
from torch.library import opcheck

from binarynet import _native
from binarynet.errors import NonFiniteError, ShapeError, UsageError
from binarynet.layers import BinaryConv2d
from binarynet.ops import binarize_weight, convolutions, products

ISAS = [name for name, why_not in _native.instruction_sets() if not why_not]
# batch, (height, width), in, out, kernel, stride, padding: odd sizes, words that end within, borders that meet
CASES = [
    (2, (8, 8), 64, 32, (3, 3), (1, 1), (1, 1)),
    (3, (5, 7), 20, 70, (3, 3), (1, 1), (1, 1)),
    (1, (4, 33), 130, 5, (3, 3), (1, 1), (1, 1)),
    (2, (6, 40), 17, 67, (5, 4), (1, 1), (2, 3)),
    (2, (3, 70), 33, 12, (3, 7), (1, 1), (2, 6)),
    (2, (6, 11), 48, 130, (1, 1), (1, 1), (0, 0)),
    (3, (1, 1), 40, 40, (3, 3), (1, 1), (1, 1)),
    (2, (7, 3), 64, 64, (3, 3), (1, 1), (0, 0)),
    (1, (12, 13), 1, 9, (2, 2), (1, 1), (1, 1)),
    (2, (9, 9), 16, 16, (9, 9), (1, 1), (0, 0)),
    (1, (15, 14), 3, 6, (12, 11), (1, 1), (4, 10)),
    (2, (9, 8), 64, 64, (3, 3), (2, 2), (1, 1)),
    (2, (9, 8), 65, 17, (2, 3), (3, 1), (0, 2)),
]


def random(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def operands(batch, size, fan_in, fan_out, kernel, seed=0, requires_grad=True):
    """x +-1 and latent weights; half of the filters agree with the first window of an image but for one flip."""
    x = torch.where(random(batch, fan_in, *size, seed=seed) >= 0, 1.0, -1.0)
    weight = random(fan_out, fan_in, *kernel, seed=seed + 1)
    window = x[0, :, : kernel[0], : kernel[1]]
    weight[::2, :, : window.shape[1], : window.shape[2]] = window * 0.5
    weight[:, -1, -1, -1] *= -1
    weight.view(-1)[:2] = torch.tensor([0.0, -0.0])
    x = x.to(memory_format=torch.channels_last)
    return x.requires_grad_(requires_grad), weight.requires_grad_(requires_grad)


def signs(weight):
    return torch.where(weight.detach() >= 0, 1.0, -1.0).double()


def run(mode, x, weight, upstream, stride=(1, 1), padding=(1, 1)):
    with products.use(mode):
        y = convolutions.conv2d(x, weight, stride, padding)
        return y.detach(), *torch.autograd.grad(y, (x, weight), upstream)


def in_float64(x, weight, upstream, stride, padding):
    x, weight = x.detach().double().requires_grad_(), weight.double().requires_grad_()
    y = F.conv2d(x, weight, stride=stride, padding=padding)
    return y.detach(), *torch.autograd.grad(y, (x, weight), upstream.double())


def shape_of(case):
    batch, size, _, fan_out, kernel, stride, padding = case
    return batch, fan_out, *((n + 2 * p - k) // s + 1 for n, p, k, s in zip(size, padding, kernel, stride, strict=True))


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_packed_sums_are_exact_and_gradients_rounded_only(monkeypatch, isa, case):
    monkeypatch.setenv("BINARYNET_FORCE_ISA", isa)
    *_, kernel, stride, padding = case
    x, weight = operands(*case[:5], seed=case[2])
    g = random(*shape_of(case), seed=3)
    y, gx, gw = run("packed", x, weight, g, stride, padding)
    expected, gx_expected, gw_expected = in_float64(x, signs(weight), g, stride, padding)
    if x.shape[1] > 1:  # of one channel, both formats are the same
        assert y.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(y.double(), expected)
    if padding == (0, 0):
        assert expected.max() >= case[2] * kernel[0] * kernel[1] - 4
    # Sums of n terms err by at most n / 4 + 4 half steps of the sum of the magnitudes, in whatever order.
    _, gx_magnitudes, gw_magnitudes = in_float64(x.abs(), signs(weight).abs(), g.abs(), stride, padding)
    for ours, exact, magnitudes, terms in (
        (gx, gx_expected, gx_magnitudes, case[3] * kernel[0] * kernel[1]),
        (gw, gw_expected, gw_magnitudes, g[:, 0].numel()),
    ):
        limit = 4 if stride != (1, 1) else 1  # torch's own gradients may add in any order
        assert ((ours.double() - exact).abs() <= limit * (terms / 4 + 4) * 2.0**-24 * magnitudes).all()


@pytest.mark.skipif("avx512_vpopcntdq" not in ISAS, reason="one instruction set with training kernels only")
@pytest.mark.parametrize("case", [case for case in CASES if case[5] == (1, 1)], ids=str)
def test_all_kernels_round_alike(monkeypatch, case):
    """The order of the sums is part of the contract: no instruction set, no number of threads changes a bit."""
    x, weight = operands(*case[:5])
    g = random(*shape_of(case), seed=3)
    results = []
    for isa, threads in (("portable", 1), ("avx512_vpopcntdq", 1), ("avx512_vpopcntdq", 2), ("avx512_vpopcntdq", 5)):
        monkeypatch.setenv("BINARYNET_FORCE_ISA", isa)
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        try:
            results.append(run("packed", x, weight, g, *case[5:]))
        finally:
            torch.set_num_threads(before)
    for result in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], result, strict=True))


def test_many_rows_of_a_batch_are_summed_up_in_blocks():
    """Far more rows than one block of tables holds, in float32 as exact as blocks make it."""
    x, weight = operands(40, (16, 16), 32, 16, (3, 3))
    g = random(40, 16, 16, 16, seed=3) + 1
    gw = run("packed", x, weight, g)[2]
    exact = in_float64(x, signs(weight), g, (1, 1), (1, 1))[2]
    assert (gw.double() - exact).abs().max() < 2e-6 * g.abs().sum((0, 2, 3)).max()


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=["contiguous", "channels_last"])
def test_any_strides(layout):
    case = (3, (6, 5), 40, 24, (3, 3))
    x, weight = operands(*case)
    g = random(3, 24, 6, 5, seed=3)
    expected = run("packed", x, weight, g)
    x = x.detach().to(memory_format=layout)
    weight = weight.detach().to(memory_format=layout)
    given = (
        (x.requires_grad_(), weight.requires_grad_(), g.to(memory_format=layout)),
        (x.detach().mT.contiguous().mT.requires_grad_(), weight.mT.contiguous().mT.detach().requires_grad_(), g),
        (x.detach().repeat(1, 1, 1, 2)[..., :5].requires_grad_(), weight, g[:, :, :1, :1].expand_as(g)),
    )
    for index, (strided_x, strided_weight, strided_g) in enumerate(given):
        result = run("packed", strided_x, strided_weight, strided_g)
        assert [tensor.shape for tensor in result] == [tensor.shape for tensor in expected]
        assert torch.equal(result[0], expected[0])
        if index < 2:
            assert torch.equal(result[1], expected[1])
            assert torch.equal(result[2], expected[2])
        else:
            exact = in_float64(x, signs(weight), strided_g.contiguous(), (1, 1), (1, 1))
            torch.testing.assert_close(result[1].double(), exact[1], rtol=1e-5, atol=1e-4)


def test_an_empty_batch():
    x, weight = operands(1, (4, 4), 40, 24, (3, 3))
    y, gx, gw = run("packed", x.detach()[:0].requires_grad_(), weight, torch.ones(0, 24, 4, 4))
    assert (y.shape, gx.shape) == ((0, 24, 4, 4), (0, 40, 4, 4))
    assert torch.equal(gw, torch.zeros(24, 40, 3, 3))


@pytest.mark.parametrize("value", [0.0, 0.5, -2.0, float("inf"), float("nan")])
def test_other_operands_are_multiplied_by_torch(value):
    x, weight = operands(2, (5, 5), 64, 40, (3, 3))
    x.data[1, 5, 2, 2] = value
    g = random(2, 40, 5, 5)
    for ours, torchs in zip(run("auto", x, weight, g), run("torch", x, weight, g), strict=True):
        torch.testing.assert_close(ours, torchs, rtol=1e-5, atol=1e-4, equal_nan=True)
    with products.use("packed"), pytest.raises(UsageError, match=r"take -1 and .1, got other operands"):
        convolutions.conv2d(x, weight, (1, 1), (1, 1))


@pytest.mark.filterwarnings("ignore:Anomaly Detection has been enabled")
def test_weights_that_are_no_numbers():
    x, weight = operands(2, (5, 5), 64, 40, (3, 3))
    weight.data[3, 1, 0] = torch.tensor([float("nan"), float("inf"), -float("inf")])
    g = random(2, 40, 5, 5)
    for ours, torchs in zip(run("packed", x, weight, g), run("torch", x, weight, g), strict=True):
        torch.testing.assert_close(ours, torchs, rtol=1e-5, atol=1e-4)
    with torch.autograd.set_detect_anomaly(True), pytest.raises(NonFiniteError, match=r"conv2d: .* holds NaN"):
        convolutions.conv2d(x, weight, (1, 1), (1, 1))


@pytest.mark.parametrize("stride", [(1, 1), (2, 1)])
def test_gradients_of_gradients(stride):
    x, weight = operands(2, (5, 4), 10, 6, (3, 2))
    results = []
    for mode in ("torch", "packed"):
        with products.use(mode):
            y = convolutions.conv2d(x, weight, stride, (1, 1))
            gx, gw = torch.autograd.grad(y.square().sum(), (x, weight), create_graph=True)
            results.append(torch.autograd.grad(gx.pow(3).sum() + gw.pow(3).sum(), (x, weight)))
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize(("x_wants", "weight_wants"), [(True, False), (False, True), (False, False)])
def test_only_the_gradients_that_are_wanted(x_wants, weight_wants):
    x, weight = operands(2, (5, 5), 64, 40, (3, 3), requires_grad=False)
    with products.use("packed"):
        y = convolutions.conv2d(x.requires_grad_(x_wants), weight.requires_grad_(weight_wants))
    assert y.requires_grad == (x_wants or weight_wants)
    if y.requires_grad:
        y.sum().backward()
    assert (x.grad is not None, weight.grad is not None) == (x_wants, weight_wants)


@pytest.mark.parametrize("mode", ["auto", "packed", "torch"])
@pytest.mark.parametrize("stride", [(1, 1), (2, 2)])
def test_one_graph_under_compile(mode, stride):
    compiled = torch.compile(
        lambda x, weight: convolutions.conv2d(x, weight, stride, (1, 1)).square().sum(),
        fullgraph=True,
        dynamic=True,
        backend="aot_eager",
    )
    for batch in (2, 3):
        x, weight = operands(batch, (6, 6), 64, 40, (3, 3))
        with products.use(mode):
            ours = torch.autograd.grad(compiled(x, weight), (x, weight))
            eager = torch.autograd.grad(convolutions.conv2d(x, weight, stride, (1, 1)).square().sum(), (x, weight))
        for a, b in zip(ours, eager, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-2)


@pytest.mark.filterwarnings("ignore::UserWarning:torch")
def test_the_operations_keep_torchs_rules():
    x, weight = operands(2, (5, 6), 20, 33, (3, 2))
    window = ([1, 1], [1, 0])
    with products.use("packed"):
        sums, x_bits, w_bits, packed = convolutions._conv2d(x, weight, *window)
        g = random(*sums.shape).requires_grad_()
        opcheck(convolutions._conv2d, (x, weight, *window))
        opcheck(convolutions._input_gradient, (g, weight, x, w_bits, packed, *window))
        opcheck(convolutions._weight_gradient, (g, x, weight, x_bits, packed, *window))


class Packed(Exception):
    """Raised in place of the packed operation."""


@pytest.fixture
def packed_calls(monkeypatch):
    def refuse(*arguments):
        raise Packed

    monkeypatch.setattr(_native.training, "convolve_bits", refuse)
    monkeypatch.delenv("BINARYNET_FORCE_ISA", raising=False)


@pytest.mark.skipif(_native.training.instruction_set() == "portable", reason="no fast training kernels here")
def test_auto_takes_the_kernels_where_that_pays(packed_calls, monkeypatch):
    x, weight = operands(1, (4, 4), 64, 64, (3, 3))
    with pytest.raises(Packed):
        convolutions.conv2d(x, weight)
    convolutions.conv2d(*operands(1, (4, 4), 31, 128, (3, 3)))  # few channels
    convolutions.conv2d(*operands(1, (4, 4), 64, 28, (3, 3)))  # few weights
    convolutions.conv2d(x.double(), weight.double())
    with products.use("torch"):
        convolutions.conv2d(x, weight)
    monkeypatch.setenv("BINARYNET_FORCE_ISA", "portable")  # slow
    convolutions.conv2d(x, weight)
    with products.use("packed"), pytest.raises(Packed):
        convolutions.conv2d(x, weight)


@pytest.mark.skipif(_native.training.instruction_set() == "portable", reason="no fast training kernels here")
def test_layers_take_the_kernels_where_operands_are_signs(packed_calls):
    x, _ = operands(1, (4, 4), 64, 64, (3, 3))
    layer = BinaryConv2d(64, 64, 3, padding=1)
    with pytest.raises(Packed):
        layer(x)
    masked = BinaryConv2d(64, 64, 3, padding=1, dropout=0.5)
    masked(x)
    with pytest.raises(Packed):
        masked.eval()(x)
    BinaryConv2d(64, 64, 3, padding=1, first=True)(x.to(torch.uint8))
    with pytest.raises(Packed):  # sums are float32 also here
        layer(x.bfloat16())

    class Own(BinaryConv2d):
        def binary_weight(self):
            return torch.ones_like(self.weight)

    assert torch.equal(Own(64, 64, 3)(torch.ones(1, 64, 3, 3)), torch.full((1, 64, 1, 1), 576.0))


@pytest.mark.parametrize("mode", ["auto", "torch"])
@pytest.mark.parametrize("channels", [1, 3, 64])
def test_results_have_the_memory_format_of_the_input(channels, mode):
    """As with torch's convolutions: whoever computes, a contiguous network can go on with view()."""
    images = torch.randint(0, 256, (2, channels, 5, 4), dtype=torch.uint8)
    signs = torch.ones(2, 64, 5, 5)
    with products.use(mode):
        assert BinaryConv2d(channels, 40, 3, padding=1, first=True)(images).is_contiguous()
        for options in ({}, {"dropout": 0.1}):
            layer = BinaryConv2d(64, 64, 3, **options)
            assert layer(signs).is_contiguous()
            last = layer(signs.contiguous(memory_format=torch.channels_last))
            assert not last.is_contiguous()
            assert last.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("channels", [1, 3, 64])
def test_a_layer_may_ask_for_channels_last(channels):
    fast = _native.training.instruction_set() != "portable"
    expected = torch.channels_last if fast else torch.contiguous_format
    images = torch.randint(0, 256, (2, channels, 5, 4), dtype=torch.uint8)
    layer = BinaryConv2d(channels, 40, 3, padding=1, first=True, channels_last=True)
    sums = layer(images)
    assert sums.is_contiguous(memory_format=expected)
    with products.use("torch"):
        contiguous = layer(images)
        assert contiguous.is_contiguous()
    assert torch.equal(contiguous, sums)


def test_float64_is_torchs():
    x, weight = operands(2, (5, 5), 64, 40, (3, 3))
    y = convolutions.conv2d(x.double(), weight.double())
    assert y.dtype == torch.float64
    assert torch.equal(y, F.conv2d(x.double(), binarize_weight(weight.double())))


@pytest.mark.parametrize(
    ("x", "weight", "stride", "padding", "message"),
    [
        (torch.ones(1, 2, 4, 4), torch.ones(3, 3, 2, 2), (1, 1), (0, 0), "expected float32 or float64"),
        (torch.ones(2, 4, 4), torch.ones(3, 2, 2, 2), (1, 1), (0, 0), "expected float32 or float64"),
        (torch.ones(1, 2, 4, 4).half(), torch.ones(3, 2, 2, 2), (1, 1), (0, 0), "expected float32 or float64"),
        (torch.ones(1, 2, 4, 4), torch.ones(3, 2, 2, 2), (0, 1), (0, 0), "two strides of at least 1"),
        (torch.ones(1, 2, 4, 4), torch.ones(3, 2, 2, 2), (1, 1), (2, 0), "smaller than the kernel"),
        (torch.ones(1, 2, 4, 4), torch.ones(3, 2, 2, 2), (1, 1), (0,), "two paddings"),
        (torch.ones(1, 2, 4, 4), torch.ones(3, 2, 7, 2), (1, 1), (1, 0), r"images of \[4, 4\] .* are smaller"),
    ],
)
def test_what_does_not_fit_is_refused(x, weight, stride, padding, message):
    with pytest.raises(ShapeError, match=rf"convolutions.conv2d: .*{message}"):
        convolutions.conv2d(x, weight, stride, padding)


@pytest.mark.parametrize("wrong", ["size", "stride", "padding"])
def test_native_calls_check_their_arguments(wrong):
    bits = torch.zeros(1, 4, 4, 1, dtype=torch.int64).numpy().view("uint64")
    weights = torch.zeros(8, 3, 3, 1, dtype=torch.int64).numpy().view("uint64")
    out = torch.zeros(1, 3 if wrong == "size" else 2, 2, 8).numpy()
    window = ((0, 1) if wrong == "stride" else (1, 1), (3, 0) if wrong == "padding" else (0, 0))
    with pytest.raises(_native.NativeError, match="sizes, stride and padding do not fit"):
        _native.training.convolve_bits(bits, weights, 8, *window, out, 1)


def test_one_node_in_a_trace():
    from torch import fx

    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(random(3, 4, 3, 3))

        def forward(self, x):
            return convolutions.conv2d(x, self.weight, (1, 1), (1, 1))

    nodes = fx.symbolic_trace(Net()).graph.nodes
    assert [node.target for node in nodes if node.op == "call_function"] == [convolutions.conv2d]
