"""A narrow network with every kind of layer of the zoo, for tests of this room."""

import keras
import numpy as np
from keras import layers

SIZE, NAMES = 8, ("ribosome", "GroEL", "empty")


def small_network(classes=3, activation="softmax", size=SIZE):
    """(n, size, size, size, 1) to (n, classes), or to 16 features where `classes` is 0. No weight is 0."""
    volumes = keras.Input((size, size, size, 1), name="subtomogram")
    x = layers.Conv3D(4, 3, padding="same", name="conv")(volumes)
    x = layers.BatchNormalization(name="norm")(x)
    x = layers.ReLU(name="relu")(x)
    x = layers.Concatenate(name="both")([layers.MaxPooling3D(2, name="max")(x), layers.AveragePooling3D(2)(x)])
    x = layers.Dropout(0.7, name="dropout")(layers.Flatten(name="features")(x))
    x = layers.Dense(16, activation="relu", name="fc")(x)
    if classes:
        x = layers.Dense(classes, activation=activation, dtype="float32", name="classifier")(x)
    model = keras.Model(volumes, x, name="small")
    random = np.random.default_rng(0)
    for weight in model.weights:
        if len(weight.shape) > 1:
            weight.assign(random.normal(0, 1 / np.sqrt(np.prod(weight.shape[:-1])), weight.shape))
        else:
            weight.assign(random.uniform(0.1, 0.5, weight.shape))
    return model
