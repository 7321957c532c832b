"""DSRF3D-v2, the deeper DSRF3D of Che 2018."""

from __future__ import annotations

from pathlib import Path

import keras
from keras import layers

from aitom_ssl.models import building
from aitom_ssl.models.dsrf3d import small_field_blocks

_MINIMUM_SIDE = 8


def DSRF3Dv2(
    input_shape: tuple[int, int, int, int] = (32, 32, 32, 1),
    classes: int = 10,
    include_top: bool = True,
    weights: str | Path | None = None,
    classifier_activation: str | None = "softmax",
    pooling: str | None = None,
    name: str | None = None,
    field: float = 1.0,
) -> keras.Model:
    """DSRF3D-v2 (Che 2018): six 3x3x3 convolutions and three pools, then fully connected layers with dropout.

    "filters-kernel-stride", every convolution and hidden FC followed by ReLU::

        32-3x3x3-1 Conv,  32-3x3x3-1 Conv,  2x2x2-2 MaxPool
        64-3x3x3-1 Conv,  64-3x3x3-1 Conv,  2x2x2-2 MaxPool
        128-3x3x3-1 Conv, 128-3x3x3-1 Conv, 2x2x2-2 MaxPool
        FC-1024, Dropout 0.7, FC-1024, Dropout 0.7, FC-L, Softmax

    Layers and dropout are those of the authors' code (`Cgg`), which drops 70%; the text of the paper was not at hand to
    compare. Convolutions pad to keep the size. 10,307,882 weights at 32^3 and 10 classes. Glorot initialisation.

    `pooling="avg"`: no hidden FC and no dropout, the last pool's output averaged to 2x2x2: 1,024 features. He
    initialisation.

    Args:
        input_shape: (z, y, x, channels), each side >= 8.
        classes: units of the last layer, where include_top.
        include_top: False gives (batch, features): 1,024 when pooled, else the flattened last pool (8,192 at 32^3),
            because the fully connected layers belong to the top.
        weights: a `.weights.h5` or `.keras` file of the same network; None is a random initialisation.
        classifier_activation: of the last layer; None gives logits.
        pooling: None or "avg".
        name: of the model; default "dsrf3dv2".
        field: share of each side that the network sees, above 0 and at most 1: a cube about the centre, see
            `building.field_of_view`.

    Raises:
        InputError: on any other value, or a weights file that does not exist or does not fit.
    """
    building.check_arguments(
        "DSRF3Dv2", input_shape, _MINIMUM_SIDE, include_top, classes, classifier_activation, pooling, field
    )
    volumes = keras.Input(input_shape, name=building.INPUT)
    x = building.field_of_view(volumes, field)
    x = small_field_blocks(x, (32, 64, 128), pooling)
    if pooling == "avg":
        x = building.average_to_2x2x2(x)
    x = layers.Flatten(name=building.FEATURES)(x)
    if include_top:
        if pooling is None:
            for layer in ("fc1", "fc2"):
                x = layers.Dense(1024, activation="relu", name=layer)(x)
                x = layers.Dropout(0.7, name=f"{layer}_dropout")(x)
        x = building.classifier(x, classes, classifier_activation)
    return building.finish(volumes, x, name or "dsrf3dv2", weights)
