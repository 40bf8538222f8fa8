"""One of several processes that train together, go wrong together, and go on; run by ``test_several_processes.py``.

    torchrun --nproc-per-node 2 several_processes.py FOLDER

FOLDER holds two recipes; runs and the outcome of each, ``RANK.json``, are put there. At the end process 1 is killed
in the middle of an epoch.
"""

import json
import os
import signal
import sys
from contextlib import ExitStack
from pathlib import Path
from unittest.mock import patch

from binarynet import data
from binarynet.errors import BinaryNetError, DataError
from binarynet.training import TrainingInterrupted, checkpoint, recipe, train
from binarynet.training.interrupt import Interrupt
from binarynet.training.module import Classifier

RANK = int(os.environ["RANK"])
PLACE = (1, 8)  # epoch and step, both from 0


def main(folder):
    chosen = recipe.load(folder / "recipe.toml")
    outcomes = {}

    def attempt(name, run, *patches, chosen=chosen, overrides=(), resume=False):
        try:
            with ExitStack() as stack:
                for each in patches:
                    stack.enter_context(each)
                result = train(chosen, overrides=overrides, out=folder / run, resume=resume, show="off")
            outcomes[name] = ["done", result.to_dict()]
        except (BinaryNetError, TrainingInterrupted) as error:
            outcomes[name] = [type(error).__name__, str(error)]

    attempt("whole", "whole")
    attempt("read again", "whole", resume=True)
    attempt("in the way", "whole")
    attempt("stopped", "stopped", at_place(lambda module: setattr(interrupts[-1], "requested", RANK == 1)), remembered)
    attempt("went on", "stopped", resume=True)
    attempt("full disk", "full", patch.object(checkpoint, "save", full))
    attempt("no data", "none", patch.object(data, "load", missing))
    rates = ["optimizer.learning_rate=1e38", "optimizer.final_learning_rate=1e37"]
    attempt("diverged", "diverged", overrides=[*rates, "training.checkpoint_every_steps=0"])
    attempt("still", "still", chosen=recipe.load(folder / "still.toml"))
    attempt("apart", "apart", overrides=["training.synchronize_statistics=false"])
    averaged = ["training.average=0.9", "training.synchronize_statistics=false"]
    attempt("apart, averaged", "apart-averaged", overrides=averaged)
    (folder / f"{RANK}.json").write_text(json.dumps(outcomes))
    attempt("killed", "killed", at_place(lambda module: RANK == 1 and os.kill(os.getpid(), signal.SIGKILL)))


def at_place(act):
    """Do something before one training step."""
    training_step = Classifier.training_step

    def step(self, batch, batch_idx):
        if (self.current_epoch, batch.step) == PLACE:
            act(self)
        return training_step(self, batch, batch_idx)

    return patch.object(Classifier, "training_step", step)


interrupts = []
remembered = patch.object(Interrupt, "__enter__", lambda self: interrupts.append(self) or self)
load = data.load


def full(path, kind, content):
    raise DataError(f"{path}: cannot be written: no space left on device")


def missing(*arguments, **options):
    if RANK == 1:
        raise DataError("digits: not here")
    return load(*arguments, **options)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
