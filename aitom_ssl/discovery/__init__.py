"""Structures that nobody labelled: picking, features that turning does not change, clusters, alignment, averages, FSC.

Names are imported from their modules on first use: RIF-SVM needs scikit-learn, picking does not.
"""

from __future__ import annotations

import importlib
from typing import Any

_HOMES = {
    "Alignment": "alignment",
    "Picks": "picking",
    "align": "alignment",
    "align_many": "alignment",
    "average_subtomograms": "averaging",
    "classify_and_average": "averaging",
    "difference_of_gaussians": "picking",
    "fourier_shell_correlation": "resolution",
    "load_rif_svm": "rif_svm",
    "over_partition": "clustering",
    "pick": "picking",
    "rotation_invariant_features": "invariants",
    "structural_discrepancy": "resolution",
}
__all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
