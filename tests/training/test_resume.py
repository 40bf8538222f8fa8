"""Resume after kill -9: the final weights are those of an uninterrupted run, to the bit."""

import csv
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from binarynet import data, ops, training
from binarynet.layers import ShiftBatchNorm1d
from binarynet.lowering import lower, torch_source
from binarynet.runtime import verify
from binarynet.training import recipe

SCRIPT = Path(__file__).parent / "killed_run.py"


def checkpoints(run):
    return {name: torch.load(run / "checkpoints" / f"{name}.ckpt", weights_only=True) for name in ("last", "best")}


def tensors(content, prefix=""):
    if isinstance(content, torch.Tensor):
        return {prefix: content}
    items = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    return {name: t for key, value in items for name, t in tensors(value, f"{prefix}.{key}").items()}


def assert_same_runs(one, other):
    ours, theirs = checkpoints(one), checkpoints(other)
    a, b = tensors(ours), tensors(theirs)
    assert a.keys() == b.keys()
    assert any(".optimizer." in name for name in a)
    for name in a:
        assert torch.equal(a[name], b[name]), name
    assert ours["best"]["epoch"] == theirs["best"]["epoch"]
    tables = [list(csv.DictReader((run / "metrics.csv").read_text().splitlines())) for run in (one, other)]
    for row in (*tables[0], *tables[1]):
        assert float(row.pop("seconds")) > 0
    assert tables[0] == tables[1]


@pytest.fixture(scope="module")
def uninterrupted(quick_recipe, tmp_path_factory):
    """A folder with a recipe and ``whole``, the run to compare with."""
    folder = tmp_path_factory.mktemp("resume")
    chosen = recipe.load(quick_recipe, ["training.checkpoint_every_steps=6"])
    (folder / "recipe.toml").write_text(chosen.to_toml())
    training.train(chosen, out=folder / "whole", show="off")
    return folder


def kill(run, resume, *where):
    arguments = [sys.executable, str(SCRIPT), str(run), "resume" if resume else "start", *map(str, where)]
    result = subprocess.run(arguments, capture_output=True, text=True, timeout=240)
    assert result.returncode == -signal.SIGKILL, result.stderr
    assert result.stderr == ""


@pytest.mark.timeout(600)
def test_a_run_killed_again_and_again_ends_with_the_same_weights(uninterrupted):
    run = uninterrupted / "killed"
    kill(run, False, "step", 0, 3)  # before the first checkpoint
    assert not (run / "checkpoints" / "last.ckpt").exists()
    kill(run, True, "step", 1, 10)  # mid-epoch; the last checkpoint is of step 6
    content = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    assert (content["progress"]["epoch"], content["progress"]["step"]) == (1, 6)
    kill(run, True, "save", 2, 0)  # at the end of epoch 1 (from 0), while its checkpoint is being written
    assert len(list((run / "checkpoints").glob(".*.tmp"))) == 1
    result = training.train(out=run, resume=True, show="off")
    assert list((run / "checkpoints").glob(".*.tmp")) == []
    assert len(result.history) == 3
    assert_same_runs(uninterrupted / "whole", run)


def test_ctrl_c_leaves_a_usable_run_that_ends_with_the_same_weights(uninterrupted, monkeypatch):
    from binarynet.training.module import Classifier

    run = uninterrupted / "interrupted"
    handler = signal.getsignal(signal.SIGINT)
    training_step = Classifier.training_step

    def interrupted_step(self, batch, batch_idx):
        if (self.current_epoch, batch.step) == (1, 8):
            signal.raise_signal(signal.SIGINT)
        return training_step(self, batch, batch_idx)

    monkeypatch.setattr(Classifier, "training_step", interrupted_step)
    with pytest.raises(training.TrainingInterrupted, match=r"complete up to epoch 1, step 6 of the next\. Resume it"):
        training.train(uninterrupted / "recipe.toml", out=run, show="off")
    assert signal.getsignal(signal.SIGINT) is handler
    model, _, provenance = training.load_run(run)
    assert not model.training
    assert (provenance["status"], provenance["reason"], provenance["best_epoch"]) == ("interrupted", "Ctrl-C", 1)

    monkeypatch.setattr(Classifier, "training_step", training_step)
    training.train(uninterrupted / "recipe.toml", out=run, resume=True, show="off")
    assert training.load_run(run).provenance["resumed"] == 1
    assert_same_runs(uninterrupted / "whole", run)


@pytest.mark.timeout(600)
def test_the_torch7_setting_resumes_to_the_same_bits_and_packs(torch7_recipe, tmp_path):
    chosen = recipe.load(torch7_recipe, ["training.checkpoint_every_steps=6"])
    (tmp_path / "recipe.toml").write_text(chosen.to_toml())
    whole = training.train(chosen, out=tmp_path / "whole", show="off")
    assert [row.learning_rate for row in whole.history] == [2**-6, 2**-6, 2**-7]
    run = tmp_path / "killed"
    kill(run, False, "step", 1, 10)
    training.train(out=run, resume=True, show="off")
    assert_same_runs(tmp_path / "whole", run)
    state = checkpoints(run)["last"]["optimizer"]
    assert all(moments.keys() == {"step", "exp_avg", "exp_inf"} for moments in state["state"].values())
    model = training.load_run(run).model
    scales = [m.affine()[0] for m in model.modules() if isinstance(m, ShiftBatchNorm1d)]
    assert len(scales) == 1
    assert torch.equal(scales[0], ops.ap2(scales[0]))
    lowered = lower(model, (8, 8, 1))
    images = data.load("digits").test.images
    assert verify(lowered.graph, images, extra={"torch": torch_source(lowered)}).exact


def test_a_second_ctrl_c_acts_at_once():
    from binarynet.training.interrupt import Interrupt, Stopped

    with Interrupt() as interrupt:
        interrupt.check()
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(Stopped):
            interrupt.check()
        with pytest.raises(Stopped):
            signal.raise_signal(signal.SIGINT)
