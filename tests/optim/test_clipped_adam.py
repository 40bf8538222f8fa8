"""ClippedAdam: the formulas to the last bit, torch's Adam up to rounding, and an optimizer like any other of torch."""

import copy
import io
import math

import numpy as np
import pytest
import torch
from torch import nn

from binarynet import optim
from binarynet.layers import BatchNorm1d, BinaryLayer, BinaryLinear, Sign
from binarynet.ops import kernels
from binarynet.optim import ClippedAdam

FAST = kernels.fast(torch.zeros(1)) is not None


def network(seed=1):
    torch.manual_seed(seed)
    return nn.Sequential(
        BinaryLinear(20, 1200, first=True), BatchNorm1d(1200, input_scale=1 / 255), Sign(), BinaryLinear(1200, 4)
    )


def give_gradients(model, step, spread=1.0):
    generator = torch.Generator().manual_seed(step)
    for parameter in model.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype) * spread


def run(model, optimizer, steps):
    for step in steps:
        give_gradients(model, step)
        optimizer.step()


def weights(model):
    return [parameter.detach().clone() for parameter in model.parameters()]


@pytest.mark.skipif(not FAST, reason="this machine has no fast training kernels: torch computes")
@pytest.mark.parametrize("clip", [False, True])
def test_each_operation_rounds_once(clip):
    f, lr, b1, b2, eps = np.float32, 0.03, 0.9, 0.999, 1e-8
    x = nn.Parameter(torch.randn(20_000, generator=torch.Generator().manual_seed(1)))
    optimizer = ClippedAdam([x], lr, (b1, b2), eps, clip=clip)
    w, m, v = x.detach().numpy().copy(), np.zeros(20_000, f), np.zeros(20_000, f)
    for t in range(1, 30):
        x.grad = torch.randn(20_000, generator=torch.Generator().manual_seed(t))
        g = x.grad.numpy()
        optimizer.step()
        m = m + f(1 - b1) * (g - m)
        v = f(b2) * v + f(1 - b2) * g * g
        w = w - f(lr / (1 - b1**t)) * m / (np.sqrt(v) / f(math.sqrt(1 - b2**t)) + f(eps))
        w = np.clip(w, f(-1), f(1)) if clip else w
        assert np.array_equal(x.detach().numpy(), w)
    state = optimizer.state[x]
    assert state.keys() == {"step", "exp_avg", "exp_avg_sq"}
    assert np.array_equal(state["exp_avg"], m)
    assert np.array_equal(state["exp_avg_sq"], v)
    assert state["step"].item() == 29


@pytest.mark.parametrize("fused", [None, True])
def test_it_is_torchs_adam_and_clipping(fused):
    model = network()
    twin = copy.deepcopy(model)
    optimizer = optim.adam(model, 0.02)
    other = torch.optim.Adam(optim.parameter_groups(twin, 0.02), fused=fused)
    optim.clip_after_step(other, twin)
    for step in range(60):
        give_gradients(model, step)
        give_gradients(twin, step)
        optimizer.step()
        other.step()
    for ours, theirs in zip(weights(model), weights(twin), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=2e-5)
    assert all(w.abs().max() == 1 for w in optim.latent_weights(model))
    assert model[1].bias.abs().max() > 0
    for name in ("exp_avg", "exp_avg_sq"):
        for ours, theirs in zip(model.parameters(), twin.parameters(), strict=True):
            torch.testing.assert_close(optimizer.state[ours][name], other.state[theirs][name], rtol=1e-4, atol=1e-6)


def test_groups_say_what_is_clipped():
    groups = optim.adam(network()).param_groups
    assert [(g["name"], g["clip"]) for g in groups] == [
        ("latent x28.52", True),
        ("latent x28.33", True),
        ("other", False),
    ]
    assert not any(g["clip"] for g in optim.adam(network(), clip=False).param_groups)
    optimizer = ClippedAdam([nn.Parameter(torch.zeros(1))])
    optimizer.add_param_group({"params": [nn.Parameter(torch.zeros(1))], "clip": True})
    optimizer.add_param_group({"params": [nn.Parameter(torch.zeros(1))]})
    assert [g["clip"] for g in optimizer.param_groups] == [False, True, False]


