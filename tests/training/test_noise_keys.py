"""Which noise a training step draws: by seed, epoch, step, layer and rank alone."""

from types import SimpleNamespace

import pytest
import torch

from binarynet import data
from binarynet.layers import NoisyLayer
from binarynet.training.batches import Batch, to_tensors
from binarynet.training.module import Classifier
from binarynet.training.recipe import load
from binarynet.training.run_directory import build_network


@pytest.fixture(scope="module")
def batch():
    images, labels = to_tensors(data.load("digits").train)
    return images[:60], labels[:60]


def cost_and_keys(recipe, batch, seed=1, epoch=0, step=0, rank=0):
    torch.manual_seed(5)
    network = build_network(load(recipe, ["model.weights=stochastic_sign", f"seed={seed}"]), (8, 8, 1), 10)
    module = Classifier(network, load(recipe, [f"seed={seed}"]))
    module._trainer = SimpleNamespace(current_epoch=epoch, global_rank=rank, strategy=None)
    cost = module.training_step(Batch(step, *batch), step)
    return cost.item(), [m.noise_key.item() for m in network.modules() if isinstance(m, NoisyLayer)]


def test_steps_repeat_and_differ_in_each_of_seed_epoch_step_layer_and_rank(quick_recipe, batch):
    places = [{}, {"seed": 2}, {"epoch": 1}, {"step": 1}, {"rank": 1}, {"epoch": 1, "step": 1}]
    results = [cost_and_keys(quick_recipe, batch, **place) for place in places]
    assert cost_and_keys(quick_recipe, batch) == results[0]
    keys = [key for _, layers in results for key in layers]
    assert len(keys) == 6 * 3  # two binary layers and one sign between them
    assert len(set(keys)) == len(keys)
    assert len({cost for cost, _ in results}) == len(results)
