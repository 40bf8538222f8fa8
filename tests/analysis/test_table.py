"""Which cell of Table 1 a run belongs to, and when it may stand for it."""

from __future__ import annotations

import copy
import statistics
from typing import Any

import pytest

from binarynet.analysis.paper import EXPERIMENTS
from binarynet.analysis.table import Result, TrainedRun, differences, flatten, in_words, place, results

BY_NAME = {experiment.recipe: experiment for experiment in EXPERIMENTS}


def paper_recipe(name: str) -> dict[str, Any]:
    """Nested dicts with the constants that are followed."""
    experiment = BY_NAME[name]
    recipe: dict[str, Any] = {"name": name, "description": "", "seed": 1, "dataset": {"name": experiment.data}}
    recipe["dataset"]["options"] = {}
    for key, values in experiment.constants.items():
        section, _, rest = key.partition(".")
        table = recipe.setdefault(section, {})
        *folders, last = rest.split(".")
        for folder in folders:
            table = table.setdefault(folder, {})
        table[last] = values[0]
    recipe["model"]["name"] = "mlp" if "hidden" in recipe["model"] else "convnet"
    recipe["training"]["threads"] = 2
    return copy.deepcopy(recipe)


def finished(recipe: dict[str, Any], wrong: int = 100, images: int = 10_000, **changes: Any) -> TrainedRun:
    experiment = BY_NAME.get(recipe["name"])
    sizes = dict(experiment.sizes) if experiment else {"train": 10, "validation": 5, "test": images}
    fields: dict[str, Any] = {
        "path": f"runs/{recipe['name']}-{recipe['seed']}",
        "recipe": recipe,
        "data": recipe["dataset"]["name"],
        "sizes": sizes,
        "notes": (),
        "weights": experiment.weights if experiment else 1000,
        "epochs": recipe["training"]["epochs"],
        "best_epoch": 1,
        "validation_error": 0.01,
        "test_errors": wrong,
        "test_images": images,
        "train_seconds": 60.0,
        "cpu_seconds": 50.0,
        "machine": None,
        "versions": {},
    }
    return TrainedRun(**(fields | changes))


def only(run: TrainedRun) -> Result:
    (found,), remarks = results([run])
    assert remarks == ()
    return found


@pytest.mark.parametrize("name", BY_NAME)
def test_the_papers_recipe_stands_for_its_cell(name):
    found = only(finished(paper_recipe(name)))
    assert found.experiment is BY_NAME[name]
    assert found.differences == ()
    assert found.by_the_paper
    assert found.in_short == ""
    assert found.missing_images() == ()


@pytest.mark.parametrize("name", BY_NAME)
def test_a_short_run_does_not(name):
    recipe = paper_recipe(name)
    recipe["training"]["epochs"] = 3
    found = only(finished(recipe))
    assert found.experiment is BY_NAME[name]
    assert not found.by_the_paper
    assert found.in_short == "shorter"
    assert [difference.key for difference in found.differences] == ["training.epochs"]
    states_it = f"paper {BY_NAME[name].epochs}"
    if name == "mnist-torch7":
        states_it = "the full form 100, the paper states none"
    assert str(found.differences[0]) == f"epochs 3 ({states_it})"


def test_every_constant_is_compared():
    for name, experiment in BY_NAME.items():
        for key in experiment.constants:
            recipe = paper_recipe(name)
            section, _, rest = key.partition(".")
            table = recipe[section]
            *folders, last = rest.split(".")
            for folder in folders:
                table = table[folder]
            table[last] = "something else"
            assert [difference.key for difference in differences(recipe, experiment)] == [key]


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        ("augmentation", "flip", True),
        ("augmentation", "crop_padding", 4),
        ("augmentation", "rotation", 10.0),
        ("dataset", "options", {"whitening": "zca"}),
        ("optimizer", "weight_decay", 1e-4),
    ],
)
def test_what_the_paper_has_nothing_of_is_a_difference(section, key, value):
    recipe = paper_recipe("cifar10-theano")
    recipe[section][key] = value
    found = only(finished(recipe))
    assert not found.by_the_paper
    assert found.in_short == "altered"
    assert str(found.differences[0]).endswith("(the paper has none)")


@pytest.mark.parametrize(("key", "value"), [("flip", False), ("crop_padding", 0), ("crop_fill", 128)])
def test_what_is_switched_off_is_none(key, value):
    recipe = paper_recipe("cifar10-theano")
    recipe["augmentation"][key] = value
    assert only(finished(recipe)).by_the_paper


