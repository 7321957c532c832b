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
import itertools
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from aitom_ssl.errors import InputError
from aitom_ssl.export.legacy_file import SavedFile, SavedLayer, Shapes, finite_arrays, opened
from aitom_ssl.export.legacy_graph import Graph, laid_over

_WHOLE_FILE = "give the whole-model file (model.save('x.h5')) instead"
_MOST_VOXELS = 256

# === Which network ===


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


def _form(shapes: Sequence[Shapes]) -> tuple[str, int, int] | None:
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


def identify_legacy(path: str | Path, size: int | None = None) -> LegacyNetwork:
    """Architecture, voxels a side and classes of the network in a legacy file.

    A weights-only file fits several sizes where pooling rounds (DSRF3D: 32 to 35); the roundest is given, or `size`.
    Raises InputError when it is not a Keras HDF5 file, or none of Inception3D, DSRF3D, DSRF3Dv2 and RB3D, or not for
    boxes of `size`.
    """
    with opened(path) as saved:
        network = _identify(saved)
        return network if size is None else _resized(network, size, saved)


def _identify(saved: SavedFile) -> LegacyNetwork:
    size = None
    if saved.config is not None:
        shape = Graph(saved.config, str(saved.path)).input_shape()
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


def _resized(network: LegacyNetwork, size: int, saved: SavedFile) -> LegacyNetwork:
    """The same for boxes of `size`, where the file fits them; else InputError."""
    features = _FORMS[network.architecture].features
    if network.size != size and (saved.config is not None or features(network.size) != features(size)):
        raise InputError(f"{saved.path} holds {network}, not for {size}^3: give it boxes of {network.size}^3.")
    return network._replace(size=size)


# === Which layer, where there are weights only ===

_AUTOMATIC = re.compile(r"(?:conv3d|convolution3d)(?:_(\d+))?")


def _by_witnesses(ours: Graph, shapes: Mapping[str, Shapes], saved: SavedFile) -> dict[str, str]:
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
        f"{', '.join(stored)}): {_WHOLE_FILE}."
    )


def _by_creation(names: list[str], stored: Mapping[str, SavedLayer]) -> list[str]:
    """The convolutions by the numbers in their names, then the rest; no names at all when they are not numbered."""
    numbers = {}
    for name in names:
        if stored[name].arrays[0].ndim == 5:
            match = _AUTOMATIC.fullmatch(name)
            if match is None:
                return []
            numbers[name] = int(match[1] or 0)
    return [*sorted(numbers, key=numbers.__getitem__), *(name for name in names if name not in numbers)]


def _is_forced(ours: Graph, shapes: Mapping[str, Shapes]) -> bool:
    """Whether of any two layers with equal shapes one needs the other's result, so that depth alone orders them."""
    pairs = itertools.combinations(shapes, 2)
    return all(a in ours.above[b] or b in ours.above[a] for a, b in pairs if shapes[a] == shapes[b])


def _is_later_keras(version: str | None) -> bool:
    return version is not None and version.split(".")[0].isdigit() and int(version.split(".")[0]) >= 2


def _is_whole_order(ours: Graph, shapes: Mapping[str, Shapes], saved: SavedFile) -> bool:
    """Whether layers with and without weights alternate in the file as in our graph, up to the last with weights."""

    def runs(arrays: Sequence[Shapes]) -> list[Shapes]:
        return list(arrays[: max(i for i, shape in enumerate(arrays) if shape) + 1])

    mine = runs([shapes.get(name, ()) for name in ours.written()])
    return mine == runs([layer.shapes for layer in saved.layers])


# === Into our model ===


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
    ours = Graph({"class_name": "Functional", "config": model.get_config()}, f"the model {model.name!r}")
    form = _form([shapes[name] for name in ours.written() if name in shapes])
    if form is None:
        raise InputError(
            f"{ours.where} is not one of AITom's networks: expected {', '.join(_FORMS)} with pooling=None and "
            "include_top=True."
        )
    mine = LegacyNetwork(form[0], ours.input_shape()[0], form[2])
    with opened(path) as saved:
        theirs = _identify(saved)
        if (theirs.architecture, theirs.classes) != (mine.architecture, mine.classes):
            raise InputError(f"{path} holds {theirs}, but the model is {mine}: build the model that the file holds.")
        _resized(theirs, mine.size, saved)
        stored = {layer.name: layer for layer in saved.weighted}
        if saved.config is not None:
            names = laid_over(ours, Graph(saved.config, str(path)))
        else:
            names = _by_witnesses(ours, shapes, saved)
        for name, other in names.items():
            if other not in stored or stored[other].shapes != shapes[name]:
                found = stored[other].shapes if other in stored else "nothing"
                raise InputError(f"{path}: layer {other!r} has {found}, expected arrays {shapes[name]}: it is damaged.")
        values = {name: finite_arrays(stored[other], saved.path) for name, other in names.items()}
    for name, arrays in values.items():
        model.get_layer(name).set_weights(arrays)
