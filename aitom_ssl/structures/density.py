"""What every source of structures gives: a cubic density map, with the sizes that placing and masking it need.

A map is a cube of even side n, indexed (z, y, x), centred on voxel n // 2, with unit peak. "Resolution" means what
Situs' pdb2vol means by it: blurring by an isotropic Gaussian of three-dimensional r.m.s. radius resolution / 2, that is
of sigma = resolution / (2 sqrt 3) along each axis (Wriggers 2010, Biophys. Rev. 2, 21).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np

from aitom_ssl.errors import InputError
from aitom_ssl.geometry import centre

VOLUME_PER_DALTON = 1.21
"""A^3 that one dalton of protein fills (partial specific volume 0.73 cm^3/g; Harpaz 1994, Structure 2, 641)."""

RELATIVE_THRESHOLD = 0.15
"""Mask level of maps whose mass is not known, as a fraction of the peak."""

MARGIN = 2
"""Voxels left free on each side of a structure."""

LARGEST_SIDE = 512
"""A cube larger than this is taken for a mistake in the voxel size."""


@dataclass(frozen=True, eq=False)
class Density:
    """A structure as a map.

    volume: (n, n, n) float32, (z, y, x), n even, centre n // 2, peak 1. voxel_size: A. radius: distance in A from the
    centre to the farthest voxel of at least `threshold`. threshold: level of the mask. mass: Da, 0 where unknown.
    """

    volume: np.ndarray
    voxel_size: float
    radius: float
    threshold: float
    mass: float


@runtime_checkable
class Structure(Protocol):
    """Anything that can be turned into a map at a given sampling."""

    @property
    def name(self) -> str: ...

    def density(self, voxel_size: float, resolution: float | None = None) -> Density:
        """The map at `voxel_size` (A), blurred to `resolution` (A; None means 2 * voxel_size)."""
        ...

    def fingerprint(self) -> str:
        """Hexadecimal digest of everything that the map depends on, sampling apart; the same on every machine."""
        ...


def check_sampling(voxel_size: float, resolution: float | None) -> tuple[float, float]:
    """Validated (voxel_size, resolution) in A, with the default resolution filled in."""
    if not (math.isfinite(voxel_size) and voxel_size > 0):
        raise InputError(f"voxel_size must be a positive number of angstrom. Received: voxel_size={voxel_size!r}.")
    if resolution is None:
        return float(voxel_size), 2.0 * voxel_size
    if not (math.isfinite(resolution) and resolution >= 0):
        raise InputError(f"resolution must be >= 0 A, or None for 2 * voxel_size. Received: resolution={resolution!r}.")
    return float(voxel_size), float(resolution)


def gaussian_sigma(resolution: float) -> float:
    """Standard deviation along one axis (A) of the Gaussian that stands for `resolution` (A)."""
    return resolution / (2.0 * math.sqrt(3.0))


def box_side(diameter: float, voxel_size: float, name: str) -> int:
    """Smallest even side n >= diameter / voxel_size + 4; `name` is for the message when that is absurdly large."""
    side = 2 * math.ceil(diameter / voxel_size / 2.0 + MARGIN)
    if side > LARGEST_SIDE:
        raise InputError(
            f"{name} is {diameter:.0f} A across: at voxel_size={voxel_size:g} A it needs a cube of {side} voxels a "
            f"side, more than {LARGEST_SIDE}. Take a larger voxel size."
        )
    return side


def offsets(side: int, voxel_size: float) -> np.ndarray:
    """(side,) positions in A of the voxels along one axis, 0 at the centre voxel."""
    return (np.arange(side) - centre(side)) * voxel_size


def splat(points: np.ndarray, weights: np.ndarray, side: int, spacing: float) -> np.ndarray:
    """Spread weighted points over the eight grid points around each (trilinear); the sum of the weights is kept.

    points: (n, 3) x, y, z in A from the centre voxel, all inside the cube. Returns (side, side, side) float64.
    """
    position = points[:, ::-1] / spacing + centre(side)
    low = np.floor(position).astype(np.int64)
    part = position - low
    flat = (low[:, 0] * side + low[:, 1]) * side + low[:, 2]
    corners = np.array(list(np.ndindex(2, 2, 2)))
    shares = np.prod(np.where(corners[:, None, :], part, 1.0 - part), axis=2) * weights
    places = flat + (corners @ [side * side, side, 1])[:, None]
    return np.bincount(places.ravel(), shares.ravel(), minlength=side**3).reshape(side, side, side)


def level_enclosing(volume: np.ndarray, voxel_size: float, enclosed: float) -> float:
    """The density level above which the map fills `enclosed` A^3 (at least one voxel, interpolated between voxels)."""
    ordered = np.sort(volume, axis=None)[::-1]
    count = np.clip(enclosed / voxel_size**3, 1.0, ordered.size)
    return float(np.interp(count, np.arange(1, ordered.size + 1), ordered))


def support_radius(volume: np.ndarray, voxel_size: float, threshold: float) -> float:
    """Distance (A) from the centre voxel to the farthest voxel of at least `threshold`."""
    offset = np.argwhere(volume >= threshold) - centre(volume.shape[0])
    return float(np.sqrt((offset**2).sum(axis=1).max()) * voxel_size)


def finish(volume: np.ndarray, voxel_size: float, mass: float = 0.0, enclosed: float | None = None) -> Density:
    """Scale a map to unit peak and measure it.

    enclosed: A^3 that the mask must hold; without it the mask level is RELATIVE_THRESHOLD of the peak.
    """
    volume = np.ascontiguousarray(volume / volume.max(), dtype=np.float32)
    threshold = RELATIVE_THRESHOLD if enclosed is None else level_enclosing(volume, voxel_size, enclosed)
    return Density(volume, voxel_size, support_radius(volume, voxel_size, threshold), threshold, mass)
