"""What every experiment shares: settings, the run folder, the loop, precision; pretraining and supervised training.

What loads Keras (`pretrain`, `supervised`, `loop`, ...) is imported by its own name.
"""

from aitom_ssl.training.precision import PRECISIONS, precision
from aitom_ssl.training.run import Checkpoint, RunFolder

__all__ = ["PRECISIONS", "Checkpoint", "RunFolder", "precision"]
