"""Recipes: the packaged ones, overrides, and errors that name what is allowed."""

import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from binarynet.errors import RecipeError
from binarynet.training import recipe
from binarynet.training._recipe_text import to_toml


@pytest.mark.parametrize("name", recipe.available())
def test_packaged_recipes_are_valid_and_survive_being_written(name):
    loaded = recipe.load(name)
    assert loaded.name == name
    assert loaded.description
    assert recipe.parse(tomllib.loads(loaded.to_toml())) == loaded


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("epochs=3", r"unknown key 'epochs' \(did you mean 'training.epochs'\?\); the top level takes name, descr"),
        ("training.epoch=3", r"unknown key 'training.epoch' \(did you mean 'epochs'\?\); \[training\] takes epochs, b"),
        ("training.epochs=ten", "training.epochs: expected an integer, got 'ten'"),
        ("training.epochs=2.5", r"training.epochs: expected an integer, got 2.5"),
        ("training.epochs=true", "training.epochs: expected an integer, got True"),
        ("training.epochs=0", "training.epochs: expected greater than or equal to 1, got 0"),
        ("training.drop_last=1", "training.drop_last: expected a boolean, got 1"),
        ("training=3", "training: expected a table, got 3"),
        ("training.epochs.x=3", "epochs is a value, not a table"),
        ("model.hiden=[1]", r"unknown key 'model.hiden' \(did you mean 'hidden'\?\); \[model\] takes name, hidden"),
        ("model.hidden=3", "model.hidden: expected a list, got 3"),
        ("model.hidden=[512,", r"model.hidden: expected a list, got '\[512,'"),
        ("model.hidden=[1.5]", "model.hidden.0: expected an integer, got 1.5"),
        ("model.dropout_in=1.5", "model.dropout_in: expected less than 1, got 1.5"),
        (
            "model.name=mpl",
            r"no architecture 'mpl' \(did you mean 'mlp'\?\); allowed: cifar10-convnet, convnet, mlp, mnist",
        ),
        (
            "model.activation=sing",
            r"expected 'sign', 'stochastic_sign', .* or 'swish_sign', got 'sing' \(did you mean 'sign'\?\)",
        ),
        ("model.normalization=shfit", r"expected 'batch' or 'shift', got 'shfit' \(did you mean 'shift'\?\)"),
        ("optimizer.name=sgd", "optimizer.name: expected 'adam' or 'adamax_shift', got 'sgd'"),
        ("optimizer.schedule=halving", "key 'optimizer.halve_every' is missing: optimizer.schedule 'halving' needs it"),
        ("optimizer.halve_every=0", "optimizer.halve_every: expected greater than or equal to 1, got 0"),
        ("optimizer.halve_every=3", "optimizer.halve_every has no meaning with optimizer.schedule 'exponential'"),
        ("optimizer.learning_rate=inf", "optimizer.learning_rate: expected a finite number, got inf"),
        ("optimizer.final_learning_rate=1", "final_learning_rate 1 must not be above optimizer.learning_rate 0.003"),
        ("seed=-1", "seed: expected greater than or equal to 0, got -1"),
        ("name=../elsewhere", "name: expected"),
        ("augmentation.flip=1", "augmentation.flip: expected a boolean, got 1"),
        ("augmentation.crop=4", r"unknown key 'augmentation.crop'.*\[augmentation\] takes flip, crop_padding, crop_f"),
        ("augmentation.crop_padding=-1", "crop_padding: expected greater than or equal to 0, got -1"),
        ("augmentation.rotation=181", "augmentation.rotation: expected less than or equal to 180, got 181"),
        ("augmentation.scale=1", "augmentation.scale: expected less than 1, got 1"),
        ("augmentation.shift=-1", "augmentation.shift: expected greater than or equal to 0, got -1"),
        ("augmentation.bend=inf", "augmentation.bend: expected a finite number, got inf"),
        ("training.compile=3", "training.compile: expected a boolean, 'default', 'reduce-overhead', .*, got 3"),
        ("training.compile=reduce-overhed", r"got 'reduce-overhed' \(did you mean 'reduce-overhead'\?\)"),
        ("training.devices=0", "training.devices: expected greater than or equal to 1, got 0"),
        ("training.strategy=dpp", r"training.strategy: expected 'auto' or 'ddp', got 'dpp' \(did you mean 'ddp'\?\)"),
        ("augmentation.crop_fill=0", "crop_fill has no meaning without augmentation.crop_padding"),
    ],
)
def test_wrong_keys_and_values_are_named_with_what_is_allowed(override, message):
    with pytest.raises(RecipeError, match=message) as caught:
        recipe.load("digits-mlp", [override])
    assert "\n" not in str(caught.value)


