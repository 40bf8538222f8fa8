"""Signs and their estimators, against the formulas."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import fx, nn

from binarynet import ops
from binarynet.errors import NonFiniteError, ShapeError

EDGES = [0.0, -0.0, 1.0, -1.0, 1e-45, -1e-45, math.inf, -math.inf]
NEXT_ABOVE_ONE = float(torch.nextafter(torch.tensor(1.0), torch.tensor(2.0)))
NEXT_BELOW_ONE = float(torch.nextafter(torch.tensor(1.0), torch.tensor(0.0)))

floats = st.floats(width=32, allow_nan=False) | st.sampled_from(EDGES) | st.floats(-1.5, 1.5, width=32)


def gradient(function, values, upstream):
    x = torch.tensor(values, dtype=torch.float32, requires_grad=True)
    function(x).backward(torch.tensor(upstream, dtype=torch.float32))
    return x.grad.tolist()


@pytest.mark.parametrize("function", [ops.sign, ops.binarize_weight])
@settings(deadline=None)
@given(values=st.lists(floats, min_size=1, max_size=20))
def test_forward_is_the_sign_with_zero_as_plus_one(function, values):
    result = function(torch.tensor(values, dtype=torch.float32))
    assert result.dtype == torch.float32
    assert result.tolist() == [1.0 if value >= 0 else -1.0 for value in values]


@pytest.mark.parametrize("zero", [0.0, -0.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("function", [ops.sign, ops.binarize_weight])
def test_both_zeros_are_plus_one_in_every_dtype(function, zero, dtype):
    result = function(torch.full((3,), zero, dtype=dtype))
    assert result.dtype == dtype
    assert result.tolist() == [1.0, 1.0, 1.0]


@pytest.mark.parametrize("function", [ops.sign, ops.stochastic_sign])
@settings(deadline=None)
@given(pairs=st.lists(st.tuples(floats, st.floats(-1e6, 1e6, width=32)), min_size=1, max_size=20))
def test_gradient_passes_inside_the_window_only(function, pairs):
    values, upstream = map(list, zip(*pairs, strict=True))
    expected = [g if abs(x) <= 1 else 0.0 for x, g in pairs]
    assert gradient(function, values, upstream) == expected


@pytest.mark.parametrize("function", [ops.sign, ops.stochastic_sign])
def test_window_includes_its_bounds(function):
    values = [1.0, -1.0, NEXT_ABOVE_ONE, -NEXT_ABOVE_ONE, NEXT_BELOW_ONE]
    assert gradient(function, values, [2.0] * 5) == [2.0, 2.0, 0.0, 0.0, 2.0]


def test_gradient_of_weights_is_not_masked():
    assert gradient(ops.binarize_weight, [-7.0, -1.0, 0.0, 1.5], [1.0, -2.0, 3.0, 4.0]) == [1.0, -2.0, 3.0, 4.0]


def test_stochastic_sign_is_certain_at_and_beyond_one():
    x = torch.tensor([1.0, -1.0, 5.0, -5.0, math.inf, -math.inf]).repeat(2000, 1)
    assert torch.equal(ops.stochastic_sign(x), torch.sign(x))


@pytest.mark.parametrize("x", [-0.8, -0.25, 0.0, 0.5, 0.9])
def test_stochastic_sign_has_the_hard_sigmoid_as_probability(x):
    n = 40_000
    generator = torch.Generator().manual_seed(3)
    share = (ops.stochastic_sign(torch.full((n,), x), generator=generator) > 0).float().mean().item()
    probability = (x + 1) / 2
    assert abs(share - probability) < 5 * math.sqrt(probability * (1 - probability) / n)


def test_stochastic_sign_repeats_with_the_same_generator():
    x = torch.linspace(-1, 1, 1000)
    first, second, other = (ops.stochastic_sign(x, generator=torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, second)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("function", [ops.sign, ops.stochastic_sign, ops.binarize_weight])
def test_a_trace_shows_one_node_with_the_function_as_target(function):
    class Network(nn.Module):
        def forward(self, x):
            return function(x) * 2

    calls = [node.target for node in fx.symbolic_trace(Network()).graph.nodes if node.op == "call_function"]
    assert calls[0] is function
    assert len(calls) == 2


@pytest.mark.parametrize("function", [ops.sign, ops.stochastic_sign, ops.binarize_weight])
def test_integers_are_refused(function):
    with pytest.raises(ShapeError, match=r"expected a float tensor, got torch.uint8 \[3\]"):
        function(torch.zeros(3, dtype=torch.uint8))


@pytest.mark.filterwarnings("ignore:Anomaly Detection has been enabled")
@pytest.mark.parametrize("function", [ops.sign, ops.stochastic_sign, ops.binarize_weight])
def test_nan_is_found_under_anomaly_detection(function):
    x = torch.tensor([1.0, math.nan])
    with torch.autograd.detect_anomaly(), pytest.raises(NonFiniteError, match="holds NaN"):
        function(x)


def test_the_gradient_comes_back_in_the_memory_format_of_the_input():
    """Flatten hands a convolution's sign a gradient in the other one; mixtures are slow further back."""
    x = (
        torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(0))
        .to(memory_format=torch.channels_last)
        .requires_grad_()
    )
    g = torch.ones(2, 3 * 4 * 5).cumsum(1)
    (gradient,) = torch.autograd.grad(ops.sign(x).flatten(1), x, g)
    assert gradient.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(gradient, g.view(2, 3, 4, 5) * (x.abs() <= 1))
