"""Averages of weights over the steps of training: what they are, and runs that evaluate and keep them."""

import numpy as np
import pytest
import torch

from binarynet import data, models, training
from binarynet.data import Split
from binarynet.errors import FileFormatError
from binarynet.layers import Normalization
from binarynet.lowering import lower, torch_source
from binarynet.runtime import verify
from binarynet.training import averaging, recipe
from binarynet.training.augmentation import Augmentation
from binarynet.training.averaging import WeightAverage
from binarynet.training.batches import TrainingBatches
from binarynet.training.interrupt import Stopped
from binarynet.training.module import Classifier

DRAW = np.random.Generator(np.random.PCG64(1))
IMAGES = Split(DRAW.integers(0, 256, (70, 4, 3, 1), dtype=np.uint8), np.arange(70))


def network(**options):
    torch.manual_seed(1)
    return models.build("mlp", input_shape=(4, 3, 1), classes=3, **{"hidden": [8, 8], **options})


def batches(**options):
    return TrainingBatches(IMAGES, 20, seed=3, **options)


def test_it_is_the_mean_at_first_and_then_exponential():
    trained = network()
    average = WeightAverage(trained, 0.97, batches())
    values = [(0.5, -0.25), (1.0, 0.0), (-1.0, 1.0), (0.25, 0.5), (1.0, 1.0), (0.0, -1.0)]
    newest = 1 - 0.97**10  # 0.263: the mean of three updates still, then of all the past
    weight, gain, wanted = 0.0, 0.0, []
    for number, (w, g) in enumerate(values, start=1):
        share = max(newest, 1 / number)
        weight, gain = weight + share * (w - weight), gain + share * (g - gain)
        wanted.append((weight, gain))
    assert wanted[2] == pytest.approx((0.5 / 3, 0.25))
    for step in range(60):
        with torch.no_grad():
            trained.dense1.weight.fill_(values[step // 10][0])
            trained.norm2.weight.fill_(values[step // 10][1])
        average.after_step()
        if step % 10 == 9:
            found = float(average.network.dense1.weight[2, 3]), float(average.network.norm2.weight[4])
            assert found == pytest.approx(wanted[step // 10], abs=1e-6)
    assert trained.dense1.weight.eq(0.0).all()  # the trained network is left alone
    assert not any(parameter.requires_grad for parameter in average.network.parameters())


def test_it_goes_on_from_any_step():
    whole, trained = WeightAverage(network(), 0.9, batches()), network()
    resumed = WeightAverage(trained, 0.9, batches(), steps=47)
    resumed.network.load_state_dict(whole.network.state_dict())
    with torch.no_grad():
        trained.dense1.weight.fill_(1.0)
    for _ in range(2):
        resumed.after_step()
    assert torch.equal(resumed.network.dense1.weight, whole.network.dense1.weight)
    resumed.after_step()
    share = max(1 - 0.9**10, 1 / 5)
    torch.testing.assert_close(
        resumed.network.dense1.weight, whole.network.dense1.weight.lerp(torch.tensor(1.0), share)
    )


def test_plain_batches_are_shuffled_not_augmented_and_shared():
    augmented = batches(augmentation=Augmentation(flip=True, crop_padding=2, crop_fill=9))
    found = list(augmented.plain(100))
    assert [len(images) for images in found] == [20, 20, 20]
    assert len(list(augmented.plain(2))) == 2
    pixels = {image.tobytes(): number for number, image in enumerate(IMAGES.images)}
    order = [pixels[image.numpy().tobytes()] for images in found for image in images]
    assert len(set(order)) == 60
    assert order != sorted(order)
    shares = [next(batches(rank=rank, world_size=2).plain(1)) for rank in (0, 1)]
    joined = next(TrainingBatches(IMAGES, 40, seed=3).plain(1))
    assert torch.equal(torch.cat(shares), joined)
    few = TrainingBatches(Split(IMAGES.images[:7], np.arange(7)), 20, seed=3, drop_last=False)
    assert [len(images) for images in few.plain(100)] == [7]


@pytest.mark.parametrize("normalization", ["batch", "shift"])
def test_statistics_are_means_over_batches_without_noise(normalization):
    options = {"normalization": normalization}
    noisy = {"dropout_in": 0.3, "dropout_hidden": 0.5, "activation": "stochastic_sign", "weights": "stochastic_sign"}
    average, plain = WeightAverage(network(**options, **noisy), 0.9, batches()), network(**options)
    average.take_statistics()
    torch.manual_seed(9)
    momenta = [m.momentum for m in average.network.modules() if isinstance(m, Normalization)]
    assert set(momenta) <= {0.1, 0.125}
    assert not any(module.training for module in average.network.modules())
    norms, seen = (plain.norm1, plain.norm2, plain.norm3), []
    plain.eval()
    for norm in norms:
        norm.train().momentum = 1.0  # so that its statistics are those of the batch at hand
    for images in batches().plain(100):
        plain(images)
        seen.append([(norm.running_mean.clone(), norm.running_inv_std.clone()) for norm in norms])
    for number, norm in enumerate((average.network.norm1, average.network.norm2, average.network.norm3)):
        means, inv_stds = (torch.stack([batch[number][part] for batch in seen]).mean(0) for part in (0, 1))
        torch.testing.assert_close(norm.running_mean, means)
        torch.testing.assert_close(norm.running_inv_std, inv_stds)
    before = average.network.state_dict()
    again = {name: tensor.clone() for name, tensor in before.items()}
    average.take_statistics()
    assert all(torch.equal(before[name], again[name]) for name in before)


def test_at_most_so_many_batches_are_seen(monkeypatch):
    monkeypatch.setattr(averaging, "BATCHES", 1)
    average, wanted = WeightAverage(network(), 0.9, batches()), network().eval()
    average.take_statistics()
    wanted.norm1.train().momentum = 1.0
    wanted(next(batches().plain(1)))
    assert torch.equal(average.network.norm1.running_mean, wanted.norm1.running_mean)


@pytest.fixture(scope="module")
def whole(quick_recipe, tmp_path_factory):
    """An uninterrupted run of three epochs of 20 steps."""
    chosen = recipe.load(quick_recipe, ["training.average=0.95", "training.checkpoint_every_steps=6"])
    return training.train(chosen, out=tmp_path_factory.mktemp("average") / "run", show="off")


def checkpoint(run, name):
    return torch.load(run.directory / "checkpoints" / f"{name}.ckpt", weights_only=True)


def tensors(content):
    """All tensors in nested dicts and lists, in order."""
    if isinstance(content, torch.Tensor):
        return [content]
    parts = content.values() if isinstance(content, dict) else content if isinstance(content, list) else ()
    return [tensor for part in parts for tensor in tensors(part)]


def test_the_average_is_what_a_run_evaluates_and_keeps(whole, quick_recipe, tmp_path):
    plain = training.train(quick_recipe, out=tmp_path / "plain", show="off")
    costs = [[row.training_cost for row in run.history] for run in (plain, whole)]
    assert costs[0] == costs[1]  # training itself is the same
    assert [row.validation_cost for row in plain.history] != [row.validation_cost for row in whole.history]
    last = checkpoint(whole, "last")
    assert all(
        torch.equal(tensor, checkpoint(plain, "last")["network"][key]) for key, tensor in last["network"].items()
    )
    assert "average" not in checkpoint(plain, "last")
    if whole.best_epoch == 3:
        best = checkpoint(whole, "best")["network"]
        assert all(torch.equal(tensor, best[key]) for key, tensor in last["average"].items())
    assert not torch.equal(last["average"]["dense1.weight"], last["network"]["dense1.weight"])
    validation = training.evaluate_run(whole.directory, split="validation")
    assert validation.error == whole.validation_error
    assert training.evaluate_run(whole.directory).num_errors == whole.test_errors
    lowered = lower(training.load_run(whole.directory).model, (8, 8, 1))
    assert verify(lowered.graph, data.load("digits").test.images, extra={"torch": torch_source(lowered)}).exact


@pytest.mark.parametrize("where", [(0, 3), (1, 10)])
def test_a_stopped_run_ends_with_the_same_average(whole, tmp_path, monkeypatch, where):
    """Stopped before the first checkpoint, and in the midst of an epoch, between two updates of the average."""
    training_step = Classifier.training_step

    def stop(self, batch, batch_idx):
        if (self.current_epoch, batch.step) == where:
            raise Stopped
        return training_step(self, batch, batch_idx)

    with monkeypatch.context() as patch:
        patch.setattr(Classifier, "training_step", stop)
        with pytest.raises(training.TrainingInterrupted):
            training.train(recipe.load(whole.directory / "recipe.toml"), out=tmp_path / "run", show="off")
    resumed = training.train(out=tmp_path / "run", resume=True, show="off")
    for name in ("last", "best"):
        ours, theirs = tensors(checkpoint(resumed, name)), tensors(checkpoint(whole, name))
        assert len(ours) == len(theirs) > 8
        assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))
    assert resumed.test_errors == whole.test_errors


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda content: content.pop("average"), "holds no averaged weights, though the recipe has training.average"),
        (lambda content: content["average"].pop("norm1.weight"), r"lacks 'norm1.weight'"),
    ],
)
def test_a_checkpoint_without_the_average_is_refused(quick_recipe, tmp_path, monkeypatch, damage, message):
    def stop(self, batch, batch_idx):
        if self.current_epoch == 1:
            raise Stopped
        return training_step(self, batch, batch_idx)

    training_step = Classifier.training_step
    run, chosen = tmp_path / "run", recipe.load(quick_recipe, ["training.average=0.95"])
    with monkeypatch.context() as patch:
        patch.setattr(Classifier, "training_step", stop)
        with pytest.raises(training.TrainingInterrupted):
            training.train(chosen, out=run, show="off")
    content = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    damage(content)
    torch.save(content, run / "checkpoints" / "last.ckpt")
    with pytest.raises(FileFormatError, match=message):
        training.train(out=run, resume=True, show="off")