def test_keys_that_contradict_each_other_are_named():
    raw = recipe.load("digits-mlp").model_dump(exclude_none=True)
    raw["optimizer"] |= {"schedule": "halving", "halve_every": 3}
    assert recipe.load("digits-mlp", ["augmentation.bend=1", "augmentation.crop_fill=0"]).augmentation.crop_fill == 0
    with pytest.raises(
        RecipeError,
        match=r"final_learning_rate has no meaning with optimizer.schedule 'halving'; leave it out "
        r"\(as an override: optimizer.final_learning_rate=none\)",
    ):
        recipe.parse(raw)
    with pytest.raises(RecipeError, match=r"glorot_power_of_two has no meaning without optimizer.glorot_scaling"):
        recipe.load("digits-mlp", ["optimizer.glorot_power_of_two=true", "optimizer.glorot_scaling=false"])


def test_a_shared_batch_is_divided_among_the_processes():
    shared = recipe.load("digits-mlp", ["training.share_batch=true", "training.devices=5", "training.nodes=2"])
    assert (shared.training.batch_size, shared.training.batch_per_process()) == (50, 5)
    assert recipe.load("digits-mlp", ["training.devices=5"]).training.batch_per_process() == 50
    with pytest.raises(RecipeError, match=r"training.batch_size 50 cannot be shared among 4 processes \(training.dev"):
        recipe.load("digits-mlp", ["training.share_batch=true", "training.devices=4"])


def torch7(**more):
    optimizer = {"name": "adamax_shift", "learning_rate": 2**-6, "schedule": "halving", "halve_every": 20, **more}
    model = {"name": "mlp", "activation": "stochastic_sign", "normalization": "shift"}
    raw = {"name": "x", "dataset": {"name": "digits"}, "model": model, "optimizer": optimizer}
    return recipe.parse({**raw, "training": {"epochs": 100}})


def test_the_torch7_setting_is_a_recipe_and_survives_being_written():
    loaded = torch7()
    assert recipe.parse(tomllib.loads(loaded.to_toml())) == loaded
    assert "final_learning_rate" not in loaded.to_toml()
    assert loaded.optimizer.eps == 2**-27
    assert torch7(eps=1e-6).optimizer.eps == 1e-6
    assert recipe.load("digits-mlp").optimizer.eps == 1e-8


def test_schedules():
    halving = torch7().optimizer
    rates = [halving.rate(epoch, 100) for epoch in (0, 19, 20, 39, 40, 99)]
    assert rates == [2**-6, 2**-6, 2**-7, 2**-7, 2**-8, 2**-10]
    exponential = recipe.load("digits-mlp").optimizer
    assert exponential.rate(0, 60) == 3e-3
    assert exponential.rate(30, 60) == pytest.approx(3e-4)
    assert exponential.rate(60, 60) == pytest.approx(3e-5)
    cosine = recipe.load("digits-mlp", ["optimizer.schedule=cosine", "optimizer.final_learning_rate=1e-3"]).optimizer
    assert cosine.rate(0, 60) == 3e-3
    assert [cosine.rate(epoch, 60) for epoch in (20, 30, 40)] == pytest.approx([2.5e-3, 2e-3, 1.5e-3])
    assert cosine.rate(60, 60) == pytest.approx(1e-3)


def test_missing_keys_are_named():
    with pytest.raises(RecipeError, match=r"the key 'dataset' is missing; the key 'model\.name' is missing"):
        recipe.parse({"name": "x", "model": {}, "optimizer": {"learning_rate": 1.0, "final_learning_rate": 1.0}})


def test_unknown_recipes_suggest_the_nearest():
    with pytest.raises(RecipeError, match=r"no recipe 'digit-mlp' \(did you mean 'digits-mlp'\?\); known: cifar10-co"):
        recipe.load("digit-mlp")


def test_files_that_are_not_recipes(tmp_path):
    with pytest.raises(RecipeError, match="cannot be read: No such file"):
        recipe.load(tmp_path / "none.toml")
    broken = tmp_path / "broken.toml"
    broken.write_text("[dataset\n")
    with pytest.raises(RecipeError, match=r"not valid TOML: .*line 1"):
        recipe.load(broken)
    broken.write_bytes(b"name = '\xff'")
    with pytest.raises(RecipeError, match="not a text file in UTF-8"):
        recipe.load(broken)


def test_a_file_is_named_after_itself_unless_it_says_otherwise(tmp_path):
    file = tmp_path / "mine.toml"
    file.write_text(recipe.load("digits-mlp").to_toml().replace('name = "digits-mlp"\n', "", 1))
    assert recipe.load(file).name == "mine"


values = st.recursive(
    st.booleans() | st.integers(-(2**60), 2**60) | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3),
    max_leaves=6,
)
tables = st.dictionaries(st.text(min_size=1, max_size=8), values, max_size=4)


@given(st.dictionaries(st.text(min_size=1, max_size=8), values | tables.filter(bool), max_size=4))
def test_what_is_written_as_toml_reads_back(table):
    assert tomllib.loads(to_toml(table)) == table
