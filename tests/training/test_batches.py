"""Batches and the randomness behind them."""

import numpy as np
import pytest
import torch

from binarynet.data import Split
from binarynet.errors import UsageError
from binarynet.training.batches import EvaluationBatches, TrainingBatches
from binarynet.training.randomness import Purpose, derive, permutation


def split(count):
    """Image i has the pixels i and 200 - i in two channels, and the label i."""
    numbers = np.arange(count, dtype=np.uint8)
    images = np.stack([numbers, 200 - numbers], axis=-1).reshape(count, 1, 1, 2)
    return Split(np.ascontiguousarray(np.broadcast_to(images, (count, 3, 4, 2))), np.arange(count))


def visited(batches):
    return [batch.labels.tolist() for batch in batches]


def test_an_epoch_visits_every_sample_once_in_batches():
    batches = TrainingBatches(split(23), 5, seed=1, drop_last=False)
    seen = list(batches)
    assert [len(batch.labels) for batch in seen] == [5, 5, 5, 5, 3]
    assert [batch.step for batch in seen] == [0, 1, 2, 3, 4]
    assert sorted(label for batch in seen for label in batch.labels.tolist()) == list(range(23))
    for batch in seen:
        assert batch.images.dtype == torch.uint8
        assert batch.images.shape[1:] == (2, 3, 4)
        assert torch.equal(batch.images[:, 0, 2, 3].long(), batch.labels)
        assert torch.equal(batch.images[:, 1, 0, 0].long(), 200 - batch.labels)


def test_the_incomplete_batch_is_another_one_each_epoch():
    batches = TrainingBatches(split(23), 5, seed=1)
    left_out = []
    for epoch in range(6):
        batches.epoch = epoch
        seen = {label for labels in visited(batches) for label in labels}
        assert len(seen) == 20 == 5 * batches.num_steps
        left_out.append(frozenset(range(23)) - seen)
    assert len(set(left_out)) > 1


def test_order_depends_on_seed_and_epoch_alone():
    def order(seed, epoch):
        batches = TrainingBatches(split(40), 10, seed=seed)
        batches.epoch = epoch
        torch.manual_seed(np.random.SeedSequence().entropy % 2**32)  # no generator of torch has a say
        return visited(batches)

    assert order(1, 3) == order(1, 3)
    assert order(1, 3) != order(1, 4)
    assert order(1, 3) != order(2, 3)


def test_a_resumed_epoch_goes_on_where_it_stopped_and_the_next_starts_at_its_start():
    whole = TrainingBatches(split(40), 10, seed=1)
    resumed = TrainingBatches(split(40), 10, seed=1, first_epoch=2, first_step=3)
    for epoch, first in ((2, 3), (3, 0)):
        whole.epoch = resumed.epoch = epoch
        assert visited(resumed) == visited(whole)[first:]
        assert [batch.step for batch in resumed] == list(range(first, 4))


def test_processes_share_the_batches_of_one():
    one = TrainingBatches(split(40), 10, seed=1)
    shares = [TrainingBatches(split(40), 5, seed=1, rank=rank, world_size=2) for rank in (0, 1)]
    assert [a + b for a, b in zip(*map(visited, shares), strict=True)] == visited(one)


def test_evaluation_takes_all_samples_in_order():
    batches = EvaluationBatches(split(23), 10)
    assert len(batches) == 3
    assert [labels.tolist() for _, labels in batches] == [
        list(range(10)),
        list(range(10, 20)),
        list(range(20, 23)),
    ]


def test_processes_share_an_evaluation_and_leave_no_sample_out():
    for world_size in (2, 3, 7):
        shares = [EvaluationBatches(split(23), 4, rank=rank, world_size=world_size) for rank in range(world_size)]
        labels = [[label for _, labels in share for label in labels.tolist()] for share in shares]
        assert [label for own in labels for label in own] == list(range(23))
        assert all(len(share) == -(-len(own) // 4) > 0 for share, own in zip(shares, labels, strict=True))
    with pytest.raises(UsageError, match="2 images cannot be shared among 3 processes"):
        EvaluationBatches(split(2), 4, world_size=3)


def test_what_is_refused():
    with pytest.raises(UsageError, match="4 training images do not fill one batch of 5"):
        TrainingBatches(split(4), 5, seed=1)
    with pytest.raises(UsageError, match="leave a last batch of 1"):
        TrainingBatches(split(11), 5, seed=1, drop_last=False)
    with pytest.raises(UsageError, match="works on one process only"):
        TrainingBatches(split(11), 5, seed=1, drop_last=False, world_size=2)


def test_derived_seeds_differ_by_purpose_and_place():
    places = [(purpose, epoch, step) for purpose in Purpose for epoch in range(4) for step in range(4)]
    seeds = [derive(9, *place) for place in places]
    assert len(set(seeds)) == len(seeds)
    assert derive(9, Purpose.STEP, 1, 2) == derive(9, Purpose.STEP, 1, 2) != derive(10, Purpose.STEP, 1, 2)
    torch.manual_seed(max(seeds))  # torch takes them


def test_streams_never_change():
    # Stored checkpoints rely on these: a resumed run must draw what the first part would have drawn.
    assert derive(1234, Purpose.STEP, 2, 3, 0) == 5159448900458214896
    assert permutation(1234, 2, 8).tolist() == [0, 4, 2, 6, 7, 1, 3, 5]
