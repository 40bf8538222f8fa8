"""Shift-based batch normalization against a NumPy transcription of the paper's formulas."""

import copy
import math

import numpy as np
import pytest
import torch
from torch import nn

from binarynet import ops
from binarynet.errors import NonFiniteError, ShapeError, UsageError
from binarynet.layers import BinaryConv2d, BinaryLinear, ShiftBatchNorm1d, ShiftBatchNorm2d, Sign
from binarynet.lowering import lower, pack, torch_source
from binarynet.runtime import verify

SHAPES = {ShiftBatchNorm1d: (16, 5), ShiftBatchNorm2d: (4, 5, 2, 2)}


def ap2(values):
    """The transcription's own: frexp in float64, in which the square of a float32 is exact."""
    values = np.asarray(values, np.float64)
    mantissa, exponent = np.frexp(np.abs(values))
    return np.sign(values) * np.ldexp(1.0, np.where(mantissa * mantissa > 0.5, exponent, exponent - 1))


class Transcription:
    """Algorithm 3 and its backward pass, for values [n, channels], in float64.

    ``z - mean(z)`` is taken in the given precision, because its rounding can move a value across a boundary of AP2.
    """

    def __init__(self, weight, bias, eps=1e-5, input_scale=1.0):
        self.weight, self.bias, self.eps, self.scale = weight, bias, eps, float(ap2(input_scale))

    def forward(self, x, mean=None):
        z = x * x.dtype.type(self.scale)
        self.mean = z.astype(np.float64).mean(0)
        centred = (z - (self.mean if mean is None else mean)).astype(np.float64)
        self.rounded = ap2(centred)
        self.inv_std = 1 / np.sqrt((centred * self.rounded).mean(0) + self.eps)
        self.normalized = centred * ap2(self.inv_std)
        return ap2(self.weight) * self.normalized + self.bias

    def backward(self, g):
        s, c = ap2(self.inv_std), self.rounded
        g_z = ap2(self.weight) * s * (g - g.mean(0) - c * s**2 * (c * g).mean(0))
        return g_z * self.scale, (ap2(self.normalized) * g).sum(0), g.sum(0)


def channels_last(array):
    return np.moveaxis(np.asarray(array), 1, -1).reshape(-1, array.shape[1])


def filled(kind, seed, **options):
    generator = torch.Generator().manual_seed(seed)
    norm = kind(5, **options)
    with torch.no_grad():
        for tensor in (norm.weight, norm.bias, norm.running_mean, norm.running_inv_std):
            tensor.copy_(torch.randn(5, generator=generator))
    return norm


