"""AP2 against exact integer arithmetic, where logarithms in float32 go wrong."""

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import fx, nn

from binarynet import ops
from binarynet.errors import ShapeError


def exact(x):
    """AP2 by rational numbers: |x| is above sqrt(2) * 2^k where x^2 > 2 * 4^k."""
    if x == 0 or not math.isfinite(x):
        return x
    square, k = Fraction(x) ** 2, math.frexp(x)[1] - 1  # 2^k <= |x| < 2^(k+1)
    power = k + 1 if square > 2 * Fraction(4) ** k else k
    return math.copysign(math.inf if power > 1023 else math.ldexp(1.0, power), x)


def same(got, expected):
    return torch.equal(got, expected) and torch.equal(torch.signbit(got), torch.signbit(expected))


def all_boundaries(dtype, low, high):
    """The representable neighbours of sqrt(2) * 2^k, and of 2^k, for every k, with both signs."""
    with np.errstate(over="ignore", under="ignore"):
        k = np.arange(low, high + 1)
        middles = np.ldexp(np.sqrt(np.longdouble(2)), k).astype(dtype)
        powers = np.ldexp(np.longdouble(1), k).astype(dtype)
        centres = np.concatenate([middles, powers])
        below, above = np.nextafter(centres, dtype(0)), np.nextafter(centres, dtype(np.inf))
    values = np.concatenate([centres, below, above, np.nextafter(below, dtype(0))])
    return np.concatenate([values, -values])


def test_every_float32_neighbour_of_every_boundary():
    values = all_boundaries(np.float32, -149, 127)
    values = values[np.isfinite(values)]
    got = ops.ap2(torch.from_numpy(values))
    assert got.dtype == torch.float32
    expected = torch.tensor([exact(float(v)) for v in values], dtype=torch.float64).to(torch.float32)
    assert same(got, expected)


def test_every_float64_neighbour_of_every_boundary():
    values = all_boundaries(np.float64, -1074, 1023)
    values = values[np.isfinite(values)]
    expected = torch.tensor([exact(float(v)) for v in values], dtype=torch.float64)
    assert same(ops.ap2(torch.from_numpy(values)), expected)


@pytest.mark.parametrize("exponent", [0, 1, 127, 254])
def test_every_mantissa_of_an_exponent(exponent):
    """In float64, in which the square of a float32 is exact. Exponent 0 are the subnormals."""
    bits = np.arange(1 if exponent == 0 else 0, 1 << 23, dtype=np.int32) | np.int32(exponent << 23)
    values = bits.view(np.float32)
    mantissa, power = np.frexp(values.astype(np.float64))
    expected = np.ldexp(1.0, np.where(mantissa * mantissa > 0.5, power, power - 1))
    with np.errstate(over="ignore"):
        expected = expected.astype(np.float32)
    for sign in (1, -1):
        assert np.array_equal(ops.round_to_ap2(torch.from_numpy(sign * values)).numpy(), sign * expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_nan_keeps_its_bits(dtype):
    integer, width = {torch.float32: (torch.int32, 32), torch.float64: (torch.int64, 64)}[dtype]
    largest = (1 << (width - 1)) - 1
    quiet = 1 << (22 if width == 32 else 51)
    infinity = torch.tensor(math.inf, dtype=dtype).view(integer).item()
    bits = torch.tensor([infinity + quiet, infinity + quiet + 1, largest, -1, infinity + quiet - largest - 1])
    values = bits.to(integer).view(dtype)
    assert bool(torch.isnan(values).all())
    assert torch.equal(ops.round_to_ap2(values).view(integer), bits.to(integer))


def test_any_shape_and_layout():
    x = torch.randn(6, 5, 4, generator=torch.Generator().manual_seed(1))
    for view in (x, x.transpose(0, 2), x[::2, 1:], x[0, 0, 0], x[:0]):
        assert same(ops.round_to_ap2(view), view.clone().apply_(exact))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_compiled_it_gives_the_same_bits(dtype):
    kind, low, high = (np.float32, -149, 127) if dtype == torch.float32 else (np.float64, -1074, 1023)
    values = torch.from_numpy(all_boundaries(kind, low, high))
    values = torch.cat([values, torch.tensor([math.nan, math.inf, -math.inf, 0.0, -0.0], dtype=dtype)])
    x = values.clone().requires_grad_()
    y = torch.compile(ops.ap2, fullgraph=True)(x)
    assert torch.equal(y.isnan(), values.isnan())
    assert same(y.nan_to_num(nan=7.0), ops.ap2(values).nan_to_num(nan=7.0))
    y.backward(torch.ones_like(y))
    assert bool((x.grad == 1).all())


def test_a_logarithm_in_float32_would_be_wrong():
    values = all_boundaries(np.float32, -126, 126)
    naive = np.sign(values) * np.exp2(np.round(np.log2(np.abs(values)))).astype(np.float32)
    assert not np.array_equal(naive, ops.ap2(torch.from_numpy(values)).numpy())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_every_number_of_the_short_dtypes(dtype):
    values = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16).view(dtype)
    values = values[torch.isfinite(values)]
    got = ops.ap2(values)
    assert got.dtype == dtype
    assert same(got, torch.tensor([exact(v) for v in values.tolist()], dtype=torch.float64).to(dtype))


@settings(deadline=None)
@given(st.lists(st.floats(allow_nan=False), min_size=1, max_size=20))
def test_any_float(values):
    expected = torch.tensor([exact(v) for v in values], dtype=torch.float64)
    assert same(ops.ap2(torch.tensor(values, dtype=torch.float64)), expected)
    for value in values:
        if math.isfinite(exact(value)):
            assert ops.ap2_value(value) == exact(value)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_zeros_infinities_and_nan_stay(dtype):
    values = torch.tensor([0.0, -0.0, math.inf, -math.inf], dtype=dtype)
    assert same(ops.ap2(values), values)
    assert torch.isnan(ops.ap2(torch.tensor(math.nan, dtype=dtype)))
    assert [ops.ap2_value(v) for v in values.tolist()] == values.tolist()


def test_gradient_passes_unchanged():
    x = torch.tensor([0.0, 3.0, -0.7, 1e-40], requires_grad=True)
    ops.ap2(x).backward(torch.tensor([1.0, -2.0, 3.0, 4.0]))
    assert x.grad.tolist() == [1.0, -2.0, 3.0, 4.0]


def test_a_trace_shows_one_node():
    class Network(nn.Module):
        def forward(self, x):
            return ops.ap2(x)

    assert [n.target for n in fx.symbolic_trace(Network()).graph.nodes if n.op == "call_function"] == [ops.ap2]


def test_integers_are_refused():
    with pytest.raises(ShapeError, match=r"ap2: expected a float tensor, got torch.int64 \[2\]"):
        ops.ap2(torch.ones(2, dtype=torch.int64))
