"""Turning every particle to its own principal axes, the baseline of Xu 2015: what is left is compared voxel by voxel.

Of a smoothed subtomogram without its mean, the density above a level has a centre of mass and a scatter matrix

    c = sum w r / sum w,     S = sum w (r - c)(r - c)^T / sum w,     w = max(v - level, 0)

c goes to the centre of the box and the eigenvectors of S, greatest eigenvalue first, onto x, y and z. k-means of the
voxels then subdivides (Xu 2017, section 3.3). It knows nothing of the missing wedge and finds no axes in noise.

Differs from AITom: the level is that of two means (Chan and Vese's without a length term, started where AITom starts
its level set, at the mean of |v|), the smoothing stands for that term; and the axes have a direction, the one in which
the density is skewed, without which the same particle comes out in four ways.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import ndimage

from aitom_ssl import geometry
from aitom_ssl.discovery.alignment import turned_back
from aitom_ssl.discovery.clustering import CLUSTERS, MEMORY, Partition, over_partition
from aitom_ssl.errors import InputError

SIGMA = 2.0
"""Deviation in voxels of the Gaussian that volumes are smoothed with to find their axes."""
DISPLACED = 0.25
"""Part of the box by which a centre of mass may lie off the centre of the box and still be the particle's."""


class PrincipalPose(NamedTuple):
    """Where the normalised particle lies in its subtomogram, as `aitom_ssl.geometry` means poses.

    quaternion: (4,). shift: (3,) voxels x, y, z, 0 where displaced. displaced: the centre of mass is too far off.
    """

    quaternion: np.ndarray
    shift: np.ndarray
    displaced: bool


def principal_pose(volume: np.ndarray, sigma: float = SIGMA, displaced: float = DISPLACED) -> PrincipalPose:
    """Centre of mass and principal axes of an (n, n, n) subtomogram in which protein is bright.

    sigma: voxels. displaced: part of n; a centre farther off is not used, and the axes are those about the box's own.
    (AITom leaves such a subtomogram out.) Raises InputError for what is no finite cube, or constant.
    """
    volume = np.asarray(volume, np.float64)
    if volume.ndim != 3 or len(set(volume.shape)) != 1:
        raise InputError(f"A volume has shape {volume.shape}: expected a cube (n, n, n).")
    if not np.isfinite(volume).all():
        raise InputError("A volume has voxels that are NaN or infinite: mend or leave it out.")
    if volume.min() == volume.max():
        raise InputError("A volume is constant: it has no axes, leave it out.")
    n = volume.shape[0]
    smooth = ndimage.gaussian_filter(volume - volume.mean(), sigma, mode="nearest") if sigma else volume
    smooth = smooth - smooth.mean()
    weight = np.clip(smooth - two_means_level(smooth), 0, None)
    mass = weight.sum()
    places = np.argwhere(weight > 0)[:, ::-1] - geometry.centre(n)
    weight = weight[weight > 0] / mass
    centre = weight @ places
    off = bool(np.linalg.norm(centre) > displaced * n)
    if off:
        centre = np.zeros(3)
    offsets = places - centre
    _, axes = np.linalg.eigh((offsets * weight[:, None]).T @ offsets)
    axes = axes[:, ::-1]
    skewed = weight @ (offsets @ axes) ** 3
    axes = axes * np.where(skewed < 0, -1, 1)
    axes[:, 2] = np.cross(axes[:, 0], axes[:, 1])  # a rotation, not a mirror
    return PrincipalPose(geometry.matrix_to_quaternion(axes), centre, off)


def two_means_level(values: np.ndarray) -> float:
    """The level halfway between the means of what lies above and below it, from the mean of |values| on."""
    level = float(np.abs(values).mean())
    for _ in range(100):
        above = values > level
        if not above.any() or above.all():
            break
        level, before = float(values[above].mean() + values[~above].mean()) / 2, level
        if level == before:
            break
    return level


def pose_normalized_features(
    volumes: Sequence[np.ndarray],
    sigma: float = SIGMA,
    displaced: float = DISPLACED,
    out: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """(count, voxels) float32, each row the voxels of a normalised volume inside the sphere in the box; (count,) bool.

    The second tells which were displaced. volumes: (n, n, n) each, of one n, taken one at a time. out: (count, voxels)
    to write into, as a memory-mapped array for more than memory holds. InputError names a volume that cannot be used.
    """
    if not len(volumes):
        raise InputError("There are no volumes: give at least one.")
    n = np.shape(volumes[0])[0] if np.ndim(volumes[0]) else 0
    squared = np.square(np.arange(n) - geometry.centre(n))
    inside = squared[:, None, None] + squared[:, None] + squared <= (n / 2) ** 2
    shape = (len(volumes), int(inside.sum()))
    if out is None:
        out = np.empty(shape, np.float32)
    elif out.shape != shape:
        raise InputError(f"out has shape {out.shape}: expected {shape}.")
    off = np.zeros(len(volumes), bool)
    for i in range(len(volumes)):
        volume = volumes[i]
        if np.shape(volume) != (n, n, n):
            raise InputError(
                f"Volume {i} has shape {np.shape(volume)}: expected a cube of {n} as volume 0, crop or pad."
            )
        try:
            pose = principal_pose(volume, sigma, displaced)
        except InputError as error:
            raise InputError(f"Volume {i}: {error}") from None
        out[i] = turned_back(volume, pose.quaternion, pose.shift)[inside]
        off[i] = pose.displaced
    return out, off


def pose_normalized_partition(
    volumes: Sequence[np.ndarray], clusters: int = CLUSTERS, sigma: float = SIGMA, seed: int = 0, memory: int = MEMORY
) -> Partition:
    """`over_partition` of `pose_normalized_features`: the baseline that structural features are compared with."""
    features, _ = pose_normalized_features(volumes, sigma)
    return over_partition(features, clusters, seed, memory)
