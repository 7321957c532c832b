"""MoCo: one step against a transcription, the queue against a list, what moves and what does not."""

import os
import subprocess
import sys
import textwrap

import keras
import numpy as np
import pytest
import tensorflow as tf

from aitom_ssl.errors import InputError
from aitom_ssl.ssl import MoCo


def arrays(variables):
    return [np.array(v.numpy()) for v in variables]


def test_steps_equal_a_transcription(tiny_encoder, wave, volumes):
    """Three SGD steps in the order of the original code, with a list as the queue."""
    dim, size, m, temperature, rate = 4, 7, 0.8, 0.3, 0.02
    moco = MoCo(tiny_encoder(norm=True), wave, dim, size, m, temperature, head="v2_bn", seed=2)
    query, key = (keras.models.clone_model(moco.query_network) for _ in range(2))
    for network in (query, key):
        network.set_weights(moco.query_network.get_weights())
    moco.compile(keras.optimizers.SGD(rate))

    queue, losses, expected = [], [], []
    for step, batch in enumerate((volumes[:4], volumes[4:8], volumes[8:12])):
        views = [wave(batch, np.array([4 + view, step])) for view in (0, 1)]
        with tf.GradientTape() as tape:
            q = tf.math.l2_normalize(query(views[0], training=True), axis=1)
            for k, w in zip(key.trainable_variables, query.trainable_variables, strict=True):
                k.assign(m * k + (1 - m) * w)
            keys = tf.math.l2_normalize(key(views[1], training=True), axis=1)
            columns = [tf.reduce_sum(q * tf.stop_gradient(keys), axis=1, keepdims=True)]
            if queue:
                columns.append(q @ np.array(queue, np.float32).T)
            logits = tf.concat(columns, axis=1) / temperature
            labels = tf.zeros(len(batch), tf.int32)
            loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits))
        for w, gradient in zip(query.trainable_variables, tape.gradient(loss, query.trainable_variables), strict=True):
            w.assign_sub(rate * gradient)
        queue = (queue + list(keys.numpy()))[-size:]
        expected.append(float(loss))
        moco.reset_metrics()
        losses.append(float(moco.train_on_batch(batch, return_dict=True)["loss"]))

    np.testing.assert_allclose(losses, expected, atol=5e-5)
    for ours, theirs in ((moco.query_network, query), (moco.key_network, key)):
        for a, b in zip(arrays(ours.weights), arrays(theirs.weights), strict=True):
            np.testing.assert_allclose(a, b, atol=1e-4)
    held = sorted(map(tuple, moco.queue.numpy()))
    np.testing.assert_allclose(held, sorted(map(tuple, queue)), atol=1e-4)


@pytest.mark.parametrize("batch", [1, 3, 4, 7, 12])
def test_queue_keeps_the_newest_keys_round_its_end(tiny_encoder, wave, batch):
    moco = MoCo(tiny_encoder(), wave, dim=2, queue_size=7)
    rng = np.random.default_rng(0)
    seen = []
    for _ in range(6):
        keys = rng.standard_normal((batch, 2)).astype(np.float32)
        moco._enqueue(keys)
        seen.extend(keys)
        pointer, filled = int(moco.pointer.value), int(moco.filled.value)
        assert (pointer, filled) == (len(seen) % 7, min(len(seen), 7))
        oldest_first = [(pointer - filled + i) % 7 for i in range(filled)]
        np.testing.assert_array_equal(moco.queue.numpy()[oldest_first], seen[-7:])


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


def test_evaluating_and_predicting_change_nothing(tiny_encoder, wave, volumes):
    moco = MoCo(tiny_encoder(norm=True), wave, dim=4, queue_size=5)
    moco.compile("adam")
    moco.fit(volumes, batch_size=4, verbose=0)
    before = arrays(moco.variables)
    moco.evaluate(volumes, batch_size=5, verbose=0)
    embedding = moco.predict(volumes, batch_size=5, verbose=0)
    for a, b in zip(before, arrays(moco.variables), strict=True):
        np.testing.assert_array_equal(a, b)
    np.testing.assert_allclose(np.linalg.norm(embedding, axis=1), 1, rtol=1e-5)


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


