"""The squared hinge loss, and counting errors."""

import numpy as np
import pytest
import torch
from torch import nn

from binarynet.data import Split
from binarynet.errors import NonFiniteError, ShapeError
from binarynet.training import evaluate, squared_hinge


def test_loss_is_the_mean_over_batch_and_classes():
    scores = torch.tensor([[2.0, -0.5, 0.25], [-3.0, 1.0, -1.0]])
    targets = np.array([[1, -1, -1], [-1, -1, 1]])
    expected = np.square(np.maximum(0, 1 - targets * scores.numpy())).mean()
    assert squared_hinge(scores, torch.tensor([0, 2])).item() == pytest.approx(expected, rel=1e-6)


def test_gradient_of_the_loss():
    scores = torch.tensor([[2.0, -0.5, 0.25]], dtype=torch.float64, requires_grad=True)
    squared_hinge(scores, torch.tensor([0])).backward()
    # d/dy max(0, 1 - t y)^2 = -2 t max(0, 1 - t y), over 3 elements
    assert scores.grad.tolist()[0] == pytest.approx([0.0, 2 * 0.5 / 3, 2 * 1.25 / 3])


def test_loss_refuses_other_shapes():
    with pytest.raises(ShapeError, match=r"got \[2, 3\] and \[3\]"):
        squared_hinge(torch.zeros(2, 3), torch.zeros(3, dtype=torch.long))


class Table(nn.Module):
    """Scores by the first pixel; row 3 is a tie between all classes."""

    def __init__(self):
        super().__init__()
        self.scores = nn.Parameter(torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 0, 1], [2, 2, 2]]))

    def forward(self, images):
        assert images.dtype == torch.uint8
        return self.scores[images[:, 0, 0, 0].long()]


def pixels(rows, labels):
    return Split(np.array(rows, dtype=np.uint8).reshape(-1, 1, 1, 1), np.array(labels, dtype=np.int64))


@pytest.mark.parametrize("batch_size", [1, 2, 100])
def test_errors_are_counted_and_ties_go_to_the_first_class(batch_size):
    model = Table().train()
    result = evaluate(model, pixels([0, 1, 2, 3, 3, 0], [0, 1, 0, 0, 1, 0]), batch_size=batch_size)
    assert (result.num_images, result.num_errors) == (6, 2)
    assert result.error == pytest.approx(1 / 3)
    whole = squared_hinge(model.scores[[0, 1, 2, 3, 3, 0]], torch.tensor([0, 1, 0, 0, 1, 0]))
    assert result.cost == pytest.approx(whole.item(), rel=1e-6)
    assert model.training


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_non_finite_parameters_are_named(bad):
    model = Table()
    with torch.no_grad():
        model.scores[1, 1] = bad
    with pytest.raises(NonFiniteError, match="scores holds 1 values that are NaN or infinite"):
        evaluate(model, pixels([0], [0]))


def test_non_finite_scores_are_found():
    class Divides(Table):
        def forward(self, images):
            return super().forward(images) / torch.zeros(1)

    with pytest.raises(NonFiniteError, match="look for NaN"):
        evaluate(Divides(), pixels([0], [0]))