def test_a_state_of_torchs_adam_goes_on_and_clipping_stays():
    model = network()
    before = torch.optim.Adam(optim.parameter_groups(model, 1e-3), lr=1e-3, fused=True)
    optim.clip_after_step(before, model)
    run(model, before, range(5))
    twin = copy.deepcopy(model)
    optimizer = optim.adam(twin, 5.0)
    optimizer.load_state_dict(copy.deepcopy(before.state_dict()))
    assert [g["clip"] for g in optimizer.param_groups] == [True, True, False]
    run(model, before, range(5, 10))
    run(twin, optimizer, range(5, 10))
    for ours, theirs in zip(weights(twin), weights(model), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)
    assert {float(state["step"]) for state in optimizer.state.values()} == {10.0}


@pytest.mark.parametrize("make", [optim.adam, optim.shift_adamax])
def test_saved_and_copied_it_goes_on_to_the_bit(make):
    model = network()
    optimizer = make(model, 1e-3)
    run(model, optimizer, range(4))
    file = io.BytesIO()
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, file)
    file.seek(0)
    saved = torch.load(file, weights_only=True)
    restored = network(seed=2)
    restored.load_state_dict(saved["model"])
    other = make(restored, 1.0)
    other.load_state_dict(saved["optimizer"])
    copied, third = copy.deepcopy((model, optimizer))
    for net, opt in ((model, optimizer), (restored, other), (copied, third)):
        run(net, opt, range(4, 8))
    for a, b, c in zip(weights(model), weights(restored), weights(copied), strict=True):
        assert torch.equal(a, b)
        assert torch.equal(a, c)


@pytest.mark.parametrize("make", [optim.adam, optim.shift_adamax])
def test_nan_stays_and_is_not_clipped_away(make):
    model = network()
    optimizer = make(model, 1e-3)
    give_gradients(model, 1)
    model[0].weight.grad[2, 3] = math.nan
    model[3].weight.grad[1, 1] = math.inf
    optimizer.step()
    give_gradients(model, 2)
    optimizer.step()
    assert torch.isnan(model[0].weight).nonzero().tolist() == [[2, 3]]
    assert torch.isnan(model[3].weight).nonzero().tolist() == [[1, 1]]


@pytest.mark.parametrize("make", [ClippedAdam, optim.ShiftAdaMax])
def test_hooks_closures_schedulers_and_missing_gradients(make):
    x, unused = nn.Parameter(torch.ones(3)), nn.Parameter(torch.full((3,), 2.0))
    optimizer = make([x, unused], lr=2**-3, clip=True)
    calls = []
    optimizer.register_step_pre_hook(lambda *_: calls.append("before"))
    optimizer.register_step_post_hook(lambda *_: calls.append("after"))
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5)

    def closure():
        optimizer.zero_grad()
        cost = x.square().sum()
        cost.backward()
        return cost

    assert optimizer.step(closure).item() == 3
    moved = 1 - x.detach().clone()
    schedule.step()
    assert calls == ["before", "after"]
    assert optimizer.param_groups[0]["lr"] == 2**-4
    assert bool((moved > 0).all())
    before = x.detach().clone()
    optimizer.step(closure)
    assert bool((before - x.detach() < moved).all())
    assert torch.equal(unused, torch.full((3,), 2.0))
    assert set(optimizer.state) == {x}


@pytest.mark.parametrize(
    ("options", "dtype"),
    [
        ({"weight_decay": 0.1}, torch.float32),
        ({"amsgrad": True}, torch.float32),
        ({"maximize": True}, torch.float32),
        ({"lr": torch.tensor(0.03)}, torch.float32),
        ({}, torch.float64),
    ],
    ids=str,
)
def test_what_is_special_goes_to_torch(options, dtype):
    results = []
    for optimizer_class in (ClippedAdam, torch.optim.Adam):
        x = nn.Parameter(torch.linspace(-1, 1, 50, dtype=dtype))
        optimizer = optimizer_class([x], lr=0.03)
        optimizer.param_groups[0] |= options
        if optimizer_class is ClippedAdam:
            optimizer.param_groups[0]["clip"] = True
        for step in range(9):
            x.grad = torch.sin(torch.arange(50, dtype=dtype) * (step + 1))
            optimizer.step()
            with torch.no_grad():
                x.clamp_(-1, 1)
        results.append(x.detach())
    assert torch.equal(*results)


