"""The way out: predictions as CSV and STAR, SavedModels, AITom, and in from legacy Keras files.

The names below load TensorFlow when they are first asked for, not before.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from aitom_ssl.export.aitom import aitom_model
    from aitom_ssl.export.legacy import load_legacy_weights
    from aitom_ssl.export.savedmodel import export_savedmodel

_MODULES = {"aitom_model": "aitom", "export_savedmodel": "savedmodel", "load_legacy_weights": "legacy"}

__all__ = ["aitom_model", "export_savedmodel", "load_legacy_weights"]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
