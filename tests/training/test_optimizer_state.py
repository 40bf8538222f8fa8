"""The optimizer state of the Torch7 setting out of a checkpoint."""

import copy
import math
from pathlib import Path

import pytest
import torch

from binarynet import models
from binarynet.errors import FileFormatError
from binarynet.training import optimizer_state
from binarynet.training.module import Classifier


@pytest.fixture
def trained(torch7_recipe):
    """A classifier and the state of its optimizer after two steps."""
    torch.manual_seed(0)
    chosen = torch7_recipe.model
    network = models.build(chosen.name, input_shape=(2, 2, 1), classes=3, **chosen.options())
    classifier = Classifier(network, torch7_recipe)
    optimizer = classifier.new_optimizer()
    for _ in range(2):
        for parameter in network.parameters():
            parameter.grad = torch.randn_like(parameter)
        optimizer.step()
    return classifier, optimizer.state_dict()


def test_a_state_goes_back_as_it_was(trained):
    classifier, state = trained
    fresh = classifier.new_optimizer()
    optimizer_state.check(fresh, state, 2, Path("last.ckpt"))
    optimizer_state.restore(fresh, copy.deepcopy(state))
    for index, moments in state["state"].items():
        for name, value in moments.items():
            assert torch.equal(fresh.state_dict()["state"][index][name], value)


def first(state):
    return state["state"][0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: first(s).update(exp_avg_sq=first(s).pop("exp_inf")), "expected step, exp_avg, exp_inf"),
        (lambda s: first(s)["exp_inf"].fill_(-1), "exp_inf of parameter 0 .* holds negative values"),
        (lambda s: first(s)["exp_inf"][0].fill_(0), "exp_inf of parameter 0 .* holds zeros"),
        (lambda s: first(s)["exp_inf"].fill_(math.inf), "exp_inf of parameter 0 .* holds NaN or infinity"),
        (lambda s: first(s)["step"].fill_(3), "has 3 steps, its record of progress 2"),
        (lambda s: s["param_groups"][0].update(eps=1e-8), "eps is 1e-08, by the recipe it is 7.45"),
        (lambda s: s["param_groups"][0].update(amsgrad=False), "unknown 'amsgrad'"),
    ],
)
def test_a_state_that_the_recipe_would_not_give_is_refused(trained, change, message):
    classifier, state = trained
    state = copy.deepcopy(state)
    change(state)
    with pytest.raises(FileFormatError, match=r"^last\.ckpt: .*" + message):
        optimizer_state.check(classifier.new_optimizer(), state, 2, Path("last.ckpt"))
