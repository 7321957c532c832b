"""Keras HDF5 files of AITom's networks (Keras 1, Keras 2, tf_keras) into ours, with the same predictions.

A file holds arrays under layer names that say little (conv3d_17), in an order that is not the order of creation, and
layers of equal shape: three in Inception3D, many in RB3D. So which array belongs to which layer is proven, or refused:

- A whole-model file (`model.save`) has the graph: ours is laid over it, from the output back to the input, and every
  setting that changes a prediction is compared. Names and order in the file do not matter.
- A weights-only file (`save_weights`) has two witnesses. Keras writes layers by depth in the graph, in the order in
  which the output reaches them; and it numbers unnamed layers as they are created. Both, put against our graph, must
  say the same. Without numbers that fit, the order alone is enough where layers of equal shape follow one another, or
  where the layers without weights between them are also as in our graph and the file is of Keras 2 or later (Keras 1
  could be told to sort by name). In the `.weights.h5` of Keras 2.12 and later the number is the order.

What weights alone cannot show is taken to be as in AITom: the kind of pooling, and in a `.weights.h5` the order in
which Inception3D's branches are joined.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import itertools
import json
import os
import re
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np

from aitom_ssl.errors import InputError
from aitom_ssl.files import sha256
from aitom_ssl.training.run import RunFolder

GIVE_THE_WHOLE = "give the whole-model file (model.save('x.h5')) instead"
_MOST_VOXELS = 256

# === The four networks, by their weights ===


class LegacyNetwork(NamedTuple):
    """Which network a file holds."""

    architecture: str  # name for `models.get`
    size: int  # voxels a side
    classes: int

    def __str__(self) -> str:
        return f"{self.architecture} for {self.size}^3 voxels and {self.classes} classes"


class _Form(NamedTuple):
    """What tells an architecture: its convolutions (side, channels in, filters) in any order, and what follows."""

    convolutions: list[tuple[int, int, int]]
    hidden: tuple[int, ...]  # units of the fully connected layers before the last
    features: Callable[[int], int]  # voxels a side to length after flattening


_FORMS = {
    "inception3d": _Form(
        [(5, 1, 32), (1, 32, 32), (1, 32, 32), (3, 32, 64), (1, 32, 16), (5, 16, 32), (1, 32, 32)],
        (),
        lambda n: 160 * ((n - 3) // 2 - 1) ** 3,
    ),
    "dsrf3d": _Form([(3, 1, 32), (3, 32, 32), (3, 32, 64), (3, 64, 64)], (512, 512), lambda n: 64 * (n // 4) ** 3),
    "dsrf3dv2": _Form(
        [(3, 1, 32), (3, 32, 32), (3, 32, 64), (3, 64, 64), (3, 64, 128), (3, 128, 128)],
        (1024, 1024),
        lambda n: 128 * (n // 8) ** 3,
    ),
    "rb3d": _Form(
        [(3, 1, 32), *[(3, 32, 16), (1, 32, 16), (3, 16, 32), (1, 32, 16)] * 4],
        (1024, 1024),
        lambda n: 32 * (n // 2) ** 3,
    ),
}
_Shapes = tuple[tuple[int, ...], ...]


def _form(shapes: Sequence[_Shapes]) -> tuple[str, int, int] | None:
    """Architecture, length after flattening and classes of layers with these arrays; None when none of the four."""
    convolutions, dense = [], []
    for arrays in shapes:
        kernel = arrays[0]
        if len(arrays) != 2 or len(kernel) not in (2, 5) or arrays[1] != kernel[-1:] or 0 in kernel:
            return None
        if len(kernel) == 5:
            convolutions.append((kernel[0], *kernel[3:]) if len(set(kernel[:3])) == 1 else kernel)
        else:
            dense.append(kernel)
    if not dense or any(before[1] != after[0] for before, after in itertools.pairwise(dense)):
        return None
    hidden = tuple(units for _, units in dense[:-1])
    for name, form in _FORMS.items():
        if collections.Counter(form.convolutions) == collections.Counter(convolutions) and form.hidden == hidden:
            return name, dense[0][0], dense[-1][1]
    return None


def roundest_size(architecture: str, features: int) -> int | None:
    """Voxels a side that give `features`; of several, which pooling makes equal, the one with most factors 2."""
    sizes = [n for n in range(5, _MOST_VOXELS + 1) if _FORMS[architecture].features(n) == features]
    return max(sizes, key=lambda n: n & -n, default=None)


# === Reading ===


class _SavedLayer(NamedTuple):
    name: str
    arrays: list[h5py.Dataset]  # kernel, bias; empty for a layer without weights

    @property
    def shapes(self) -> _Shapes:
        return tuple(array.shape for array in self.arrays)


class _Saved(NamedTuple):
    """An open file: its layers in its order, and what else it tells."""

    path: Path
    layers: list[_SavedLayer]
    config: Any  # model_config of a whole-model file, else None
    version: str | None  # of Keras; Keras 1 did not write one beside weights
    numbered: bool  # a .weights.h5 of Keras 2.12 or later: names are classes, numbers the order

    @property
    def weighted(self) -> list[_SavedLayer]:
        return [layer for layer in self.layers if layer.arrays]


@contextlib.contextmanager
def _opened(path: str | Path) -> Iterator[_Saved]:
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
        if zipfile.is_zipfile(path) and "model.weights.h5" in zipfile.ZipFile(path).namelist():
            raise InputError(
                f"{path} is a .keras archive, expected HDF5: save it as model.save('x.h5') in the Keras that wrote it."
            ) from None
        if not h5py.is_hdf5(path):
            raise InputError(f"{path} is not an HDF5 file, {expected}") from None
        reason = " ".join(str(error).split())
        raise InputError(f"{path} is damaged or cut short ({reason}): copy it again from where it came.") from None


def _saved(path: Path, file: h5py.File) -> _Saved:
    group = file["model_weights"] if "layer_names" not in file.attrs and "model_weights" in file else file
    if _text(group.attrs.get("backend", file.attrs.get("backend", ""))) == "theano":
        raise InputError(f"{path} was written under Theano, whose convolutions are mirrored: expected TensorFlow's.")
    version = group.attrs.get("keras_version", file.attrs.get("keras_version"))
    version = None if version is None else _text(version)
    try:
        if "layer_names" in group.attrs:
            names = [_text(name) for name in group.attrs["layer_names"]]
            layers = [_SavedLayer(name, _arrays(path, group, name)) for name in names]
            return _Saved(path, layers, _config(path, file), version, False)
        for name in ("layers", "_layer_checkpoint_dependencies"):
            if isinstance(file.get(name), h5py.Group):
                return _Saved(path, _numbered_layers(path, file[name]), None, version, True)
    except InputError:
        raise
    except (TypeError, ValueError, AttributeError) as error:
        raise InputError(f"{path} is not laid out as Keras does ({error}): copy it again from where it came.") from None
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


def _numbered_layers(path: Path, group: h5py.Group) -> list[_SavedLayer]:
    """The layers with weights of a .weights.h5: convolutions, then dense layers, each kind by number."""
    found = []
    for name in group:
        variables = group[name].get("vars")
        keys = sorted(variables, key=int) if isinstance(variables, h5py.Group) else []
        if keys:
            kind, _, number = re.fullmatch(r"(.*?)(_(\d+))?", name).groups()
            arrays = [_checked_array(path, variables[key]) for key in keys]
            found.append(((-arrays[0].ndim, kind, int(number or 0)), _SavedLayer(name, arrays)))
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
        raise InputError(f"{path} is damaged: its model_config is not JSON ({error}).") from None


def _values(layer: _SavedLayer, path: Path) -> list[np.ndarray]:
    values = [array[()].astype(np.float32) for array in layer.arrays]
    if not all(np.isfinite(value).all() for value in values):
        raise InputError(f"{path}: the weights of layer {layer.name!r} are not all finite: its training had diverged.")
    return values


# === Graphs ===


class _Layer(NamedTuple):
    name: str
    class_name: str
    config: Mapping[str, Any]
    inputs: list[str]


@dataclasses.dataclass(frozen=True, eq=False)
class _Step:
    """One operation of a network: an activation is a step of its own, dropout is none."""

    kind: str
    settings: dict[str, Any]
    layer: str
    sources: tuple[_Step, ...]


class _Graph:
    """A flat model with one input and one output, from a Keras config of any age.

    Raises InputError, which names `where`, on anything else.
    """

    def __init__(self, config: Any, where: str):
        self.where = where
        try:
            self.layers, self.output = _flat(config)
            self._depths_and_visits()
            self._steps: dict[str, _Step] = {}
            self.last = self._step(self.output)
        except (KeyError, TypeError, ValueError, IndexError, AttributeError, RecursionError) as error:
            if isinstance(error, InputError):
                raise InputError(f"{where}: {error}") from None
            raise InputError(f"{where}: its model_config cannot be understood ({error!r}).") from None

    def _depths_and_visits(self) -> None:
        """Order in which the output reaches each layer, before and after its inputs, and its distance from there."""
        self.first_visit: list[str] = []
        self.created: list[str] = []
        self.above: dict[str, set[str]] = {}  # what a layer's result depends on

        def visit(name: str) -> None:
            if name in self.first_visit:
                return
            self.first_visit.append(name)
            inputs = self.layers[name].inputs
            for source in inputs:
                visit(source)
            self.created.append(name)
            self.above[name] = set(inputs).union(*(self.above[source] for source in inputs))

        visit(self.output)
        self.depth = dict.fromkeys(self.created, 0)
        for name in reversed(self.created):
            for source in self.layers[name].inputs:
                self.depth[source] = max(self.depth[source], self.depth[name] + 1)

    def written(self) -> list[str]:
        """Names in the order in which Keras writes them: the deepest first, then as first visited."""
        return sorted(self.first_visit, key=lambda name: (-self.depth[name], self.first_visit.index(name)))

    def input_shape(self) -> tuple[int, ...]:
        step = self.last
        while step.sources:
            step = step.sources[0]
        return step.settings.get("shape", ())

    def _step(self, name: str) -> _Step:
        if name not in self._steps:
            layer = self.layers[name]
            sources = tuple(self._step(source) for source in layer.inputs)
            kind, settings, activation = _operation(layer)
            step = sources[0] if kind == "nothing" else _Step(kind, settings, name, sources)
            self._steps[name] = step if activation == "linear" else _Step(str(activation), {}, name, (step,))
        return self._steps[name]


def _flat(config: Mapping[str, Any]) -> tuple[dict[str, _Layer], str]:
    """Layers by name, and the name of the output."""
    inside = config["config"]
    if config["class_name"] == "Sequential":
        entries = inside if isinstance(inside, list) else inside["layers"]
        layers = [_Layer(entry["config"]["name"], entry["class_name"], entry["config"], []) for entry in entries]
        if layers[0].class_name != "InputLayer":
            layers.insert(0, _Layer("input of the first layer", "InputLayer", layers[0].config, []))
        for before, after in itertools.pairwise(layers):
            after.inputs.append(before.name)
        output = layers[-1].name
    else:
        layers = [
            _Layer(_name(entry), entry["class_name"], entry["config"], _inbound(entry)) for entry in inside["layers"]
        ]
        outputs = inside["output_layers"]
        outputs = [outputs] if isinstance(outputs[0], str) else outputs
        if len(outputs) != 1:
            raise InputError(f"the model has {len(outputs)} outputs, expected a classifier with one.")
        output = outputs[0][0]
    nested = [layer.name for layer in layers if "layers" in layer.config or layer.class_name == "Sequential"]
    if nested:
        inner = f"model.get_layer({nested[0]!r}).save('x.h5')"
        raise InputError(f"layer {nested[0]!r} is a model inside the model, expected a flat one: save it with {inner}.")
    return {layer.name: layer for layer in layers}, output


def _name(entry: Mapping[str, Any]) -> str:
    return entry.get("name") or entry["config"]["name"]


def _inbound(entry: Mapping[str, Any]) -> list[str]:
    nodes = entry["inbound_nodes"]
    if len(nodes) > 1:
        raise InputError(f"layer {_name(entry)!r} is used {len(nodes)} times, expected once.")
    return _sources(nodes)


def _sources(value: Any) -> list[str]:
    """Names of the layers that a node takes its tensors from: [name, node, tensor] in Keras 1 and 2, a dict in 3."""
    if isinstance(value, dict):
        if "keras_history" in value:
            return [value["keras_history"][0]]
        return [name for part in value.values() for name in _sources(part)]
    if isinstance(value, (list, tuple)):
        if len(value) >= 3 and isinstance(value[0], str) and isinstance(value[1], int):
            return [value[0]]
        return [name for part in value for name in _sources(part)]
    return []


def _operation(layer: _Layer) -> tuple[str, dict[str, Any], str]:
    """Kind of operation ("nothing" for dropout), settings that change its result, and the activation after it."""
    config, class_name = layer.config, layer.class_name

    def first(*names: str, default: Any = None) -> Any:
        return next((config[name] for name in names if config.get(name) is not None), default)

    if first("data_format", "dim_ordering") in ("channels_first", "th"):
        raise InputError(f"layer {layer.name!r} has its channels first (Theano's order), expected channels last.")
    activation = config.get("activation") or "linear"
    if class_name in ("Conv3D", "Convolution3D"):
        side = config["kernel_size"] if "kernel_size" in config else [config[f"kernel_dim{i}"] for i in (1, 2, 3)]
        settings = {
            "filters": first("filters", "nb_filter"),
            "kernel": _triple(side),
            "strides": _triple(first("strides", "subsample", default=1)),
            "padding": first("padding", "border_mode", default="valid"),
            "dilation": _triple(first("dilation_rate", default=1)),
            "groups": first("groups", default=1),
            "bias": first("use_bias", "bias", default=True),
        }
        return "convolution", settings, activation
    if class_name in ("MaxPooling3D", "AveragePooling3D"):
        size = _triple(first("pool_size", default=2))
        settings = {
            "size": size,
            "strides": _triple(first("strides", default=size)),
            "padding": first("padding", "border_mode", default="valid"),
        }
        return ("max pooling" if class_name.startswith("Max") else "average pooling"), settings, "linear"
    if class_name == "Dense":
        settings = {"units": first("units", "output_dim"), "bias": first("use_bias", "bias", default=True)}
        return "dense", settings, activation
    if class_name == "InputLayer" or (not layer.inputs and ("batch_input_shape" in config or "batch_shape" in config)):
        shape = first("batch_shape", "batch_input_shape")
        return "input", {"shape": tuple(shape[1:])}, "linear"
    if class_name == "Concatenate" or (class_name == "Merge" and config.get("mode") == "concat"):
        axis = first("axis", "concat_axis", default=-1)
        return "concatenation", {"axis": -1 if axis == 4 else axis}, "linear"
    if class_name == "Activation":
        return "nothing", {}, activation
    if class_name == "Softmax" and config.get("axis", -1) in (-1, 1):
        return "nothing", {}, "softmax"
    if class_name == "ReLU" and not any(config.get(name) for name in ("max_value", "negative_slope", "threshold")):
        return "nothing", {}, "relu"
    if class_name == "Dropout":
        return "nothing", {}, "linear"
    if class_name == "Flatten":
        return "flatten", {}, "linear"
    return class_name, {}, "linear"


def _triple(value: Any) -> tuple[int, ...]:
    return (value,) * 3 if isinstance(value, int) else tuple(value)


def _laid_over(ours: _Graph, theirs: _Graph) -> dict[str, str]:
    """Our layers' names to theirs, where both graphs compute the same; else InputError naming the first difference."""
    last, other = ours.last, theirs.last
    if other.kind != "softmax" and last.kind == "softmax":
        raise InputError(
            f"{theirs.where} ends in {_described(other)}, not in a softmax: build the model with "
            "classifier_activation=None."
        )
    # Without an activation ours gives what theirs feeds its softmax.
    if last.kind == "dense" and other.kind == "softmax":
        other = other.sources[0]
    names: dict[str, str] = {}
    # Layers with weights are as many and of the same shapes on both sides, so none stands for two of the other's.
    seen: set[tuple[_Step, _Step]] = set()
    pairs = [(last, other)]
    while pairs:
        mine, yours = pair = pairs.pop()
        if pair in seen:
            continue
        seen.add(pair)
        if (mine.kind, mine.settings, len(mine.sources)) != (yours.kind, yours.settings, len(yours.sources)):
            raise InputError(
                f"{theirs.where} computes something else than {ours.where}: its layer {yours.layer!r} is "
                f"{_described(yours)}, expected {_described(mine)}."
            )
        if mine.kind in ("convolution", "dense"):
            names[mine.layer] = yours.layer
        pairs += zip(mine.sources, yours.sources, strict=True)
    return names


