"""A run on a CUDA device: what it reports holds on the CPU."""

import pytest
import torch

from binarynet import data, training
from binarynet.data import Split
from binarynet.training import batches
from binarynet.training.batches import TrainingBatches
from binarynet.training.surroundings import tf32

needs_cuda = pytest.mark.gpu(torch=True)


@needs_cuda
@pytest.mark.parametrize("compiled", ["false", "true", "reduce-overhead"])
def test_the_reported_errors_are_those_on_the_cpu(quick_recipe, tmp_path, compiled):
    overrides = ["training.accelerator=gpu", f"training.compile={compiled}"]
    result = training.train(quick_recipe, overrides=overrides, out=tmp_path / "run", show="off")
    assert result.test_errors < 0.6 * result.test_images
    assert training.evaluate_run(tmp_path / "run").num_errors == result.test_errors
    assert training.evaluate_run(tmp_path / "run", split="validation").error == result.validation_error
    assert training.load_run(tmp_path / "run").provenance["machine"]["device"].startswith("cuda")


@needs_cuda
@pytest.mark.parametrize("fits", [True, False])
def test_batches_on_the_device_are_those_of_the_cpu(monkeypatch, fits):
    monkeypatch.setattr(batches, "_fits", lambda images, device: fits)
    split: Split = data.load("digits").train
    for ours, theirs in zip(
        TrainingBatches(split, 64, seed=1, device=torch.device("cuda")), TrainingBatches(split, 64, seed=1), strict=True
    ):
        assert ours.images.is_cuda
        assert ours.labels.is_cuda
        assert torch.equal(ours.images.cpu(), theirs.images)
        assert torch.equal(ours.labels.cpu(), theirs.labels)


def test_a_split_is_left_on_the_cpu_where_it_does_not_fit(monkeypatch):
    images = torch.zeros(10, 3, 4, 5, dtype=torch.uint8)
    for free, fits in ((1200, True), (1198, False)):
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device, free=free: (free, 10**9))
        assert batches._fits(images, torch.device("cuda")) is fits


@pytest.mark.parametrize("allowed", [False, True])
def test_tf32_is_allowed_for_a_run_only(allowed):
    before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    with tf32(allowed):
        assert torch.backends.cudnn.allow_tf32 is torch.backends.cuda.matmul.allow_tf32 is allowed
    assert (torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32) == before
