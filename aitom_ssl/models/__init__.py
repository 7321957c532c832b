"""Architectures: functional keras.Model builders in the style of keras.applications."""

from __future__ import annotations

from collections.abc import Callable

import keras

from aitom_ssl.errors import InputError, near
from aitom_ssl.models.rb3d import RB3D
from aitom_ssl.models.standardized import STANDARDIZE_LAYER, standardized

_BUILDERS = {"rb3d": RB3D}


def get(name: str) -> Callable[..., keras.Model]:
    """The builder of that name, in any case (`RB3D`, `rb3d`). InputError on a name that is not known."""
    builder = _BUILDERS.get(str(name).lower())
    if builder is None:
        hint = near(str(name).lower(), _BUILDERS)
        raise InputError(f"No architecture {name!r}; there are: {', '.join(_BUILDERS)}.{hint}")
    return builder


__all__ = ["RB3D", "STANDARDIZE_LAYER", "get", "standardized"]
