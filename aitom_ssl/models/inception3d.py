"""Inception3D, the inception network of Xu 2017."""

from __future__ import annotations

import functools
from pathlib import Path

import keras
from keras import layers

from aitom_ssl.errors import InputError
from aitom_ssl.models import building

_MINIMUM_SIDE = 7


def Inception3D(
    input_shape: tuple[int, int, int, int] = (32, 32, 32, 1),
    classes: int = 10,
    include_top: bool = True,
    weights: str | Path | None = None,
    classifier_activation: str | None = "softmax",
    pooling: str | None = None,
    name: str | None = None,
    field: float = 1.0,
    dropout: float = 0.3,
) -> keras.Model:
    """Inception3D (Xu 2017, figure 1a): one inception module behind a convolution, then one linear layer.

    Figure 1a, "filters-kernel-stride", every convolution followed by ReLU::

                               32-5x5x5-1 Conv
                              2x2x2-2 MaxPool
             |                |                 |                |
        32-1x1x1-1 Conv  32-1x1x1-1 Conv  16-1x1x1-1 Conv  2x2x2-1 MaxPool
             |           64-3x3x3-1 Conv  32-5x5x5-1 Conv  32-1x1x1-1 Conv
             |                |                 |                |
                            Concatenation (160)
                             2x2x2-1 AvgPool
                           Dropout, FC-L, Softmax

    The first convolution has no padding (32 becomes 28), the average pool neither (14 becomes 13); the rest pads to
    keep the size. 3,642,330 weights at 32^3 and 10 classes. Glorot initialisation.

    `dropout` before the last layer is 0.3: in the paper "a unit in network was retained with probability 70%". Differs
    from the original code, which says Dropout(0.7) and so retains 30%; `dropout=0.7` is that.

    `pooling="avg"`: no dropout, the average pool's output averaged to 2x2x2: 1,280 features. He initialisation.

    Args:
        input_shape: (z, y, x, channels), each side >= 7.
        classes: units of the last layer, where include_top.
        include_top: False gives (batch, features): 1,280 when pooled, else all voxels (351,520 at 32^3).
        weights: a `.weights.h5` or `.keras` file of the same network; None is a random initialisation.
        classifier_activation: of the last layer; None gives logits, the linear structural features of Xu 2017.
        pooling: None or "avg".
        name: of the model; default "inception3d".
        field: share of each side that the network sees, above 0 and at most 1: a cube about the centre, see
            `building.field_of_view`.
        dropout: share of the features dropped in training, from 0 to below 1; with the top and without pooling.

    Raises:
        InputError: on any other value, or a weights file that does not exist or does not fit.
    """
    building.check_arguments(
        "Inception3D", input_shape, _MINIMUM_SIDE, include_top, classes, classifier_activation, pooling, field
    )
    if not 0 <= dropout < 1:
        raise InputError(f"Inception3D: dropout={dropout!r} must be from 0 to below 1 (paper 0.3, original code 0.7).")
    convolution = functools.partial(
        layers.Conv3D, padding="same", activation="relu", kernel_initializer=building.initializer(pooling)
    )
    volumes = keras.Input(input_shape, name=building.INPUT)
    x = building.field_of_view(volumes, field)
    x = convolution(32, 5, padding="valid", name="stem")(x)
    x = layers.MaxPooling3D(2, padding="same", name="pool")(x)
    branches = [
        convolution(32, 1, name="branch1")(x),
        convolution(64, 3, name="branch3")(convolution(32, 1, name="branch3_reduce")(x)),
        convolution(32, 5, name="branch5")(convolution(16, 1, name="branch5_reduce")(x)),
        convolution(32, 1, name="branch_pool_project")(
            layers.MaxPooling3D(2, strides=1, padding="same", name="branch_pool")(x)
        ),
    ]
    x = layers.Concatenate(name="concatenate")(branches)
    x = layers.AveragePooling3D(2, strides=1, name="average")(x)

    if pooling == "avg":
        x = building.average_to_2x2x2(x)
    x = layers.Flatten(name=building.FEATURES)(x)
    if include_top:
        if pooling is None:
            x = layers.Dropout(dropout, name="dropout")(x)
        x = building.classifier(x, classes, classifier_activation)
    return building.finish(volumes, x, name or "inception3d", weights)
