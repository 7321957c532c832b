"""What a Keras HDF5 file of AITom's era holds: layers and their arrays in its order, and the config beside them.

Three layouts: `model.save("x.h5")` with the model's config, `save_weights("x.h5")`, and `save_weights("x.weights.h5")`
of Keras 2.12 and later, where a layer's name is its class and a number. Files are opened read-only; arrays are read
when they are asked for. No framework.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np

from aitom_ssl.errors import InputError, reason

Shapes = tuple[tuple[int, ...], ...]


class SavedLayer(NamedTuple):
    """A layer in an open file."""

    name: str
    arrays: list[h5py.Dataset]  # kernel, bias; empty for a layer without weights

    @property
    def shapes(self) -> Shapes:
        """Of its arrays."""
        return tuple(array.shape for array in self.arrays)


class SavedFile(NamedTuple):
    """An open file: its layers in its order, and what else it tells."""

    path: Path
    layers: list[SavedLayer]
    config: Any  # model_config of a whole-model file, else None
    version: str | None  # of Keras; Keras 1 did not write one beside weights
    numbered: bool  # a .weights.h5 of Keras 2.12 or later: names are classes, numbers the order

    @property
    def weighted(self) -> list[SavedLayer]:
        """The layers that have arrays, in the file's order."""
        return [layer for layer in self.layers if layer.arrays]


@contextlib.contextmanager
def opened(path: str | Path) -> Iterator[SavedFile]:
    """The file, read-only; InputError when it is not a Keras HDF5 file, or damaged."""
    path = Path(path)
    expected = "expected a Keras HDF5 file (model.save or save_weights, .h5): check the path."
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "is not there"
        raise InputError(f"{path} {what}, {expected}")
    if not os.access(path, os.R_OK):
        raise InputError(f"{path} cannot be read: change its permissions.")
    try:
        with h5py.File(path, "r") as file:
            yield _saved(path, file)
    except (OSError, RuntimeError, KeyError) as error:
        if _is_keras_archive(path):
            raise InputError(
                f"{path} is a .keras archive, expected HDF5: save it as model.save('x.h5') in the Keras that wrote it."
            ) from None
        if not h5py.is_hdf5(path):
            raise InputError(f"{path} is not an HDF5 file, {expected}") from None
        raise InputError(
            f"{path} is damaged or cut short ({reason(error)}): copy it again from where it came."
        ) from None


def _is_keras_archive(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            return "model.weights.h5" in archive.namelist()
    except (OSError, zipfile.BadZipFile):
        return False


def legacy_layout(path: str | Path) -> str:
    """What wrote the file: "whole model", "weights" (to "x.h5") or "numbered weights" (to "x.weights.h5").

    InputError when it is not a Keras HDF5 file, or damaged.
    """
    with opened(path) as saved:
        return "numbered weights" if saved.numbered else "weights" if saved.config is None else "whole model"


def finite_arrays(layer: SavedLayer, path: Path) -> list[np.ndarray]:
    """The arrays of a layer as float32; InputError, which names the file `path`, when one is not finite."""
    values = [array[()].astype(np.float32) for array in layer.arrays]
    if not all(np.isfinite(value).all() for value in values):
        raise InputError(f"{path}: the weights of layer {layer.name!r} are not all finite: its training had diverged.")
    return values


def _saved(path: Path, file: h5py.File) -> SavedFile:
    group = file["model_weights"] if "layer_names" not in file.attrs and "model_weights" in file else file
    if _text(group.attrs.get("backend", file.attrs.get("backend", ""))) == "theano":
        raise InputError(f"{path} was written under Theano, whose convolutions are mirrored: expected TensorFlow's.")
    version = group.attrs.get("keras_version", file.attrs.get("keras_version"))
    version = None if version is None else _text(version)
    try:
        if "layer_names" in group.attrs:
            names = [_text(name) for name in group.attrs["layer_names"]]
            layers = [SavedLayer(name, _arrays(path, group, name)) for name in names]
            return SavedFile(path, layers, _config(path, file), version, False)
        for name in ("layers", "_layer_checkpoint_dependencies"):
            if isinstance(file.get(name), h5py.Group):
                return SavedFile(path, _numbered_layers(path, file[name]), None, version, True)
    except InputError:
        raise
    except (TypeError, ValueError, AttributeError) as error:
        raise InputError(
            f"{path} is not laid out as Keras does ({reason(error)}): copy it again from where it came."
        ) from None
    raise InputError(
        f"{path} is an HDF5 file without a Keras model in it (no layer_names): expected what model.save or "
        f"save_weights wrote."
    )


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _arrays(path: Path, group: h5py.Group, name: str) -> list[h5py.Dataset]:
    layer = group[name]
    arrays = [layer[_text(weight)] for weight in layer.attrs["weight_names"]]
    if len(arrays) > 2:
        raise InputError(
            f"{path}: layer {name!r} holds {len(arrays)} arrays, expected a kernel and a bias; if it is a model inside "
            f"the model, save that one: model.get_layer({name!r}).save('x.h5')."
        )
    return [_checked_array(path, array) for array in arrays]


def _numbered_layers(path: Path, group: h5py.Group) -> list[SavedLayer]:
    """The layers with weights of a .weights.h5: convolutions, then dense layers, each kind by number."""
    found = []
    for name in group:
        variables = group[name].get("vars")
        keys = sorted(variables, key=int) if isinstance(variables, h5py.Group) else []
        if keys:
            kind, _, number = re.fullmatch(r"(.*?)(_(\d+))?", name).groups()
            arrays = [_checked_array(path, variables[key]) for key in keys]
            found.append(((-arrays[0].ndim, kind, int(number or 0)), SavedLayer(name, arrays)))
    return [layer for _, layer in sorted(found, key=lambda pair: pair[0])]


def _checked_array(path: Path, array: Any) -> h5py.Dataset:
    if not isinstance(array, h5py.Dataset) or array.dtype.kind != "f":
        raise InputError(f"{path}: {getattr(array, 'name', array)} is not an array of numbers: copy the file again.")
    return array


def _config(path: Path, file: h5py.File) -> Any:
    text = file.attrs.get("model_config")
    if text is None:
        return None
    try:
        return json.loads(_text(text))
    except json.JSONDecodeError as error:
        raise InputError(f"{path} is damaged: its model_config is not JSON ({reason(error)}): copy it again.") from None
