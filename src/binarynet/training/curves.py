"""The picture of a run's training curves."""

from __future__ import annotations

import io
from collections.abc import Sequence

from binarynet.training.progress import EpochRow


def draw(history: Sequence[EpochRow], title: str, *, best_epoch: int, test_error: float | None = None) -> bytes:
    """Cost, validation error and learning rate over epochs, as a PNG.

    Args:
        history: at least one finished epoch.
        title: heading.
        best_epoch: the epoch that was selected, marked.
        test_error: error of the selected weights on the test split, 0 to 1, if known.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    epochs = [row.epoch for row in history]
    marker = "o" if len(epochs) < 3 else None
    figure = Figure(figsize=(8, 9), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title)
    cost, error, rate = figure.subplots(3, 1, sharex=True, height_ratios=(3, 3, 1.4))

    cost.plot(epochs, [row.training_cost for row in history], color="tab:blue", marker=marker, label="training")
    cost.plot(epochs, [row.validation_cost for row in history], color="tab:orange", marker=marker, label="validation")
    cost.set_yscale("log")
    cost.set_ylabel("cost (mean squared hinge)")
    cost.legend(frameon=False)

    percent = [100 * row.validation_error for row in history]
    error.plot(epochs, percent, color="tab:orange", marker=marker, label="validation")
    best = percent[best_epoch - 1]
    error.plot(
        [best_epoch], [best], "o", color="tab:green", label=f"selected: epoch {best_epoch}, validation {best:.2f} %"
    )
    if test_error is not None:
        error.axhline(100 * test_error, color="0.4", linestyle=":", label=f"test {100 * test_error:.2f} %")
    positive = [value for value in percent if value > 0]
    if len(positive) == len(percent) and max(percent) > 5 * min(percent):
        error.set_yscale("log")
        plain = FuncFormatter(lambda value, _: f"{value:g}")
        error.yaxis.set_major_formatter(plain)
        error.yaxis.set_minor_formatter(plain)
    else:
        error.set_ylim(bottom=0)
    error.set_ylabel("error (%)")
    error.legend(frameon=False)

    rate.plot(epochs, [row.learning_rate for row in history], color="0.4", marker=marker)
    rate.set_yscale("log")
    rate.set_ylabel("learning rate")
    rate.set_xlabel("epoch")
    rate.xaxis.set_major_locator(MaxNLocator(integer=True))

    for axes in (cost, error, rate):
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=110)
    return picture.getvalue()
