"""Self-supervised methods: an encoder in, a keras.Model with its own training step out; `.encoder` is the result."""

from aitom_ssl.ssl.moco import MoCo
from aitom_ssl.ssl.simclr import SimCLR
from aitom_ssl.ssl.swav import SwAV

__all__ = ["MoCo", "SimCLR", "SwAV"]
