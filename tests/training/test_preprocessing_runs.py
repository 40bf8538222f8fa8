"""Runs whose images are preprocessed (and augmented): fitted once, stored, resumed alike, refused by pack."""

import pytest
import torch

from binarynet import data, lowering, training
from binarynet.errors import UnsupportedLayerError
from binarynet.layers import ContrastNormalization, Whitening
from binarynet.training import recipe
from binarynet.training.batches import to_tensors
from binarynet.training.interrupt import Stopped
from binarynet.training.module import Classifier

AUGMENTED = ("augmentation.crop_padding=1", "augmentation.crop_fill=0", "training.checkpoint_every_steps=6")


def tensors(content):
    """All tensors in nested dicts and lists, in order."""
    if isinstance(content, torch.Tensor):
        return [content]
    parts = content.values() if isinstance(content, dict) else content if isinstance(content, list) else ()
    return [tensor for part in parts for tensor in tensors(part)]


@pytest.fixture(scope="module", params=["zca", "gcn_lcn"])
def whole(request, torch7_recipe, tmp_path_factory):
    """An uninterrupted run of three epochs of 20 steps."""
    chosen = recipe.load(torch7_recipe, [f"model.preprocessing={request.param}", *AUGMENTED])
    return training.train(chosen, out=tmp_path_factory.mktemp(request.param) / "run", show="off")


def test_it_learns_and_evaluates_to_the_recorded_error(whole):
    assert whole.test_error < 0.6  # chance: 0.9
    assert training.evaluate_run(whole.directory).error == whole.test_error


def test_whitening_is_fitted_to_the_training_images_as_they_are(whole):
    first, *_ = training.load_run(whole.directory).model
    if isinstance(first, ContrastNormalization):
        return
    fresh = Whitening((1, 8, 8))
    fresh.fit(to_tensors(data.load("digits").train)[0])
    torch.testing.assert_close(first.matrix, fresh.matrix, rtol=0, atol=1e-6)
    torch.testing.assert_close(first.mean, fresh.mean)


@pytest.mark.parametrize("where", [(0, 3), (1, 10)])
def test_a_stopped_run_ends_with_the_same_weights(whole, tmp_path, monkeypatch, where):
    """Stopped before the first checkpoint (all is computed again), and in the midst of an epoch."""
    training_step = Classifier.training_step

    def stop(self, batch, batch_idx):
        if (self.current_epoch, batch.step) == where:
            raise Stopped
        return training_step(self, batch, batch_idx)

    chosen = recipe.load(whole.directory / "recipe.toml")
    with monkeypatch.context() as patch:
        patch.setattr(Classifier, "training_step", stop)
        with pytest.raises(training.TrainingInterrupted):
            training.train(chosen, out=tmp_path / "run", show="off")
    if where[0]:  # from here on it is the checkpoint's matrix that counts
        monkeypatch.setattr(Whitening, "fit", None)
    resumed = training.train(out=tmp_path / "run", resume=True, show="off")
    for name in ("last", "best"):
        ours, theirs = (
            tensors(torch.load(run.directory / "checkpoints" / f"{name}.ckpt", weights_only=True))
            for run in (resumed, whole)
        )
        assert len(ours) == len(theirs) > 10
        assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))
    assert resumed.test_errors == whole.test_errors


def test_pack_refuses_it_with_the_reason_and_the_remedy(whole):
    model = training.load_run(whole.directory).model
    kind = type(next(model.children())).__name__
    with pytest.raises(
        UnsupportedLayerError, match=rf"^preprocess \({kind}\): real-valued preprocessing has no exact 8-b"
    ):
        lowering.pack(model, (8, 8, 1))
    with pytest.raises(UnsupportedLayerError, match=r"in recipes model.preprocessing = .none., as in cifar10-torch7"):
        lowering.pack(model, (8, 8, 1))
