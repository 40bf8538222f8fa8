"""The words that methods and devices share."""

import pytest

from binarynet.cuda.blocks import Launch


@pytest.mark.parametrize(
    ("shared_by", "blocks", "multiprocessors", "fitted"),
    [(0, 500, 132, 500), (1, 500, 132, 132), (1, 7, 132, 7), (5, 500, 132, 130), (5, 500, 3, 5)],
)
def test_blocks_that_share_the_work_are_as_many_as_run_at_a_time(shared_by, blocks, multiprocessors, fitted):
    launch = Launch("a.cu", "a", (), (blocks, 2, 1), 128, shared_by=shared_by)
    assert launch.fitted(multiprocessors).grid == (fitted, 2, 1)
    assert launch.grid == (blocks, 2, 1)
