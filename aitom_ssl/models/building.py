"""What every architecture shares: checked arguments, the pooled form, the classifier, weights from a file."""

from __future__ import annotations

import contextlib
import math
import zipfile
from collections.abc import Iterator
from pathlib import Path

import h5py
import keras
import numpy as np
from keras import layers

from aitom_ssl.errors import InputError
from aitom_ssl.models.standardized import STANDARDIZE_LAYER

INPUT = "subtomogram"
FEATURES = "features"
CLASSIFIER = "classifier"
# Layers after the features: a file may have them where the network to fill does not.
_HEADS = {"fc1", "fc2", CLASSIFIER, STANDARDIZE_LAYER}


def check_arguments(
    model: str,
    input_shape: tuple[int, int, int, int],
    minimum: int,
    include_top: bool,
    classes: int,
    classifier_activation: str | None,
    pooling: str | None,
    field: float,
) -> None:
    """InputError on what the builder named `model`, whose sides begin at `minimum` voxels, cannot build."""
    sizes = input_shape if isinstance(input_shape, (tuple, list)) else ()
    if len(sizes) != 4 or any(not isinstance(n, int) or n < 1 for n in sizes) or min(sizes[:3]) < minimum:
        raise InputError(
            f"{model}: input_shape={input_shape!r} must be (z, y, x, channels) with sides of {minimum} or more."
        )
    if isinstance(field, bool) or not isinstance(field, (int, float)) or not 0 < field <= 1:
        raise InputError(f"{model}: field={field!r} must be above 0 and at most 1 (1 is the whole volume).")
    seen = [n - 2 * _margin(n, field) for n in sizes[:3]]
    if min(seen) < minimum:
        raise InputError(
            f"{model}: field={field:g} of input_shape={input_shape!r} leaves a side of {min(seen)} voxels, and "
            f"{minimum} or more are needed: give a larger field."
        )
    if pooling not in (None, "avg"):
        raise InputError(f"{model}: pooling={pooling!r} must be None (as published) or 'avg' (averaged to 2x2x2).")
    if include_top:
        if not isinstance(classes, int) or classes < 1:
            raise InputError(f"{model}: classes={classes!r} must be an integer of 1 or more.")
        try:
            keras.activations.get(classifier_activation)
        except ValueError:
            raise InputError(
                f"{model}: classifier_activation={classifier_activation!r} must be a name that Keras knows "
                "(softmax), or None for logits."
            ) from None


def initializer(pooling: str | None) -> str:
    """Of the convolutions: Glorot's as published; He's in the pooled form.

    Without normalisation layers, self-supervision of the pooled form with Glorot's sat on a plateau in our pilot.
    """
    return "he_normal" if pooling == "avg" else "glorot_uniform"


def field_of_view(volumes: keras.KerasTensor, field: float) -> keras.KerasTensor:
    """The cube about the centre of (batch, z, y, x, c) that is `field` of each side long; of 1 `volumes` themselves.

    As many voxels are left out on either side, so that the centre stays voxel n // 2 and odd sides stay odd.
    """
    margins = tuple(_margin(n, field) for n in volumes.shape[1:4])
    return layers.Cropping3D(margins, name="field_of_view")(volumes) if any(margins) else volumes


def _margin(side: int, field: float) -> int:
    return int(side * (1 - field) / 2 + 0.5)


def average_to_2x2x2(x: keras.KerasTensor) -> keras.KerasTensor:
    """(batch, z, y, x, c) to (batch, 2, 2, 2, c): two windows a side, as torch.nn.AdaptiveAvgPool3d(2).

    They overlap by one where the side is odd. Differs from torch where a side is 1: it stays 1, not twice the same.
    """
    sides = x.shape[1:4]
    windows, strides = [math.ceil(n / 2) for n in sides], [max(n // 2, 1) for n in sides]
    return layers.AveragePooling3D(windows, strides, name="average_pool")(x)


def classifier(x: keras.KerasTensor, classes: int, activation: str | None) -> keras.KerasTensor:
    """The last layer, float32 under mixed precision too: its input is what classifiers are said to have as features."""
    return layers.Dense(classes, activation=activation, dtype="float32", name=CLASSIFIER)(x)


def finish(
    volumes: keras.KerasTensor, outputs: keras.KerasTensor, name: str, weights: str | Path | None
) -> keras.Model:
    """The network, with the weights of that file where one is given."""
    model = keras.Model(volumes, outputs, name=name)
    thin_maps_in_float32(model)
    if weights is not None:
        load_weights(model, Path(weights))
    return model


def thin_maps_in_float32(model: keras.Model) -> None:
    """Convolutions of maps with fewer voxels along z than their kernel compute in float32, whatever the policy.

    On CPUs, TensorFlow 2.21 gives their kernels wrong gradients in bfloat16, others at each call and now and then NaN.
    Maps of a single voxel are right.
    """
    for layer in model.layers:
        if isinstance(layer, layers.Conv3D) and 1 < layer.input.shape[1] < layer.kernel_size[0]:
            layer.dtype_policy = "float32"


def load_weights(model: keras.Model, path: Path) -> None:
    """Fill the network from a `.weights.h5` or `.keras` file, layer by layer by name.

    Keras itself goes by the order of layers of a kind, which fills another network of like shapes without a word. Here
    every layer must be there by name and shape; of others, the file may have only those after the features.

    Raises:
        InputError: no such file, another kind of file, or another network's.
    """
    if not path.is_file():
        raise InputError(f"{model.name}: no weights file {path}; give a .weights.h5 or .keras file, or weights=None.")
    try:
        with _weights_file(path) as file:
            stored = _named_weights(file)
    except (OSError, KeyError, zipfile.BadZipFile):
        raise InputError(
            f"{model.name}: {path} is not a .weights.h5 or .keras file of Keras 3 (HDF5 files of older Keras are for "
            "bin/import_legacy)."
        ) from None
    own = {layer.name: layer for layer in model.layers if layer.weights}
    problem = _misfit({name: [tuple(w.shape) for w in layer.weights] for name, layer in own.items()}, stored)
    if problem:
        raise InputError(f"{model.name}: {path} does not hold weights of this network ({problem}).")
    for name, layer in own.items():
        layer.set_weights(stored[name])


@contextlib.contextmanager
def _weights_file(path: Path) -> Iterator[h5py.File]:
    with contextlib.ExitStack() as stack:
        file = path
        if zipfile.is_zipfile(path):
            file = stack.enter_context(stack.enter_context(zipfile.ZipFile(path)).open("model.weights.h5"))
        yield stack.enter_context(h5py.File(file, "r"))


def _named_weights(file: h5py.File) -> dict[str, list[np.ndarray]]:
    """Layer name to its arrays in order. KeyError where the file is not laid out as Keras 3 does."""
    variables = [group["vars"] for group in file["layers"].values()]
    return {str(v.attrs["name"]): [v[str(i)][()] for i in range(len(v))] for v in variables if len(v)}


def _misfit(own: dict[str, list[tuple[int, ...]]], stored: dict[str, list[np.ndarray]]) -> str | None:
    """The first reason why the stored arrays are not those of layers with these shapes."""
    for name, shapes in own.items():
        if name not in stored:
            return f"it has no layer {name}"
        found = [array.shape for array in stored[name]]
        if found != shapes:
            return f"layer {name} has {found}, expected {shapes}"
    others = sorted(set(stored) - set(own) - _HEADS)
    return f"it also has a layer {others[0]}" if others else None