@pytest.mark.parametrize("make", [ClippedAdam, optim.ShiftAdaMax])
def test_any_memory_layout(make):
    generator = torch.Generator().manual_seed(1)
    plain = torch.randn(64, 32, 3, 3, generator=generator)
    g = torch.randn(plain.shape, generator=generator)
    results = []
    for layout in (
        lambda t: t.clone(),
        lambda t: t.contiguous(memory_format=torch.channels_last),
        lambda t: t.permute(1, 0, 2, 3).contiguous().permute(1, 0, 2, 3),
    ):
        x = nn.Parameter(layout(plain))
        optimizer = make([x], 0.01)
        for _ in range(3):
            x.grad = layout(g)
            optimizer.step()
        results.append(x.detach())
    for other in results[1:]:
        torch.testing.assert_close(other, results[0], rtol=1e-6, atol=1e-6)


def test_a_gradient_scaler_unscales():
    model = network()
    twin = copy.deepcopy(model)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    scaled, plain = optim.adam(model, 1e-3), optim.adam(twin, 1e-3)
    images = torch.randint(0, 256, (9, 20), dtype=torch.uint8)
    scaler.scale(model(images).square().mean()).backward()
    twin(images).square().mean().backward()
    scaler.step(scaled)
    scaler.update()
    plain.step()
    for a, b in zip(weights(model), weights(twin), strict=True):
        torch.testing.assert_close(a, b)
    model[0].weight.grad.fill_(math.inf)
    before = weights(model)
    scaler._scale.fill_(1.0)
    scaler.step(scaled)
    assert all(map(torch.equal, weights(model), before))


OPTIMIZERS = {
    "sgd": lambda g: torch.optim.SGD(g, lr=0.1, momentum=0.9, nesterov=True),
    "adamw": lambda g: torch.optim.AdamW(g, lr=0.01),
    "rmsprop": lambda g: torch.optim.RMSprop(g, lr=0.01),
    "nadam": lambda g: torch.optim.NAdam(g, lr=0.01),
    "radam": lambda g: torch.optim.RAdam(g, lr=0.01),
    "adagrad": lambda g: torch.optim.Adagrad(g, lr=0.01),
    "rprop": lambda g: torch.optim.Rprop(g, lr=0.01),
    "lbfgs": lambda g: torch.optim.LBFGS([p for group in g for p in group["params"]], lr=0.1, max_iter=4),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_of_torch_trains_and_clips(name):
    torch.manual_seed(3)
    model = nn.Sequential(
        BinaryLinear(30, 48, first=True), BatchNorm1d(48, input_scale=1 / 255), Sign(), BinaryLinear(48, 2)
    )
    model.append(BatchNorm1d(2))
    images = torch.randint(0, 256, (200, 30), dtype=torch.uint8)
    labels = (images[:, :15].int().sum(1) > images[:, 15:].int().sum(1)).long()
    optimizer = OPTIMIZERS[name](optim.parameter_groups(model, 0.01))
    optim.clip_after_step(optimizer, model)

    def closure():
        optimizer.zero_grad()
        cost = nn.functional.cross_entropy(model(images), labels)
        cost.backward()
        return cost.detach()

    costs = [float(optimizer.step(closure)) for _ in range(40)]
    assert min(costs) < 0.75 * costs[0]
    assert all(bool((m.weight.abs() <= 1).all()) for m in model.modules() if isinstance(m, BinaryLayer))


@pytest.mark.parametrize("make", [optim.adam, optim.shift_adamax])
def test_a_compiled_step_is_the_step(make):
    """With a graph break, as of torch's own optimizers."""
    results = []
    for compiled in (False, True):
        model = network()
        optimizer = make(model, 0.01)
        step = torch.compile(optimizer.step, backend="eager") if compiled else optimizer.step
        for number in range(3):
            give_gradients(model, number)
            step()
        results.append(weights(model))
    assert all(map(torch.equal, *results))
