"""RB3D, the residual-block network of Che 2018, and its pooled form that self-supervision trains."""

from __future__ import annotations

from pathlib import Path

import keras
from keras import layers

from aitom_ssl.errors import InputError
from aitom_ssl.models import building

_BLOCKS = 4
_GROUPS = 8
_MINIMUM_SIDE = 8


def RB3D(
    input_shape: tuple[int, int, int, int] = (32, 32, 32, 1),
    classes: int = 10,
    include_top: bool = True,
    weights: str | Path | None = None,
    classifier_activation: str | None = "softmax",
    pooling: str | None = None,
    name: str | None = None,
    field: float = 1.0,
    normalization: str | None = None,
) -> keras.Model:
    """RB3D (Che 2018; figure 3 of SSL 2022): a convolution, a pool, four two-branch blocks, fully connected layers.

    "filters-kernel-stride"::

        32-3x3x3-1 Conv, ReLU, 2x2x2-2 MaxPool
        four times:       |                            |
                 16-3x3x3-1 Conv, ReLU       16-1x1x1-1 Conv, ReLU
                          |                  32-3x3x3-1 Conv, ReLU
                          |                  16-1x1x1-1 Conv, Dropout 0.7
                          |                            |
                             Concatenation (32), ReLU
        FC-1024, ReLU, Dropout 0.5, FC-1024, ReLU, Dropout 0.5, FC-L, Softmax

    The shortcut is a convolution and the branches are concatenated, not added. Layers and dropout are those of the
    authors' code (`Cresnet`), which drops 70% and 50%; the text of Che 2018 was not at hand to compare. Convolutions
    pad to keep the size. 135,394,506 weights at 32^3 and 10 classes. Glorot initialisation.

    `pooling="avg"` is the encoder in the code of SSL 2022: no dropout and no hidden FC, the blocks' output averaged to
    2x2x2: 256 features. Differs from that code in its initialisation, which is He's: see `building.initializer`.

    Args:
        input_shape: (z, y, x, channels), each side >= 8.
        classes: units of the last layer, where include_top.
        include_top: False gives (batch, features): 256 when pooled, else the flattened blocks (131,072 at 32^3),
            because the fully connected layers belong to the top.
        weights: a `.weights.h5` or `.keras` file of the same network; None is a random initialisation.
        classifier_activation: of the last layer; None gives logits.
        pooling: None or "avg".
        name: of the model; default "rb3d", or "rb3d_gn" with `normalization`.
        field: share of each side that the network sees, above 0 and at most 1: a cube about the centre, see
            `building.field_of_view`.
        normalization: None as published; "group" puts GroupNormalization (8 groups; Wu and He 2018) behind every
            convolution, which then has no bias. It does not depend on the batch, as small ones need, and is slow on a
            CPU. Differs from the paper. `models.get("rb3d_gn")` builds it.

    Raises:
        InputError: on any other value, or a weights file that does not exist or does not fit.
    """
    building.check_arguments(
        "RB3D", input_shape, _MINIMUM_SIDE, include_top, classes, classifier_activation, pooling, field
    )
    if normalization not in (None, "group"):
        raise InputError(f"RB3D: normalization={normalization!r} must be None (as published) or 'group'.")
    initializer = building.initializer(pooling)

    def convolve(x: keras.KerasTensor, filters: int, size: int, layer: str, relu: bool = True) -> keras.KerasTensor:
        options = {"padding": "same", "kernel_initializer": initializer, "name": layer}
        if normalization is None:
            return layers.Conv3D(filters, size, activation="relu" if relu else None, **options)(x)
        x = layers.Conv3D(filters, size, use_bias=False, **options)(x)
        x = layers.GroupNormalization(_GROUPS, name=f"{layer}_norm")(x)
        return layers.ReLU(name=f"{layer}_relu")(x) if relu else x

    volumes = keras.Input(input_shape, name=building.INPUT)
    x = building.field_of_view(volumes, field)
    x = convolve(x, 32, 3, "stem")
    x = layers.MaxPooling3D(2, name="pool")(x)
    for block in range(1, _BLOCKS + 1):
        prefix = f"block{block}"
        shortcut = convolve(x, 16, 3, f"{prefix}_shortcut")
        y = convolve(x, 16, 1, f"{prefix}_reduce")
        y = convolve(y, 32, 3, f"{prefix}_conv")
        y = convolve(y, 16, 1, f"{prefix}_expand", relu=False)
        if pooling is None:
            y = layers.Dropout(0.7, name=f"{prefix}_dropout")(y)
        x = layers.Concatenate(name=f"{prefix}_concatenate")([shortcut, y])
        x = layers.ReLU(name=f"{prefix}_relu")(x)

    if pooling == "avg":
        x = building.average_to_2x2x2(x)
    x = layers.Flatten(name=building.FEATURES)(x)
    if include_top:
        if pooling is None:
            for layer in ("fc1", "fc2"):
                x = layers.Dense(1024, activation="relu", name=layer)(x)
                x = layers.Dropout(0.5, name=f"{layer}_dropout")(x)
        x = building.classifier(x, classes, classifier_activation)
    return building.finish(volumes, x, name or ("rb3d" if normalization is None else "rb3d_gn"), weights)
