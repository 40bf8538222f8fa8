"""Bank conflicts of the tiles of popcount.cu and bytes_dp4a.cu: what the comments at PITCH say."""

from __future__ import annotations

import re

import numpy as np
import pytest
import shared_layouts as sl

from binarynet.cuda.compiler import SOURCES

LANES = np.arange(32)


def pitch(source):
    """32-bit words of a staged row, as the source has it."""
    text = (SOURCES / source).read_text()
    stage = re.search(r"constexpr int STAGE = (\d+);", text)
    found = re.search(r"constexpr int PITCH =\s*(\d+|STAGE \+ (\d+));", text)
    return int(stage[1]) + int(found[2]) if found[2] else int(found[1])


@pytest.mark.parametrize("source", ["popcount.cu", "bytes_dp4a.cu"])
def test_rows_of_weights_differ_in_banks(source):
    """A warp multiplies two rows of inputs by sixteen channels: 16 bytes of every channel at a time, a quarter of the
    warp in each wavefront."""
    row_bytes = 4 * pitch(source)
    assert row_bytes % 16 == 0
    assert row_bytes // 16 % 2 == 1
    assert sl.banks(LANES % 16 * row_bytes, 16) == 4
    assert sl.banks(LANES // 16 * row_bytes, 16) == 4
    assert sl.banks(LANES % 16 * (row_bytes - 16), 16) > 4  # without the padding


def test_staged_words_of_popcount_are_stored_without_conflicts():
    """Sixteen lanes store the sixteen 64-bit words of a row."""
    assert sl.banks(LANES // 16 * 4 * pitch("popcount.cu") + LANES % 16 * 8, 8) == 2
