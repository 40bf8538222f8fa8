"""mbarriers: a plain model of the document's rules, walked at random beside the simulator's words."""

from __future__ import annotations

import numpy as np
import pytest
import tensor_ops
from tensor_ops import Mbarrier, TensorError

LIMIT = (1 << 20) - 1


class Model:
    """PTX ISA, "Contents of the mbarrier object" and "Phase completion"."""

    def __init__(self, count):
        self.phase, self.expected, self.pending, self.tx = 0, count, count, 0

    def finish(self):
        if self.pending == 0 and self.tx == 0:
            self.phase += 1
            self.pending = self.expected

    def apply(self, operation, value):
        """False where the document says that the behaviour is undefined."""
        if operation in ("expect_tx", "complete_tx"):
            tx = self.tx + (value if operation == "expect_tx" else -value)
            if abs(tx) > LIMIT:
                return False
            self.tx = tx
            if operation == "complete_tx":
                self.finish()
            return True
        if not 1 <= value <= self.pending or (operation == "arrive_no_complete" and value == self.pending):
            return False
        self.pending -= value
        if operation == "arrive_drop":
            self.expected -= value
        self.finish()
        return True


@pytest.mark.parametrize("seed", range(20))
def test_random_walks(seed):
    rng = np.random.default_rng(seed)
    count = int(rng.choice([1, 2, 5, 128, LIMIT]))
    barrier, model, tokens = Mbarrier(count), Model(count), []
    for _ in range(400):
        operation = str(rng.choice(Mbarrier.OPERATIONS[1:], p=[0.2, 0.2, 0.4, 0.15, 0.05]))
        if operation == "complete_tx":
            value = int(rng.choice([max(model.tx, 1), 16, 4096]))
        elif operation == "expect_tx":
            value = int(rng.choice([16, 4096, 1 << 19]))
        else:
            value = int(rng.choice([1, 2, max(model.pending, 1)]))
        before = model.phase, model.pending
        word = barrier.word.copy()
        if model.apply(operation, value):
            token = barrier.apply(operation, value)
            if operation.startswith("arrive"):
                tokens.append((token, *before))
        else:
            with pytest.raises(TensorError):
                barrier.apply(operation, value)
            assert barrier.word == word
        for parity in (0, 1):
            assert barrier.done_parity(parity) == (model.phase % 2 != parity)
        for token, phase, pending in tokens[-3:]:
            assert tensor_ops.pending(token) == pending
            if model.phase - phase <= 1:
                assert barrier.done(token) == (model.phase != phase)


def test_a_pipeline_stage():
    """One arrival with its bytes; the phase completes with the last of both, whichever comes last."""
    for last in ("arrival", "bytes"):
        barrier = Mbarrier(1)
        assert barrier.done_parity(1)
        if last == "bytes":
            barrier.apply("expect_tx", 4096)
            token = barrier.apply("arrive")
            barrier.apply("complete_tx", 1024)
            assert not barrier.done_parity(0)
            assert not barrier.done(token)
            barrier.apply("complete_tx", 3072)
        else:
            barrier.apply("complete_tx", 4096)
            barrier.apply("expect_tx", 4096)
            assert not barrier.done_parity(0)
            token = barrier.apply("arrive")
        assert barrier.done_parity(0)
        assert not barrier.done_parity(1)
        assert barrier.done(token)


def test_what_is_undefined_is_refused():
    for count in (0, LIMIT + 1):
        with pytest.raises(TensorError, match="count"):
            Mbarrier(count)
    barrier = Mbarrier(2)
    with pytest.raises(TensorError, match="more arrivals"):
        barrier.apply("arrive", 3)
    with pytest.raises(TensorError, match="completes the phase"):
        barrier.apply("arrive_no_complete", 2)
    with pytest.raises(TensorError, match="range"):
        barrier.apply("expect_tx", LIMIT + 1)
    with pytest.raises(TensorError, match="parity"):
        barrier.done_parity(2)
    old = barrier.apply("arrive", 2)
    barrier.apply("arrive", 2)
    with pytest.raises(TensorError, match="neither the current one"):
        barrier.done(old)
    barrier.word[:] = 0
    with pytest.raises(TensorError, match="initialized"):
        barrier.apply("arrive")