def _described(step: _Step) -> str:
    settings = ", ".join(f"{name} {value}" for name, value in step.settings.items())
    return f"{step.kind} ({settings})" if settings else step.kind


# === Weights only ===

_AUTOMATIC = re.compile(r"(?:conv3d|convolution3d)(?:_(\d+))?")


def _by_witnesses(ours: _Graph, shapes: Mapping[str, _Shapes], saved: _Saved) -> dict[str, str]:
    """Our layers' names to the file's, from the order and the numbers in it (see above); InputError when not proven."""
    written = [name for name in ours.written() if name in shapes]
    created = [name for name in ours.created if name in shapes]
    stored = {layer.name: layer for layer in saved.weighted}

    def fitting(mine: Sequence[str], names: Sequence[str]) -> dict[str, str] | None:
        fits = len(stored) == len(names) and [shapes[name] for name in mine] == [stored[n].shapes for n in names]
        return dict(zip(mine, names, strict=True)) if fits else None

    by_order = fitting(written, list(stored))
    if saved.numbered:
        by_number = None
    else:
        by_number = fitting(created, _by_creation(list(stored), stored))
    if by_order is None:
        reason = "their order is not the one in which Keras writes this network"
    elif by_number == by_order or saved.numbered:
        return by_order
    elif by_number is not None:
        reason = "their order says another thing than their numbers"
    elif _is_forced(ours, shapes) or (_is_later_keras(saved.version) and _is_whole_order(ours, shapes, saved)):
        return by_order
    else:
        reason = "some are of one shape, and their names have no numbers to tell them by"
    raise InputError(
        f"{saved.path} holds weights only, and which layer is which cannot be proven ({reason}: "
        f"{', '.join(stored)}): {GIVE_THE_WHOLE}."
    )


