"""Numbers for readers."""

from __future__ import annotations

import pytest

from binarynet.analysis.units import in_bytes, in_count, in_energy, in_ratio, in_time


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        (in_bytes(12), "12 B"),
        (in_bytes(1_752_752), "1.75 MB"),
        (in_bytes(2e9), "2 GB"),
        (in_count(9_999), "9,999"),
        (in_count(616_966_144), "617 million"),
        (in_count(10_000), "10 thousand"),
        (in_energy(3.0, 3.0), "3.00 pJ"),
        (in_energy(1.3e9, 2.6e9), "1.30-2.60 mJ"),
        (in_energy(2.84e6, 2.84e6), "2.84 uJ"),
        (in_ratio(64, 2), "32.0x"),
        (in_ratio(500, 2), "250x"),
        (in_ratio(1, 0), ""),
        (in_time(5.44), "5.4 s"),
        (in_time(701.6), "11 min 42 s"),
        (in_time(59.97), "1 min 0 s"),
        (in_time(3599.6), "1 h 0 min"),
        (in_time(23 * 3600 + 300), "23 h 5 min"),
    ],
)
def test_in_the_unit_that_fits(made, expected):
    assert made == expected
