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