def _by_creation(names: list[str], stored: Mapping[str, _SavedLayer]) -> list[str]:
    """The convolutions by the numbers in their names, then the rest; no names at all when they are not numbered."""
    numbers = {}
    for name in names:
        if stored[name].arrays[0].ndim == 5:
            match = _AUTOMATIC.fullmatch(name)
            if match is None:
                return []
            numbers[name] = int(match[1] or 0)
    return [*sorted(numbers, key=numbers.__getitem__), *(name for name in names if name not in numbers)]


def _is_forced(ours: _Graph, shapes: Mapping[str, _Shapes]) -> bool:
    """Whether of any two layers with equal shapes one needs the other's result, so that depth alone orders them."""
    pairs = itertools.combinations(shapes, 2)
    return all(a in ours.above[b] or b in ours.above[a] for a, b in pairs if shapes[a] == shapes[b])


def _is_later_keras(version: str | None) -> bool:
    return version is not None and version.split(".")[0].isdigit() and int(version.split(".")[0]) >= 2


def _is_whole_order(ours: _Graph, shapes: Mapping[str, _Shapes], saved: _Saved) -> bool:
    """Whether layers with and without weights alternate in the file as in our graph, up to the last with weights."""

    def runs(arrays: Sequence[_Shapes]) -> list[_Shapes]:
        return list(arrays[: max(i for i, shape in enumerate(arrays) if shape) + 1])

    mine = runs([shapes.get(name, ()) for name in ours.written()])
    return mine == runs([layer.shapes for layer in saved.layers])


