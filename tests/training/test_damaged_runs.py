"""What a run's directory says must be right, and what lies in it must belong together; else one line names the file."""

import json
import math
import shutil

import pytest
import torch

from binarynet import training
from binarynet.errors import FileFormatError, UsageError
from binarynet.training.interrupt import Stopped
from binarynet.training.module import Classifier


@pytest.fixture(scope="module")
def finished(quick_recipe, tmp_path_factory):
    """A finished run."""
    path = tmp_path_factory.mktemp("finished") / "run"
    training.train(quick_recipe, out=path, show="off")
    return path


@pytest.fixture(scope="module")
def stopped(quick_recipe, tmp_path_factory):
    """A run that was stopped in its second epoch."""
    path = tmp_path_factory.mktemp("stopped") / "run"
    training_step = Classifier.training_step

    def stop(self, batch, batch_idx):
        if self.current_epoch == 1:
            raise Stopped
        return training_step(self, batch, batch_idx)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Classifier, "training_step", stop)
        with pytest.raises(training.TrainingInterrupted):
            training.train(quick_recipe, out=path, show="off")
    return path


@pytest.fixture
def copy(tmp_path):
    """``copy(run)`` gives a copy of it to damage."""

    def make(run):
        return shutil.copytree(run, tmp_path / "run")

    return make


@pytest.fixture
def never_trains(monkeypatch, finished, stopped):
    """An error must come before the first step. The runs are there before, whichever test a process starts with."""
    monkeypatch.setattr(Classifier, "training_step", lambda *arguments: pytest.fail("it went on training"))


def change_record(path, change):
    file = path / "run.json"
    record = json.loads(file.read_text())
    changed = change(record)
    file.write_text(json.dumps(record if changed is None else changed))


def change_checkpoint(path, name, change):
    file = path / "checkpoints" / f"{name}.ckpt"
    content = torch.load(file, weights_only=True)
    change(content)
    torch.save(content, file)


def refusals(path):
    """What the three readers of a run say."""
    found = []
    for read in (
        lambda: training.load_run(path),
        lambda: training.evaluate_run(path),
        lambda: training.train(out=path, resume=True, show="off"),
    ):
        with pytest.raises(FileFormatError) as caught:
            read()
        assert "\n" not in str(caught.value)
        found.append(str(caught.value))
    return found


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda r: {**r, "version": 99}, r"version 99, this binarynet reads version 1"),
        (lambda r: {**r, "version": True}, r"version True, this binarynet reads"),
        (lambda r: {**r, "format": "other"}, "not the record of a run"),
        (lambda r: {k: v for k, v in r.items() if k != "format"}, "not the record of a run"),
        (lambda r: [r], "not the record of a run"),
        (lambda r: r["dataset"].pop("name"), "the key 'dataset.name' is missing"),
        (lambda r: r["dataset"].update(name=3), "dataset.name: .*got 3"),
        (lambda r: r["dataset"].update(classes=[]), "dataset.classes: "),
        (lambda r: r["dataset"].update(classes=["a", 3]), r"dataset.classes.1: "),
        (lambda r: r["dataset"]["sizes"].update(test="x"), "dataset.sizes.test: "),
        (lambda r: r["dataset"]["policy"].pop("height"), "record of the data set is not usable"),
        (lambda r: {k: v for k, v in r.items() if k != "dataset"}, "the key 'dataset' is missing"),
        (lambda r: r.update(test_error="abc"), "test_error: .*got 'abc'"),
        (lambda r: r.update(test_error=math.nan), "test_error: .*got nan"),
        (lambda r: r.update(test_error=1.5), "test_error: .*got 1.5"),
        (lambda r: r.update(test_error=0.99, test_errors=3), "test_error .* contradict"),
        (lambda r: r.pop("test_error"), "status is 'finished', but .* test_error"),
        (lambda r: r.update(test_errors=-1), "test_errors: "),
        (lambda r: r.update(validation_error=math.nan), "validation_error: .*got nan"),
        (lambda r: r.update(best_epoch=None), "best_epoch"),
        (lambda r: r.update(resumed="x"), "resumed: .*got 'x'"),
        (lambda r: r.update(started=3), "started: "),
        (lambda r: r.update(status="done"), "status: "),
        (lambda r: r.update(machine=[1]), "machine: "),
        (lambda r: r["machine"].update(threads="x"), "machine.threads: "),
    ],
)
def test_a_wrong_record_is_refused_by_file_and_key(finished, copy, change, message):
    path = copy(finished)
    change_record(path, lambda record: changed if isinstance(changed := change(record), dict | list) else None)
    for text in refusals(path):
        assert text.startswith(f"{path / 'run.json'}: ")
        with pytest.raises(FileFormatError, match=message):
            raise FileFormatError(text)


