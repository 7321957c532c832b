"""Densities from maps: MRC and EMDB files (.mrc, .map; plain, gzipped or bzip2), at any voxel size and axis order."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import math
import struct
import warnings
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import mrcfile
import numpy as np

from aitom_ssl.errors import InputError
from aitom_ssl.files import sha256
from aitom_ssl.structures.density import Density, box_side, check_sampling, finish, gaussian_sigma, offsets

SUFFIXES = (".mrc", ".map", ".rec", ".ccp4")
REAL_MODES = (0, 1, 2, 6, 12)
LARGEST_MAP = 2048**3
LARGEST_HEADER = 1 << 28
FAINT = 0.05
"""Fraction of the peak that still counts as the structure when the map is cropped to it."""


def _plausible(path: Path) -> bool:
    """Whether the first bytes can be an MRC header: those of another kind of file could ask for all the memory."""
    with open(path, "rb") as file:
        magic = file.read(3)
    opener = gzip.open if magic[:2] == b"\x1f\x8b" else bz2.open if magic == b"BZh" else open
    with opener(path, "rb") as file:
        start = file.read(1024)
    if len(start) < 1024:
        return False
    for order in "<>":
        nx, ny, nz, mode = struct.unpack_from(f"{order}4i", start)
        (extended,) = struct.unpack_from(f"{order}i", start, 92)
        sizes = (nx, ny, nz)
        if min(sizes) > 0 and math.prod(sizes) <= LARGEST_MAP and mode in REAL_MODES and 0 <= extended < LARGEST_HEADER:
            return True
    return False


def read_map(path: str | Path, voxel_size: float | None = None) -> tuple[np.ndarray, tuple[float, float, float]]:
    """A volume as (z, y, x) float32 and its voxel sizes (z, y, x) in A.

    The header's axis order (mapc, mapr, maps) is honoured, which mrcfile leaves to its caller. `voxel_size` stands in
    for the header's. Raises InputError for anything that is not a readable, finite volume, and for a voxel size of 0 or
    NaN.
    """
    path = Path(path)
    if voxel_size is not None and not (math.isfinite(voxel_size) and voxel_size > 0):
        raise InputError(f"voxel_size must be a positive number of angstrom. Received: voxel_size={voxel_size!r}.")
    try:
        # Permissive: headers in the wild break small rules; what matters is checked below.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if not _plausible(path):
                raise ValueError("its header states no sensible size or mode")
            with mrcfile.open(path, mode="r", permissive=True) as file:
                data = None if file.data is None else np.array(file.data)
                header = file.header
                order = [int(header.mapc), int(header.mapr), int(header.maps)]
                cell = [float(header.cella[a]) for a in "xyz"]
                samples = [int(header[f"m{a}"]) for a in "xyz"]
    except FileNotFoundError:
        raise InputError(f"There is no map file {path}. Check the path.") from None
    except (ValueError, OSError, EOFError, RuntimeError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"{path} is not a readable MRC map ({reason}). Get the file again.") from None
    if data is None or data.size == 0:
        raise InputError(f"{path} is not a readable MRC map (truncated, or not MRC at all). Get the file again.")
    if data.ndim != 3 or min(data.shape) < 2:
        raise InputError(f"{path} holds {data.dtype} data of shape {data.shape}; expected one three-dimensional map.")
    if order == [0, 0, 0]:  # left unset by some writers; means the usual order
        order = [1, 2, 3]
    if sorted(order) != [1, 2, 3]:
        raise InputError(
            f"{path} has axis order mapc, mapr, maps = {order}; expected 1, 2, 3 in some order. Mend its header."
        )
    if voxel_size is None:
        sizes = [length / count if count > 0 else 0.0 for length, count in zip(cell, samples, strict=True)]
        if not all(math.isfinite(s) and s > 0 for s in sizes):
            shown = ", ".join(f"{s:g}" for s in sizes)
            raise InputError(f"{path} states voxel sizes {shown} A; expected positive numbers. Set them in the header.")
    else:
        sizes = [voxel_size] * 3
    # Array axes 0, 1, 2 are sections, rows, columns; order[::-1] says which of x, y, z (1, 2, 3) each one is.
    stored = order[::-1]
    data = np.transpose(data, [stored.index(3), stored.index(2), stored.index(1)]).astype(np.float32)
    if not np.isfinite(data).all():
        raise InputError(f"{path} holds values that are not finite (NaN or infinity). Get the file again.")
    return data, (sizes[2], sizes[1], sizes[0])


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
