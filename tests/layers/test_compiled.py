"""The layers under torch.compile: one graph, and in evaluation the same bits as eager mode."""

import copy

import pytest
import torch
from torch import nn
from torch._dynamo.testing import CompileCounter

from binarynet.layers import (
    BatchNorm1d,
    BatchNorm2d,
    BinaryConv2d,
    BinaryLinear,
    ShiftBatchNorm1d,
    Sign,
    StochasticSign,
    set_noise_key,
)


def network():
    torch.manual_seed(5)
    return nn.Sequential(
        BinaryConv2d(1, 8, 3, padding=1, first=True, dropout=0.2),
        nn.MaxPool2d(2),
        BatchNorm2d(8, input_scale=1 / 255),
        StochasticSign(),
        nn.Flatten(),
        BinaryLinear(8 * 16, 16, dropout=0.5, weights="stochastic_sign"),
        ShiftBatchNorm1d(16),
        Sign("swish"),
        BinaryLinear(16, 4),
        BatchNorm1d(4),
    )


def images(count):
    return torch.randint(0, 256, (count, 1, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(count))


def test_one_graph_in_both_modes():
    # The "eager" backend runs the captured graph as it is: this checks the capture without the cost of compiling.
    model = network()
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    compiled(images(6)).square().sum().backward()
    assert all(p.grad is not None for p in model.parameters())
    model.eval()
    assert torch.equal(compiled(images(6)), model(images(6)))


def test_one_graph_for_batches_of_any_size():
    model = network()
    compiled = torch.compile(model, fullgraph=True, dynamic=True, backend="eager")
    for count in (6, 9, 14):
        torch.manual_seed(count)
        scores = compiled(images(count))
        torch.manual_seed(count)
        assert torch.equal(scores, model(images(count)))
        scores.square().sum().backward()


def test_one_graph_for_all_steps_with_the_noise_of_eager_mode():
    model = network()
    twin = copy.deepcopy(model)
    counter = CompileCounter()
    compiled = torch.compile(model, fullgraph=True, backend=counter)
    scores = []
    for step in range(4):
        for net in (model, twin):
            set_noise_key(net, step)
        scores += [compiled(images(6)), compiled(images(6))]
        assert torch.equal(scores[-2], twin(images(6)))
        assert torch.equal(scores[-1], twin(images(6)))
    assert counter.frame_count == 1
    assert len({tuple(score.flatten().tolist()) for score in scores}) == len(scores)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")
def test_compiled_training_draws_the_same_noise():
    layer = nn.Sequential(StochasticSign(), BinaryLinear(300, 7, dropout=0.3, weights="stochastic_sign"))
    x = (torch.rand(50, 300, generator=torch.Generator().manual_seed(1)) * 2 - 1).requires_grad_()
    results = []
    for run in (layer, torch.compile(layer, fullgraph=True)):
        set_noise_key(layer, 5)
        x.grad = layer[1].weight.grad = None
        y = run(x)
        y.square().sum().backward()
        results.append((y, x.grad, layer[1].weight.grad))
    for eager, compiled in zip(*results, strict=True):
        torch.testing.assert_close(compiled, eager, rtol=1e-5, atol=1e-4)
    assert torch.equal(results[0][0], results[1][0])


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")
def test_compiled_evaluation_has_the_same_bits():
    model = network()
    for _ in range(3):
        model(images(32))
    model.eval()
    compiled = torch.compile(model, fullgraph=True)
    with torch.no_grad():
        assert torch.equal(compiled(images(64)), model(images(64)))