def inputs(case, shape, seed=2):
    """16 values per channel: integers have an exact mean, so that no rounding can move a value across a boundary."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randint(-60, 61, shape, generator=generator).float()
    if case == "constant channel":
        x[:, 2] = 7
    elif case == "all constant":
        x[:] = -3
    elif case == "powers of two":
        half = 2.0 ** torch.randint(-3, 7, (shape[0] // 2, *shape[1:]), generator=generator)
        x = torch.cat([half, -half])  # the mean is 0: AP2(c) = c
    elif case == "neighbours of sqrt(2) 2^k":
        half = math.sqrt(2) * 2.0 ** torch.randint(-3, 7, (shape[0] // 2, *shape[1:]), generator=generator)
        half = half.float()
        direction = torch.where(torch.rand(half.shape, generator=generator) < 0.5, 0.0, math.inf)
        half = torch.nextafter(half, direction)
        x = torch.cat([half, -half])
    return x


def mean_of_batch(norm, x):
    """As the module rounds it, which depends on the order of additions."""
    twin = copy.deepcopy(norm)
    twin.momentum = 1.0
    twin(x)
    return twin.running_mean.numpy()


CASES = ["integers", "constant channel", "all constant", "powers of two", "neighbours of sqrt(2) 2^k"]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("input_scale", [1.0, 1 / 255])
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("kind", SHAPES)
def test_training_is_the_transcription(kind, case, input_scale, dtype):
    norm = filled(kind, 1, input_scale=input_scale).to(dtype)
    with torch.no_grad():
        norm.weight[3] = 0.0  # AP2(0) = 0
        norm.weight[4] = -0.25
    before_mean, before_inv_std = norm.running_mean.numpy().copy(), norm.running_inv_std.numpy().copy()
    x = inputs(case, SHAPES[kind]).to(dtype).requires_grad_()
    g = torch.randn(x.shape, generator=torch.Generator().manual_seed(5), dtype=dtype)
    y = norm(x)
    y.backward(g)
    paper = Transcription(norm.weight.detach().numpy(), norm.bias.detach().numpy(), input_scale=input_scale)
    expected = paper.forward(channels_last(x.detach()), mean_of_batch(norm, x.detach()))
    tolerance = {"rtol": 2e-6, "atol": 2e-6} if dtype == torch.float32 else {"rtol": 1e-12, "atol": 1e-12}
    np.testing.assert_allclose(channels_last(y.detach()), expected, **tolerance)
    expected_x, expected_weight, expected_bias = paper.backward(channels_last(g).astype(np.float64))
    for got, wanted in (
        (channels_last(x.grad), expected_x),
        (norm.weight.grad, expected_weight),
        (norm.bias.grad, expected_bias),
    ):
        largest = max(1.0, float(np.abs(wanted).max()))
        np.testing.assert_allclose(np.asarray(got), wanted, rtol=tolerance["rtol"], atol=largest * tolerance["atol"])
    np.testing.assert_allclose(norm.running_mean, 0.875 * before_mean + 0.125 * paper.mean, **tolerance)
    np.testing.assert_allclose(norm.running_inv_std, 0.875 * before_inv_std + 0.125 * paper.inv_std, **tolerance)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("shape", [(100, 70), (3, 1), (130, 64), (2, 200), (5, 3, 9, 7), (70, 2, 1, 1), (3, 4, 40, 41)])
def test_random_values_of_many_shapes(shape, layout):
    """float32, by kernels where the machine has them: within rounding of float64 but for values next to a boundary."""
    if len(shape) == 2 and layout == torch.channels_last:
        return
    generator = torch.Generator().manual_seed(shape[0])
    norm = (ShiftBatchNorm1d if len(shape) == 2 else ShiftBatchNorm2d)(shape[1], input_scale=1 / 255)
    with torch.no_grad():
        norm.weight.normal_(generator=generator)
        norm.bias.normal_(generator=generator)
    x = (torch.randn(shape, generator=generator) * 900 + 300).contiguous().to(memory_format=layout).requires_grad_()
    g = torch.randn(shape, generator=generator).to(memory_format=layout)
    y = norm(x)
    y.backward(g)
    paper = Transcription(norm.weight.detach().numpy(), norm.bias.detach().numpy(), input_scale=1 / 255)
    expected = paper.forward(channels_last(x.detach()), mean_of_batch(norm, x.detach()))
    np.testing.assert_allclose(channels_last(y.detach()), expected, rtol=2e-6, atol=2e-6)
    expected_x, expected_weight, expected_bias = paper.backward(channels_last(g).astype(np.float64))
    for got, wanted in (
        (channels_last(x.grad), expected_x),
        (norm.weight.grad, expected_weight),
        (norm.bias.grad, expected_bias),
    ):
        largest = max(1.0, float(np.abs(wanted).max()))
        np.testing.assert_allclose(np.asarray(got), wanted, rtol=1e-5, atol=largest * 1e-5)


def test_kernels_and_torch_agree(monkeypatch):
    results = []
    for isa in ("portable", None):  # with portable kernels, torch computes
        monkeypatch.setenv("BINARYNET_FORCE_ISA", isa) if isa else monkeypatch.delenv("BINARYNET_FORCE_ISA")
        norm = filled(ShiftBatchNorm2d, 1)
        x = (torch.randn(6, 5, 8, 9, generator=torch.Generator().manual_seed(2)) * 9).requires_grad_()
        y = norm(x)
        y.backward(torch.randn(y.shape, generator=torch.Generator().manual_seed(3)))
        results.append([y.detach(), x.grad, norm.weight.grad, norm.bias.grad, norm.running_mean, norm.running_inv_std])
    for torchs, ours in zip(*results, strict=True):
        torch.testing.assert_close(ours, torchs, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("kind", SHAPES)
def test_random_values_in_float64(kind):
    for seed in range(20):
        norm = filled(kind, seed).double()
        x = torch.randn(SHAPES[kind], generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 7 + 3
        x.requires_grad_()
        g = torch.randn(x.shape, generator=torch.Generator().manual_seed(seed + 1), dtype=torch.float64)
        y = norm(x)
        y.backward(g)
        paper = Transcription(norm.weight.detach().numpy(), norm.bias.detach().numpy())
        np.testing.assert_allclose(channels_last(y.detach()), paper.forward(channels_last(x.detach())), rtol=1e-9)
        for got, wanted in zip(
            (channels_last(x.grad), norm.weight.grad, norm.bias.grad), paper.backward(channels_last(g)), strict=True
        ):
            np.testing.assert_allclose(np.asarray(got), wanted, rtol=1e-9, atol=1e-9)


def test_every_factor_is_a_power_of_two():
    """The normalized output is the centred input times powers of two: not one of its mantissas has changed."""
    norm = ShiftBatchNorm1d(5)
    with torch.no_grad():
        norm.weight.copy_(torch.tensor([0.3, -1.7, 5.0, 1.0, -0.01]))
    x = inputs("integers", (16, 5))
    y = norm(x).detach()
    centred = x - x.mean(0)
    assert torch.equal(torch.frexp(y.abs()).mantissa, torch.frexp(centred.abs()).mantissa)


@pytest.mark.parametrize("input_scale", [1.0, 1 / 255])
@pytest.mark.parametrize("kind", SHAPES)
def test_evaluation_is_an_affine_map_by_powers_of_two(kind, input_scale):
    norm = filled(kind, 8, input_scale=input_scale).eval()
    scale, shift = norm.affine()
    assert torch.equal(scale, ops.ap2(scale))
    gain = ap2(norm.weight.detach().numpy()) * ap2(norm.running_inv_std.numpy())
    assert np.array_equal(scale.numpy(), gain * ap2(input_scale))
    expected = norm.bias.detach().double().numpy() - norm.running_mean.double().numpy() * gain
    assert np.array_equal(shift.numpy(), expected.astype(np.float32))
    x = torch.randint(-99, 100, SHAPES[kind]).float()
    view = (1, -1) + (1,) * (x.ndim - 2)
    assert torch.equal(norm(x), x * scale.view(view) + shift.view(view))


def test_training_and_evaluation_agree_where_the_running_values_are_those_of_the_batch():
    norm = ShiftBatchNorm1d(5, momentum=1.0, input_scale=1 / 255)
    assert norm.input_scale == 1 / 256
    x = inputs("integers", (16, 5)) * 255
    y = norm(x)
    torch.testing.assert_close(norm.eval()(x), y, rtol=1e-6, atol=1e-6)


def network():
    torch.manual_seed(3)
    return nn.Sequential(
        BinaryConv2d(3, 9, 3, padding=1, first=True),
        nn.MaxPool2d(2),
        ShiftBatchNorm2d(9, input_scale=1 / 255),
        Sign(),
        nn.Flatten(),
        BinaryLinear(9 * 6, 20),
        ShiftBatchNorm1d(20),
        Sign(),
        BinaryLinear(20, 4),
        ShiftBatchNorm1d(4),
    )


def images(count):
    return torch.randint(0, 256, (count, 3, 5, 7), dtype=torch.uint8, generator=torch.Generator().manual_seed(count))


def test_a_network_packs_exactly():
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    for _ in range(12):
        optimizer.zero_grad()
        model(images(16)).square().mean().backward()
        optimizer.step()
    with torch.no_grad():
        model[2].weight[:3] = torch.tensor([-1.0, 0.0, -0.3])
    model.eval()
    lowered = lower(model, (5, 7, 3))
    batch = np.ascontiguousarray(images(50).permute(0, 2, 3, 1).numpy())
    verification = verify(lowered.graph, batch, extra={"torch": torch_source(lowered)}, sums=True)
    assert verification.exact
    with torch.no_grad():
        expected = model(images(50)).numpy()
    packed = pack(model, (5, 7, 3))
    assert np.array_equal(packed.predict(batch).scores.view(np.uint32), expected.view(np.uint32))


def test_one_compiled_graph_in_both_modes():
    model = network()
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    compiled(images(6)).square().sum().backward()
    assert all(p.grad is not None for p in model.parameters())
    model.eval()
    assert torch.equal(compiled(images(6)), model(images(6)))


def test_results_are_float32_under_autocast():
    norm = ShiftBatchNorm1d(5)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert norm(torch.randn(4, 5).bfloat16()).dtype == torch.float32
        assert norm.eval()(torch.randn(4, 5)).dtype == torch.float32


def test_what_is_refused():
    with pytest.raises(ShapeError, match=r"ShiftBatchNorm1d: expected \[batch, 5\]"):
        ShiftBatchNorm1d(5)(torch.ones(2, 5, 3, 3))
    with pytest.raises(UsageError, match="ShiftBatchNorm1d: batch statistics need at least 2 values per channel"):
        ShiftBatchNorm1d(5)(torch.ones(1, 5))
    with pytest.raises(UsageError, match="expected eps > 0"):
        ShiftBatchNorm2d(5, eps=0.0)
    norm = ShiftBatchNorm1d(5).eval()
    with torch.no_grad():
        norm.running_inv_std[3] = math.nan
    with pytest.raises(NonFiniteError, match="channel 3 has"):
        norm(torch.ones(2, 5))
