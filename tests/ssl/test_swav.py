"""SwAV: steps against a transcription, prototypes and their freezing, the queue's start, small crops."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from aitom_ssl.errors import InputError
from aitom_ssl.ssl import SwAV
from aitom_ssl.ssl.small_crops import random_box
from aitom_ssl.ssl.swav import entropy


def sinkhorn(scores, epsilon):
    q = np.exp(np.asarray(scores, np.float64) / epsilon).T
    for _ in range(3):
        q /= q.sum(axis=1, keepdims=True)
        q /= q.sum(axis=0, keepdims=True)
    return q.T


@pytest.mark.parametrize("small", [0, 2])
def test_steps_equal_a_transcription(tiny_encoder, wave, volumes, small):
    """Six SGD steps of the original's loop: prototypes frozen for two, a queue from the second on, full from the third.

    The queue is a list of batches, each view's own; prototypes are normalised at the start of a step.
    """
    dim, k, epsilon, temperature, rate = 4, 3, 0.1, 0.2, 0.01
    options = {"small_crops": small, "small_encoder": tiny_encoder(side=5, any_size=True)} if small else {}
    swav = SwAV(tiny_encoder(any_size=True), wave, dim, k, epsilon, 3, temperature, "v2_bn", 8, 1, 2, seed=1, **options)
    network = keras.models.clone_model(swav.network)
    network.set_weights(swav.network.get_weights())
    reduced = keras.models.clone_model(swav.small_network) if small else None
    c = tf.Variable(swav.prototypes.numpy())
    swav.compile(keras.optimizers.SGD(rate))

    queue, losses, expected = [], [], []
    for step in range(6):
        batch = volumes[4 * (step % 3) : 4 * (step % 3) + 4]
        views = [wave(batch, np.array([2 + view, step])) for view in range(2 + small)]
        boxes = [random_box(v, 5, np.array([4 + i, step])) for i, v in enumerate(views[2:])]
        c.assign(tf.math.l2_normalize(c, axis=1))
        with tf.GradientTape() as tape:
            z = tf.math.l2_normalize(network(np.concatenate(views[:2]), training=True), axis=1)
            z = [z[:4], z[4:]]
            if small:
                # The same weights in copies: copied in before, their gradients added after.
                reduced.set_weights(_matching(reduced, network))
                few = tf.math.l2_normalize(reduced(np.concatenate(boxes), training=True), axis=1)
                z += [few[4 * i : 4 * i + 4] for i in range(small)]
            scores = [row @ tf.transpose(c) for row in z]
            loss = 0.0
            for i in (0, 1):
                earlier = [rows[i] @ c.numpy().T for rows in queue] if len(queue) == 2 else []
                code = sinkhorn(np.concatenate([*earlier, scores[i]]), epsilon)[-4:].astype(np.float32)
                for v in (v for v in range(2 + small) if v != i):
                    cross = -tf.reduce_sum(code * tf.nn.log_softmax(scores[v] / temperature, axis=1), axis=1)
                    loss += tf.reduce_mean(cross) / (1 + small) / 2
        if step >= 1:
            queue = (queue + [[z[0].numpy(), z[1].numpy()]])[-2:]
        trained = [*network.trainable_variables, c, *(reduced.trainable_variables if small else [])]
        gradients = tape.gradient(loss, trained)
        count = len(network.trainable_variables)
        if small:
            gradients[:count] = [a + b for a, b in zip(gradients[:count], gradients[count + 1 :], strict=True)]
        for w, gradient in zip(network.trainable_variables, gradients[:count], strict=True):
            w.assign_sub(rate * gradient)
        if step >= 2:
            c.assign_sub(rate * gradients[count])
        expected.append(float(loss))
        swav.reset_metrics()
        logs = swav.train_on_batch(batch, return_dict=True)
        losses.append(float(logs["loss"]))
        assert float(logs["queue_fill"]) == [0, 0.5, 1, 1, 1, 1][step]

    np.testing.assert_allclose(losses, expected, atol=5e-5)
    np.testing.assert_allclose(swav.prototypes, tf.math.l2_normalize(c, axis=1), atol=1e-4)
    for ours, theirs in zip(swav.network.trainable_weights, network.trainable_weights, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=2e-4)


def _matching(network, donor):
    """Values for the weights of `network`: the donor's trainable ones, in order, and its own statistics."""
    values = iter(v.numpy() for v in donor.trainable_variables)
    return [next(values) if v.trainable else v.numpy() for v in network.weights]


