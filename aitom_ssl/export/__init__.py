"""The way out: predictions as CSV and STAR, SavedModels, AITom, and in from legacy Keras files.

The names below load TensorFlow when they are first asked for, not before.
"""

from aitom_ssl.on_demand import on_demand

_HOMES = {"aitom_model": "aitom", "export_savedmodel": "savedmodel", "load_legacy_weights": "legacy"}
__all__ = list(_HOMES)
__getattr__, __dir__ = on_demand(__name__, _HOMES)