def test_a_wrong_record_stops_a_resume_before_it_trains(stopped, copy, never_trains):
    path = copy(stopped)
    change_record(path, lambda record: record.update(resumed="x"))
    with pytest.raises(FileFormatError, match=r"run\.json: resumed: "):
        training.train(out=path, resume=True, show="off")


def first_state(content):
    return content["optimizer"]["state"][0]


def group(content, number=0):
    return content["optimizer"]["param_groups"][number]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c["optimizer"]["state"].clear(), "lacks the moments of parameter 0"),
        (lambda c: c["optimizer"]["state"].pop(1), "lacks the moments of parameter 1"),
        (lambda c: c["optimizer"]["state"].update({99: first_state(c)}), "99"),
        (lambda c: c["optimizer"].update(state=[]), "not usable"),
        (lambda c: c["optimizer"].pop("param_groups"), "not usable"),
        (lambda c: first_state(c).clear(), "parameter 0"),
        (lambda c: first_state(c).pop("exp_avg_sq"), "parameter 0"),
        (lambda c: first_state(c).update(exp_avg=3), "parameter 0"),
        (lambda c: first_state(c).update(exp_avg=first_state(c)["exp_avg"].double()), "exp_avg of parameter 0"),
        (lambda c: first_state(c)["exp_avg"].fill_(math.nan), "exp_avg of parameter 0 .*NaN"),
        (lambda c: first_state(c)["exp_avg_sq"].fill_(-1), "exp_avg_sq of parameter 0 .*negative"),
        (lambda c: first_state(c)["step"].fill_(3), "3 steps, .* 20"),
        (lambda c: first_state(c)["step"].fill_(math.nan), "steps"),
        (lambda c: group(c).update(weight_decay=0.5), "weight_decay is 0.5, .* 0"),
        (lambda c: group(c).update(betas="x"), "betas is 'x', "),
        (lambda c: group(c).update(betas=(torch.zeros(2), 0.999)), "betas is "),
        (lambda c: group(c).update(eps=1e-3), "eps is 0.001"),
        (lambda c: group(c).update(amsgrad=True), "amsgrad is True"),
        (lambda c: group(c).update(lr_scale="a"), "lr_scale is 'a'"),
        (lambda c: group(c).pop("lr_scale"), "lacks 'lr_scale'"),
        (lambda c: group(c).update(momentum=0.9), "unknown 'momentum'"),
        (lambda c: group(c).update(params=[7]), "params is "),
        (lambda c: c["optimizer"]["param_groups"].pop(), "belongs to another network"),
        (lambda c: c["optimizer"]["param_groups"].append(3), "not usable|another network"),
    ],
)
def test_an_optimizer_state_that_the_recipe_would_not_give_is_refused(stopped, copy, never_trains, change, message):
    path = copy(stopped)
    change_checkpoint(path, "last", change)
    with pytest.raises(FileFormatError, match=r"last\.ckpt: .*" + message) as caught:
        training.train(out=path, resume=True, show="off")
    assert "\n" not in str(caught.value)


def test_how_the_optimizer_computes_may_vary_and_is_the_recipes(stopped, copy, monkeypatch):
    path = copy(stopped)

    def change(content):
        group(content).update(fused=None, foreach=True, lr=5.0)

    change_checkpoint(path, "last", change)
    seen = []
    training_step = Classifier.training_step

    def look(self, batch, batch_idx):
        if not seen:
            seen.append(dict(self.optimizer.param_groups[0]))
        return training_step(self, batch, batch_idx)

    monkeypatch.setattr(Classifier, "training_step", look)
    result = training.train(out=path, resume=True, show="off")
    assert (seen[0]["fused"], seen[0]["foreach"]) == (True, None)
    assert seen[0]["lr"] == pytest.approx(result.history[1].learning_rate * seen[0]["lr_scale"])


def test_missing_best_weights_are_noticed_at_once(finished, stopped, tmp_path, never_trains):
    for number, run in enumerate((finished, stopped)):
        path = shutil.copytree(run, tmp_path / str(number))
        (path / "checkpoints" / "best.ckpt").unlink()
        for text in refusals(path):
            assert text.startswith(f"{path / 'checkpoints' / 'best.ckpt'}: no such checkpoint")


@pytest.mark.parametrize("kind", ["finished", "stopped"])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.update(epoch=77), "epoch 77"),
        (lambda c: c.update(validation_error=c["validation_error"] / 2 + 0.001), "validation error 0."),
        (lambda c: c.update(validation_error=math.nan), "nan"),
        (lambda c: c.update(epoch=0), "epoch"),
        (lambda c: c.pop("epoch"), "does not say of which epoch it is"),
    ],
)
def test_best_weights_of_another_run_are_refused(request, copy, never_trains, kind, change, message):
    path = copy(request.getfixturevalue(kind))
    change_checkpoint(path, "best", change)
    for text in refusals(path):
        assert text.startswith(f"{path / 'checkpoints' / 'best.ckpt'}: ")
        assert message in text


