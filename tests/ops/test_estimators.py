"""The other estimators: their forward is the sign, their gradient the derivative of the function that they name."""

import math

import pytest
import torch
from torch import fx, nn

from binarynet import ops
from binarynet.errors import NonFiniteError, ShapeError, UsageError
from binarynet.layers import Sign

FUNCTIONS = [ops.identity_sign, ops.approx_sign, ops.swish_sign]


def slopes(function, x, **options):
    x = x.clone().requires_grad_()
    function(x, **options).sum().backward()
    return x.grad


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("function", FUNCTIONS)
def test_forward_is_the_sign_with_both_zeros_up(function, dtype):
    x = torch.tensor([0.0, -0.0, 1.0, -1.0, 0.3, -7.0, math.inf, -math.inf], dtype=dtype)
    result = function(x)
    assert result.dtype == dtype
    assert result.tolist() == [1, 1, 1, -1, 1, -1, 1, -1]
    assert torch.equal(result, ops.sign(x))


def test_identity_passes_everything():
    x = torch.tensor([-1e30, -1.0, 0.0, 3.0])
    assert slopes(ops.identity_sign, x).tolist() == [1, 1, 1, 1]


def test_approx_sign_has_the_slope_of_its_parabolas():
    x = torch.linspace(-2, 2, 401, dtype=torch.float64)
    y = x.clone().requires_grad_()
    parabola = torch.where(y < 0, 2 * y + y * y, 2 * y - y * y)
    torch.where(y.abs() <= 1, parabola, y.detach().sign()).sum().backward()
    torch.testing.assert_close(slopes(ops.approx_sign, x), y.grad)
    assert slopes(ops.approx_sign, torch.tensor([0.0, 1.0, -1.0, 0.25, -math.inf])).tolist() == [2, 0, 0, 1.5, 0]


@pytest.mark.parametrize("beta", [1.0, 5.0, 10.0])
def test_swish_sign_has_the_slope_of_its_swish(beta):
    x = torch.linspace(-4, 4, 801, dtype=torch.float64)
    y = x.clone().requires_grad_()
    sigmoid = torch.sigmoid(beta * y)
    (2 * sigmoid * (1 + beta * y * (1 - sigmoid)) - 1).sum().backward()
    torch.testing.assert_close(slopes(ops.swish_sign, x, beta=beta), y.grad, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_swish_sign_is_flat_far_out_and_beta_at_zero(dtype):
    x = torch.tensor([0.0, 1e4, -1e4, math.inf, -math.inf], dtype=dtype)
    assert slopes(ops.swish_sign, x).tolist() == [5, 0, 0, 0, 0]


@pytest.mark.parametrize("function", FUNCTIONS)
def test_a_trace_shows_one_node_with_the_function_as_target(function):
    class Network(nn.Module):
        def forward(self, x):
            return function(x)

    assert [n.target for n in fx.symbolic_trace(Network()).graph.nodes if n.op == "call_function"] == [function]


@pytest.mark.parametrize("function", FUNCTIONS)
def test_one_compiled_graph(function):
    compiled = torch.compile(function, fullgraph=True, backend="eager")
    x = torch.linspace(-2, 2, 9)
    assert torch.equal(compiled(x), function(x))
    assert torch.equal(slopes(compiled, x), slopes(function, x))


@pytest.mark.filterwarnings("ignore:Anomaly Detection has been enabled")
@pytest.mark.parametrize("function", FUNCTIONS)
def test_what_is_refused(function):
    with pytest.raises(ShapeError, match=rf"{function.__name__}: expected a float tensor, got torch.uint8 \[3\]"):
        function(torch.zeros(3, dtype=torch.uint8))
    with torch.autograd.detect_anomaly(), pytest.raises(NonFiniteError, match=f"{function.__name__}: the input"):
        function(torch.tensor([math.nan]))


@pytest.mark.parametrize(
    ("estimator", "function"),
    [("clipped", ops.sign), ("identity", ops.identity_sign), ("approx", ops.approx_sign), ("swish", ops.swish_sign)],
)
def test_the_module_has_them_by_name(estimator, function):
    module, x = Sign(estimator), torch.linspace(-2, 2, 33)
    assert torch.equal(slopes(module, x), slopes(function, x))
    assert torch.equal(module(x), ops.sign(x))
    assert repr(module) == ("Sign()" if estimator == "clipped" else f"Sign(estimator='{estimator}')")


def test_unknown_estimators_are_refused():
    with pytest.raises(UsageError, match="no estimator 'swich'; there are clipped, identity, approx, swish"):
        Sign("swich")