def test_all_state_is_weights(tiny_encoder, wave, volumes, tmp_path):
    moco, fresh = (MoCo(tiny_encoder(), wave, dim=4, queue_size=9, seed=seed) for seed in (0, 1))
    moco.compile("adam")
    moco.fit(volumes, batch_size=5, verbose=0)
    moco.save_weights(tmp_path / "state.weights.h5")
    fresh.load_weights(tmp_path / "state.weights.h5")
    for a, b in zip(arrays(moco.weights), arrays(fresh.weights), strict=True):
        np.testing.assert_array_equal(a, b)
    assert int(fresh.step.value) == 3
    assert int(fresh.pointer.value) == 12 % 9


def test_training_lowers_the_loss_without_collapsing(tiny_encoder, wave):
    volumes = np.random.default_rng(1).standard_normal((32, 8, 8, 8, 1)).astype(np.float32)
    moco = MoCo(tiny_encoder(), wave, dim=8, queue_size=16, momentum=0.9, head="v2_bn")
    moco.compile(keras.optimizers.Adam(1e-2))
    history = moco.fit(volumes, batch_size=8, epochs=20, verbose=0, shuffle=False).history
    assert history["loss"][-1] < 0.5 * history["loss"][1]
    assert history["feature_std"][-1] > 0.5 / np.sqrt(8)


def test_mixed_bfloat16_stays_finite_with_float32_state(tiny_encoder, wave, volumes):
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        moco = MoCo(tiny_encoder(norm=True), wave, dim=4, queue_size=8, temperature=0.05, head="v2_bn")
    finally:
        keras.config.set_dtype_policy("float32")
    moco.compile(keras.optimizers.Adam(1e-2, weight_decay=1e-4))
    history = moco.fit(volumes, batch_size=4, epochs=5, verbose=0).history
    assert moco.query_network.layers[1].compute_dtype == "bfloat16"
    assert np.isfinite([value for column in history.values() for value in column]).all()
    assert {v.dtype for v in moco.variables} <= {"float32", "int32"}


@pytest.mark.parametrize(
    "options", [{"dim": 0}, {"queue_size": 0}, {"queue_size": 2.5}, {"momentum": 1.0}, {"temperature": 0}]
)
def test_refuses(tiny_encoder, wave, options):
    (name,) = options
    with pytest.raises(InputError, match=name):
        MoCo(tiny_encoder(), wave, **options)


def test_trains_under_jax(tmp_path):
    """The same class in another process with KERAS_BACKEND=jax; the key network and the queue must move."""
    pytest.importorskip("jax")
    script = """
        import sys
        import keras, numpy as np
        from keras import layers
        from aitom_ssl.augmentation import SubtomogramAugmenter
        from aitom_ssl.data import Dataset, numpy_batches, write_dataset
        from aitom_ssl.ssl import MoCo
        assert keras.backend.backend() == "jax"
        rng = np.random.default_rng(0)
        samples = [{"volume": rng.standard_normal((8, 8, 8)).astype("float32"), "label": -1} for _ in range(10)]
        data = Dataset(write_dataset(sys.argv[1], "noise", [], 10.0, "bright", {"train": samples}), "train")
        volumes = keras.Input((8, 8, 8, 1))
        x = layers.BatchNormalization()(layers.Conv3D(4, 3, activation="relu")(volumes))
        encoder = keras.Model(volumes, layers.Dense(6)(layers.Flatten()(x)))
        moco = MoCo(encoder, SubtomogramAugmenter("recommended"), 4, 7, momentum=0.5, head="v2_bn")
        before = [np.array(v.value) for v in moco.key_network.weights]
        moco.compile(keras.optimizers.Adam(1e-2, weight_decay=1e-4))
        batches = ((batch,) for batch in numpy_batches(data, 4, seed=0))
        history = moco.fit(batches, steps_per_epoch=2, epochs=3, verbose=0).history
        after = [np.array(v.value) for v in moco.key_network.weights]
        assert np.isfinite(history["loss"]).all() and history["queue_fill"][-1] == 1, history
        assert (int(moco.step.value), int(moco.pointer.value)) == (6, 24 % 7)
        assert np.allclose(np.linalg.norm(np.array(moco.queue.value), axis=1), 1, atol=1e-5)
        # A bias in front of BatchNormalization has no gradient; every kernel has.
        moved = [np.abs(a - b).max() for v, a, b in zip(moco.key_network.weights, after, before) if "kernel" in v.path]
        assert min(moved) > 1e-4, moved
    """
    environment = {**os.environ, "KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-c", textwrap.dedent(script), str(tmp_path / "noise")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
