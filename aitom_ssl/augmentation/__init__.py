"""Augmentation on the device, in batches: Keras layers that draw and apply separately; keras.ops only.

Everything random is a function of the seed given; all geometry is one matrix and one trilinear resampling.
"""

from aitom_ssl.augmentation.affine import affine_transform_3d
from aitom_ssl.augmentation.augmenter import PRESETS, SubtomogramAugmenter
from aitom_ssl.augmentation.random_geometry import (
    RandomAffine3D,
    RandomHalfTurn3D,
    RandomMirror3D,
    RandomResizedCrop3D,
    RandomRotation3D,
)

__all__ = [
    "PRESETS",
    "RandomAffine3D",
    "RandomHalfTurn3D",
    "RandomMirror3D",
    "RandomResizedCrop3D",
    "RandomRotation3D",
    "SubtomogramAugmenter",
    "affine_transform_3d",
]
