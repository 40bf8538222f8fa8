"""A training step never waits for the device: no number is read back between two looks at the cost.

The meta device has no numbers, so that reading one is an error: ``item``, ``float``, ``bool``, a copy to the CPU.
"""

from types import SimpleNamespace

import pytest
import torch

from binarynet import data
from binarynet.training import recipe
from binarynet.training.augmentation import Augmentation
from binarynet.training.batches import TrainingBatches
from binarynet.training.module import Classifier
from binarynet.training.run_directory import outline_network

META = torch.device("meta")


def steps(chosen, device, count):
    """Train so many steps by hand, as Lightning does it."""
    digits = data.load("digits")
    network = outline_network(chosen, digits.policy.shape, 10)
    if device != META:
        network = network.to_empty(device=device)
        for module in network.modules():
            for tensor in module.parameters(recurse=False):
                torch.nn.init.uniform_(tensor, -1, 1)
            for name, tensor in module.named_buffers(recurse=False):
                tensor.fill_(name == "running_inv_std")
    module = Classifier(network, chosen).to(device)
    module._trainer = SimpleNamespace(current_epoch=0, global_rank=0, strategy=None)
    optimizer = module.configure_optimizers()
    batches = TrainingBatches(
        digits.train,
        chosen.training.batch_size,
        seed=1,
        augmentation=Augmentation(flip=True, crop_padding=1, crop_fill=0),
        device=device,
    )
    for batch in batches:
        if batch.step == count:
            break
        assert batch.images.device.type == batch.labels.device.type == device.type
        module.on_train_batch_start(batch, batch.step)
        optimizer.zero_grad()
        module.training_step(batch, batch.step).backward()
        optimizer.step()
    return module


CONVNET = {"name": "convnet", "blocks": [[4], [4]], "dense": [8]}


@pytest.fixture(params=["batch", "shift"])
def chosen(request, quick_recipe, torch7_recipe):
    """Both settings, with every kind of layer and of noise."""
    raw = {"batch": quick_recipe, "shift": torch7_recipe}[request.param].model_dump(exclude_none=True)
    raw["model"] = CONVNET | {key: raw["model"][key] for key in ("activation", "normalization", "dropout_hidden")}
    raw["model"]["weights"] = "stochastic_sign"
    raw["training"]["log_every_steps"] = 100
    return recipe.parse(raw)


def test_nothing_is_read_in_a_step(chosen):
    module = steps(chosen, META, 3)
    with pytest.raises((RuntimeError, NotImplementedError)):
        module.cost_sum()


def test_the_cost_is_read_at_the_logging_interval_only(chosen):
    raw = chosen.model_dump(exclude_none=True)
    raw["training"]["log_every_steps"] = 3
    steps(recipe.parse(raw), META, 2)
    with pytest.raises((RuntimeError, NotImplementedError)):
        steps(recipe.parse(raw), META, 3)


@pytest.mark.gpu(torch=True)
def test_a_cuda_device_is_not_waited_for(chosen):
    cuda = torch.device("cuda")
    steps(chosen, cuda, 2)
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with pytest.warns(UserWarning, match="synchronizing"):
            torch.ones((), device=cuda).item()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    module = steps_without_waiting(chosen, cuda)
    assert module.cost_sum() > 0


def steps_without_waiting(chosen, device):
    """Steps after the first, in which optimizers make their moments, and a wait is an error."""
    training_step = Classifier.training_step

    def watched(self, batch, batch_idx):
        if batch.step == 1:
            torch.cuda.set_sync_debug_mode("error")
        return training_step(self, batch, batch_idx)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Classifier, "training_step", watched)
        try:
            return steps(chosen, device, 4)
        finally:
            torch.cuda.set_sync_debug_mode("default")