# === Public ===


def identify_legacy(path: str | Path, size: int | None = None) -> LegacyNetwork:
    """Architecture, voxels a side and classes of the network in a legacy file.

    A weights-only file fits several sizes where pooling rounds (DSRF3D: 32 to 35); the roundest is given, or `size`.
    Raises InputError when it is not a Keras HDF5 file, or none of Inception3D, DSRF3D, DSRF3Dv2 and RB3D, or not for
    boxes of `size`.
    """
    with _opened(path) as saved:
        network = _identify(saved)
        return network if size is None else _resized(network, size, saved)


def legacy_layout(path: str | Path) -> str:
    """ "whole model", "weights" (save_weights("x.h5")) or "numbered weights" (save_weights("x.weights.h5"))."""
    with _opened(path) as saved:
        return "numbered weights" if saved.numbered else "weights" if saved.config is None else "whole model"


def _identify(saved: _Saved) -> LegacyNetwork:
    size = None
    if saved.config is not None:
        shape = _Graph(saved.config, str(saved.path)).input_shape()
        if len(shape) != 4 or len(set(shape[:3])) != 1 or shape[3] != 1 or not isinstance(shape[0], int):
            raise InputError(f"{saved.path} takes inputs {shape}, expected cubes (n, n, n, 1).")
        size = shape[0]
    kernels = [layer.shapes[0] for layer in saved.weighted]
    if any(len(k) == 5 and k[0] != k[2] == k[3] == k[4] for k in kernels):
        raise InputError(f"{saved.path} has its channels first (Theano's order), expected channels last.")
    form = _form([layer.shapes for layer in saved.weighted])
    if form is None:
        found = ", ".join("x".join(map(str, kernel)) for kernel in kernels[:8])
        more = ", ..." if len(kernels) > 8 else ""
        raise InputError(
            f"{saved.path} holds none of {', '.join(_FORMS)}: its kernels are {found or 'none'}{more}. Only these "
            "networks of AITom have a twin here."
        )
    architecture, features, classes = form
    size = size or roundest_size(architecture, features)
    if size is None or _FORMS[architecture].features(size) != features:
        raise InputError(f"{saved.path} holds {architecture} with {features} features, which no cube of voxels gives.")
    return LegacyNetwork(architecture, size, classes)


