"""Densities from maps: MRC and EMDB files (plain or gzipped), at any voxel size and axis order."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from aitom_ssl.errors import InputError
from aitom_ssl.files import sha256
from aitom_ssl.mrc import read_mrc
from aitom_ssl.structures.density import Density, box_side, check_sampling, finish, gaussian_sigma, offsets

FAINT = 0.05
"""Fraction of the peak that still counts as the structure when the map is cropped to it."""


def read_map(path: str | Path, voxel_size: float | None = None) -> tuple[np.ndarray, tuple[float, float, float]]:
    """A volume as (z, y, x) float32 and its voxel sizes (z, y, x) in A; `voxel_size` stands in for the header's.

    Raises InputError for anything that is not a readable, finite volume, and for a voxel size of 0 or NaN.
    """
    if voxel_size is not None and not (math.isfinite(voxel_size) and voxel_size > 0):
        raise InputError(f"voxel_size must be a positive number of angstrom. Received: voxel_size={voxel_size!r}.")
    stored, header = read_mrc(path)
    sizes = header.voxel_sizes if voxel_size is None else (voxel_size,) * 3
    if not all(math.isfinite(size) and size > 0 for size in sizes):
        raise InputError(
            f"{path} states a voxel size of {header.voxel_size_says}; expected positive numbers. Set it in the header."
        )
    data = np.array(stored, dtype=np.float32)
    if min(data.shape) < 2:
        raise InputError(f"{path} is a volume of {data.shape}; expected a three-dimensional map.")
    if not np.isfinite(data).all():
        raise InputError(f"{path} holds values that are not finite (NaN or infinity). Get the file again.")
    return data, sizes


def resampling_matrix(count: int, spacing: float, points: np.ndarray, voxel_size: float, sigma: float) -> np.ndarray:
    """Trigonometric interpolation of `count` samples at `spacing` A, low-passed, at `points`: (len(points), count).

    points: positions in A from sample 0; far outside the samples the result is 0. Frequencies below both Nyquist limits
    (of `spacing` and of `voxel_size`) are kept and multiplied by exp(-2 pi^2 sigma^2 q^2). This is cropping or padding
    the Fourier transform, for any ratio of the two samplings and any origin.
    """
    # Zeros beyond the samples, so that neither the blur nor the interpolation wraps to the other end.
    margin = math.ceil(4.0 * (sigma + voxel_size) / spacing) + 2
    period = count + 2 * margin
    q = np.arange(1, (period + 1) // 2) / (period * spacing)
    q = q[q < 0.5 / voxel_size]
    gain = 2.0 * np.exp(-2.0 * (np.pi * sigma * q) ** 2)
    out, sample = 2.0 * np.pi * np.outer(points, q), 2.0 * np.pi * spacing * np.outer(np.arange(count), q)
    matrix = (np.cos(out) * gain) @ np.cos(sample).T + (np.sin(out) * gain) @ np.sin(sample).T + 1.0
    reach = margin * spacing / 2.0
    near = (points > -reach) & (points < (count - 1) * spacing + reach)
    return matrix * near[:, None] / period


@dataclass(frozen=True)
class MapStructure:
    """An MRC or EMDB map as a structure.

    threshold: voxels below it count as 0 (None: 0, which drops negative density); nothing is subtracted. For an EMDB
    map take its recommended contour level. voxel_size: A, in place of the header's.
    """

    path: Path
    threshold: float | None = None
    voxel_size: float | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "path", Path(self.path))
        if self.threshold is not None and not math.isfinite(self.threshold):
            raise InputError(f"threshold must be a finite density level. Received: threshold={self.threshold!r}.")
        if not self.path.is_file():
            raise InputError(f"There is no map file {self.path}. Check the path.")

    @property
    def name(self) -> str:
        """The file's name without its suffixes."""
        return self.path.name.split(".")[0]

    @cached_property
    def _map(self) -> tuple[np.ndarray, tuple[float, float, float]]:
        data, sizes = read_map(self.path, self.voxel_size)
        level = 0.0 if self.threshold is None else self.threshold
        data = np.where(data < level, np.float32(0.0), data)
        if data.max() <= 0 or data.min() == data.max():
            raise InputError(
                f"{self.path} has no density above {level:g} (or the same everywhere). Lower the threshold."
            )
        return data, sizes

    def density(self, voxel_size: float, resolution: float | None = None) -> Density:
        """The map at `voxel_size` (A), centred on the bounding box of its density.

        A map already has a resolution, at best twice its own voxel: only what is missing to `resolution` (A) is added,
        as sigma^2 = sigma(resolution)^2 - sigma(own)^2, and nothing for a resolution finer than that.
        """
        voxel_size, resolution = check_sampling(voxel_size, resolution)
        data, sizes = self._map
        box = np.argwhere(data >= FAINT * data.max())
        middle = (box.min(axis=0) + box.max(axis=0)) / 2.0
        reach = np.sqrt((((box - middle) * sizes) ** 2).sum(axis=1).max())
        side = box_side(2.0 * reach, voxel_size, self.name)
        volume = data
        for axis, (count, spacing) in enumerate(zip(data.shape, sizes, strict=True)):
            sigma = math.sqrt(max(0.0, gaussian_sigma(resolution) ** 2 - gaussian_sigma(2.0 * spacing) ** 2))
            points = middle[axis] * spacing + offsets(side, voxel_size)
            matrix = resampling_matrix(count, spacing, points, voxel_size, sigma).astype(np.float32)
            volume = np.moveaxis(np.tensordot(matrix, volume, axes=(1, axis)), 0, axis)
        return finish(volume, voxel_size)

    def fingerprint(self) -> str:
        """Digest of the file's bytes and of the options; the file's name and place do not matter."""
        text = f"map {sha256(self.path)} {self.threshold} {self.voxel_size}"
        return hashlib.sha256(text.encode()).hexdigest()
