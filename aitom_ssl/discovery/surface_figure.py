"""Averages and structures to be looked at: shaded surfaces, found by casting rays, beside slices.

A ray runs from the viewer through every pixel until the volume first rises to the level. The surface there is lit from
the upper left, and a little darker where it is farther away.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from scipy import ndimage

from aitom_ssl import geometry
from aitom_ssl.discovery.pose_normalization import two_means_level
from aitom_ssl.errors import InputError
from aitom_ssl.evaluation.figures import central_slices, grid_figure

PIXELS = 96
# Seen from a corner, so that three sides show: ZYZ degrees.
VIEW = (20.0, 55.0, 30.0)
_LIGHT = np.array([-0.45, -0.55, -0.7])  # towards it, (x, y, z): from the left, from above, from the viewer (z falls)
_DUST = 0.1  # part of the largest piece below which a piece is not drawn


def surface_level(volume: np.ndarray, voxels: float | None = None) -> float:
    """The level whose surface encloses so many `voxels`; without, the one between particle and background.

    The latter is that of two means of what the volume is when it is smoothed by a voxel.
    """
    if voxels is None:
        return two_means_level(ndimage.gaussian_filter(np.asarray(volume, np.float64), 1.0))
    if not 0 < voxels < volume.size:
        raise InputError(f"A surface about {voxels:g} of {volume.size:,} voxels: expected more than 0 and not all.")
    return float(np.quantile(volume, 1 - voxels / volume.size))


def without_dust(volume: np.ndarray, level: float) -> np.ndarray:
    """The (n, n, n) volume with its pieces above `level` taken down to it that are small beside the largest."""
    pieces, count = ndimage.label(volume > level)
    if count < 2:
        return volume
    sizes = np.bincount(pieces.ravel())
    sizes[0] = sizes[1:].max()
    return np.where(sizes[pieces] >= _DUST * sizes[0], volume, np.minimum(volume, level))


def shaded_surface(volume: np.ndarray, level: float, pixels: int = PIXELS, view: Sequence[float] = VIEW) -> np.ndarray:
    """(pixels, pixels) float32 picture, 0 to 1, of the surface of an (n, n, n) volume at `level`; 1 beside it.

    view: ZYZ degrees by which the volume is turned before one looks along z. Rows go down, as origin "upper" draws.
    A volume that does not rise to `level` gives an empty picture. InputError for what is no finite cube.
    """
    volume = np.asarray(volume, np.float32)
    if volume.ndim != 3 or len(set(volume.shape)) != 1 or not np.isfinite(volume).all():
        raise InputError(f"A surface is of a finite cube (n, n, n). Received shape {volume.shape}.")
    n = volume.shape[0]
    # The turned cube's corners may leave the picture; a sphere of the cube's side does not.
    offsets = (np.arange(pixels) - (pixels - 1) / 2) * (n / pixels)
    seen = np.stack(np.meshgrid(offsets, offsets, offsets, indexing="ij")).reshape(3, -1)
    turn = geometry.reverse_axes(geometry.quaternion_to_matrix(geometry.euler_zyz_to_quaternion(view)).T)
    places = turn @ seen + geometry.centre(n)
    turned = ndimage.map_coordinates(volume, places, order=1, mode="constant", cval=float(volume.min()))
    turned = ndimage.gaussian_filter(turned.reshape((pixels,) * 3), 0.5 * pixels / n)
    above = turned > level
    hit = above.any(axis=0)
    first = above.argmax(axis=0)
    # Where between two samples the level lies.
    rows, columns = np.indices(first.shape)
    here, before = turned[first, rows, columns], turned[np.maximum(first - 1, 0), rows, columns]
    back = np.where(here > before, (here - level) / np.where(here > before, here - before, 1), 0)
    depth = first - np.clip(back, 0, 1)
    slopes = np.stack([slope[first, rows, columns] for slope in np.gradient(turned)])
    normal = -slopes / np.maximum(np.linalg.norm(slopes, axis=0), 1e-12)
    light = (_LIGHT / np.linalg.norm(_LIGHT))[::-1]
    lit = np.clip(np.tensordot(light, normal, axes=1), 0, 1)
    near = 1 - np.clip(depth / pixels, 0, 1)
    return np.where(hit, np.clip((0.18 + 0.72 * lit) * (0.65 + 0.5 * near), 0, 1), 1.0).astype(np.float32)


def structures_figure(
    volumes: Sequence[np.ndarray],
    titles: Sequence[str],
    voxel_size: float,
    voxels: Sequence[float | None] | None = None,
) -> Figure:
    """Volumes (n, n, n), a column each: central z and y slices, and the surface.

    voxels: how many each surface encloses, see `surface_level`.
    """
    if len(volumes) != len(titles) or not len(volumes):
        raise InputError(f"Received {len(volumes)} volumes and {len(titles)} titles: give one each, one at least.")
    voxels = [None] * len(volumes) if voxels is None else voxels
    surfaces = []
    for volume, enclosed in zip(volumes, voxels, strict=True):
        level = surface_level(volume, enclosed)
        # Slices are drawn with their first row below.
        surfaces.append(shaded_surface(without_dust(volume, level), level)[::-1])
    grids = [[central_slices(volume)[k] for volume in volumes] for k in (0, 1)]
    return grid_figure([*grids, surfaces], titles, ["z slice", "y slice", "surface"], voxel_size)


