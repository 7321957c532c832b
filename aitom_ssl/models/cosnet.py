"""COS-Net, the one-shot network of Zhou 2020: features to compare particles by, and a segmentation of each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
from keras import layers, ops

from aitom_ssl.errors import InputError
from aitom_ssl.models import building

MASK, SIMILARITY = "mask", "similarity"
FUSIONS = ("add", "max")
_MINIMUM_SIDE = 4
_POOLS = 2


def COSNet(
    input_shape: tuple[int, int, int, int] = (32, 32, 32, 1),
    filters: int = 64,
    features: int = 512,
    fusion: str | None = "add",
    decoder: bool = True,
    skips: bool = False,
    include_top: bool = True,
    weights: str | Path | None = None,
    name: str | None = None,
) -> keras.Model:
    """COS-Net (Zhou 2020, figures 1 and 2): one stream of the Siamese network, and its head on all pairs of a batch.

    "channels-kernel", every convolution with ReLU; DuSE is the dual squeeze-and-excitation block, see `duse`::

        volume encoder   F-3 Conv
                         2 x [F-3 Conv, BatchNorm], DuSE, 2x2x2 MaxPool
                         2 x [F-3 Conv, BatchNorm], DuSE, 2x2x2 MaxPool
                         2 x [F-3 Conv, BatchNorm], DuSE
        volume decoder   twice: F-2 transposed Conv with stride 2, 2 x [F-3 Conv, BatchNorm], DuSE
                         1-1 Conv, sigmoid: the mask
        feature encoder  flatten, FC-D, FC-D (linear)
        head             |f_i - f_j|, FC-1: the similarity of volumes i and j, a logit

    The text of the paper gives neither widths nor kernels: they are those of the authors' code, whose F is 64 and D is
    512. 18,238,823 weights at 32^3. Supports and targets of an episode are a batch, so that each goes through the
    network once; what the logits become, softmax over the supports or a sigmoid each, is the reader's: see
    `oneshot.trained.class_scores`.

    Differs from the code: its level 3 of the encoder has no DuSE (the paper has one "at each level's output"), and its
    level 2 shares the DuSE weights of level 1, which looks unintended. Initialisation is He's for convolutions.

    Args:
        input_shape: (z, y, x, channels), sides multiples of 4.
        filters: F, 2 or more; the published width costs over 100 GFLOP a volume in training, CPUs want 8 to 16.
        features: D.
        fusion: how DuSE joins its branches: "add" as the paper, "max" as the code; None leaves the blocks out.
        decoder: False leaves the volume decoder, and with it the mask, out.
        skips: add the encoder's maps of the same size behind the decoder's transposed convolutions. Differs from the
            paper and the code, whose decoder sees the 8^3 map alone: wide enough at 64 filters, while a narrow one has
            a few numbers there for each 4^3 voxels of a mask. The number of weights is the same.
        include_top: False gives (batch, features) alone.
        weights: a `.weights.h5` or `.keras` file of the same network; None is a random initialisation.
        name: of the model; default "cosnet".

    Returns:
        Functional keras.Model from volumes (batch, z, y, x, channels) to a dict of float32 tensors: `features`
        (batch, D); `mask` (batch, z, y, x, 1), the probability that a voxel is the particle's; `similarity`
        (batch, batch), symmetric logits.

    Raises:
        InputError: on any other value, or a weights file that does not exist or does not fit.
    """
    _check(input_shape, filters, features, fusion, {"decoder": decoder, "skips": skips, "include_top": include_top})

    def level(x: keras.KerasTensor, prefix: str) -> keras.KerasTensor:
        for number in (1, 2):
            x = _convolve(x, filters, f"{prefix}_conv{number}")
            # PyTorch's momentum and epsilon, as the code has them.
            x = layers.BatchNormalization(momentum=0.9, epsilon=1e-5, name=f"{prefix}_norm{number}")(x)
        return x if fusion is None else duse(x, fusion, f"{prefix}_duse")

    volumes = keras.Input(input_shape, name=building.INPUT)
    x = _convolve(volumes, filters, "stem")
    levels = []
    for number in range(1, _POOLS + 1):
        levels.append(level(x, f"encoder{number}"))
        x = layers.MaxPooling3D(2, name=f"encoder{number}_pool")(levels[-1])
    encoded = level(x, f"encoder{_POOLS + 1}")

    x = layers.Flatten(name="flatten")(encoded)
    x = layers.Dense(features, name="feature_encoder1")(x)
    # Float32: differences of features are compared.
    described = layers.Dense(features, dtype="float32", name=building.FEATURES)(x)
    if not include_top:
        return building.finish(volumes, described, name or "cosnet", weights)
    outputs = {building.FEATURES: described}

    if decoder:
        x = encoded
        for number in range(1, _POOLS + 1):
            options = {"strides": 2, "kernel_initializer": "he_normal", "name": f"decoder{number}_up"}
            x = layers.Conv3DTranspose(filters, 2, activation="relu", **options)(x)
            if skips:
                x = layers.Add(name=f"decoder{number}_skip")([x, levels[-number]])
            x = level(x, f"decoder{number}")
        outputs[MASK] = layers.Conv3D(1, 1, activation="sigmoid", dtype="float32", name=MASK)(x)

    head = layers.Dense(1, dtype="float32", name=SIMILARITY)
    outputs[SIMILARITY] = pairs(head, described, described)
    return building.finish(volumes, outputs, name or "cosnet", weights)


def duse(x: keras.KerasTensor, fusion: str, prefix: str) -> keras.KerasTensor:
    """Dual squeeze and excitation (Zhou 2020, figure 2): channels weighted by what the whole map holds, and voxels by
    their channels; both weighted maps are added, or the larger value is taken.

    Channels: global average, FC-C/2, ReLU, FC-C, sigmoid. Voxels: 1-1 convolution, sigmoid.
    """
    channels = x.shape[-1]
    squeezed = layers.GlobalAveragePooling3D(keepdims=True, name=f"{prefix}_average")(x)
    squeezed = layers.Dense(channels // 2, activation="relu", name=f"{prefix}_squeeze")(squeezed)
    channelwise = layers.Dense(channels, activation="sigmoid", name=f"{prefix}_excite")(squeezed)
    voxelwise = layers.Conv3D(1, 1, activation="sigmoid", name=f"{prefix}_voxels")(x)
    if fusion == "add":  # x a + x b, with one pass over the map less
        weight = layers.Add(name=f"{prefix}_add")([channelwise, voxelwise])
        return layers.Multiply(name=prefix)([x, weight])
    weighted = [
        layers.Multiply(name=f"{prefix}_by_{what}")([x, weight])
        for what, weight in (("channel", channelwise), ("voxel", voxelwise))
    ]
    return layers.Maximum(name=prefix)(weighted)


def pairs(head: layers.Dense, first: Any, second: Any) -> Any:
    """(..., n, m) logits of `head` for every pair of features `first` (..., n, D) and `second` (..., m, D)."""
    distances = ops.absolute(ops.expand_dims(first, -2) - ops.expand_dims(second, -3))
    return ops.squeeze(head(distances), -1)


def _convolve(x: keras.KerasTensor, filters: int, name: str) -> keras.KerasTensor:
    return layers.Conv3D(filters, 3, padding="same", activation="relu", kernel_initializer="he_normal", name=name)(x)


def _check(input_shape: Any, filters: Any, features: Any, fusion: Any, switches: dict[str, Any]) -> None:
    building.check_arguments("COSNet", input_shape, _MINIMUM_SIDE, False, 1, None, None, 1.0)
    factor = 2**_POOLS
    if any(side % factor for side in input_shape[:3]):
        raise InputError(f"COSNet: input_shape={input_shape!r} must have sides that are multiples of {factor}.")
    for option, value, least in (("filters", filters, 2), ("features", features, 1)):
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise InputError(f"COSNet: {option}={value!r} must be an integer of {least} or more.")
    if fusion is not None and fusion not in FUSIONS:
        raise InputError(f"COSNet: fusion={fusion!r} must be {' or '.join(FUSIONS)}, or None for no DuSE blocks.")
    for option, value in switches.items():
        if not isinstance(value, bool):
            raise InputError(f"COSNet: {option}={value!r} must be True or False.")
