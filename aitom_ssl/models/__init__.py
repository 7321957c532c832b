"""Architectures: functional keras.Model builders in the style of keras.applications."""

from __future__ import annotations

import functools
from collections.abc import Callable

import keras

from aitom_ssl.errors import InputError, near
from aitom_ssl.models.cb3d import CB3D
from aitom_ssl.models.cosnet import COSNet
from aitom_ssl.models.description import ModelDescription
from aitom_ssl.models.dsrf3d import DSRF3D
from aitom_ssl.models.dsrf3d_v2 import DSRF3Dv2
from aitom_ssl.models.inception3d import Inception3D
from aitom_ssl.models.rb3d import RB3D
from aitom_ssl.models.resnet18_3d import ResNet18_3D
from aitom_ssl.models.standardized import STANDARDIZE_LAYER, standardized

_BUILDERS = {
    "inception3d": Inception3D,
    "dsrf3d": DSRF3D,
    "dsrf3dv2": DSRF3Dv2,
    "cb3d": CB3D,
    "rb3d": RB3D,
    "rb3d_gn": functools.partial(RB3D, normalization="group"),
    "resnet18_3d": ResNet18_3D,
}
NAMES = tuple(_BUILDERS)


def get(name: str) -> Callable[..., keras.Model]:
    """The builder of that name, in any case (`RB3D`, `rb3d`). InputError on a name that is not known."""
    builder = _BUILDERS.get(str(name).lower())
    if builder is None:
        hint = near(str(name).lower(), _BUILDERS)
        raise InputError(f"No architecture {name!r}; there are: {', '.join(_BUILDERS)}.{hint}")
    return builder


__all__ = [
    "CB3D",
    "DSRF3D",
    "NAMES",
    "RB3D",
    "STANDARDIZE_LAYER",
    "COSNet",
    "DSRF3Dv2",
    "Inception3D",
    "ModelDescription",
    "ResNet18_3D",
    "get",
    "standardized",
]
