"""The Dice loss: closed forms, its range, the gradient of an empty mask."""

import numpy as np
import pytest
import tensorflow as tf

from aitom_ssl.errors import InputError
from aitom_ssl.losses import dice_loss


def test_closed_forms():
    mask = np.zeros((2, 4, 4, 4, 1), np.uint8)
    mask[0, :2] = 1  # 32 voxels
    assert float(dice_loss(mask, mask.astype(np.float32))) == pytest.approx(0)
    # Nothing where 32 voxels are: 1 - 1 / 33. All of 128: 1 - (64 + 1) / (32 + 128 + 1).
    assert float(dice_loss(mask, np.zeros(mask.shape, np.float32))) == pytest.approx(32 / 33)
    assert float(dice_loss(mask, np.ones(mask.shape, np.float32))) == pytest.approx(1 - 65 / 161)
    # A half everywhere: overlap 16, sums 32 and 64.
    assert float(dice_loss(mask, np.full(mask.shape, 0.5, np.float32))) == pytest.approx(1 - 33 / 97)
    assert float(dice_loss(mask, np.full(mask.shape, 0.5, np.float32), smooth=1e-6)) == pytest.approx(1 - 32 / 96)


def test_no_mask_and_no_prediction_is_no_loss():
    empty = np.zeros((1, 2, 2, 2, 1))
    assert float(dice_loss(empty, empty)) == 0


def test_sums_run_over_the_batch():
    """As in the code: a volume of two voxels and one of two hundred count by their voxels."""
    small, large = np.zeros((1, 6, 6, 6)), np.ones((1, 6, 6, 6))
    small[0, 0, 0, :2] = 1
    truth = np.concatenate([small, large])
    found = float(dice_loss(truth, np.concatenate([0 * small, large])))
    assert found == pytest.approx(1 - (2 * 216 + 1) / (218 + 216 + 1), abs=1e-6)


def test_each_volume_by_itself():
    rng = np.random.default_rng(0)
    truth, predicted = rng.random((2, 3, 4, 4, 4, 1)) > 0.8, rng.random((2, 3, 4, 4, 4, 1))
    each = [float(dice_loss(g, p)) for g, p in zip(truth.reshape(6, -1), predicted.reshape(6, -1), strict=True)]
    assert float(dice_loss(truth, predicted, over="volume")) == pytest.approx(np.mean(each), rel=1e-5)
    assert float(dice_loss(truth, predicted)) != pytest.approx(np.mean(each), rel=1e-5)


def test_an_empty_mask_has_a_gradient_that_lowers_the_prediction():
    predicted = tf.Variable(np.full((1, 2, 2, 2), 0.3, np.float32))
    with tf.GradientTape() as tape:
        loss = dice_loss(np.zeros((1, 2, 2, 2)), predicted)
    gradient = tape.gradient(loss, predicted).numpy()
    # d/dp of 1 - 1 / (S + 1), S = 2.4.
    np.testing.assert_allclose(gradient, 1 / 3.4**2, rtol=1e-5)


def test_bfloat16_is_summed_in_float32():
    rng = np.random.default_rng(0)
    truth, predicted = rng.random((2, 16, 16, 16)) > 0.5, rng.random((2, 16, 16, 16)).astype(np.float32)
    rounded = tf.cast(predicted, "bfloat16")
    found = dice_loss(truth, rounded)
    assert found.dtype == "float32"
    assert float(found) == pytest.approx(float(dice_loss(truth, tf.cast(rounded, "float32"))), abs=1e-6)


def test_refuses():
    with pytest.raises(InputError, match="smooth=0"):
        dice_loss(np.ones((1, 2)), np.ones((1, 2)), smooth=0)
    with pytest.raises(InputError, match="over='voxel' must be one of batch, volume"):
        dice_loss(np.ones((1, 2)), np.ones((1, 2)), over="voxel")
    with pytest.raises(InputError, match=r"masks \(1, 2\) and probabilities \(1, 3\)"):
        dice_loss(np.ones((1, 2)), np.ones((1, 3)))
    with pytest.raises(InputError, match="one shape"):
        dice_loss(np.ones((2, 2)), np.ones((2, 2, 1)))
