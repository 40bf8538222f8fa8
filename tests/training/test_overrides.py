"""Overrides: what they set, what they leave out, and what goes with the thing that they replace."""

import tomllib

import pytest

from binarynet.errors import RecipeError
from binarynet.training import recipe

HALVING = ("optimizer.schedule=halving", "optimizer.halve_every=3")


def test_overrides_reach_every_level():
    loaded = recipe.load(
        "digits-mlp",
        [
            "seed=7",
            "training.epochs = 5",
            "model.hidden=[3, 4]",
            "optimizer.learning_rate=1",
            "dataset.name=./my pictures",
            "dataset.options.image_size=16",
        ],
    )
    assert loaded.seed == 7
    assert loaded.training.epochs == 5
    assert loaded.model.options()["hidden"] == [3, 4]
    assert loaded.optimizer.learning_rate == 1
    assert loaded.dataset.name == "./my pictures"
    assert loaded.dataset.options == {"image_size": 16}
    assert recipe.load(loaded, ["seed=8"]).seed == 8
    assert recipe.parse(tomllib.loads(loaded.to_toml())) == loaded


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("foo", "override 'foo': expected key=value with a dotted key, e.g. training.epochs=5"),
        ("a..b=1", "expected key=value with a dotted key"),
        ("training.epochs.x=3", "epochs is a value, not a table"),
        (
            "training.epoch=none",
            r"does not set training.epoch, there .* leave out; \[training\] sets epochs, batch_size",
        ),
        ("augmentation.flip=none", r"nothing to leave out; \[augmentation\] sets nothing"),
        ("sed=none", "nothing to leave out; the top level sets description, seed, dataset"),
        ("training.epochs=none", "digits-mlp: the key 'training.epochs' is missing"),
        ("model=3", "expected a table"),
    ],
)
def test_what_is_refused(override, message):
    with pytest.raises(RecipeError, match=message) as caught:
        recipe.load("digits-mlp", [override])
    assert "\n" not in str(caught.value)


def test_none_leaves_a_key_out():
    assert recipe.load("digits-mlp", ["training.threads=none"]).training.threads == 0
    assert recipe.load("digits-mlp", ["model.hidden=none"]).model.options()["hidden"] == [1024] * 3
    assert recipe.load("digits-mlp", ["dataset.name='none'"]).dataset.name == "none"
    assert recipe.load("digits-mlp", ["seed=none", "seed=5"]).seed == 5


def test_another_schedule_takes_the_place_of_the_one_there_is():
    halving = recipe.load("digits-mlp", HALVING)
    assert (halving.optimizer.halve_every, halving.optimizer.final_learning_rate) == (3, None)
    back = recipe.load(halving, ["optimizer.final_learning_rate=1e-6", "optimizer.schedule=exponential"])
    assert (back.optimizer.halve_every, back.optimizer.final_learning_rate) == (None, 1e-6)
    assert recipe.load(halving, ["optimizer.schedule=none", "optimizer.final_learning_rate=1e-6"]) == back
    cosine = recipe.load("digits-mlp", ["optimizer.schedule=cosine"])
    assert cosine.optimizer.final_learning_rate == recipe.load("digits-mlp").optimizer.final_learning_rate
    assert recipe.load(cosine, HALVING).optimizer == halving.optimizer
    with pytest.raises(RecipeError, match=r"final_learning_rate' is missing: optimizer.schedule 'cosine' needs it"):
        recipe.load(halving, ["optimizer.schedule=cosine"])
    with pytest.raises(
        RecipeError, match=r"key 'optimizer.halve_every' is missing: optimizer.schedule 'halving' needs"
    ):
        recipe.load("digits-mlp", HALVING[:1])


def test_what_contradicts_the_schedule_and_was_asked_for_is_refused():
    with pytest.raises(RecipeError, match=r"final_learning_rate has no meaning with optimizer.schedule 'halving'"):
        recipe.load("digits-mlp", [*HALVING, "optimizer.final_learning_rate=1e-6"])
    with pytest.raises(RecipeError, match=r"leave it out \(as an override: optimizer.halve_every=none\)"):
        recipe.load("digits-mlp", ["optimizer.halve_every=3"])


def test_another_architecture_takes_the_place_of_the_one_there_is():
    loaded = recipe.load("digits-mlp", ["model.name=convnet", "model.blocks=[[4]]"])
    assert loaded.model.options()["blocks"] == [[4]]
    assert loaded.model.options()["dropout_hidden"] == 0.2  # both have it
    wider = recipe.load("digits-mlp", ["model.name=mnist-mlp-2048"])
    assert wider.model.options()["hidden"] == [512, 512]  # the recipe's own
    with pytest.raises(RecipeError, match=r"unknown key 'model.hidden'"):
        recipe.load("digits-mlp", ["model.name=convnet", "model.hidden=[4]"])


def test_only_what_the_old_architecture_had_goes(tmp_path):
    file = tmp_path / "mine.toml"
    file.write_text(recipe.load("digits-mlp").to_toml().replace("hidden = [512, 512]", "hiden = [512, 512]"))
    with pytest.raises(RecipeError, match=r"unknown key 'model.hiden'"):
        recipe.load(file, ["model.name=convnet"])
