"""Losses as pure functions on tensors, always computed in float32."""

from aitom_ssl.losses.contrastive import info_nce, nt_xent
from aitom_ssl.losses.dice import dice_loss
from aitom_ssl.losses.matching import matching_loss
from aitom_ssl.losses.swapped import sinkhorn, swapped_prediction

__all__ = ["dice_loss", "info_nce", "matching_loss", "nt_xent", "sinkhorn", "swapped_prediction"]