def _resized(network: LegacyNetwork, size: int, saved: _Saved) -> LegacyNetwork:
    """The same for boxes of `size`, where the file fits them; else InputError."""
    features = _FORMS[network.architecture].features
    if network.size != size and (saved.config is not None or features(network.size) != features(size)):
        raise InputError(f"{saved.path} holds {network}, not for {size}^3: give it boxes of {network.size}^3.")
    return network._replace(size=size)


def load_legacy_weights(model: Any, path: str | Path) -> None:
    """Put the weights of an AITom-era Keras file into our twin of its network; predictions are then the same.

    Args:
        model: Inception3D, DSRF3D, DSRF3Dv2 or RB3D (pooling=None) with its top, of the file's size and classes. With
            classifier_activation=None it gives the linear structural features of Xu 2017.
        path: HDF5 file of Keras 1, Keras 2 or tf_keras: model.save("x.h5"), save_weights("x.h5"), save_weights
            ("x.weights.h5"). It is opened read-only; an optimizer's state in it is left alone.

    Raises:
        InputError: when the file is not such a file, holds another architecture, size or number of classes, or does not
            prove which array belongs to which layer. The model is then as it was.
    """
    shapes = {layer.name: tuple(tuple(w.shape) for w in layer.weights) for layer in model.layers if layer.weights}
    ours = _Graph({"class_name": "Functional", "config": model.get_config()}, f"the model {model.name!r}")
    form = _form([shapes[name] for name in ours.written() if name in shapes])
    if form is None:
        raise InputError(
            f"{ours.where} is not one of AITom's networks: expected {', '.join(_FORMS)} with pooling=None and "
            "include_top=True."
        )
    mine = LegacyNetwork(form[0], ours.input_shape()[0], form[2])
    with _opened(path) as saved:
        theirs = _identify(saved)
        if (theirs.architecture, theirs.classes) != (mine.architecture, mine.classes):
            raise InputError(f"{path} holds {theirs}, but the model is {mine}: build the model that the file holds.")
        _resized(theirs, mine.size, saved)
        stored = {layer.name: layer for layer in saved.weighted}
        if saved.config is not None:
            names = _laid_over(ours, _Graph(saved.config, str(path)))
        else:
            names = _by_witnesses(ours, shapes, saved)
        for name, other in names.items():
            if other not in stored or stored[other].shapes != shapes[name]:
                found = stored[other].shapes if other in stored else "nothing"
                raise InputError(f"{path}: layer {other!r} has {found}, expected arrays {shapes[name]}: it is damaged.")
        values = {name: _values(stored[other], saved.path) for name, other in names.items()}
    for name, arrays in values.items():
        model.get_layer(name).set_weights(arrays)


