"""Structures that nobody labelled: picking, features that turning does not change, clusters, alignment, averages, FSC.

Names are imported from their modules on first use: RIF-SVM needs scikit-learn, picking does not.
"""

from aitom_ssl.on_demand import on_demand

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
__getattr__, __dir__ = on_demand(__name__, _HOMES)
