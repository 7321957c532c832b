"""AITom's networks as legacy files, and what tests of this room do with them."""

import shutil

import h5py
import numpy as np
import pytest
import tf_keras
from tf_keras import layers

from aitom_ssl.errors import InputError
from aitom_ssl.export.legacy import load_legacy_weights

CLASSES = 5
LAYOUTS = {"whole model": "whole.h5", "weights": "only.h5", "numbered weights": "only.weights.h5"}
BRANCHES = ("direct", "small", "large", "pooled")


def volumes(size):
    return np.random.default_rng(size).standard_normal((3, size, size, size, 1)).astype(np.float32)


def save(model, folder):
    """Random weights, biases too, in the three layouts; and what tf-keras predicts: no class is certain."""
    rng = np.random.default_rng(0)
    for weight in model.weights:
        scale = np.sqrt(2 / np.prod(weight.shape[:-1])) if len(weight.shape) > 1 else 0.2
        weight.assign(scale * rng.standard_normal(weight.shape, np.float32))
    folder.mkdir(parents=True, exist_ok=True)
    model.compile("sgd", "categorical_crossentropy")
    for layout, name in LAYOUTS.items():
        (model.save if layout == "whole model" else model.save_weights)(folder / name)
    predictions = model.predict(volumes(model.input_shape[1]), verbose=0)
    assert (np.sort(predictions)[:, -2] > 1e-3).all()
    np.save(folder / "predictions.npy", predictions)
    return folder


def emptied(model):
    for weight in model.weights:
        weight.assign(np.zeros(weight.shape))
    return model


def difference(model, folder):
    size = model.input_shape[1]
    return np.abs(model.predict(volumes(size), verbose=0) - np.load(folder / "predictions.npy")).max()


def refused(model, path, words):
    """That loading fails in one line with these words and leaves the model as it was."""
    before = [w.copy() for w in model.get_weights()]
    with pytest.raises(InputError, match=words) as error:
        load_legacy_weights(model, path)
    assert "\n" not in str(error.value)
    assert all(np.array_equal(a, b) for a, b in zip(before, model.get_weights(), strict=True))


def edited(source, target, edit):
    """A copy of a file after `edit(file)`."""
    shutil.copy(source, target)
    with h5py.File(target, "r+") as file:
        edit(file)
    return target


def names_in(group):
    return [name if isinstance(name, str) else name.decode() for name in group.attrs["layer_names"]]


def variant(created=BRANCHES, joined=BRANCHES, reduce_first=False, pool=layers.MaxPooling3D, named=False, softmax=True):
    """Inception3D at 16^3 whose branches are created and joined in other orders, or with another pooling."""
    count = iter("zyxwvutsrqponmlkjihgfedcba")

    def convolution(x, filters, side, **others):
        name = f"{next(count)}_mine" if named else None
        options = {"activation": "relu", "padding": "same"} | others
        return layers.Conv3D(filters, side, name=name, **options)(x)

    start = layers.Input((16, 16, 16, 1))
    x = layers.MaxPooling3D(2, padding="same")(convolution(start, 32, 5, padding="valid"))
    reduced = convolution(x, 32, 1) if reduce_first else None
    make = {
        "direct": lambda: convolution(x, 32, 1),
        "small": lambda: convolution(convolution(x, 32, 1) if reduced is None else reduced, 64, 3),
        "large": lambda: convolution(convolution(x, 16, 1), 32, 5),
        "pooled": lambda: convolution(pool(2, strides=1, padding="same")(x), 32, 1),
    }
    made = {branch: make[branch]() for branch in created}
    x = layers.Concatenate()([made[branch] for branch in joined])
    x = layers.Dense(CLASSES)(layers.Dropout(0.7)(layers.Flatten()(layers.AveragePooling3D(2, strides=1)(x))))
    return tf_keras.Model(start, layers.Activation("softmax")(x) if softmax else x)
