"""Filter repetition against a count by hand and the expectation for random filters."""

from __future__ import annotations

import numpy as np
import pytest

from binarynet.analysis import filter_repetition, random_mlp
from binarynet.analysis.repetition import expected_distinct
from binarynet.encoding import pack_bits
from binarynet.graph import Convolution, Graph, Input, Window


def repetition(bits: np.ndarray):
    """Of bool ``[out, kernel_h, kernel_w, channels]``."""
    _, kernel_h, kernel_w, channels = bits.shape
    graph = Graph(
        (
            Input("x", (kernel_h, kernel_w, channels)),
            Convolution("conv", "x", Window((kernel_h, kernel_w)), pack_bits(bits)),
        ),
        "conv",
    )
    (found,) = filter_repetition(graph)
    return found


def count(bits: np.ndarray) -> tuple[float, float, float, float]:
    """The four shares, with sets of tuples."""
    out, _, _, channels = bits.shape

    def canonical(pattern: tuple[bool, ...]) -> tuple[bool, ...]:
        return min(pattern, tuple(not bit for bit in pattern))

    maps = [[tuple(map(bool, bits[o, :, :, c].reshape(-1))) for o in range(out)] for c in range(channels)]
    total = out * channels
    return (
        sum(len(set(patterns)) for patterns in maps) / total,
        sum(len(set(map(canonical, patterns))) for patterns in maps) / total,
        len({pattern for patterns in maps for pattern in patterns}) / total,
        len({canonical(pattern) for patterns in maps for pattern in patterns}) / total,
    )


@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (40, 3, 3, 65), (17, 2, 1, 3), (30, 5, 3, 7), (90, 1, 1, 5)])
def test_shares_equal_a_count_with_sets(shape):
    bits = np.random.default_rng(sum(shape)).random(shape) < 0.5
    found = repetition(bits)
    assert (found.per_map, found.per_map_negated, found.whole, found.whole_negated) == pytest.approx(count(bits))
    assert (found.filters, found.maps, found.kernel) == (shape[0], shape[3], shape[1:3])


def test_copies_and_negations():
    pattern = np.random.default_rng(0).random((1, 3, 3, 1)) < 0.5
    bits = np.concatenate([pattern, pattern, ~pattern, ~pattern])
    found = repetition(bits)
    assert (found.per_map, found.per_map_negated) == (0.5, 0.25)


@pytest.mark.parametrize(("draws", "plain", "negated"), [(128, 0.886, 0.788), (256, 0.788, 0.633), (512, 0.632, 0.433)])
def test_expectation_for_random_filters(draws, plain, negated):
    assert expected_distinct(draws, 9) / draws == pytest.approx(plain, abs=5e-4)
    assert expected_distinct(draws, 8) / draws == pytest.approx(negated, abs=5e-4)


def test_expectation_at_its_ends():
    assert expected_distinct(1, 9) == pytest.approx(1.0)
    assert expected_distinct(1000, 0) == 1.0
    assert expected_distinct(50, 400) == pytest.approx(50)


def test_random_filters_meet_the_expectation():
    found = repetition(np.random.default_rng(0).random((128, 3, 3, 64)) < 0.5)
    assert found.per_map == pytest.approx(found.random_per_map, abs=0.01)
    assert found.per_map_negated == pytest.approx(found.random_per_map_negated, abs=0.01)


def test_dense_layers_have_no_filters():
    assert filter_repetition(random_mlp(20, [30], 3)) == ()
