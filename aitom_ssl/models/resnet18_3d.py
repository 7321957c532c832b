"""ResNet-18 of He 2016 in three dimensions."""

from __future__ import annotations

from pathlib import Path

import keras
from keras import layers

from aitom_ssl.errors import InputError
from aitom_ssl.models import building

_STAGES = (64, 128, 256, 512)
_MINIMUM_SIDE = 1
STEMS = ("imagenet", "small")


def ResNet18_3D(
    input_shape: tuple[int, int, int, int] = (32, 32, 32, 1),
    classes: int = 10,
    include_top: bool = True,
    weights: str | Path | None = None,
    classifier_activation: str | None = "softmax",
    pooling: str | None = None,
    name: str | None = None,
    field: float = 1.0,
    stem: str = "imagenet",
) -> keras.Model:
    """ResNet-18 (He 2016, table 1) with 3-D kernels: a stem, four stages of two basic blocks, a global average.

    "filters-kernel-stride", BN is batch normalisation::

        stem "imagenet":  64-7x7x7-2 Conv, BN, ReLU, 3x3x3-2 MaxPool
        stem "small":     64-3x3x3-1 Conv, BN, ReLU
        two blocks each:  64, 128, 256, 512 filters, the first of the last three with stride 2
            a block:      3x3x3 Conv, BN, ReLU, 3x3x3-1 Conv, BN, add the shortcut, ReLU
        global AvgPool, FC-L, Softmax

    The shortcut is the identity where shapes allow, else a 1x1x1 convolution with BN (projections, option B). Kernels
    pad by half their size on either side, strided ones too; convolutions have no bias; initialisation is He's. At 10
    classes 33,165,130 weights train with the "imagenet" stem and 33,144,906 with the "small" one, whose maps have four
    times finer sides and cost about fifty times the computation.

    Args:
        input_shape: (z, y, x, channels), each side >= 1 (padding feeds every stage, but maps of one voxel see little:
            prefer sides from 32 up with "imagenet", 8 up with "small").
        classes: units of the last layer, where include_top.
        include_top: False gives (batch, 512).
        weights: a `.weights.h5` or `.keras` file of the same network; None is a random initialisation.
        classifier_activation: of the last layer; None gives logits.
        pooling: None or "avg", which are the same here: the global average belongs to the network.
        name: of the model; default "resnet18_3d".
        field: share of each side that the network sees, above 0 and at most 1: a cube about the centre, see
            `building.field_of_view`.
        stem: "imagenet" or "small".

    Raises:
        InputError: on any other value, or a weights file that does not exist or does not fit.
    """
    building.check_arguments(
        "ResNet18_3D", input_shape, _MINIMUM_SIDE, include_top, classes, classifier_activation, pooling, field
    )
    if stem not in STEMS:
        raise InputError(f"ResNet18_3D: stem={stem!r} must be one of {', '.join(STEMS)}.")
    volumes = keras.Input(input_shape, name=building.INPUT)
    x = building.field_of_view(volumes, field)
    if stem == "imagenet":
        x = _convolution(x, 64, 7, 2, "stem", "conv")
        x = layers.ReLU(name="stem_relu")(x)
        # Zeros pad as minus infinity would: nothing is negative here.
        x = layers.MaxPooling3D(3, strides=2, name="stem_pool")(layers.ZeroPadding3D(1, name="stem_pool_pad")(x))
    else:
        x = _convolution(x, 64, 3, 1, "stem", "conv")
        x = layers.ReLU(name="stem_relu")(x)
    for stage, filters in enumerate(_STAGES, 1):
        for block in (1, 2):
            x = _basic_block(x, filters, 2 if stage > 1 and block == 1 else 1, f"stage{stage}_block{block}")
    x = layers.GlobalAveragePooling3D(name=building.FEATURES)(x)
    if include_top:
        x = building.classifier(x, classes, classifier_activation)
    return building.finish(volumes, x, name or "resnet18_3d", weights)


def _basic_block(x: keras.KerasTensor, filters: int, stride: int, prefix: str) -> keras.KerasTensor:
    shortcut = x
    if stride != 1:
        shortcut = _convolution(x, filters, 1, stride, prefix, "shortcut")
    y = _convolution(x, filters, 3, stride, prefix, "conv1")
    y = layers.ReLU(name=f"{prefix}_relu1")(y)
    y = _convolution(y, filters, 3, 1, prefix, "conv2")
    y = layers.Add(name=f"{prefix}_add")([shortcut, y])
    return layers.ReLU(name=f"{prefix}_relu2")(y)


def _convolution(
    x: keras.KerasTensor, filters: int, kernel: int, stride: int, prefix: str, part: str
) -> keras.KerasTensor:
    """Convolution and batch normalisation (torch's momentum and epsilon)."""
    # "same" with a stride pads one side more than the other, by the parity of the size.
    if stride > 1 and kernel > 1:
        x = layers.ZeroPadding3D(kernel // 2, name=f"{prefix}_{part}_pad")(x)
    x = layers.Conv3D(
        filters,
        kernel,
        strides=stride,
        padding="same" if stride == 1 else "valid",
        use_bias=False,
        kernel_initializer="he_normal",
        name=f"{prefix}_{part}",
    )(x)
    return layers.BatchNormalization(momentum=0.9, epsilon=1e-5, name=f"{prefix}_{part}_bn")(x)
