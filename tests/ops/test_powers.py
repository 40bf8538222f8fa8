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