def turn_axes(model: Any) -> None:
    """Turn a network that was trained on (x, y, z) arrays, as AITom's are, into the one for our (z, y, x) arrays.

    Afterwards the model gives for an array what it gave before for `array.transpose(2, 1, 0)`: kernels and the layer
    behind the flattening are transposed, all else treats the axes alike. Equal up to rounding.
    """
    flattened = next(layer for layer in model.layers if type(layer).__name__ == "Flatten").input.shape[1:]
    turned = False
    for layer in model.layers:
        if not layer.weights:
            continue
        kernel, *bias = layer.get_weights()
        if kernel.ndim == 5:
            kernel = kernel.transpose(2, 1, 0, 3, 4)
        elif not turned:
            kernel = kernel.reshape(*flattened, -1).transpose(2, 1, 0, 3, 4).reshape(kernel.shape)
            turned = True
        layer.set_weights([kernel, *bias])


def import_legacy(
    path: str | Path,
    output: str | Path | None,
    class_names: Sequence[str],
    size: int | None = None,
    voxel_size: float | None = None,
    contrast: str | None = None,
    axes: str = "zyx",
    command: str = "",
) -> RunFolder:
    """A run folder (config.yaml, model.keras) with our twin of a legacy file's network, for evaluate and predict.

    Args:
        path: as `load_legacy_weights`.
        output: the run's folder; default runs/legacy-NAME, with a number when that is taken.
        class_names: in the order of the network's outputs, as many as it has.
        size: voxels a side, where a weights-only file fits several; default: as `identify_legacy`.
        voxel_size, contrast: of the data it was trained on, where known (A; "bright" or "dark").
        axes: "zyx" keeps the weights as they are; "xyz" says that it was trained on (x, y, z) arrays and turns it.
        command: what makes the run again, kept in its config.

    Raises:
        InputError: as `load_legacy_weights`, and on a wrong number of class names or an output that cannot be taken.
    """
    # They load Keras, which identifying a file does not need.
    from aitom_ssl import models
    from aitom_ssl.environment import versions

    network = identify_legacy(path, size)
    check_class_names(class_names, network, path)
    shape = (network.size,) * 3 + (1,)
    model = models.get(network.architecture)(shape, network.classes)
    description = models.ModelDescription(network.architecture, tuple(class_names), network.size, voxel_size, contrast)
    load_legacy_weights(model, path)
    if axes == "xyz":
        turn_axes(model)
    run = RunFolder.create(output, "legacy", Path(path).stem)
    run.save_model(model)
    run.write_config(
        {
            "method": "legacy",
            "command": command,
            "settings": {"weights": str(path), "axes": axes},
            "model": description.to_dict(),
            "source": {"file": Path(path).name, "sha256": sha256(path), "layout": legacy_layout(path)},
            "versions": versions(),
        }
    )
    return run


def check_class_names(class_names: Sequence[str], network: LegacyNetwork, path: str | Path) -> None:
    """InputError unless there is one name a class of the file's network."""
    if len(class_names) != network.classes:
        raise InputError(f"{path} holds {network}, but {len(class_names)} class names were given: give one a class.")
