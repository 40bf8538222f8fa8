"""``binarynet._native.training``: what it refuses. What it computes is tested in native/tests and tests/ops."""

import numpy as np
import pytest

from binarynet._native import NativeError, training

ONES = np.ones((3, 70), np.float32)
ROWS = np.zeros((3, 2), np.uint64)
COLUMNS = np.zeros((1, 5, 4, 16), np.int32)


def read_only(array):
    array = array.copy()
    array.flags.writeable = False
    return array


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (
            lambda: training.pack_signs(ONES.astype(np.float64), False, True, ROWS, COLUMNS, 1),
            "values: expected .* float32",
        ),
        (lambda: training.pack_signs(ONES.T, False, True, ROWS, COLUMNS, 1), "values: .* that is not C-contiguous"),
        (
            lambda: training.pack_signs(ONES, False, True, ROWS[:, :1], COLUMNS, 1),
            r"by_row: expected .* uint64 \[3, 2\]",
        ),
        (
            lambda: training.pack_signs(ONES, False, True, read_only(ROWS), None, 1),
            r"by_row: .* uint64 \[.*\] that is read-only",
        ),
        (lambda: training.pack_signs(ONES, False, True, None, COLUMNS[:, :4], 1), r"by_column: .* \[1, 5, 4, 16\]"),
        (lambda: training.multiply_bits(ROWS, None, ROWS, 200, ONES, 1), r"a: expected .* uint64 \[n, 4\]"),
        (lambda: training.multiply_bits(ROWS, ROWS[:2], ROWS, 70, ONES, 1), r"a_strict: expected .* \[3, 2\]"),
        (lambda: training.multiply_bits(ROWS, None, ROWS, 70, ONES, 1), r"out: expected .* float32 \[3, 3\]"),
        (lambda: training.multiply_bytes(ONES, None, ROWS, ONES, 1), "a: expected .* uint8"),
        (lambda: training.to_bytes(ONES, np.zeros((3, 69), np.uint8), None, 1), r"bytes: expected .* \[3, 70\]"),
        (lambda: training.multiply_signs(ONES, False, COLUMNS, ONES[:2], 1), r"out: expected .* \[3, n\]"),
        (lambda: training.multiply_signs(ONES, True, COLUMNS[:, :3], ONES, 1), r"out: expected .* \[70, n\]"),
        (lambda: training.multiply_signs(ONES, False, COLUMNS[:, :3], ONES, 1), r"signs: expected .* \[1, 5, 4, 16\]"),
        (lambda: training.multiply_real(ONES, ONES[:2], ONES, 1), r"right: expected .* \[3, n\]"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(call, text):
    with pytest.raises(NativeError, match=text) as caught:
        call()
    assert caught.value.status == "INVALID_ARGUMENT"


def test_nothing_is_written_that_is_not_asked_for():
    assert training.pack_signs(ONES, False, True, None, None, 1) == 0
    assert training.pack_signs(np.zeros((0, 70), np.float32), False, True, ROWS[:0], COLUMNS[:0], 2) == 0


def test_the_instruction_set_follows_the_variable(monkeypatch):
    monkeypatch.setenv("BINARYNET_FORCE_ISA", "portable")
    assert training.instruction_set() == "portable"
    monkeypatch.setenv("BINARYNET_FORCE_ISA", "mmx")
    with pytest.raises(NativeError, match="'mmx' is unknown") as caught:
        training.instruction_set()
    assert caught.value.status == "UNAVAILABLE"
