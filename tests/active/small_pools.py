"""A pool in memory whose labels nobody may look at, and a network of seconds: for the tests of the strategies."""

import types

import keras
import numpy as np
from keras import layers

SIDE = 8


class Blind:
    """What a strategy may use of a Dataset: volumes, not labels."""

    standardized = True
    folder, split, size = "memory", "train", SIDE

    def __init__(self, volumes):
        self._volumes = np.asarray(volumes, np.float32)

    def __len__(self):
        return len(self._volumes)

    def volumes(self, indices):
        return self._volumes[np.asarray(indices)]

    @property
    def labels(self):
        raise AssertionError("a strategy looked at labels")


def noise(count, seed=0, side=SIDE):
    return np.random.default_rng(seed).standard_normal((count, side, side, side)).astype(np.float32)


def blind(count, seed=0):
    return Blind(noise(count, seed))


def small_network(classes=3, dropout=0.0, seed=0):
    """Two stages of convolutions with BatchNorm, 6 features; dropout before the last layer where asked for."""
    keras.utils.set_random_seed(seed)
    volumes = keras.Input((SIDE, SIDE, SIDE, 1))
    x = layers.Conv3D(4, 3, strides=2, padding="same", name="stage1_conv")(volumes)
    x = layers.ReLU(name="stage1_relu")(layers.BatchNormalization(name="stage1_bn")(x))
    x = layers.Conv3D(6, 3, strides=2, padding="same", activation="relu", name="stage2_conv")(x)
    x = layers.GlobalAveragePooling3D()(x)
    if dropout:
        x = layers.Dropout(dropout)(x)
    return keras.Model(volumes, layers.Dense(classes, activation="softmax", dtype="float32", name="classifier")(x))


def known(network, labelled, unlabelled, trainer=None, seed=0, **more):
    """Stands in for `Known` where a test gives the arrays itself."""
    values = {"network": network, "labelled": labelled, "unlabelled": unlabelled, "trainer": trainer, "seed": seed}
    return types.SimpleNamespace(**values, **more)
