"""Whitening and contrast normalization against NumPy, and binary layers behind them."""

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from binarynet.errors import ShapeError, UsageError
from binarynet.layers import BinaryConv2d, BinaryLinear, ContrastNormalization, Whitening


def smooth_images(count, channels=2, height=5, width=4, seed=0):
    """Neighbouring pixels alike, so that there is something to whiten."""
    rng = np.random.default_rng(seed)
    steps = rng.normal(0, 25, (count, channels, height, width)).cumsum(2).cumsum(3)
    return torch.from_numpy(np.clip(128 + steps, 0, 255).astype(np.uint8))


@pytest.fixture(scope="module")
def whitening():
    module = Whitening((2, 5, 4))
    module.fit(smooth_images(300))
    return module


def test_whitening_is_the_formula(whitening):
    """With the singular values of the centred images instead of the covariance's eigenvalues."""
    train = smooth_images(300).flatten(1).numpy() / 255
    mean = train.mean(0)
    _, values, directions = np.linalg.svd(train - mean, full_matrices=False)
    matrix = directions.T / np.sqrt(values**2 / 300 + 0.1) @ directions
    images = smooth_images(7, seed=1)
    wanted = ((images.flatten(1).numpy() / 255 - mean) @ matrix).reshape(images.shape)
    result = whitening(images)
    assert result.dtype == torch.float32
    np.testing.assert_allclose(result.numpy(), wanted, rtol=0, atol=1e-5)
    np.testing.assert_allclose(whitening.matrix.numpy(), matrix, rtol=0, atol=1e-5)


def test_whitening_without_bias_leaves_uncorrelated_values_of_variance_1():
    module = Whitening((2, 5, 4), bias=1e-12)
    train = smooth_images(3000)
    module.fit(train)
    covariance = np.cov(module(train).flatten(1).double().numpy().T, bias=True)
    np.testing.assert_allclose(covariance, np.eye(40), rtol=0, atol=2e-3)


def test_fitting_in_blocks_is_fitting_at_once(whitening, monkeypatch):
    monkeypatch.setattr("binarynet.layers.preprocessing._BLOCK", 7)
    module = Whitening((2, 5, 4))
    module.fit(smooth_images(300))
    assert torch.equal(module.matrix, whitening.matrix)
    assert torch.equal(module.mean, whitening.mean)


def test_images_that_are_all_alike_are_whitened_to_zero():
    module = Whitening((1, 2, 2))
    module.fit(torch.full((5, 1, 2, 2), 7, dtype=torch.uint8))
    assert module(torch.full((1, 1, 2, 2), 7, dtype=torch.uint8)).abs().max() < 1e-6


def test_an_unfitted_whitening_says_so_and_a_stored_one_is_fitted(whitening):
    empty = Whitening((2, 5, 4))
    images = smooth_images(2)
    with pytest.raises(UsageError, match=r"Whitening: not fitted; call fit\(training_images\)"):
        empty(images)
    unfitted = copy.deepcopy(empty.state_dict())
    empty.load_state_dict(whitening.state_dict())
    assert torch.equal(empty(images), whitening(images))
    empty.load_state_dict(unfitted)
    assert not empty.fitted
    with torch.device("meta"):
        outline = Whitening((2, 5, 4))
    outline.load_state_dict(whitening.state_dict(), assign=True)
    assert torch.equal(outline(images), whitening(images))


def contrast_by_hand(image):
    """One image [channels, rows, columns] in [0, 1], pixel by pixel, float64."""
    image = image - image.mean()
    norm = np.sqrt((image**2).sum())
    image = image / (norm if norm >= 1e-8 else 1)
    offsets = range(-4, 5)
    weights = {(i, j): np.exp(-(i * i + j * j) / 8) for i in offsets for j in offsets}
    total = sum(weights.values())
    channels, rows, columns = image.shape

    def blur(plane, row, column):
        return sum(
            weight / total * plane[row + i, column + j]
            for (i, j), weight in weights.items()
            if 0 <= row + i < rows and 0 <= column + j < columns
        )

    result = np.empty_like(image)
    for channel in range(channels):
        at = np.ndindex(rows, columns)
        centred = np.array([image[channel][p] - blur(image[channel], *p) for p in at]).reshape(rows, columns)
        at = np.ndindex(rows, columns)
        spread = np.sqrt([blur(centred**2, *p) for p in at]).reshape(rows, columns)
        result[channel] = centred / np.maximum(np.maximum(spread, spread.mean()), 1e-4)
    return result


