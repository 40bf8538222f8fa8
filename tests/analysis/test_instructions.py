"""Words of XNOR and popcount against counts by hand."""

from __future__ import annotations

import pytest

from binarynet.analysis import random_convnet, random_mlp
from binarynet.analysis.instructions import instructions, total


def test_a_dense_layer():
    hidden, scores = instructions(random_mlp(20, [70, 100], classes=10))
    assert (hidden.layer, hidden.macs) == ("dense2", 7000)
    assert hidden.words32 == 100 * 3  # 70 lanes
    assert (hidden.instructions, hidden.cycles) == (900, 1800)
    assert (hidden.words64, hidden.vectors512) == (100 * 2, 13 * 2)
    assert (scores.words32, scores.words64, scores.vectors512) == (10 * 4, 10 * 2, 2 * 2)


def test_a_convolution_pads_the_channels_of_each_tap_in_this_packages_words():
    (conv,) = [count for count in instructions(random_convnet((4, 4, 3), [[40, 24]], [16])) if count.layer == "conv2"]
    assert conv.macs == 16 * 24 * 9 * 40
    assert conv.words32 == 16 * 24 * 12  # 360 lanes
    assert conv.words64 == 16 * 24 * 9  # one word per tap
    assert conv.vectors512 == 16 * 3 * 9


def test_the_papers_network_is_5_3_times_as_fast_on_bits():
    everything = total(instructions(random_convnet()))
    first = 32 * 32 * 128 * 27
    assert everything.macs == 616_966_144 - first
    assert everything.speedup == pytest.approx(32 / 6)
    assert everything.words64 * 64 == everything.words32 * 32 == everything.macs


def test_the_first_layer_takes_none():
    assert instructions(random_mlp(20, [], classes=3)) == ()
