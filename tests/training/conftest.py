"""A small recipe on the embedded digits, quick enough to be trained many times."""

import pytest

from binarynet.training import recipe

OVERRIDES = (
    "model.hidden=[24]",
    "model.dropout_in=0.1",
    "model.dropout_hidden=0.2",
    "model.activation=stochastic_sign",
    "training.epochs=3",
    "training.batch_size=60",
    "training.log_every_steps=7",
    "training.threads=1",
)


@pytest.fixture(scope="session")
def quick_recipe():
    """Three epochs of 20 steps; dropout and stochastic signs draw random numbers in every step."""
    return recipe.load("digits-mlp", OVERRIDES)


@pytest.fixture(scope="session")
def torch7_recipe(quick_recipe):
    """The same in the paper's Torch7 setting."""
    raw = quick_recipe.model_dump(exclude_none=True)
    raw["model"] |= {"normalization": "shift"}
    raw["optimizer"] = {
        "name": "adamax_shift",
        "learning_rate": 2**-6,
        "schedule": "halving",
        "halve_every": 2,
        "glorot_power_of_two": True,
    }
    return recipe.parse(raw)
