"""MoCo: steps against a transcription, what moves and what does not."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from aitom_ssl.errors import InputError
from aitom_ssl.ssl import MoCo


def arrays(variables):
    return [np.array(v.numpy()) for v in variables]


@pytest.mark.parametrize("symmetric", [False, True])
def test_steps_equal_a_transcription(tiny_encoder, wave, volumes, symmetric):
    """Three SGD steps in the order of the original code, with a list as the queue."""
    dim, size, m, temperature, rate = 4, 7, 0.8, 0.3, 0.02
    moco = MoCo(tiny_encoder(norm=True), wave, dim, size, m, temperature, "v2_bn", symmetric, seed=2)
    query, key = (keras.models.clone_model(moco.query_network) for _ in range(2))
    for network in (query, key):
        network.set_weights(moco.query_network.get_weights())
    moco.compile(keras.optimizers.SGD(rate))

    queue, losses, expected = [], [], []
    for step, batch in enumerate((volumes[:4], volumes[4:8], volumes[8:12])):
        views = [wave(batch, np.array([4 + view, step])) for view in (0, 1)]
        with tf.GradientTape() as tape:
            pairs = [(0, 1), (1, 0)] if symmetric else [(0, 1)]
            queries = [tf.math.l2_normalize(query(views[a], training=True), axis=1) for a, _ in pairs]
            for k, w in zip(key.trainable_variables, query.trainable_variables, strict=True):
                k.assign(m * k + (1 - m) * w)
            keys = [tf.math.l2_normalize(key(views[b], training=True), axis=1) for _, b in pairs]
            loss = 0.0
            for q, k in zip(queries, keys, strict=True):
                columns = [tf.reduce_sum(q * tf.stop_gradient(k), axis=1, keepdims=True)]
                if queue:
                    columns.append(q @ np.array(queue, np.float32).T)
                logits = tf.concat(columns, axis=1) / temperature
                labels = tf.zeros(len(batch), tf.int32)
                loss += tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)) / len(pairs)
        for w, gradient in zip(query.trainable_variables, tape.gradient(loss, query.trainable_variables), strict=True):
            w.assign_sub(rate * gradient)
        queue = (queue + [row for k in keys for row in k.numpy()])[-size:]
        expected.append(float(loss))
        moco.reset_metrics()
        losses.append(float(moco.train_on_batch(batch, return_dict=True)["loss"]))

    np.testing.assert_allclose(losses, expected, atol=2e-4)
    for ours, theirs in ((moco.query_network, query), (moco.key_network, key)):
        for a, b in zip(arrays(ours.weights), arrays(theirs.weights), strict=True):
            np.testing.assert_allclose(a, b, atol=1e-4)
    held = sorted(map(tuple, moco.queue.rows.numpy()))
    np.testing.assert_allclose(held, sorted(map(tuple, queue)), atol=1e-4)


def test_momentum_update_is_a_geometric_series_of_parameters_only(tiny_encoder, wave):
    moco = MoCo(tiny_encoder(norm=True), wave, dim=4, momentum=0.9)
    keys, queries = moco.key_network.weights, moco.query_network.weights
    start = [np.random.default_rng(i).standard_normal(v.shape) for i, v in enumerate(keys)]
    for variable, value in zip(keys, start, strict=True):
        variable.assign(value)
    for _ in range(5):
        moco._update_key_network()
    for query, key, before in zip(queries, keys, start, strict=True):
        after = query + 0.9**5 * (before - query) if query.trainable else before
        np.testing.assert_allclose(key, after, atol=1e-5)


def test_key_network_gets_no_gradient_but_its_own_batch_statistics(tiny_encoder, wave, volumes):
    moco = MoCo(tiny_encoder(norm=True), wave, dim=4, momentum=0.5)
    assert not moco.key_network.trainable_variables
    assert len(moco.trainable_variables) == len(moco.query_network.trainable_variables)
    statistics = [i for i, w in enumerate(moco.key_network.weights) if "moving" in w.path]
    before = arrays(moco.key_network.weights)
    moco.compile(keras.optimizers.SGD(0.0))
    moco.fit(volumes, batch_size=6, verbose=0)
    key, query = arrays(moco.key_network.weights), arrays(moco.query_network.weights)
    assert len(statistics) == 4
    for i in statistics:
        # Moved, and by other batches (the second view) than the query's.
        assert np.abs(key[i] - before[i]).max() > 1e-4
        assert np.abs(key[i] - query[i]).max() > 1e-6


def test_first_step_has_no_negatives(tiny_encoder, wave, volumes):
    moco = MoCo(tiny_encoder(), wave, dim=4, queue_size=24)
    moco.compile("adam")
    logs = moco.train_on_batch(volumes, return_dict=True)
    assert logs["loss"] == 0
    assert logs["pretext_accuracy"] == 1
    moco.reset_metrics()
    logs = moco.train_on_batch(volumes, return_dict=True)
    assert logs["loss"] > 0
    assert logs["queue_fill"] == 1


@pytest.mark.parametrize(
    "options", [{"dim": 0}, {"queue_size": 0}, {"queue_size": 2.5}, {"momentum": 1.0}, {"symmetric": "yes"}]
)
def test_refuses(tiny_encoder, wave, options):
    (name,) = options
    with pytest.raises(InputError, match=name):
        MoCo(tiny_encoder(), wave, **options)