@pytest.mark.parametrize("optimizer", [keras.optimizers.AdamW, keras.optimizers.SGD])
def test_nothing_moves_frozen_prototypes_and_then_everything_does(tiny_encoder, wave, volumes, optimizer):
    swav = SwAV(tiny_encoder(), wave, dim=4, prototypes=5, queue_size=0, freeze_steps=3)
    momentum = {"momentum": 0.9} if optimizer is keras.optimizers.SGD else {}
    swav.compile(optimizer(0.05, weight_decay=0.5, **momentum))
    swav.run_eagerly = True
    start = swav.prototypes.numpy()
    np.testing.assert_allclose(np.linalg.norm(start, axis=1), 1, rtol=1e-6)
    for _ in range(3):
        swav.train_on_batch(volumes[:6])
        np.testing.assert_array_equal(swav.prototypes.numpy(), start)
    swav.train_on_batch(volumes[:6])
    moved = swav.prototypes.numpy()
    assert np.abs(moved - start).max() > 1e-3
    np.testing.assert_allclose(np.linalg.norm(moved, axis=1), 1, rtol=1e-6)


def test_the_first_step_after_the_freeze_is_no_larger_than_others(tiny_encoder, wave, volumes):
    """Had Adam's averages been held at zero meanwhile, it would take a step of several times the rate."""
    swav = SwAV(tiny_encoder(), wave, dim=4, prototypes=5, queue_size=0, freeze_steps=30)
    swav.compile(keras.optimizers.Adam(1e-3))
    for _ in range(30):
        swav.train_on_batch(volumes[:6])
    start = swav.prototypes.numpy()
    swav.train_on_batch(volumes[:6])
    assert 1e-5 < np.abs(swav.prototypes.numpy() - start).max() < 1.5e-3


def test_prototypes_have_no_bias_and_depend_on_the_seed(tiny_encoder, wave):
    first, again, other = (SwAV(tiny_encoder(), wave, dim=4, prototypes=6, seed=seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first.prototypes, again.prototypes)
    assert np.abs(first.prototypes.numpy() - other.prototypes.numpy()).max() > 0.1
    assert len(first.trainable_variables) == len(first.network.trainable_variables) + 1


def test_watches_its_codes(tiny_encoder, wave, volumes):
    swav = SwAV(tiny_encoder(), wave, dim=4, prototypes=4, queue_size=0)
    swav.compile("sgd")
    swav.run_eagerly = True
    logs = swav.train_on_batch(volumes, return_dict=True)
    assert set(logs) == {"loss", "pretext_accuracy", "feature_std", "code_entropy", "prototypes_used"}
    assert all(0 < float(logs[name]) <= 1 for name in ("code_entropy", "prototypes_used"))
    np.testing.assert_allclose(entropy([[0.25] * 4, [1, 0, 0, 0]]), [np.log(4), 0], atol=1e-6)


def test_small_crops_are_drawn_from_views_of_their_own(tiny_encoder, wave, volumes):
    small = tiny_encoder(side=5, any_size=True)
    swav = SwAV(tiny_encoder(any_size=True), wave, dim=4, small_crops=2, small_encoder=small, seed=3)
    swav.step.assign(7)
    views = swav.views(volumes)
    assert [v.shape[1] for v in views] == [8, 8, 5, 5]
    for i in (2, 3):
        seed = np.array([6 + i, 7])
        np.testing.assert_allclose(views[i], random_box(wave(volumes, seed), 5, seed), atol=1e-5)
    assert swav(views).shape == (48, 4)


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ({"prototypes": 1}, "prototypes=1 must be an integer of 2"),
        ({"epsilon": 0}, "epsilon=0 must be above 0"),
        ({"iterations": 0}, "iterations=0"),
        ({"queue_size": -1}, "queue_size=-1"),
        ({"queue_start": -1}, "queue_start=-1"),
        ({"freeze_steps": 0.5}, "freeze_steps=0.5"),
        ({"small_crops": 2}, "small_crops=2 and small_encoder=None: give both"),
    ],
)
def test_refuses(tiny_encoder, wave, option, said):
    with pytest.raises(InputError, match=said):
        SwAV(tiny_encoder(), wave, **option)


def test_refuses_small_crops_that_do_not_fit(tiny_encoder, wave):
    large = tiny_encoder(any_size=True)
    with pytest.raises(InputError, match=r"small crops of 8\^3 must be smaller than the views, 8\^3"):
        SwAV(large, wave, small_crops=1, small_encoder=tiny_encoder(any_size=True))
    with pytest.raises(InputError, match="volumes of any size: layer dense"):
        SwAV(tiny_encoder(), wave, small_crops=1, small_encoder=tiny_encoder(side=5))
