"""What every experiment shares: the run folder, the training loop of pretraining, precision.

`pretrain` is imported by its own name, as it loads Keras.
"""

from aitom_ssl.training.precision import PRECISIONS, precision
from aitom_ssl.training.run import Checkpoint, RunFolder

__all__ = ["PRECISIONS", "Checkpoint", "RunFolder", "precision"]
