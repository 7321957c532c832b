"""Losses as pure functions on tensors, always computed in float32."""

from aitom_ssl.losses.contrastive import info_nce

__all__ = ["info_nce"]
