"""Normalizations: training formulas, the two-rounding evaluation, and what they refuse."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from binarynet.errors import NonFiniteError, ShapeError, UsageError
from binarynet.layers import BatchNorm1d, BatchNorm2d

SHAPES = {BatchNorm1d: (12, 5), BatchNorm2d: (4, 5, 3, 2)}


def channels_last(array):
    return np.moveaxis(array, 1, -1).reshape(-1, array.shape[1])


def filled(kind, seed, **options):
    """A normalization with random gains, offsets and running values."""
    generator = torch.Generator().manual_seed(seed)
    norm = kind(5, **options)
    with torch.no_grad():
        for tensor in (norm.weight, norm.bias, norm.running_mean, norm.running_inv_std):
            tensor.copy_(torch.randn(5, generator=generator))
    return norm


@pytest.mark.parametrize("input_scale", [1.0, 1 / 255])
@pytest.mark.parametrize("kind", SHAPES)
def test_training_mode_follows_the_formulas(kind, input_scale):
    norm = filled(kind, 1, input_scale=input_scale)
    before_mean, before_inv_std = norm.running_mean.numpy().copy(), norm.running_inv_std.numpy().copy()
    x = (torch.randn(SHAPES[kind], generator=torch.Generator().manual_seed(2)) * 7 + 3) / input_scale
    y = norm(x)
    z = channels_last(x.double().numpy()) * input_scale
    mean, inv_std = z.mean(0), 1 / np.sqrt(z.var(0) + 1e-4)  # NumPy's var is the biased one
    expected = norm.weight.detach().numpy() * (z - mean) * inv_std + norm.bias.detach().numpy()
    np.testing.assert_allclose(channels_last(y.detach().numpy()), expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(norm.running_mean, 0.9 * before_mean + 0.1 * mean, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(norm.running_inv_std, 0.9 * before_inv_std + 0.1 * inv_std, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", SHAPES)
def test_gradients_are_those_of_the_formula(kind):
    norm = filled(kind, 3, input_scale=0.5).double()
    x = torch.randn(SHAPES[kind], generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    upstream = torch.randn(x.shape, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    x.requires_grad_()
    norm(x).backward(upstream)
    got = [x.grad, norm.weight.grad, norm.bias.grad]

    reference = x.detach().clone().requires_grad_()
    gain, offset = (p.detach().clone().requires_grad_() for p in (norm.weight, norm.bias))
    axes = (0, 2, 3)[: x.ndim - 1]
    view = (1, -1) + (1,) * (x.ndim - 2)
    z = reference * 0.5
    centred = z - z.mean(axes).view(view)
    variance = centred.square().mean(axes)
    y = gain.view(view) * centred / (variance + 1e-4).sqrt().view(view) + offset.view(view)
    y.backward(upstream)
    for ours, theirs in zip(got, [reference.grad, gain.grad, offset.grad], strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("kind", SHAPES)
def test_constant_channel_gives_the_offset(kind):
    norm = filled(kind, 6)
    y = norm(torch.full(SHAPES[kind], 4.0))
    expected = np.tile(norm.bias.detach(), (y.numel() // 5, 1))
    np.testing.assert_allclose(channels_last(y.detach().numpy()), expected, atol=2e-4)  # 1/std is 100 here


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), bound=st.integers(1, 2**20), input_scale=st.sampled_from([1.0, 1 / 255]))
def test_evaluation_rounds_exactly_twice(seed, bound, input_scale):
    norm = filled(BatchNorm1d, seed, input_scale=input_scale).eval()
    sums = torch.randint(-bound, bound + 1, (64, 5), generator=torch.Generator().manual_seed(seed)).float()
    gain = norm.weight.detach().double().numpy() * norm.running_inv_std.double().numpy()
    scale = (gain * input_scale).astype(np.float32)
    shift = (norm.bias.detach().double().numpy() - norm.running_mean.double().numpy() * gain).astype(np.float32)
    expected = np.add(np.multiply(sums.numpy(), scale), shift)  # float32 throughout, one rounding each
    assert np.array_equal(norm(sums).detach().numpy(), expected)
    got_scale, got_shift = norm.affine()
    assert got_scale.dtype == got_shift.dtype == torch.float32
    assert np.array_equal(got_scale, scale)
    assert np.array_equal(got_shift, shift)


def test_evaluation_of_images_is_the_same_map_per_channel():
    norm = filled(BatchNorm2d, 8).eval()
    scale, shift = norm.affine()
    x = torch.randint(-99, 100, (2, 5, 3, 4)).float()
    assert torch.equal(norm(x), x * scale.view(1, 5, 1, 1) + shift.view(1, 5, 1, 1))


def test_evaluation_leaves_the_running_values_alone():
    norm = filled(BatchNorm1d, 9).eval()
    before = norm.running_mean.clone(), norm.running_inv_std.clone()
    norm(torch.randn(8, 5))
    assert torch.equal(norm.running_mean, before[0])
    assert torch.equal(norm.running_inv_std, before[1])


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("name", ["weight", "bias", "running_mean", "running_inv_std"])
def test_non_finite_values_are_refused_by_channel(name, bad):
    norm = BatchNorm1d(5).eval()
    with torch.no_grad():
        getattr(norm, name)[3] = bad
    with pytest.raises(NonFiniteError, match="channel 3 has"):
        norm.affine()
    with pytest.raises(NonFiniteError, match="channel 3 has"):
        norm(torch.ones(2, 5))


def test_a_scale_that_overflows_float32_is_refused():
    norm = BatchNorm1d(5)
    with torch.no_grad():
        norm.weight.fill_(1e30)
        norm.running_inv_std.fill_(1e30)
    with pytest.raises(NonFiniteError, match="channel 0 has scale inf"):
        norm.affine()


def test_results_are_float32_under_autocast():
    norm = BatchNorm1d(5)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert norm(torch.randn(4, 5).bfloat16()).dtype == torch.float32
        assert norm.eval()(torch.randn(4, 5)).dtype == torch.float32


def test_what_is_refused():
    with pytest.raises(ShapeError, match=r"expected \[batch, 5\], got \[2, 5, 3, 3\]"):
        BatchNorm1d(5)(torch.ones(2, 5, 3, 3))
    with pytest.raises(ShapeError, match=r"expected \[batch, 5, height, width\], got \[2, 4, 3, 3\]"):
        BatchNorm2d(5)(torch.ones(2, 4, 3, 3))
    with pytest.raises(UsageError, match="at least 2 values per channel"):
        BatchNorm1d(5)(torch.ones(1, 5))
    for bad in ({"eps": 0.0}, {"momentum": 0.0}, {"momentum": 1.5}, {"input_scale": 0.0}):
        with pytest.raises(UsageError, match="expected eps > 0"):
            BatchNorm1d(5, **bad)
