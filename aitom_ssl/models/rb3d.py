"""RB3D, the residual-block network of Che 2018, and its pooled form that self-supervision trains."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import keras
from keras import layers

from aitom_ssl.errors import InputError

_BLOCKS = 4
_MINIMUM_SIDE = 8


def RB3D(
    input_shape: tuple[int, int, int, int] = (32, 32, 32, 1),
    classes: int = 10,
    include_top: bool = True,
    weights: str | Path | None = None,
    classifier_activation: str | None = "softmax",
    pooling: str | None = None,
    name: str | None = None,
) -> keras.Model:
    """RB3D: a 32-filter 3x3x3 convolution, a 2x2x2 pool, four two-branch blocks, then fully connected layers.

    A block is ReLU(concatenate(3x3x3 convolution (16), 1x1x1 (16) - 3x3x3 (32) - 1x1x1 (16, linear))): the shortcut is
    a convolution and the branches are concatenated, not added.

    `pooling=None` is Che 2018: dropout 0.7 at the end of each bottleneck, flatten, FC-1024, FC-1024 (each with dropout
    0.5), classes; Glorot initialisation; 135,394,506 weights at 32^3 and 10 classes.

    `pooling="avg"` is the encoder in the code of SSL 2022: no dropout, the blocks' output averaged to 2x2x2 (windows as
    torch's AdaptiveAvgPool3d), 256 features, classes. Differs from that code in its initialisation, which is He's
    (normal): without normalisation layers, Glorot's sat on a plateau in our pilot.

    Args:
        input_shape: (z, y, x, channels), each side >= 8.
        classes: units of the last layer, where include_top.
        include_top: False gives (batch, features): 256 when pooled, else the flattened blocks (131,072 at 32^3),
            because the fully connected layers belong to the top.
        weights: a `.weights.h5` or `.keras` file of the same network; None is a random initialisation.
        classifier_activation: of the last layer; None gives logits.
        pooling: None or "avg".
        name: of the model; default "rb3d".

    Raises:
        InputError: on any other value, or a weights file that does not exist or does not fit.
    """
    if len(input_shape) != 4 or any(not isinstance(n, int) or n < _MINIMUM_SIDE for n in input_shape[:3]):
        raise InputError(
            f"RB3D: input_shape={input_shape!r} must be (z, y, x, channels) with sides of {_MINIMUM_SIDE} or more."
        )
    if pooling not in (None, "avg"):
        raise InputError(f"RB3D: pooling={pooling!r} must be None (Che 2018) or 'avg' (SSL 2022).")
    if include_top and (not isinstance(classes, int) or classes < 1):
        raise InputError(f"RB3D: classes={classes!r} must be an integer of 1 or more.")

    convolution: dict[str, Any] = {
        "padding": "same",
        "kernel_initializer": "he_normal" if pooling == "avg" else "glorot_uniform",
    }
    volumes = keras.Input(input_shape, name="subtomogram")
    x = layers.Conv3D(32, 3, activation="relu", name="stem", **convolution)(volumes)
    x = layers.MaxPooling3D(2, name="pool")(x)
    for block in range(1, _BLOCKS + 1):
        prefix = f"block{block}"
        shortcut = layers.Conv3D(16, 3, activation="relu", name=f"{prefix}_shortcut", **convolution)(x)
        y = layers.Conv3D(16, 1, activation="relu", name=f"{prefix}_reduce", **convolution)(x)
        y = layers.Conv3D(32, 3, activation="relu", name=f"{prefix}_conv", **convolution)(y)
        y = layers.Conv3D(16, 1, name=f"{prefix}_expand", **convolution)(y)
        if pooling is None:
            y = layers.Dropout(0.7, name=f"{prefix}_dropout")(y)
        x = layers.Concatenate(name=f"{prefix}_concatenate")([shortcut, y])
        x = layers.ReLU(name=f"{prefix}_relu")(x)

    if pooling == "avg":
        sides = [n // 2 for n in input_shape[:3]]
        # Two windows a side that cover it, overlapping by one where the side is odd.
        x = layers.AveragePooling3D([math.ceil(n / 2) for n in sides], [n // 2 for n in sides], name="average_pool")(x)
    x = layers.Flatten(name="features")(x)
    if include_top:
        if pooling is None:
            for layer in ("fc1", "fc2"):
                x = layers.Dense(1024, activation="relu", name=layer)(x)
                x = layers.Dropout(0.5, name=f"{layer}_dropout")(x)
        # The classifier's output stays float32 under mixed precision.
        x = layers.Dense(classes, activation=classifier_activation, dtype="float32", name="classifier")(x)
    model = keras.Model(volumes, x, name=name or "rb3d")
    if weights is not None:
        _load(model, Path(weights))
    return model


def _load(model: keras.Model, path: Path) -> None:
    if not path.is_file():
        raise InputError(f"RB3D: no weights file {path}; give a .weights.h5 or .keras file, or weights=None.")
    try:
        model.load_weights(path)
    except (ValueError, OSError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"RB3D: {path} does not hold weights of this network ({reason}).") from None
