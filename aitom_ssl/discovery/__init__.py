"""Structures that nobody labelled: picking."""

from aitom_ssl.discovery.picking import Picks, difference_of_gaussians, pick

__all__ = ["Picks", "difference_of_gaussians", "pick"]
