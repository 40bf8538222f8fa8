"""Selection by validation error, and the record in the checkpoint."""

import math

import pytest

from binarynet.errors import FileFormatError
from binarynet.training.progress import EpochRow, Progress, from_csv, to_csv


def row(epoch, error):
    return EpochRow(epoch, 10 * epoch, 1e-3, 0.5, 0.25, error, 1.5)


def finished(*errors):
    progress = Progress()
    selected = [progress.finish_epoch(row(epoch, error)) for epoch, error in enumerate(errors, start=1)]
    return progress, selected


def test_a_tie_goes_to_the_later_epoch():
    progress, selected = finished(0.3, 0.1, 0.2, 0.1, 0.15)
    assert selected == [True, True, False, True, False]
    assert (progress.best_epoch, progress.best_error) == (4, 0.1)


def test_a_finished_epoch_leaves_nothing_of_itself():
    progress = Progress(step=7, cost_sum=3.5, epoch_seconds=9.0)
    progress.finish_epoch(row(1, 0.5))
    assert (progress.epoch, progress.step, progress.cost_sum, progress.epoch_seconds) == (1, 0, 0.0, 0.0)


def test_record_reads_back():
    progress, _ = finished(0.3, 0.1)
    progress.step, progress.cost_sum = 4, 0.1 + 0.2
    assert Progress.from_dict(progress.to_dict(), "x") == progress
    assert Progress.from_dict(Progress().to_dict(), "x").best_error == math.inf


@pytest.mark.parametrize(
    "damage",
    [
        lambda d: None,
        lambda d: [],
        lambda d: {**d, "epoch": "2"},
        lambda d: {**d, "extra": 1},
        lambda d: {k: v for k, v in d.items() if k != "step"},
        lambda d: {**d, "epoch": 7},
        lambda d: {**d, "step": -1},
        lambda d: {**d, "best_epoch": 3},
        lambda d: {**d, "best_epoch": 0},
        lambda d: {**d, "best_epoch": 1},
        lambda d: {**d, "best_epoch": 2.0},
        lambda d: {**d, "best_error": 0.2},
        lambda d: {**d, "best_error": math.nan},
        lambda d: {**d, "train_seconds": math.nan},
        lambda d: {**d, "step": 1.5},
        lambda d: {**d, "history": [d["history"][0], {**d["history"][1], "validation_error": math.nan}]},
        lambda d: {**d, "history": [d["history"][0], {**d["history"][1], "validation_error": -1}]},
        lambda d: {**d, "history": [d["history"][0], {**d["history"][1], "epoch": 3}]},
        lambda d: {**d, "history": 3},
        lambda d: {**d, "history": [{"epoch": 1}, {}]},
        lambda d: {**d, "history": [{**d["history"][0], "steps": [1]}, d["history"][1]]},
    ],
)
def test_a_damaged_record_is_refused(damage):
    with pytest.raises(FileFormatError, match=r"^some\.ckpt: its record of progress"):
        Progress.from_dict(damage(finished(0.3, 0.1)[0].to_dict()), "some.ckpt")


def test_table():
    assert to_csv(finished(0.5)[0].history) == (
        "epoch,steps,learning_rate,training_cost,validation_cost,validation_error,seconds\n"
        "1,10,0.001,0.5,0.25,0.5,1.5\n"
    )


def test_the_table_reads_back():
    progress, _ = finished(0.3, 1 / 3, 0.1, 0.2)
    again = from_csv(to_csv(progress.history), "x")
    assert again.history == progress.history
    assert (again.epoch, again.best_epoch, again.best_error) == (4, 3, 0.1)
    assert again.train_seconds == 4 * 1.5
    assert from_csv(to_csv([]), "x") == Progress()


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text.replace("epoch", "epochs"),
        lambda text: text.replace("\n2,", "\n3,"),
        lambda text: text.replace("0.3", "1.3"),
        lambda text: text.replace("0.3", "nan"),
        lambda text: text.replace("0.3", "much"),
        lambda text: text.replace(",0.3", ""),
        lambda text: text.replace("0.3", "0.3,1"),
    ],
)
def test_other_tables_are_refused(damage):
    text = to_csv(finished(0.3, 0.1)[0].history)
    assert damage(text) != text
    with pytest.raises(FileFormatError, match="x: not a table of epochs"):
        from_csv(damage(text), "x")
