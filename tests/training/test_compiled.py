"""XLA for the augmentation alone, and for batch normalisation alone."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from aitom_ssl.training.compiled import CompiledNormalization, compiled_alone, networks_on_xla


def test_the_augmentation_is_compiled_and_gives_the_same():
    compiled = compiled_alone(lambda volumes, seed: volumes * 2 + tf.cast(seed[1], tf.float32))
    volumes = tf.ones((2, 3))
    np.testing.assert_array_equal(compiled(volumes, seed=tf.constant([0, 5])), np.full((2, 3), 7))
    assert "HloModule" in compiled.experimental_get_compiler_ir(volumes, tf.constant([0, 5]))(stage="hlo")
    assert networks_on_xla() is False


def test_compiled_normalization_gives_the_same_and_leaves_the_layers_alone():
    volumes = keras.Input((4, 4, 4, 2))
    normalized = keras.layers.BatchNormalization(momentum=0.5, name="norm")(volumes)
    network = keras.Model(volumes, keras.layers.Conv3D(1, 1, name="conv")(normalized))
    twin = keras.models.clone_model(network)
    twin.set_weights(network.get_weights())
    x = np.random.default_rng(0).normal(3, 2, (5, 4, 4, 4, 2)).astype(np.float32)

    def gradients(model):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(model(x, training=True) ** 2)
        return tape.gradient(loss, model.trainable_variables)

    compiled = CompiledNormalization(network)
    with compiled():
        assert "call" in vars(network.get_layer("norm")) and "call" not in vars(network.get_layer("conv"))
        found = gradients(network)
    assert "call" not in vars(network.get_layer("norm"))
    for a, b in zip(found, gradients(twin), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-3)
    # The moving statistics have moved, and alike.
    for a, b in zip(network.weights, twin.weights, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
    assert np.abs(network.get_layer("norm").moving_mean.numpy() - 1.5).max() < 0.3


def test_layers_come_back_after_an_error():
    network = keras.Sequential([keras.Input((3,)), keras.layers.BatchNormalization(name="norm")])
    with pytest.raises(ValueError, match="stop"), CompiledNormalization(network)():
        raise ValueError("stop")
    assert "call" not in vars(network.get_layer("norm"))
