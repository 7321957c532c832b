"""Structures that nobody labelled: picking, features that turning does not change, and the baselines made of them.

Names are imported from their modules on first use: RIF-SVM needs scikit-learn, picking does not.
"""

from __future__ import annotations

import importlib
from typing import Any

_HOMES = {
    "Picks": "picking",
    "difference_of_gaussians": "picking",
    "load_rif_svm": "rif_svm",
    "pick": "picking",
    "rotation_invariant_features": "invariants",
}
__all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
