"""CB3D, the C3D network of Che 2018."""

from __future__ import annotations

import functools
from pathlib import Path

import keras
from keras import layers

from aitom_ssl.models import building

_MINIMUM_SIDE = 16


def CB3D(
    input_shape: tuple[int, int, int, int] = (32, 32, 32, 1),
    classes: int = 10,
    include_top: bool = True,
    weights: str | Path | None = None,
    classifier_activation: str | None = "softmax",
    pooling: str | None = None,
    name: str | None = None,
    field: float = 1.0,
) -> keras.Model:
    """CB3D (Che 2018): the video network C3D (Tran 2015) on subtomograms; eight 3x3x3 convolutions, five pools.

    "filters-kernel-stride", every convolution and hidden FC followed by ReLU::

        64-3x3x3-1 Conv,                    1x2x2-1x2x2 MaxPool
        128-3x3x3-1 Conv,                   2x2x2-2 MaxPool
        256-3x3x3-1 Conv, 256-3x3x3-1 Conv, 2x2x2-2 MaxPool
        512-3x3x3-1 Conv, 512-3x3x3-1 Conv, 2x2x2-2 MaxPool
        512-3x3x3-1 Conv, 512-3x3x3-1 Conv, zeros around (0, 1, 1), 2x2x2-2 MaxPool
        FC-4096, Dropout 0.5, FC-4096, Dropout 0.5, FC-L, Softmax

    The first pool spares z, which was time in C3D. Convolutions pad to keep the size. 61,256,074 weights at 32^3 and
    10 classes. Glorot initialisation.

    `pooling="avg"`: no hidden FC and no dropout, the last pool's output averaged to 2x2x2: 4,096 features (fewer below
    32^3, where that output has sides of 1; at 32^3 it is 2x2x2 already). He initialisation.

    Args:
        input_shape: (z, y, x, channels), each side >= 16.
        classes: units of the last layer, where include_top.
        include_top: False gives (batch, features), the flattened (when pooled, averaged) last pool: 4,096 at 32^3,
            because the fully connected layers belong to the top.
        weights: a `.weights.h5` or `.keras` file of the same network; None is a random initialisation.
        classifier_activation: of the last layer; None gives logits.
        pooling: None or "avg".
        name: of the model; default "cb3d".
        field: share of each side that the network sees, above 0 and at most 1: a cube about the centre, see
            `building.field_of_view`.

    Raises:
        InputError: on any other value, or a weights file that does not exist or does not fit.
    """
    building.check_arguments(
        "CB3D", input_shape, _MINIMUM_SIDE, include_top, classes, classifier_activation, pooling, field
    )
    convolution = functools.partial(
        layers.Conv3D, padding="same", activation="relu", kernel_initializer=building.initializer(pooling)
    )
    volumes = keras.Input(input_shape, name=building.INPUT)
    x = building.field_of_view(volumes, field)
    x = convolution(64, 3, name="block1_conv1")(x)
    x = layers.MaxPooling3D((1, 2, 2), name="block1_pool")(x)
    x = convolution(128, 3, name="block2_conv1")(x)
    x = layers.MaxPooling3D(2, name="block2_pool")(x)
    for block, filters in ((3, 256), (4, 512), (5, 512)):
        x = convolution(filters, 3, name=f"block{block}_conv1")(x)
        x = convolution(filters, 3, name=f"block{block}_conv2")(x)
        if block == 5:
            x = layers.ZeroPadding3D((0, 1, 1), name="block5_pad")(x)
        x = layers.MaxPooling3D(2, name=f"block{block}_pool")(x)

    if pooling == "avg":
        x = building.average_to_2x2x2(x)
    x = layers.Flatten(name=building.FEATURES)(x)
    if include_top:
        if pooling is None:
            for layer in ("fc1", "fc2"):
                x = layers.Dense(4096, activation="relu", name=layer)(x)
                x = layers.Dropout(0.5, name=f"{layer}_dropout")(x)
        x = building.classifier(x, classes, classifier_activation)
    return building.finish(volumes, x, name or "cb3d", weights)
