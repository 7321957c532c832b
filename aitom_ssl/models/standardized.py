"""Encoders whose features have zero mean and unit standard deviation."""

from __future__ import annotations

import keras

STANDARDIZE_LAYER = "standardize_features"


def standardized(encoder: keras.Model) -> keras.Model:
    """The encoder followed by a BatchNormalization without scale and centre; weights are shared with `encoder`.

    Pooled features of subtomograms are nearly collinear (mean cosine 0.99); putting every feature on the same footing
    before a head, a probe or a projection mattered more in our pilot than the choice of method. An encoder that
    already ends so is returned as it is.

    Args:
        encoder: functional, (batch, z, y, x, channels) to (batch, features).

    Returns:
        Functional keras.Model of the same shapes with float32 output, made of Keras' own layers only.
    """
    if encoder.layers[-1].name == STANDARDIZE_LAYER:
        return encoder
    # Keras' momentum of 0.99 is still behind after the few hundred steps that fine-tuning takes.
    options = {"center": False, "scale": False, "momentum": 0.9, "dtype": "float32", "name": STANDARDIZE_LAYER}
    layer = keras.layers.BatchNormalization(**options)
    return keras.Model(encoder.input, layer(encoder.output), name=f"{encoder.name}_standardized")
