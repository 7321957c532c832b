"""Working from one example a class: COS-Net's episodes, training, evaluation and use. Loads Keras only when used."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from aitom_ssl.oneshot.episodes import Episode, Episodes

if TYPE_CHECKING:
    from aitom_ssl.oneshot.trained import TrainedCOSNet, load_cosnet


def __getattr__(name: str) -> Any:
    # What needs Keras is loaded when it is asked for.
    if name in ("TrainedCOSNet", "load_cosnet"):
        return getattr(importlib.import_module("aitom_ssl.oneshot.trained"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__all__ = ["Episode", "Episodes", "TrainedCOSNet", "load_cosnet"]
