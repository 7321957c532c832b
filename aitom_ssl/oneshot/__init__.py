"""Working from one example a class: COS-Net's episodes, training, evaluation and use. Loads Keras only when used."""

from aitom_ssl.on_demand import on_demand
from aitom_ssl.oneshot.episodes import Episode, Episodes

__all__ = ["Episode", "Episodes", "TrainedCOSNet", "load_cosnet"]
__getattr__, __dir__ = on_demand(__name__, {"TrainedCOSNet": "trained", "load_cosnet": "trained"})
