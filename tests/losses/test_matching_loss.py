"""The matching loss: closed forms of both read-outs, what leaves it unchanged, and large logits."""

import numpy as np
import pytest
import tensorflow as tf

from aitom_ssl.errors import InputError
from aitom_ssl.losses import matching_loss
from aitom_ssl.losses.matching import READOUTS
from aitom_ssl.oneshot import trained


def binary(probabilities, labels):
    """Mean binary cross-entropy, written out."""
    total = []
    for row, label in zip(probabilities, labels, strict=True):
        for j, p in enumerate(row):
            total.append(-np.log(p if j == label else 1 - p))
    return np.mean(total)


def test_equals_binary_cross_entropy_written_out():
    logits = np.random.default_rng(0).normal(0, 2, (5, 4))
    labels = np.array([0, 3, 1, 1, 2])
    softmax = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    assert float(matching_loss(logits, labels, "softmax")) == pytest.approx(binary(softmax, labels), rel=1e-5)
    sigmoid = 1 / (1 + np.exp(-logits))
    assert float(matching_loss(logits, labels, "sigmoid")) == pytest.approx(binary(sigmoid, labels), rel=1e-5)


def test_of_two_ways_softmax_is_the_cross_entropy():
    logits = np.array([[1.0, -0.5]])
    assert float(matching_loss(logits, [0])) == pytest.approx(np.log(1 + np.exp(-1.5)))


def test_knowing_nothing():
    logits = np.zeros((2, 3, 4))
    labels = np.zeros((2, 3), int)
    # softmax: 1/4 right and 3/4 wrong of each; sigmoid: a half of each.
    assert float(matching_loss(logits, labels)) == pytest.approx((np.log(4) + 3 * np.log(4 / 3)) / 4)
    assert float(matching_loss(logits, labels, "sigmoid")) == pytest.approx(np.log(2))


def test_only_sigmoid_feels_a_constant():
    logits = np.random.default_rng(1).normal(0, 1, (3, 3))
    labels = np.arange(3)
    assert float(matching_loss(logits + 5, labels)) == pytest.approx(float(matching_loss(logits, labels)), rel=1e-5)
    assert float(matching_loss(logits + 5, labels, "sigmoid")) > float(matching_loss(logits, labels, "sigmoid")) + 1


@pytest.mark.parametrize("readout", READOUTS)
def test_large_logits_stay_finite_and_teach(readout):
    logits = tf.Variable([[-300.0, 300.0, 0.0]])
    with tf.GradientTape() as tape:
        loss = matching_loss(logits, [0], readout)
    gradient = tape.gradient(loss, logits).numpy()
    assert np.isfinite(float(loss)) and np.isfinite(gradient).all()
    assert gradient[0, 0] < -0.3 and gradient[0, 1] > 0.3


def test_the_readouts_are_those_of_trained_networks():
    assert READOUTS == trained.READOUTS
    with pytest.raises(InputError, match="readout='max'"):
        matching_loss(np.zeros((1, 2)), [0], "max")
