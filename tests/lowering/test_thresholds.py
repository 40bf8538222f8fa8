"""Thresholds against the float expression itself, for every integer that a sum can be."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from binarynet import ops
from binarynet.encoding import EXACT_FLOAT32_LIMIT
from binarynet.errors import NonFiniteError
from binarynet.layers import BatchNorm1d
from binarynet.lowering import fold_thresholds

SUBNORMAL, SMALLEST_NORMAL, LARGEST = 1e-45, 1.1754944e-38, 3.4028235e38
MAGNITUDES = [0.0, SUBNORMAL, 3e-42, SMALLEST_NORMAL, 1e-20, 0.1, 1 / 3, 1.0, 1.0000001, 255.0, 1e20, LARGEST]
ADVERSARIAL = np.array([sign * m for m in MAGNITUDES for sign in (1, -1)], np.float32)

floats = st.floats(width=32, allow_nan=False, allow_infinity=False)


def assert_exact(scale, shift, bound):
    """Every integer of [-bound, bound], every channel: the comparison says what torch says."""
    scale, shift = np.asarray(scale, np.float32), np.asarray(shift, np.float32)
    thresholds, falling = fold_thresholds(scale, shift, bound)
    assert (thresholds.dtype, falling.dtype) == (np.int32, np.bool_)
    assert thresholds.min() >= -bound
    assert thresholds.max() <= bound + 1
    sums = np.arange(-bound, bound + 1)[:, np.newaxis]
    bits = (sums >= thresholds) != falling
    normalized = torch.from_numpy(sums.astype(np.float32)) * torch.from_numpy(scale) + torch.from_numpy(shift)
    expected = (ops.sign(normalized) > 0).numpy()
    wrong = np.argwhere(bits != expected)
    assert not len(wrong), (
        f"sum {sums[wrong[0][0], 0]}, scale {scale[wrong[0][1]]!r}, shift {shift[wrong[0][1]]!r}: "
        f"threshold {thresholds[wrong[0][1]]}, falling {falling[wrong[0][1]]}"
    )
    return thresholds, falling


@pytest.mark.parametrize("bound", [1, 2, 9, 127, 1000])
def test_adversarial_scales_and_shifts(bound):
    pairs = np.array(list(itertools.product(ADVERSARIAL, ADVERSARIAL)), np.float32)
    assert_exact(pairs[:, 0], pairs[:, 1], bound)


@pytest.mark.parametrize("bound", [5, 64, 255])
def test_exact_ties_and_their_neighbours(bound):
    """shift = -target * scale, rounded, and the floats on both sides of it, for every target and some beyond."""
    scales = np.array([1, -1, 0.5, 3, 0.1, -0.1, 1 / 3, 1e-40, -1e-40, 1e30, 0.0123], np.float32)
    targets = np.arange(-bound - 2, bound + 3, dtype=np.float32)
    scale = np.repeat(scales, len(targets))
    shift = -(np.tile(targets, len(scales)) * scale)
    for neighbour in (shift, np.nextafter(shift, np.float32(np.inf)), np.nextafter(shift, np.float32(-np.inf))):
        thresholds, _ = assert_exact(scale, neighbour, bound)
    assert len(np.unique(thresholds[scale == 1])) == 2 * bound + 2  # every threshold occurs


@settings(max_examples=300)
@given(
    arrays.arrays(np.float32, (2, 20), elements=floats),
    st.sampled_from([1, 3, 64, 500]),
)
def test_any_floats(parameters, bound):
    assert_exact(parameters[0], parameters[1], bound)


@settings(max_examples=100)
@given(st.integers(0, 2**32), st.integers(-120, 110))
def test_thresholds_within_reach(seed, exponent):
    """Scales and shifts of all magnitudes whose border lies among the sums, where the rounding matters."""
    rng = np.random.default_rng(seed)
    scale = (rng.normal(0, 1, 30) * 2.0**exponent).astype(np.float32)
    shift = (-scale * rng.integers(-400, 401, 30) * (1 + rng.normal(0, 1e-7, 30))).astype(np.float32)
    assert_exact(scale, shift, 400)


@pytest.mark.parametrize(
    ("scale", "shift"), [(1e-3, 0.1), (-0.333333, 1234.5), (1 / 16777216, -0.99999994), (1.0, -16777216.0)]
)
@pytest.mark.slow
def test_every_sum_up_to_the_largest_bound(scale, shift):
    assert_exact([scale], [shift], EXACT_FLOAT32_LIMIT)


@pytest.mark.parametrize(
    ("scale", "shift", "threshold", "falling"),
    [
        (1, 0, 0, False),
        (1, -0.0, 0, False),
        (-1, 0, 1, True),  # -s >= 0 for s <= 0: not (s >= 1)
        (2, -5, 3, False),
        (-2, 5, 3, True),
        (0, 1, -10, False),  # constant +1
        (0, -1, 11, False),  # constant -1
        (-0.0, 0.0, -10, False),
        (0.0, -0.0, -10, False),  # -0.0 counts as +1
        (1e-45, 0, 0, False),
        (1, 1e9, -10, False),  # out of reach: always +1
        (1, -1e9, 11, False),
        (-1, 1e9, 11, True),
        (-1, -1e9, -10, True),
        (3e38, -3e38, 1, False),  # sums beyond 1 overflow to infinity, and still compare right
        (-3e38, 3e38, 2, True),
    ],
)
def test_thresholds_by_hand(scale, shift, threshold, falling):
    thresholds, directions = assert_exact([scale], [shift], 10)
    assert (int(thresholds[0]), bool(directions[0])) == (threshold, falling)


def test_a_normalization_layer_is_what_is_folded():
    """The layer's own forward, not the formula: mean, inverse deviation, gain, offset and the 1/255."""
    rng = np.random.default_rng(0)
    channels, bound = 200, 255 * 27
    norm = BatchNorm1d(channels, input_scale=1 / 255).eval()
    with torch.no_grad():
        norm.running_mean.copy_(torch.as_tensor(rng.normal(0, 3, channels)))
        norm.running_inv_std.copy_(torch.as_tensor(rng.uniform(0.05, 1, channels)))
        norm.weight.copy_(torch.as_tensor(rng.normal(0, 1, channels)))
        norm.bias.copy_(torch.as_tensor(rng.normal(0, 1, channels)))
        thresholds, falling = fold_thresholds(*(values.numpy() for values in norm.affine()), bound)
        sums = np.arange(-bound, bound + 1, dtype=np.float32)[:, np.newaxis]
        expected = ops.sign(norm(torch.from_numpy(np.repeat(sums, channels, axis=1)))) > 0
    assert np.array_equal((sums >= thresholds) != falling, expected.numpy())
    inside = (thresholds > -bound) & (thresholds <= bound)
    assert inside.sum() > 150
    assert 50 < falling.sum() < 150


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_non_finite_values_name_the_channel(value):
    good, bad = np.ones(5, np.float32), np.ones(5, np.float32)
    bad[3] = value
    with pytest.raises(NonFiniteError, match=rf"scale of channel 3 is {value}, expected a finite number"):
        fold_thresholds(bad, good, 9)
    with pytest.raises(NonFiniteError, match=rf"shift of channel 3 is {value}"):
        fold_thresholds(good, bad, 9)


def test_the_sweep_can_fail(monkeypatch):
    """A threshold that is one off in one channel is noticed."""
    monkeypatch.setitem(globals(), "fold_thresholds", lambda *a, real=fold_thresholds: _off(real(*a)))
    with pytest.raises(AssertionError, match=r"sum 3, scale .*2\.0.*threshold 4, falling False"):
        assert_exact([1, 2], [0, -6], 10)


def _off(pair):
    pair[0][1] += 1
    return pair