def test_contrast_normalization_is_the_formula():
    images = smooth_images(3, channels=3, height=11, width=7)
    images[1] = 200  # nothing but grey
    images[2, :, 0, 0] = 255
    images[2, :, 1:] = 0
    result = ContrastNormalization()(images)
    assert result.dtype == torch.float32
    for image, got in zip(images, result, strict=True):
        np.testing.assert_allclose(got.numpy(), contrast_by_hand(image.double().numpy() / 255), rtol=0, atol=2e-5)
    assert torch.equal(result[1], torch.zeros_like(result[1]))
    assert ContrastNormalization()(images[:0]).shape == (0, 3, 11, 7)


def test_an_image_does_not_see_the_others_nor_its_brightness_and_contrast():
    images = smooth_images(4, channels=3, height=9, width=9) // 4
    module = ContrastNormalization()
    torch.testing.assert_close(module(images[1:2]), module(images)[1:2], rtol=0, atol=1e-5)
    torch.testing.assert_close(module(images * 2 + 90), module(images), rtol=0, atol=2e-4)


@pytest.mark.parametrize("module", ["whitening", "contrast"])
def test_no_gradient_no_autocast_and_one_compiled_graph(module, whitening):
    module = whitening if module == "whitening" else ContrastNormalization()
    images = smooth_images(3)
    result = module(images)
    assert not result.requires_grad
    assert not list(module.parameters())
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(module(images), result)
    assert torch.equal(torch.compile(module, backend="eager", fullgraph=True)(images), result)


def test_what_is_refused():
    for module in (Whitening((2, 5, 4)), ContrastNormalization()):
        with pytest.raises(
            ShapeError, match=r"expected uint8 \[batch, channels, height, width\], got torch.float32 \[3"
        ):
            module(smooth_images(3).float())
    with pytest.raises(ShapeError, match=r"Whitening: expected \[n, 2, 5, 4\], got \[3, 2, 4, 4\]"):
        Whitening((2, 5, 4)).fit(smooth_images(3, height=4))
    with pytest.raises(ShapeError, match=r"expected uint8 images to fit to, got torch.float32"):
        Whitening((2, 5, 4)).fit(smooth_images(3).float())
    with pytest.raises(ShapeError, match="expected uint8 images to fit to"):
        Whitening((2, 5, 4)).fit(smooth_images(3)[:0])
    with pytest.raises(UsageError, match=r"images of 1 to 8,192 values, got 12,288 \(\[3, 64, 64\]\); use smaller"):
        Whitening((3, 64, 64))
    with pytest.raises(UsageError, match="bias must be above 0, got 0"):
        Whitening((1, 2, 2), bias=0)
    with pytest.raises(UsageError, match="expected an odd kernel_size"):
        ContrastNormalization(kernel_size=4)


@pytest.mark.parametrize(("inputs", "outputs"), [(2, 6), (32, 64)])  # of the second, +-1 operands would be packed
def test_layers_with_real_inputs(inputs, outputs):
    x = torch.randn(3, inputs, 5, 4)
    conv = BinaryConv2d(inputs, outputs, 3, padding=1, real_input=True)
    dense = BinaryLinear(20 * inputs, outputs, real_input=True)
    for layer, operand, by_hand in (
        (conv, x, lambda x, signs: F.conv2d(x, signs, padding=1)),
        (dense, x.flatten(1), lambda x, signs: x @ signs.T),
    ):
        signs = torch.where(layer.weight >= 0, 1.0, -1.0).detach().requires_grad_()
        wanted = by_hand(operand, signs)
        sums = layer(operand)
        torch.testing.assert_close(sums, wanted, rtol=1e-5, atol=1e-4)
        assert not torch.equal(sums, sums.round())
        upstream = torch.randn_like(wanted)
        wanted.backward(upstream)
        sums.backward(upstream)
        torch.testing.assert_close(layer.weight.grad, signs.grad, rtol=1e-5, atol=1e-4)
    assert "real_input=True" in str(dense)
    with torch.device("meta"):
        assert BinaryLinear(1 << 25, 1, real_input=True).fan_in == 1 << 25  # no bound of integers to keep


def test_layers_with_real_inputs_refuse_bytes_and_bounds():
    dense = BinaryLinear(4, 6, real_input=True)
    with pytest.raises(ShapeError, match=r"BinaryLinear: expected floats, got torch.uint8 \[3, 4\]"):
        dense(torch.zeros(3, 4, dtype=torch.uint8))
    with pytest.raises(UsageError, match="sums of real inputs have no bound"):
        _ = dense.sum_bound
    with pytest.raises(UsageError, match="first=True takes bytes, real_input=True floats; give one of them"):
        BinaryLinear(4, 6, first=True, real_input=True)
