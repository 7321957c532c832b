"""DSRF3D, the network of deep small receptive fields of Xu 2017."""

from __future__ import annotations

from pathlib import Path

import keras
from keras import layers

from aitom_ssl.models import building

_MINIMUM_SIDE = 4


def DSRF3D(
    input_shape: tuple[int, int, int, int] = (32, 32, 32, 1),
    classes: int = 10,
    include_top: bool = True,
    weights: str | Path | None = None,
    classifier_activation: str | None = "softmax",
    pooling: str | None = None,
    name: str | None = None,
    field: float = 1.0,
) -> keras.Model:
    """DSRF3D (Xu 2017, figure 1b): four 3x3x3 convolutions and two pools, then fully connected layers (as VGG).

    Figure 1b, "filters-kernel-stride", every convolution and hidden FC followed by ReLU::

        32-3x3x3-1 Conv, 32-3x3x3-1 Conv, 2x2x2-2 MaxPool
        64-3x3x3-1 Conv, 64-3x3x3-1 Conv, 2x2x2-2 MaxPool
        FC-512, FC-512, FC-L, Softmax

    Convolutions pad to keep the size. 17,240,106 weights at 32^3 and 10 classes. Glorot initialisation.

    `pooling="avg"`: no hidden FC, the last pool's output averaged to 2x2x2: 512 features. He initialisation.

    Args:
        input_shape: (z, y, x, channels), each side >= 4.
        classes: units of the last layer, where include_top.
        include_top: False gives (batch, features): 512 when pooled, else the flattened last pool (32,768 at 32^3),
            because the fully connected layers belong to the top.
        weights: a `.weights.h5` or `.keras` file of the same network; None is a random initialisation.
        classifier_activation: of the last layer; None gives logits, the linear structural features of Xu 2017.
        pooling: None or "avg".
        name: of the model; default "dsrf3d".
        field: share of each side that the network sees, above 0 and at most 1: a cube about the centre, see
            `building.field_of_view`.

    Raises:
        InputError: on any other value, or a weights file that does not exist or does not fit.
    """
    building.check_arguments(
        "DSRF3D", input_shape, _MINIMUM_SIDE, include_top, classes, classifier_activation, pooling, field
    )
    volumes = keras.Input(input_shape, name=building.INPUT)
    x = building.field_of_view(volumes, field)
    x = small_field_blocks(x, (32, 64), pooling)
    if pooling == "avg":
        x = building.average_to_2x2x2(x)
    x = layers.Flatten(name=building.FEATURES)(x)
    if include_top:
        if pooling is None:
            x = layers.Dense(512, activation="relu", name="fc1")(x)
            x = layers.Dense(512, activation="relu", name="fc2")(x)
        x = building.classifier(x, classes, classifier_activation)
    return building.finish(volumes, x, name or "dsrf3d", weights)


def small_field_blocks(x: keras.KerasTensor, filters: tuple[int, ...], pooling: str | None) -> keras.KerasTensor:
    """For each number of filters two 3x3x3 convolutions (same, ReLU) and a pool that halves the sides."""
    for block, width in enumerate(filters, 1):
        for part in ("conv1", "conv2"):
            x = layers.Conv3D(
                width,
                3,
                padding="same",
                activation="relu",
                kernel_initializer=building.initializer(pooling),
                name=f"block{block}_{part}",
            )(x)
        x = layers.MaxPooling3D(2, name=f"block{block}_pool")(x)
    return x
