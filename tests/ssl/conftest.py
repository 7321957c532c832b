import keras
import numpy as np
import pytest
from keras import layers, ops


@pytest.fixture
def tiny_encoder():
    """Builds (8, 8, 8, 1) -> (6,) encoders, with BatchNormalization inside when asked."""

    def build(norm=False):
        volumes = keras.Input((8, 8, 8, 1))
        x = layers.Conv3D(4, 3, strides=2, padding="same")(volumes)
        x = layers.BatchNormalization()(x) if norm else x
        x = layers.Flatten()(layers.ReLU()(x))
        return keras.Model(volumes, layers.Dense(6)(x), name="tiny")

    keras.utils.set_random_seed(0)
    return build


@pytest.fixture
def wave():
    """An augmenter that is a plain function of volumes and seed, on any backend."""

    def augment(volumes, seed):
        stream, step = ops.cast(seed[0], "float32"), ops.cast(seed[1], "float32")
        return volumes + 0.3 * ops.sin(5 * volumes * (1 + stream) + step)

    return augment


@pytest.fixture
def volumes():
    return np.random.default_rng(0).standard_normal((12, 8, 8, 8, 1)).astype(np.float32)
