"""SimCLR: steps against a transcription, the published head, batches of one."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from aitom_ssl.errors import InputError
from aitom_ssl.ssl import SimCLR


def test_steps_equal_a_transcription(tiny_encoder, wave, volumes):
    """Two SGD steps: one pass over both views, then the loss of algorithm 1 of Chen 2020, pair by pair."""
    temperature, rate = 0.5, 0.05
    simclr = SimCLR(tiny_encoder(norm=True), wave, dim=4, temperature=temperature, seed=2)
    network = keras.models.clone_model(simclr.network)
    network.set_weights(simclr.network.get_weights())
    simclr.compile(keras.optimizers.SGD(rate))

    losses, expected = [], []
    for step, batch in enumerate((volumes[:5], volumes[5:10])):
        n = len(batch)
        views = np.concatenate([wave(batch, np.array([4 + view, step])) for view in (0, 1)])
        with tf.GradientTape() as tape:
            z = tf.math.l2_normalize(network(views, training=True), axis=1)
            total = 0.0
            for i in range(2 * n):
                others = [k for k in range(2 * n) if k != i]
                similarity = tf.linalg.matvec(z, z[i]) / temperature
                total += tf.reduce_logsumexp(tf.gather(similarity, others)) - similarity[(i + n) % (2 * n)]
            loss = total / (2 * n)
        gradients = tape.gradient(loss, network.trainable_variables)
        for w, gradient in zip(network.trainable_variables, gradients, strict=True):
            w.assign_sub(rate * gradient)
        expected.append(float(loss))
        simclr.reset_metrics()
        losses.append(float(simclr.train_on_batch(batch, return_dict=True)["loss"]))

    np.testing.assert_allclose(losses, expected, atol=5e-5)
    for ours, theirs in zip(simclr.network.weights, network.weights, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-4)


def test_embeddings_of_a_view_do_not_depend_on_whether_there_are_two(tiny_encoder, wave, volumes):
    simclr = SimCLR(tiny_encoder(), wave, dim=4)
    both = simclr((volumes, -volumes))
    np.testing.assert_allclose(both[:12], simclr(volumes), atol=1e-6)
    np.testing.assert_allclose(both[12:], simclr(-volumes), atol=1e-6)


def test_a_batch_of_one_has_no_negatives(tiny_encoder, wave, volumes):
    simclr = SimCLR(tiny_encoder(), wave, dim=4)
    simclr.compile("sgd")
    with pytest.raises(InputError, match=r"batch of 1 volume .* 2 or more"):
        simclr.train_on_batch(volumes[:1])
