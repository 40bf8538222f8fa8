"""A process that trains and is killed by SIGKILL at a chosen point; run by ``test_resume.py``.

    python killed_run.py RUN RESUME WHERE EPOCH STEP

WHERE is "step" (before this step of this epoch, both from 0) or "save" (while the checkpoint of that place is being
written: the new file is complete, but not yet in the old one's place).
"""

import os
import signal
import sys

from binarynet.training import checkpoint, recipe, train
from binarynet.training.module import Classifier


def main(run: str, resume: str, where: str, epoch: str, step: str) -> None:
    place = (int(epoch), int(step))
    training_step, save = Classifier.training_step, checkpoint.save

    def killed_step(self, batch, batch_idx):
        if where == "step" and (self.current_epoch, batch.step) == place:
            os.kill(os.getpid(), signal.SIGKILL)
        return training_step(self, batch, batch_idx)

    def killed_save(path, kind, content):
        progress = content.get("progress")
        if where == "save" and progress and (progress["epoch"], progress["step"]) == place:
            os.replace = lambda *names: os.kill(os.getpid(), signal.SIGKILL)
        save(path, kind, content)

    Classifier.training_step = killed_step
    checkpoint.save = killed_save
    chosen = None if resume == "resume" else recipe.load(os.path.join(os.path.dirname(run), "recipe.toml"))
    train(chosen, out=run, resume=resume == "resume", show="off")


if __name__ == "__main__":
    main(*sys.argv[1:])