def test_best_weights_that_are_exchanged_while_training_are_noticed(stopped, copy, monkeypatch):
    path = copy(stopped)
    training_step = Classifier.training_step
    foreign = [True]

    def exchange(self, batch, batch_idx):
        if foreign and self.current_epoch == 2:
            change_checkpoint(path, "best", lambda content: content.update(epoch=foreign.pop() and 77))
            monkeypatch.setattr("binarynet.training.progress.Progress.finish_epoch", finish)
        return training_step(self, batch, batch_idx)

    def finish(self, row):
        self.history.append(row)
        self.epoch, self.step, self.cost_sum = row.epoch, 0, 0.0
        return False

    monkeypatch.setattr(Classifier, "training_step", exchange)
    with pytest.raises(FileFormatError, match=r"best\.ckpt: .*epoch 77"):
        training.train(out=path, resume=True, show="off")


def test_a_run_killed_between_its_two_checkpoints_goes_on(finished, stopped, tmp_path):
    """The best weights are written first, so they may be one epoch ahead; that epoch is repeated."""
    whole = training.train(out=finished, resume=True, show="off")
    assert whole.best_epoch > 1
    path = shutil.copytree(stopped, tmp_path / "run")

    def of_the_next_epoch(content):
        content.update(epoch=2, validation_error=min(whole.history[1].validation_error, content["validation_error"]))

    change_checkpoint(path, "best", of_the_next_epoch)
    assert training.load_run(path).provenance["best_epoch"] == 2
    again = training.train(out=path, resume=True, show="off")
    assert (again.best_epoch, again.test_errors) == (whole.best_epoch, whole.test_errors)


def test_a_missing_last_checkpoint_is_not_a_run_from_its_start(finished, stopped, tmp_path, never_trains):
    for number, run in enumerate((finished, stopped)):
        path = shutil.copytree(run, tmp_path / str(number))
        (path / "checkpoints" / "last.ckpt").unlink()
        with pytest.raises(FileFormatError, match=r"last\.ckpt: no such checkpoint, but .*run\.json says"):
            training.train(out=path, resume=True, show="off")
    training.load_run(tmp_path / "0")  # its record says all that is to be known of the best weights


def test_a_last_checkpoint_of_another_run_is_noticed_in_a_finished_one(finished, stopped, copy):
    path = copy(finished)
    shutil.copy(stopped / "checkpoints" / "last.ckpt", path / "checkpoints" / "last.ckpt")
    with pytest.raises(FileFormatError, match=r"last\.ckpt: .* 1 .*run\.json says 3"):
        training.train(out=path, resume=True, show="off")


def test_a_full_disk_does_not_make_the_record_run_ahead_of_the_checkpoints(stopped, copy, monkeypatch):
    from binarynet.errors import DataError
    from binarynet.training import checkpoint

    path = copy(stopped)

    def full(*arguments):
        raise DataError("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save", full)
        with pytest.raises(DataError):
            training.train(out=path, resume=True, show="off")
    record = json.loads((path / "run.json").read_text())
    assert (record["status"], record["epochs"], record["best_epoch"]) == ("failed", 1, 1)


@pytest.mark.parametrize("size", [10**7, 10**17, 10**30])
def test_a_network_larger_than_memory_is_refused_before_it_is_made(quick_recipe, tmp_path, size):
    with pytest.raises(UsageError, match=r"the network needs .*bytes") as caught:
        training.train(quick_recipe, overrides=[f"model.hidden=[{size}, {size}]"], out=tmp_path / "run", show="off")
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_an_allocation_that_fails_is_told_in_one_line(quick_recipe, tmp_path, monkeypatch):
    def fail(*arguments):
        return torch.empty(10**16)  # more than any address space

    monkeypatch.setattr(Classifier, "training_step", fail)
    with pytest.raises(UsageError, match=r"the network needs .*bytes") as caught:
        training.train(quick_recipe, out=tmp_path / "run", show="off")
    assert "\n" not in str(caught.value)
    assert json.loads((tmp_path / "run" / "run.json").read_text())["status"] == "failed"


def test_other_errors_of_torch_are_not_called_a_lack_of_memory(quick_recipe, tmp_path, monkeypatch):
    monkeypatch.setattr(Classifier, "training_step", lambda *arguments: torch.zeros(2) @ torch.zeros(3))
    with pytest.raises(RuntimeError, match="size"):
        training.train(quick_recipe, out=tmp_path / "run", show="off")