def test_several_processes_count_as_one_with_their_joined_batch():
    recipe = paper_recipe("mnist-theano")
    batch = recipe["training"]["batch_size"]
    processes = {"devices": 2, "nodes": 2, "strategy": "ddp", "share_batch": True, "synchronize_statistics": True}
    recipe["training"] |= processes
    assert only(finished(recipe)).by_the_paper
    recipe["training"] |= {"share_batch": False, "batch_size": batch // 4}
    assert only(finished(recipe)).by_the_paper
    recipe["training"] |= {"batch_size": batch, "synchronize_statistics": False}
    assert [str(difference) for difference in only(finished(recipe)).differences] == [
        f"batch size {4 * batch} (paper {batch})",
        "separate batch statistics on (the paper has none)",
    ]


def test_print_and_program_both_count_as_the_papers():
    recipe = paper_recipe("mnist-torch7")
    assert recipe["optimizer"]["halve_every"] == 10
    recipe["optimizer"] |= {"halve_every": 20, "beta1": 0.875, "beta2": 1 - 2**-10}
    assert only(finished(recipe)).by_the_paper
    recipe["optimizer"]["halve_every"] = 15
    assert [str(difference) for difference in only(finished(recipe)).differences] == [
        "epochs per halving 15 (paper 10)"
    ]


def test_narrower_and_altered():
    recipe = paper_recipe("mnist-theano")
    recipe["model"] |= {"hidden": [1024, 1024, 1024], "dropout_in": 0.1}
    found = only(finished(recipe, weights=2_910_208))
    assert found.in_short == "narrower, altered"
    assert [str(difference) for difference in found.differences] == [
        "hidden units 3 x 1024 (paper 3 x 4096)",
        "dropout of inputs 0.1 (paper 0.2)",
    ]


def test_missing_images_are_told_and_do_not_move_a_run():
    recipe = paper_recipe("cifar10-theano")
    found = only(
        finished(recipe, 999, 9_980, sizes={"train": 44_928, "validation": 5_000, "test": 9_980}),
    )
    assert found.by_the_paper
    assert found.missing_images() == ("44,928 of 45,000 training images", "9,980 of 10,000 test images")


def test_other_data_and_mixed_settings_have_no_cell():
    recipe = paper_recipe("mnist-theano")
    assert place("digits", recipe) == (None, "the paper has no results on digits")
    recipe["optimizer"]["name"] = "adamax_shift"
    experiment, why_not = place("mnist", recipe)
    assert experiment is None
    assert why_not.startswith("neither of the paper's settings: model.activation 'sign', ")
    experiment, why_not = place("mnist", paper_recipe("cifar10-theano"))
    assert experiment is None
    assert why_not == "the paper's network for mnist is a multi-layer perceptron, this one is 'convnet'"
    found = only(finished(paper_recipe("mnist-theano"), data="digits"))
    assert not found.by_the_paper
    assert found.missing_images() == ()


def test_seeds_of_one_recipe_are_one_result():
    runs = []
    for seed, wrong in ((1, 100), (2, 130), (3, 110)):
        recipe = paper_recipe("mnist-theano") | {"seed": seed}
        recipe["training"]["threads"] = seed
        runs.append(finished(recipe, wrong))
    found, remarks = results(runs)
    assert (len(found), remarks) == (1, ())
    errors = [0.01, 0.013, 0.011]
    assert found[0].mean == pytest.approx(statistics.fmean(errors))
    assert found[0].deviation == pytest.approx(statistics.stdev(errors))
    assert only(runs[0]).deviation is None


def test_the_same_seed_twice_is_no_second_measurement():
    recipe = paper_recipe("mnist-theano")
    (found,), (remark,) = results([finished(recipe, path="a"), finished(recipe, path="b")])
    assert [run.path for run in found.runs] == ["a"]
    assert remark == "b: left out of the table: same recipe and seed (1) as a"


def test_another_constant_is_another_result():
    longer = paper_recipe("mnist-theano")
    longer["training"]["epochs"] = 2000
    found, _ = results([finished(paper_recipe("mnist-theano")), finished(longer)])
    assert [result.by_the_paper for result in found] == [True, False]
    assert found[1].in_short == "longer"


@pytest.mark.parametrize(("wrong", "images"), [(136, 10_000), (0, 360), (4, 360), (360, 360)])
def test_the_ends_of_the_interval_are_1_96_deviations_from_what_was_seen(wrong, images):
    low, high = finished(paper_recipe("mnist-theano"), wrong, images).interval()
    assert low <= wrong / images <= high
    for end in (low, high):
        if 1e-12 < end < 1 - 1e-12:
            deviation = (end * (1 - end) / images) ** 0.5
            assert abs(wrong / images - end) == pytest.approx(1.959964 * deviation)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ([4096, 4096, 4096], "3 x 4096"),
        ([[128, 128], [256, 256]], "2 x 128, 2 x 256"),
        ([512, 256], "512, 256"),
        ([], "none"),
        (2.0**-6, "2^-6"),
        (0.5, "0.5"),
        (3e-7, "3e-07"),
        (True, "on"),
        (None, "none"),
        ("sign", "sign"),
        (100, "100"),
    ],
)
def test_values_in_words(value, words):
    assert in_words(value) == words


def test_flatten():
    assert flatten({"a": 1, "b": {"c": (1, 2), "d": {"e": None}, "f": {}}}) == {"a": 1, "b.c": [1, 2], "b.d.e": None}


def test_what_was_not_finished_is_a_result_of_its_own():
    recipe = paper_recipe("mnist-theano")
    whole, stopped = finished(recipe), finished(recipe | {"seed": 2}, epochs=7, finished=False)
    found, remarks = results([whole, stopped])
    assert remarks == ()
    assert [(result.finished, result.by_the_paper, result.in_short) for result in found] == [
        (True, True, ""),
        (False, False, "unfinished"),
    ]
    assert len(results([stopped, finished(recipe | {"seed": 3}, epochs=8, finished=False)])[0]) == 2


def test_a_difference_in_short():
    (found,) = only(finished(paper_recipe("mnist-theano") | {"augmentation": {"crop_padding": 1}})).differences
    assert found.here_in_short == "crops, padding 1"
    assert str(found) == "crops, padding 1 (the paper has none)"
